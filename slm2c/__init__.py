"""slm2c: a distilled student transformer (ONNX) in, readable integer C firmware and a weight blob out."""

__version__ = "0.1.0"

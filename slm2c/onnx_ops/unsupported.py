"""What to say about operators without a translation."""

from __future__ import annotations

_RECURRENT = frozenset({"LSTM", "GRU", "RNN", "LinearAttention", "CausalConvWithState"})
_CONTROL = frozenset({"If", "Loop", "Scan", "SequenceMap"})
_TRAINING = frozenset({"SoftmaxCrossEntropyLoss", "NegativeLogLikelihoodLoss", "SGD", "Adam", "Adagrad", "Momentum"})
_RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_DATA_DEPENDENT = frozenset({"Unique", "NonMaxSuppression", "TopK"})


def explain(domain: str, op_type: str) -> tuple[str, str]:
    """Reason and remedy for an operator that the importer does not know."""
    if op_type in _TRAINING or op_type.endswith("Grad") or "training" in domain:
        return "belongs to training", "export the model for inference, without its loss and gradients"
    if domain == "ai.onnx.ml":
        return "belongs to classical machine learning", "scale inputs and map labels outside of the model"
    if domain == "com.microsoft" and op_type in ("GroupQueryAttention", "DecoderMaskedMultiHeadAttention"):
        return "is a decoder's attention over a KV cache, which is unsupported", "export the model without a KV cache"
    if "nchwc" in domain or "nhwc" in domain:
        return "has a memory layout of one processor", "save the optimized model with level basic or extended"
    if domain:
        return f"operators of domain '{domain}' are unknown", "export the model with standard ONNX operators"
    if op_type in _RECURRENT:
        return "recurrent layers are unsupported", "use a transformer or a convolutional model"
    if op_type in _CONTROL:
        return "control flow is unsupported", "export the model with fixed shapes and without loops"
    if op_type in _RANDOM:
        return "random numbers are unsupported", "export the model for inference"
    if op_type in _DATA_DEPENDENT:
        return "operator is not supported", "move the selection of results out of the model"
    return "operator is not supported", "replace it before export, or move it out of the model"

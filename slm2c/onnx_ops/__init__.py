"""Translations of ONNX operators into core operators, one small function each, grouped by kind.

`TRANSLATIONS` is the table of them all, by (domain, operator).
"""

from slm2c.onnx_ops import attention, convolution, elementwise, matrix, microsoft, movement, normalization, quantized, reduction
from slm2c.onnx_ops.base import TRANSLATIONS, Call, Code, Refused, Value

__all__ = ["TRANSLATIONS", "Call", "Code", "Refused", "Value", "attention", "convolution", "elementwise", "matrix", "microsoft", "movement", "normalization",
           "quantized", "reduction"]

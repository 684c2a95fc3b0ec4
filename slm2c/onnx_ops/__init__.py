"""Translations of ONNX operators into core operators, one small function each, grouped by kind.

`TRANSLATIONS` is the table of them all, by (domain, operator).
"""

from slm2c.onnx_ops import elementwise, matrix, movement, normalization, reduction
from slm2c.onnx_ops.base import TRANSLATIONS, Call, Code, Refused, Value

__all__ = ["TRANSLATIONS", "Call", "Code", "Refused", "Value", "elementwise", "matrix", "movement", "normalization", "reduction"]

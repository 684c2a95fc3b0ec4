"""Translations of ONNX operators into core operators, one small function each, grouped by kind.

`TRANSLATIONS` is the table of them all, by (domain, operator); importing a group fills it.
"""

from slm2c.onnx_ops import attention as attention
from slm2c.onnx_ops import convolution as convolution
from slm2c.onnx_ops import elementwise as elementwise
from slm2c.onnx_ops import matrix as matrix
from slm2c.onnx_ops import microsoft as microsoft
from slm2c.onnx_ops import movement as movement
from slm2c.onnx_ops import normalization as normalization
from slm2c.onnx_ops import quantized as quantized
from slm2c.onnx_ops import reduction as reduction
from slm2c.onnx_ops.base import TRANSLATIONS

__all__ = ["TRANSLATIONS"]

"""The operators that the compiler knows: one file each, one line each in this table."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from slm2c.ops import (
    add,
    attention,
    concat,
    conv2d,
    embedding,
    layernorm,
    linear,
    lut,
    matmul,
    mul,
    pool2d,
    reduce,
    softmax,
    view,
)
from slm2c.ops.base import OpDef

TABLE: Mapping[str, OpDef] = MappingProxyType(
    {
        module.OP.name: module.OP
        for module in (
            add,
            attention,
            concat,
            conv2d,
            embedding,
            layernorm,
            linear,
            lut,
            matmul,
            mul,
            pool2d,
            reduce,
            softmax,
            view,
        )
    }
)

"""Every translation against onnxruntime on odd sizes."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from slm2c.errors import CompileError
from slm2c.importer import load, require_supported
from slm2c.ir import Array
from slm2c.onnx_ops import TRANSLATIONS
from tests.onnx_models import check, run

ort = pytest.importorskip("onnxruntime")

MS = "com.microsoft"
INT64_MAX = (1 << 63) - 1


class Const(NamedTuple):
    """An operand that is an initializer."""

    value: Array


class Case(NamedTuple):
    """One node, its operands (None: absent) and what onnxruntime should be asked."""

    op: str
    operands: tuple[Any, ...]
    attrs: dict[str, Any]
    opset: int
    domain: str
    outputs: int
    tolerance: float

    def __str__(self) -> str:
        shapes = "_".join("x".join(map(str, np.shape(getattr(x, "value", x)))) for x in self.operands if x is not None)
        return "-".join([self.op, str(self.opset), shapes, *(f"{k}={v}" for k, v in self.attrs.items())])


def case(
    op: str, *operands: Any, opset: int = 17, domain: str = "", outputs: int = 1, tolerance: float = 1e-5, **attrs: Any
) -> Case:
    return Case(op, operands, attrs, opset, domain, outputs, tolerance)


def f(*shape: int, low: float = -2, high: float = 2) -> Array:
    """Floats that depend on the shape alone."""
    rng = np.random.default_rng(1000 + sum(s * 7**i for i, s in enumerate(shape)))
    return rng.uniform(low, high, shape).astype(np.float32)


def q(*shape: int, dtype: type[np.generic] = np.uint8) -> Array:
    info = np.iinfo(dtype)  # type: ignore[type-var]
    return np.random.default_rng(7).integers(max(info.min, -127), info.max, shape, endpoint=True).astype(dtype)


def ints(*values: int) -> Const:
    return Const(np.array(values, np.int64))


def c(value: Any, dtype: type[np.generic] = np.float32) -> Const:
    return Const(np.asarray(value, dtype))


def proto_of(one: Case) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """The model of a case, and its feeds."""
    names = [f"i{i}" if x is not None else "" for i, x in enumerate(one.operands)]
    feeds = {n: np.asarray(x) for n, x in zip(names, one.operands, strict=True) if n and not isinstance(x, Const)}
    weights = [
        numpy_helper.from_array(x.value, n) for n, x in zip(names, one.operands, strict=True) if isinstance(x, Const)
    ]
    outputs = [f"o{i}" for i in range(one.outputs)]
    attrs = {name.removesuffix("_attr"): value for name, value in one.attrs.items()}
    node = helper.make_node(one.op, names, outputs, "node", domain=one.domain, **attrs)
    inputs = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape) for n, x in feeds.items()
    ]
    results = [helper.make_empty_tensor_value_info(o) for o in outputs]
    graph = helper.make_graph([node], "g", inputs, results, weights)
    opsets = [helper.make_opsetid("", one.opset), helper.make_opsetid(MS, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8 if one.opset < 21 else 10), feeds


# fmt: off
_MOVEMENT = [
    case("Reshape", f(2, 3, 5), ints(0, -1)), case("Reshape", f(3, 1, 5), ints(5, 0, 3), opset=13),
    case("Flatten", f(2, 3, 5), axis=0), case("Flatten", f(2, 3, 5), axis=3), case("Flatten", f(2, 3, 5), axis=-1),
    case("Squeeze", f(1, 3, 1)), case("Squeeze", f(1, 3, 1), ints(-1)),
    case("Squeeze", f(1, 3, 1), opset=11, axes=[0]), case("Unsqueeze", f(3, 5), ints(-1, 0)),
    case("Unsqueeze", f(3), opset=11, axes=[0, 2]), case("Transpose", f(2, 3, 5)),
    case("Transpose", f(2, 3, 5), perm=[1, 2, 0]), case("Expand", f(3, 1), ints(2, 1, 5)),
    case("Expand", f(3, 5), ints(1)), case("Tile", f(2, 3), ints(3, 2)),
    case("Concat", f(2, 3), f(2, 1), Const(f(2, 5)), axis=-1),
    case("Split", f(7, 2), opset=18, outputs=3, num_outputs=3), case("Split", f(2, 6), opset=13, outputs=3, axis=1),
    case("Split", f(2, 7), ints(3, 4), outputs=2, axis=-1),
    case("Split", f(2, 7), opset=11, outputs=2, axis=1, split=[6, 1]),
    case("Slice", f(17, 5), ints(1, 0), ints(INT64_MAX, -1)),
    case("Slice", f(9), ints(-1), ints(-INT64_MAX), ints(0), ints(-2)),
    case("Slice", f(9), ints(100), ints(-100), ints(0), ints(-3)),
    case("Slice", f(9), ints(-100), ints(100), ints(-1), ints(4)),
    case("Slice", f(4, 9), ints(7), ints(0), ints(1), ints(-1)), case("Slice", f(4, 9), ints(5), ints(2), ints(1)),
    case("Slice", f(4, 9), opset=9, starts=[1, -3], ends=[1000, -1], axes=[1, 0]),
    case("Gather", f(5, 3), c([[-1, 0], [2, -5]], np.int64)), case("Gather", f(5, 3), np.array([[1, 4]]), axis=0),
    case("Gather", f(5, 3), ints(2), axis=-1), case("Gather", f(5, 3), Const(np.array(1)), axis=1),
    case("Gather", Const(f(33, 3)), np.array([0, 32], np.int32)),
    case("GatherElements", f(3, 4), c([[0, -1], [1, 2]], np.int64), axis=0),
    case("GatherElements", f(3, 4), c([[0, -1, 3, 1, 1]], np.int64), axis=1),
    case("GatherND", f(2, 3, 4), c([[0, -1], [1, 2]], np.int64)),
    case("GatherND", f(2, 3, 4), c([[1], [2]], np.int64), batch_dims=1),
    case("GatherND", f(5, 3), np.array([[4], [0]])), case("ScatterND", f(5, 3), c([[4], [0]], np.int64), f(2, 3)),
    case("ScatterElements", f(3, 3), c([[1, 0, 2], [0, 2, 1]], np.int64), f(2, 3), axis=0),
    case("ScatterElements", f(1, 5), c([[-1, 3]], np.int64), f(1, 2), axis=1),
    case("Pad", f(3, 4), ints(0, 1, 2, 0), c(1.5)), case("Pad", f(3, 4), ints(-1, 1, 0, -2)),
    case("Pad", f(3, 4), ints(2, 1, 2, 3), mode="reflect"), case("Pad", f(3, 4), ints(4, 1, 0, 5), mode="edge"),
    case("Pad", f(3, 4), ints(2, 1), None, ints(-1), opset=18),
    case("Pad", f(3, 4), opset=10, pads=[1, 0, 0, 2], value=3.0),
    case("Pad", f(3, 4), ints(2, 1, 2, 3), opset=19, mode="wrap"), case("DepthToSpace", f(1, 12, 2, 3), blocksize=2),
    case("DepthToSpace", f(1, 12, 2, 3), blocksize=2, mode="CRD"), case("SpaceToDepth", f(1, 3, 4, 6), blocksize=2),
    case("Trilu", f(4, 3)), case("Trilu", f(2, 3, 5), ints(-1), upper=0), case("Trilu", f(3, 3), Const(np.array(7))),
    case("EyeLike", f(3, 5), k=1), case("Shape", f(2, 3, 5), start=-2), case("Shape", f(2, 3, 5), start=1, end=-1),
    case("Shape", f(2, 3), end=100), case("Size", f(2, 3)),
    case("OneHot", np.array([[1, -1], [5, 2]]), c(5, np.int64), c([-1.0, 3.0]), axis=1),
    case("OneHot", np.array([0, 3]), c(4, np.int64), c([0.0, 1.0])), case("Range", c(1.0), c(7.5), c(2.0)),
    case("Range", c(5, np.int64), c(-4, np.int64), c(-3, np.int64)),
    case("Range", c(5, np.int64), c(9, np.int64), c(-3, np.int64)), case("ConstantOfShape", ints(2, 3)),
    case("ReverseSequence", f(4, 2, 3), ints(3, 4)),
    case("ReverseSequence", f(2, 5), ints(1, 5), batch_axis=0, time_axis=1),
    case("Compress", f(3, 4), c([True, False, True], np.bool_), axis=0),
    case("Compress", f(3, 2), c([False, True], np.bool_)), case("NonZero", c([[0, 1], [2, 0]])),
    case("CenterCropPad", f(5, 4), ints(2, 7), opset=18), case("Identity", f(3)), case("Dropout", f(3, 5), opset=13),
    case("Dropout", f(3, 5), opset=13, outputs=2), case("Resize", f(1, 2, 3, 5), None, c([1, 1, 2, 2])),
    case("Resize", f(1, 1, 5, 7), None, c([1, 1, 0.6, 0.6])),
    case("Resize", f(1, 1, 5, 7), None, None, ints(1, 1, 3, 9), coordinate_transformation_mode="align_corners"),
    case("Resize", f(1, 1, 3, 3), None, c([1, 1, 2, 3]), coordinate_transformation_mode="asymmetric",
         nearest_mode="floor"),
    case("Upsample", f(1, 1, 3, 3), c([1, 1, 2, 3]), opset=9),
]

_ELEMENTWISE = [
    *(case(op, f(3, 17)) for op in ("Neg", "Abs", "Sign", "Exp", "Sin", "Cos", "Erf", "Tanh", "Sigmoid", "Softplus",
         "Softsign", "Floor", "Ceil", "Relu", "HardSwish", "Elu", "Selu", "LeakyRelu", "Celu", "HardSigmoid",
         "ThresholdedRelu", "Tan", "Sinh", "Cosh", "Shrink")),
    *(case(op, f(33, low=0.1)) for op in ("Sqrt", "Reciprocal", "Log")),
    case("Round", c([0.5, 1.5, -2.5, 2.4])), case("Celu", f(17), alpha=0.5),
    case("HardSigmoid", f(17), alpha=0.3, beta=0.4), case("Mish", f(17), opset=18),
    case("Shrink", f(17), lambd=1.0, bias=0.5), case("Gelu", f(17), opset=20),
    case("Gelu", f(17), opset=20, approximate="tanh"), case("Add", f(3, 1), f(1, 5)), case("Sub", f(5), f(3, 5)),
    case("Mul", f(2, 1, 3), c(2.0)), case("Div", f(3), f(3, low=1)),
    case("Div", np.array([7, -7, 7, -7, 0]), np.array([2, 2, -2, -2, 3])), case("Max", f(3, 5), f(5), c(0.5)),
    case("Min", f(3, 5), f(5), c(0.5)), case("Sum", f(3), f(3), f(3)), case("Mean", f(3), f(3), f(3)),
    case("Pow", f(17, low=0.1), c(2.5)), case("Pow", f(17), c(2, np.int64)),
    case("Pow", np.array([2, 3, -4]), np.array([3, 2, 1])),
    case("Mod", np.array([7, -7, 7, -7]), np.array([3, 3, -3, -3])),
    case("Mod", np.array([7, -7, 7, -7]), np.array([3, 3, -3, -3]), fmod=1), case("Mod", f(17), c(0.7), fmod=1),
    case("Clip", f(17), c(-1), c(1)), case("Clip", f(17), None, c(1)),
    case("Clip", f(17), opset=6, min=-1.0, max=0.5), case("Clip", f(17), opset=6),
    case("Clip", np.array([-5, 3, 9]), c(0, np.int64), c(4, np.int64)),
    case("Where", np.array([[True], [False]]), f(1, 5), c(1.0)), case("Equal", np.array([1, 2]), np.array([1, 3])),
    *(case(op, np.array([1, 2, 3]), np.array([2, 2, 2]), opset=16) for op in ("Less", "LessOrEqual", "Greater",
         "GreaterOrEqual")),
    *(case(op, np.array([[True], [False]]), np.array([True, False])) for op in ("And", "Or", "Xor")),
    case("Not", np.array([True, False])), case("IsNaN", np.float32([np.nan, 1, np.inf])),
    case("IsInf", np.float32([np.nan, -np.inf, np.inf])),
    case("IsInf", np.float32([np.nan, -np.inf, np.inf]), detect_negative=0),
    case("IsInf", np.float32([np.nan, -np.inf, np.inf]), detect_positive=0),
    case("Cast", np.float32([-1.7, 0.0, 2.7]), to=onnx.TensorProto.INT32),
    case("Cast", f(3), to=onnx.TensorProto.BOOL), case("Cast", np.array([0, 3]), to=onnx.TensorProto.BOOL),
    case("Cast", f(5), to=onnx.TensorProto.FLOAT), case("PRelu", f(2, 3, 5), Const(f(3, 1))),
    case("PRelu", f(2, 3), f(3)), case("BitShift", q(5), c(3, np.uint8), direction="LEFT"),
    case("BitShift", q(5), c(3, np.uint8), direction="RIGHT"),
    *(case(op, c([0.1, 0.9, 0.5])) for op in ("Asin", "Acos", "Atan", "Asinh", "Atanh")),
    case("Acosh", c([1.5])), case("BitwiseAnd", c([12, 10], np.int64), c([10, 3], np.int64), opset=18),
]

_MATRIX = [
    case("MatMul", f(3), f(2, 3, 4)), case("MatMul", f(2, 3, 4), f(4)), case("MatMul", f(17), f(17)),
    case("MatMul", f(1, 3, 4), Const(f(5, 4, 3))),
    *(case("Gemm", f(5, 3) if ta else f(3, 5), Const(b.T) if tb else b, *bias, transA=ta, transB=tb, alpha=alpha,
         beta=beta) for ta, tb, b, bias, alpha, beta in [(0, 0, f(5, 4), (), 1.0, 1.0), (1, 1, f(5, 4), (f(4),),
         0.5, 2.0), (0, 1, f(5, 4), (c(3.0),), 1.0, 1.0), (1, 0, f(5, 4), (f(3, 1),), 2.0, 0.5)]),
    *(case("Einsum", *operands, equation=equation) for equation, operands in [ ("bqhd,bkhd->bhqk", (f(2, 3, 2, 5),
         f(2, 4, 2, 5))), ("bhqk,bkhd->bqhd", (f(2, 2, 3, 4), f(2, 4, 2, 5))), ("abc,cde->abde", (f(1, 3, 4),
         Const(f(4, 2, 5)))), ("bij, bjk", (f(2, 3, 4), f(2, 4, 5))), ("ij,kj", (f(3, 4), f(5, 4))), ("ii->i", (f(4,
         4),)), ("ii", (f(4, 4),)), ("ij->", (f(3, 4),)), ("ij->ji", (f(3, 4),)), ("i,j->ij", (f(3), f(4))),
         ("...ij,jk->...ik", (f(2, 1, 3, 4), f(4, 5))), ("...ij,...jk->...ik", (f(2, 3, 4), f(1, 4, 5))),
         ("ab,bc,cd->ad", (f(2, 3), f(3, 4), f(4, 5))), ("ij,ij->j", (f(3, 4), f(3, 4))), ("ib,jb->bij", (f(3, 4),
         f(5, 4))), ("abc,abd->ab", (f(2, 3, 4), f(2, 3, 5)))]),
]

_REDUCTION = [
    *(case(op, f(3, 4, 5, low=0.5), opset=11, axes=[1, -1]) for op in ("ReduceSum", "ReduceMean", "ReduceMax",
         "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp")),
    case("ReduceSum", f(3, 5), ints(-1), keepdims=0), case("ReduceSum", f(3, 5)),
    case("ReduceMean", f(3, 5), ints(0), opset=18), case("ReduceMean", f(3, 5), opset=18, noop_with_empty_axes=1),
    case("ReduceL1", f(3, 5), opset=18, keepdims=0),
    case("ReduceMax", np.array([[1, 5], [7, 2]]), opset=13, keepdims=0),
    *(case(op, f(2, 3, 5), opset=opset, **attrs) for op in ("Softmax", "LogSoftmax", "Hardmax") for opset,
         attrs in [ (11, {}), (11, {"axis": 0}), (11, {"axis": 2}), (13, {}), (13, {"axis": 1}), (13, {"axis": 0})]),
    case("LogSoftmax", np.float32([[0, 200, -200]]), opset=13),
    *(case(op, np.float32([[1, 3, 3], [5, 2, 5]]), axis=1, select_last_index=last,
         keepdims=keep) for op in ("ArgMax", "ArgMin") for last in (0, 1) for keep in (0, 1)),
    *(case("CumSum", f(3, 5), c(axis, np.int64), exclusive=e, reverse=r) for axis, e, r in [(0, 0, 0), (1, 1, 0),
         (-1, 1, 1)]),
]

_NORMALIZATION = [
    case("LayerNormalization", f(2, 3, 5), Const(f(5)), Const(f(5))),
    case("LayerNormalization", f(2, 3, 5), Const(f(3, 5)), axis=1),
    case("LayerNormalization", f(2, 3, 5), Const(f(5)), Const(f(5)), outputs=3),
    case("LayerNormalization", f(2, 17), Const(f(17)), Const(f(17)), opset=12, epsilon=1e-12),
    case("SimplifiedLayerNormalization", f(2, 3, 5), Const(f(5)), epsilon=1e-6),
    case("RMSNormalization", f(2, 3, 5), Const(f(3, 5)), opset=23, axis=1),
    case("BatchNormalization", f(2, 3, 5), Const(f(3)), Const(f(3)), Const(f(3)), Const(f(3, low=0.1)), epsilon=1e-3),
    case("BatchNormalization", f(2, 3), f(3), f(3), f(3), f(3, low=0.1), opset=9),
    case("InstanceNormalization", f(2, 3, 5, 4), Const(f(3)), Const(f(3))), case("LpNormalization", f(3, 5), axis=0),
    case("LpNormalization", f(3, 5), p=1), case("MeanVarianceNormalization", f(2, 3, 5, 4)),
    case("GroupNormalization", f(2, 6, 5), Const(f(6)), Const(f(6)), opset=21, num_groups=3),
]

_WINDOWS = [
    case("Conv", f(1, 3, 17), Const(f(4, 3, 5)), Const(f(4)), pads=[2, 1], strides=[2]),
    case("Conv", f(2, 4, 7, 9), Const(f(6, 2, 3, 3)), group=2, dilations=[2, 1], pads=[1, 0, 2, 1]),
    case("Conv", f(1, 3, 8, 7), Const(f(3, 1, 3, 3)), group=3, auto_pad="SAME_UPPER", strides=[2, 2]),
    case("Conv", f(1, 3, 8, 7), Const(f(2, 3, 3, 2)), auto_pad="SAME_LOWER", strides=[3, 2]),
    case("Conv", f(1, 2, 5, 5), f(3, 2, 2, 2), auto_pad="VALID"),
    case("Conv", f(1, 2, 4, 5, 3), Const(f(3, 2, 2, 2, 2))),
    *(case(op, f(1, 2, 7, 8), kernel_shape=[3, 2], strides=[2, 3], pads=[1, 1, 1, 0],
         ceil_mode=ceil) for op in ("MaxPool", "AveragePool") for ceil in (0, 1)),
    case("MaxPool", f(1, 2, 9), kernel_shape=[3], dilations=[2], opset=12),
    case("MaxPool", q(1, 1, 5, 5), kernel_shape=[2, 2]),
    case("MaxPool", f(1, 2, 7), kernel_shape=[2], auto_pad="SAME_LOWER"),
    *(case("AveragePool", f(1, 2, 7, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1],
         count_include_pad=1, ceil_mode=ceil, opset=19) for ceil in (0, 1)),
    case("AveragePool", f(1, 2, 9), kernel_shape=[3], strides=[2], auto_pad="SAME_UPPER", count_include_pad=1),
    case("GlobalAveragePool", f(2, 3, 5, 4)), case("GlobalMaxPool", f(2, 3, 5)), case("GlobalLpPool", f(2, 3, 5)),
    case("LpPool", f(1, 2, 7), kernel_shape=[3], pads=[1, 0]), case("LpPool", f(1, 2, 7), kernel_shape=[2], p=1),
]

_ATTENTION = [
    case("Attention", f(2, 3, 5, 4), f(2, 3, 7, 4), f(2, 3, 7, 6), opset=23),
    case("Attention", f(1, 5, 12), f(1, 7, 6), f(1, 7, 4), opset=23, q_num_heads=4, kv_num_heads=2, scale=0.3),
    case("Attention", f(1, 3, 5, 4), f(1, 3, 5, 4), f(1, 3, 5, 4), opset=23, is_causal=1, softcap=0.7),
    case("Attention", f(1, 3, 5, 4), f(1, 3, 7, 4), f(1, 3, 7, 4), f(5, 7), opset=23),
    case("Attention", f(1, 3, 5, 4), f(1, 3, 7, 4), f(1, 3, 7, 4), np.array([[True] * 5 + [False] * 2] * 5),
         opset=23),
    case("RotaryEmbedding", f(1, 3, 5, 8), Const(f(17, 4)), Const(f(17, 4)), np.arange(5)[None], opset=23),
    case("RotaryEmbedding", f(2, 3, 5, 8), Const(f(17, 3)), Const(f(17, 3)), c([[0, 1, 2, 3, 4], [9, 7, 5, 3, 1]],
         np.int64), opset=23, rotary_embedding_dim=6, interleaved=1),
    case("RotaryEmbedding", f(2, 5, 24), f(2, 5, 4), f(2, 5, 4), opset=23, num_heads=3),
]


def ms(op: str, *operands: Any, **attrs: Any) -> Case:
    return case(op, *operands, domain=MS, **attrs)


_W, _B = Const(f(12, 36)), Const(f(36))
_CACHE = Const(f(17, 3))
_MICROSOFT = [
    ms("Gelu", f(3, 5)), ms("FastGelu", f(3, 5)), ms("FastGelu", f(3, 5), Const(f(5))),
    ms("BiasGelu", f(3, 5), Const(f(5))), ms("QuickGelu", f(3, 5)), ms("QuickGelu", f(3, 5), alpha=1.0),
    ms("SkipLayerNormalization", f(1, 3, 5), f(1, 3, 5), Const(f(5)), Const(f(5)), Const(f(5, low=0)), epsilon=1e-5),
    ms("SkipSimplifiedLayerNormalization", f(1, 3, 5), f(1, 3, 5), Const(f(5)), epsilon=1e-5),
    ms("FusedMatMul", f(2, 4, 3), f(2, 5, 4), transA=1, transB=1, alpha=0.5),
    ms("FusedMatMul", f(3, 4), Const(f(4, 5)), alpha=2.0),
    ms("FusedGemm", f(3, 5), Const(f(4, 5)), Const(f(4)), transB=1, activation="LeakyRelu", activation_alpha=0.2),
    ms("FusedConv", f(1, 3, 5, 5), Const(f(2, 3, 3, 3)), Const(f(2)), activation="Relu"),
    ms("FusedConv", f(1, 3, 5, 5), Const(f(2, 3, 3, 3)), activation="Clip", activation_params=[-1.0, 2.0]),
    ms("EmbedLayerNormalization", np.int32([[1, 4, 2]]), np.int32([[0, 1, 1]]), Const(f(5, 8)), Const(f(4, 8)),
         Const(f(2, 8)), Const(f(8)), Const(f(8, low=0)), np.int32([[1, 1, 0]]), outputs=2),
    ms("EmbedLayerNormalization", np.int32([[1, 4, 2]]), None, Const(f(5, 8)), Const(f(4, 8)), None, Const(f(8)),
         Const(f(8, low=0)), outputs=2),
    ms("Attention", f(2, 5, 12), _W, _B, num_heads=3),
    ms("Attention", f(2, 5, 12), _W, _B, num_heads=3, unidirectional=1),
    ms("Attention", f(2, 5, 12), _W, _B, np.int32([3, 5]), num_heads=3),
    ms("Attention", f(2, 5, 12), _W, _B, np.int32([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]), num_heads=3),
    ms("Attention", f(2, 5, 12), _W, _B, np.int32(np.tri(5))[None].repeat(2, 0), num_heads=3),
    ms("Attention", f(2, 5, 12), _W, _B, None, None, f(2, 3, 5, 5), num_heads=3, scale=0.25),
    ms("Attention", f(1, 5, 12), Const(f(12, 30)), Const(f(30)), num_heads=3, qkv_hidden_sizes=[12, 12, 6]),
    ms("MultiHeadAttention", f(2, 5, 12), f(2, 7, 12), f(2, 7, 12), num_heads=3),
    ms("MultiHeadAttention", f(2, 5, 12), f(2, 7, 12), f(2, 7, 12), _B, np.int32([4, 7]), num_heads=3),
    ms("MultiHeadAttention", f(2, 5, 12), f(2, 7, 12), f(2, 7, 12), None, np.int32([[1] * 4 + [0] * 3, [1] * 7]),
         num_heads=3),
    ms("MultiHeadAttention", f(1, 5, 12), f(1, 5, 12), f(1, 5, 12), None, None, f(1, 3, 5, 5), num_heads=3,
         unidirectional=1),
    ms("RotaryEmbedding", f(1, 2, 5, 6), np.arange(5)[None], _CACHE, _CACHE),
    ms("RotaryEmbedding", f(1, 5, 12), np.array([3]), _CACHE, _CACHE),
    ms("RotaryEmbedding", f(1, 2, 5, 6), np.arange(5)[None], _CACHE, _CACHE, interleaved=1),
    ms("MatMulNBits", f(2, 33), Const(q(4, 3, 8)), Const(f(12)), K=33, N=4, bits=4, block_size=16),
    ms("MatMulNBits", f(2, 32), Const(q(4, 2, 8)), Const(f(8)), Const(q(4)), K=32, N=4, bits=4, block_size=16),
]


def qlinear(op: str, *operands: Any, **attrs: Any) -> Case:
    return ms(op, *operands, **attrs) if op not in ("QLinearMatMul", "QLinearConv") else case(op, *operands, **attrs)


def s8(*shape: int) -> Array:
    return q(*shape, dtype=np.int8)


def _adds_exactly() -> bool:
    """Whether onnxruntime adds products of uint8 and int8 exactly on this processor: without VNNI it saturates sums of
    two at 16 bits, and its documentation of quantization asks for weights of 7 bits there ("reduce_range").
    """
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    types = [("a", onnx.TensorProto.UINT8, (3, 4)), ("b", onnx.TensorProto.INT8, (4, 4))]
    inputs = [helper.make_tensor_value_info(*x) for x in types]
    output = helper.make_tensor_value_info("y", onnx.TensorProto.INT32, (3, 4))
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(helper.make_graph([node], "g", inputs, [output]), opset_imports=opset, ir_version=8)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {"a": np.full((3, 4), 255, np.uint8), "b": np.full((4, 4), 127, np.int8)}
    return bool((session.run(None, feeds)[0] == 4 * 255 * 127).all())


_DIVISOR = 1 if _adds_exactly() else 2


def w8(*shape: int) -> Array:
    """Weights that uint8 are multiplied by: int8 as `s8` gives them, of 7 bits where the reference needs that."""
    return np.floor_divide(s8(*shape), _DIVISOR).astype(np.int8)


_S, _Z = c(0.03), c(117, np.uint8)
_QUANTIZED = [
    case("DequantizeLinear", Const(s8(3, 4)), Const(f(4, low=0.1)), c([0, 1, -2, 3], np.int8), axis=-1),
    case("DequantizeLinear", Const(q(3, 4)), Const(f(3, low=0.1)), axis=0), case("DequantizeLinear", q(3, 4), _S, _Z),
    case("DequantizeLinear", Const(s8(4, 6)), Const(f(4, 3, low=0.1)), opset=21, axis=1, block_size=2),
    case("DequantizeLinear", c([5, -7], np.int32), c(0.25)), case("QuantizeLinear", f(3, 5), _S, _Z),
    case("QuantizeLinear", f(3, 5), c(0.02), c(-10, np.int8)),
    case("QuantizeLinear", Const(f(3, 4)), Const(f(4, low=0.01, high=0.1)), c([1, 2, 3, 4], np.uint8), axis=1),
    case("QLinearMatMul", q(3, 5), _S, _Z, Const(w8(5, 4)), c(0.01), c(3, np.int8), c(0.2), c(99, np.uint8)),
    case("QLinearMatMul", q(3, 5), _S, _Z, Const(w8(5, 4)), Const(f(4, low=0.01, high=0.02)), c([0, 0, 0, 0],
         np.int8), c(0.2), c(99, np.uint8)),
    case("QLinearConv", q(1, 2, 5, 5), _S, _Z, Const(w8(3, 2, 3, 3)), Const(f(3, low=0.01, high=0.02)), c([0, 0, 0],
         np.int8), c(0.2), c(99, np.uint8), c([100, -200, 300], np.int32), pads=[1, 0, 1, 2]),
    *(qlinear(op, q(3, 5), _S, _Z, q(5)[::-1].copy(), c(0.05), c(100, np.uint8), c(0.1), c(128,
         np.uint8)) for op in ("QLinearAdd", "QLinearMul")),
    *(qlinear(op, q(1, 3, 5), _S, _Z, c(0.1), c(7, np.uint8), **attrs) for op, attrs in [ ("QLinearSigmoid", {}),
         ("QLinearLeakyRelu", {"alpha": 0.3}), ("QLinearGlobalAveragePool", {"channels_last": 0}),
         ("QLinearAveragePool", {"kernel_shape": [2]})]),
    qlinear("QLinearSoftmax", q(3, 5), _S, _Z, c(1 / 256), c(0, np.uint8), axis=1, opset_attr=13),
    qlinear("QLinearConcat", c(0.1), c(100, np.uint8), q(2, 3), _S, _Z, q(2, 1), c(0.07), c(9, np.uint8), axis=1),
    qlinear("QLinearWhere", np.array([True, False, True]), q(3), _S, _Z, q(3), c(0.05), c(100, np.uint8), c(0.1),
         c(128, np.uint8)),
    qlinear("QGemm", q(3, 5), _S, _Z, Const(w8(4, 5)), c(0.01), c(0, np.int8), c([100, -200, 300, 0], np.int32),
         c(0.2), c(99, np.uint8), transB=1),
    qlinear("QGemm", q(3, 5), _S, _Z, Const(w8(4, 5)), c(0.01), c(0, np.int8), c([100, -200, 300, 0], np.int32),
         transB=1),
    case("MatMulInteger", q(3, 5), Const(w8(5, 4)), c(17, np.uint8), c([0, 1, -2, 3], np.int8)),
    case("ConvInteger", q(1, 2, 5, 5), Const(q(3, 2, 3, 3)), c(17, np.uint8), c(3, np.uint8)),
    ms("MatMulIntegerToFloat", q(3, 5), Const(w8(5, 4)), c(0.03), Const(f(4, low=0.01, high=0.02)), c(17, np.uint8),
         c([0, 0, 0, 0], np.int8), Const(f(4))),
    ms("DynamicQuantizeMatMul", f(3, 33), Const(w8(33, 4)), c(0.01), c(0, np.int8), Const(f(4)), tolerance=0.02),
    ms("QEmbedLayerNormalization", np.int32([[1, 4, 2]]), np.int32([[0, 1, 1]]), Const(q(5, 8)), Const(q(4, 8)),
       Const(q(2, 8)), Const(q(8)), Const(q(8)), np.int32([[1, 1, 0]]), *(c(0.03),) * 5, *(c(117, np.uint8),) * 5,
       outputs=2),
    ms("QAttention", q(1, 5, 12), Const(w8(12, 36)), _B, _S, c(0.01), np.int32([4]), _Z, c(0, np.int8), num_heads=3,
         tolerance=0.02),
]

# fmt: on

_CASES = [
    *_MOVEMENT,
    *_ELEMENTWISE,
    *_MATRIX,
    *_REDUCTION,
    *_NORMALIZATION,
    *_WINDOWS,
    *_ATTENTION,
    *_MICROSOFT,
    *_QUANTIZED,
]


@pytest.mark.parametrize("one", _CASES, ids=str)
def test_operator_agrees_with_onnxruntime(one: Case, tmp_path: Path) -> None:
    proto, feeds = proto_of(one)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    wanted = session.run(None, feeds)
    path = tmp_path / "m.onnx"
    path.write_bytes(proto.SerializeToString())
    imported = require_supported(load(path))
    for got, want, port in zip(run(imported, feeds), wanted, imported.outputs, strict=True):
        check(got, want, one.tolerance, coded=port.code is not None and port.code.dtype != "i32")


def test_every_translation_has_a_test() -> None:
    tested = {(one.domain, one.op) for one in _CASES}
    elsewhere = {"Constant", "DynamicQuantizeLinear", "CastLike", "SwiGLU", "Swish"}  # whole models, node tests
    second_names = {"Scatter", "BitwiseOr", "BitwiseXor", "TransposeMatMul"}
    untested = {(domain, op) for domain, op in TRANSLATIONS if (domain, op) not in tested and ("", op) not in tested}
    assert {op for _, op in untested} <= elsewhere | second_names


@pytest.mark.parametrize(
    "op,want",
    [
        ("TopK", "move the selection"),
        ("LSTM", "recurrent"),
        ("Loop", "control flow"),
        ("RandomNormal", "random"),
        ("SoftmaxCrossEntropyLoss", "training"),
        ("Det", ""),
    ],
)
def test_what_is_not_supported_says_so(op: str, want: str, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(proto_of(case(op, f(3, 3)))[0].SerializeToString())
    with pytest.raises(CompileError, match=f"^{op} 'node': .*{want}"):
        require_supported(load(path))

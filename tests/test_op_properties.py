"""What docs/NUMERICS.md promises of single operators beyond the error that they state."""

import re
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from slm2c import fixedpoint
from slm2c.fixedpoint import dequantize, quantize
from slm2c.ir import Array, Node, Quant, Tensor
from slm2c.ops import attention, layernorm, lut, softmax
from slm2c.ops.base import OpDef
from slm2c.resources import data_dir


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def run_int(
    op: OpDef, node: Node, tensors: Mapping[str, Tensor], consts: Mapping[str, Array], *inputs: Array | None
) -> Array:
    """The integer result of a float node: quantized, then run on `inputs` (None where absent)."""
    made, attrs = op.quantize(node, tensors, consts)
    return op.eval_int(Node(op.name, node.name, node.inputs, node.outputs, attrs), [*inputs, *made.values()])


def tensor(name: str, shape: tuple[int, ...], scale: float, zero_point: int = 0, dtype: str = "i8") -> Tensor:
    return Tensor(name, shape, dtype, 0, Quant(scale, zero_point))


# ---------------------------------------------------------------- fixedpoint


@pytest.mark.parametrize(
    "function, low, exact, bound",
    [
        (fixedpoint.reciprocal, 2**31, lambda x: 2.0**62 / x, 2.0**-28),
        (fixedpoint.rsqrt, 2**30, lambda x: 2.0**46 / np.sqrt(x), 2.0**-24),
    ],
)
def test_newton_steps_reach_the_stated_error(
    function: Callable[[Array], Array],
    low: int,
    exact: Callable[[Array], Array],
    bound: float,
    rng: np.random.Generator,
) -> None:
    edges = np.r_[low + np.arange(5000), 2**32 - 1 - np.arange(5000)]
    x = np.r_[edges, rng.integers(low, 2**32, 200_000)]
    error = function(x).astype(np.float64) / exact(x.astype(np.float64)) - 1
    assert np.abs(error).max() <= bound
    assert function(x).max() < 2**32


# ---------------------------------------------------------------- attention


def run_attention(
    q: Array,
    k: Array,
    v: Array,
    *,
    heads: int = 2,
    kv_heads: int = 2,
    causal: bool = False,
    zero_points: tuple[int, int] = (0, 0),
) -> Array:
    tensors = {
        "q": tensor("q", q.shape, 0.03),
        "k": tensor("k", k.shape, 0.03, zero_points[0]),
        "v": tensor("v", v.shape, 0.02, zero_points[1]),
        "y": tensor("y", q.shape, 0.015, 3),
    }
    attrs = {"heads": heads, "kv_heads": kv_heads, "scale": 0.4, "causal": causal}
    return run_int(attention.OP, Node("attention", "a", ("q", "k", "v", ""), ("y",), attrs), tensors, {}, q, k, v, None)


def qkv(rng: np.random.Generator, n: int, columns: int) -> list[Array]:
    return [rng.integers(-100, 100, (n, columns), dtype=np.int8) for _ in range(3)]


def test_the_table_of_exponentials_is_the_same_in_c() -> None:
    text = (data_dir("runtime_c") / "slm_attention_row.c").read_text()
    body = re.search(r"slm_exp2_table\[256\] = \{(.*?)\}", text, re.DOTALL)
    assert body
    assert [int(x) for x in body[1].replace(",", " ").split()] == (2 * attention.EXP2).tolist()


def test_the_zero_point_of_v_changes_nothing(rng: np.random.Generator) -> None:
    q, k, v = qkv(rng, 17, 12)
    shifted = run_attention(q, k, v - np.int8(25), zero_points=(0, -25))
    np.testing.assert_array_equal(shifted, run_attention(q, k, v))


def test_the_zero_point_of_k_vanishes_but_for_rounding(rng: np.random.Generator) -> None:
    q, k, v = qkv(rng, 17, 12)
    shifted = run_attention(q, k + np.int8(20), v, zero_points=(20, 0))
    np.testing.assert_allclose(shifted, run_attention(q, k, v), rtol=0, atol=1)


def test_heads_that_share_keys_equal_heads_with_copies(rng: np.random.Generator) -> None:
    q, k, v = qkv(rng, 9, 12)
    copies = [np.repeat(x[:, :6].reshape(9, 2, 3), 2, axis=1).reshape(9, 12) for x in (k, v)]
    shared = run_attention(q, np.ascontiguousarray(k[:, :6]), np.ascontiguousarray(v[:, :6]), heads=4, kv_heads=2)
    np.testing.assert_array_equal(shared, run_attention(q, *copies, heads=4, kv_heads=4))


def test_the_last_causal_query_alone_sees_all_keys(rng: np.random.Generator) -> None:
    """A decoder that keeps k and v computes only the new token's row."""
    q, k, v = qkv(rng, 17, 12)
    whole = run_attention(q, k, v, causal=True)
    np.testing.assert_array_equal(run_attention(q[-1:], k, v, causal=True), whole[-1:])
    np.testing.assert_array_equal(run_attention(q[:5], k[:5], v[:5], causal=True), whole[:5])


def test_uniform_attention_over_many_keys_is_the_mean(rng: np.random.Generator) -> None:
    v = rng.integers(-128, 128, (2000, 12), dtype=np.int8)
    still = np.zeros((1, 12), dtype=np.int8)
    mean = v.astype(np.float64).mean(axis=0) * 0.02 / 0.015 + 3
    assert np.abs(run_attention(still, v, v)[0] - mean).max() <= 0.51


# ---------------------------------------------------------------- layernorm


def run_layernorm(x: Array, residual: Array | None, centre: bool) -> tuple[Array, Array]:
    """(integer output, beta in its unit)"""
    dtype = "i8" if x.dtype == np.int8 else "i16"
    gamma, beta = (np.linspace(*ends, x.shape[1], dtype=np.float32) for ends in ((-1, 2), (1, -1)))
    tensors = {name: tensor(name, x.shape, 0.02, 5, dtype) for name in ("x", "r")}
    tensors["y"] = tensor("y", x.shape, 0.02, -7)
    names = ("x", "r" if residual is not None else "", "g", "b")
    node = Node("layernorm", "n", names, ("y",), {"epsilon": 1e-12, "centre": centre})
    return run_int(layernorm.OP, node, tensors, {"g": gamma, "b": beta}, x, residual), beta / 0.02 - 7


@pytest.mark.parametrize("value", [-128, 0, 127])
@pytest.mark.parametrize("columns", [1, 3, 4096])
def test_constant_rows_give_beta(value: int, columns: int) -> None:
    x = np.full((2, columns), value, dtype=np.int8)
    for residual in (None, x):
        y, beta = run_layernorm(x, residual, True)
        assert np.abs(y - beta).max() <= 0.5 + 1 / 256


def test_rmsnorm_of_zeros_gives_beta() -> None:
    y, beta = run_layernorm(np.full((1, 33), 5, dtype=np.int8), None, False)  # 5 is the zero point
    assert np.abs(y - beta).max() <= 0.5 + 1 / 256


def test_an_int8_row_equals_the_same_row_in_int16(rng: np.random.Generator) -> None:
    x = rng.integers(-128, 128, (5, 33), dtype=np.int8)
    narrow, _ = run_layernorm(x, None, True)
    wide, _ = run_layernorm(x.astype(np.int16) * np.int16(256), None, True)
    np.testing.assert_array_equal(narrow, wide)


# ---------------------------------------------------------------- softmax


@pytest.mark.parametrize("dtype, one", [("i8", 256), ("i16", 32768)])
@pytest.mark.parametrize("columns", [1, 3, 8192])
def test_equal_scores_share_evenly(dtype: str, one: int, columns: int) -> None:
    quant = softmax.fixed_quant(Node("softmax", "s", ("x",), ("y",)), dtype)
    tensors = {"x": tensor("x", (1, columns), 0.1), "y": Tensor("y", (1, columns), dtype, 0, quant)}
    x = np.full((1, columns), 9, dtype=np.int8)
    y = run_int(softmax.OP, Node("softmax", "s", ("x",), ("y",)), tensors, {}, x)
    share = min(np.floor(one / columns + 0.5), one - 1)
    assert (y.astype(int) - quant.zero_point == share).all()


# ---------------------------------------------------------------- lut


@pytest.mark.parametrize("name", lut.KNOWN)
def test_known_functions_are_named(name: str) -> None:
    assert lut.describe(lut.KNOWN[name]) == name


@pytest.mark.parametrize(
    "expression, text",
    [
        (("gelu", ("x",), (("approximate", "tanh"),)), "gelu_tanh"),
        (("div", ("x",), ("add", 1.0, ("exp", ("neg", ("x",))))), "silu"),
        (("max", 0.0, ("x",)), "relu"),
        (("mul", ("x",), 0.5), "mul(x, 0.5)"),
        (("leaky_relu", ("x",), (("alpha", 0.01),)), "leaky_relu(x, alpha=0.01)"),
        (("where", ("less", ("x",), 0.0), 1.0, ("x",)), "where(less(x, 0), 1, x)"),
    ],
)
def test_functions_are_named_by_their_values(expression: lut.Expression, text: str) -> None:
    assert lut.describe(expression) == text


def test_undefined_values_of_a_function_are_zero() -> None:
    x, y = tensor("x", (256,), 0.1), tensor("y", (256,), 0.02, -100)
    node = Node("lut", "log", ("x",), ("y",), {"fn": lut.KNOWN["log"]})
    every = np.arange(-128, 128).astype(np.int8)
    out = run_int(lut.OP, node, {"x": x, "y": y}, {}, every)
    assert (out[every < 0] == -100).all()
    assert out[every == 0] == -128
    assert x.quant and y.quant
    real = np.log(dequantize(every[every > 0], x.quant))
    np.testing.assert_array_equal(out[every > 0], quantize(real, y.quant, "i8"))

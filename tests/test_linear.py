"""The packed linear kernel: every remainder of tokens, channels, features; the limits of its proof; its layout."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from slm2c import toolchain
from slm2c.board import load_board
from slm2c.ir import Graph, Node, Quant, Tensor, const_tensor
from slm2c.ops import linear
from slm2c.ops.base import pack_fields
from slm2c.resources import data_dir
from tests import kernels
from tests.test_ops import check_c, run_sanitized

BOUND = 2**23


def layer(tokens: int, weight: np.ndarray, bias: np.ndarray, dtype: str = "i8", **params: int) -> kernels.Variant:
    """An integer layer of given weights as a variant to try."""
    channels, features = weight.shape
    fields = {"shift": 0, "zero_point": -3, "minimum": -128, "maximum": 127} | params
    if dtype == "i16":
        fields |= {"minimum": -32768, "maximum": 32767}
    mult = np.linspace(2**20, 2**31 - 1, channels).astype(np.int32)
    consts = {
        "w": weight.astype(np.int8),
        "b": bias.astype(np.int32),
        "m": mult,
        "p": pack_fields(fields, linear.PARAMS),
    }
    node = Node("linear", f"{tokens}x{features}x{channels} {dtype} {params}", ("x", *consts), ("y",), {"dtype": dtype})
    tensors = {
        "x": Tensor("x", (tokens, features), "i8", 0, Quant(1.0)),
        "y": Tensor("y", (tokens, channels), dtype, 0, Quant(1.0)),
    } | {name: const_tensor(name, value) for name, value in consts.items()}
    graph = Graph("case", ("x",), ("y",), (node,), tensors, consts)
    feeds = {"x": np.full((tokens, features), -128, dtype=np.int8)}
    call = linear.OP.lower_dsp(node, graph) if linear.OP.lower_dsp else None
    assert call is not None
    return kernels.Variant(linear.OP, f"{node.name} {call.symbol}", node, {}, node, graph, feeds, call)


def remainders() -> Iterator[kernels.Variant]:
    rng = np.random.default_rng(1)
    for tokens in (1, 2, 3, 4, 5, 8, 9):
        for channels, features in ((1, 1), (2, 8), (3, 33), (4, 32), (5, 40), (6, 95), (2, 129)):
            weight = rng.integers(-127, 128, (channels, features))
            bias = rng.integers(-10000, 10000, channels)
            yield layer(tokens, weight, bias, "i16" if tokens % 2 else "i8")
    for params in ({"shift": 3}, {"minimum": 5}, {"maximum": 90}):
        yield layer(5, rng.integers(-127, 128, (3, 64)), rng.integers(-100, 100, 3), **params)


def limits() -> Iterator[kernels.Variant]:
    """Sums that come as close to 2**23 as they may, and beyond."""
    for features in (516, 517, 1100):
        for sign in (-1, 1):
            weight = np.full((4, features), 127 * sign)
            room = max(0, BOUND - 1 - 127 * 128 * features)
            for bias in (0, room, -room, room + 1, 2**29):
                yield layer(3, weight, np.full(4, bias), "i16")
                yield layer(1, weight, np.full(4, bias))
                yield layer(2, weight, np.full(4, bias))


def trials() -> list[kernels.Trial]:
    rng = np.random.default_rng(2)
    return [trial for v in (*remainders(), *limits()) for trial in kernels.trials(v, rng)]


def test_packed_equals_numpy(tmp_path: Path) -> None:
    check_c(tmp_path, trials(), run_sanitized(tmp_path))


@pytest.mark.qemu
def test_packed_equals_numpy_on_cortex_m7(tmp_path: Path) -> None:
    board = load_board("mps2-an500")

    def run(sources: list[Path]) -> toolchain.RunResult:
        image = toolchain.build_firmware(sources, board, tmp_path / "kernels.elf", includes=[data_dir("runtime_c")])
        return toolchain.run_qemu(image.elf, board, cwd=tmp_path)

    check_c(tmp_path, trials(), run)


@pytest.mark.parametrize("bias, symbol", [(BOUND - 1 - 128 * 1270, "packed"), (BOUND - 128 * 1270, "pieces")])
def test_the_kernel_is_chosen_by_the_largest_sum(bias: int, symbol: str) -> None:
    weight = np.zeros((2, 10))
    weight[1] = -127
    assert layer(2, weight, np.array([2**29, bias])).call.symbol == f"slm_linear_{symbol}_s8"


def test_layout_of_packed_weights() -> None:
    weight = np.array([[1, 2, 3, 4, 5], [-1, 0, 0, 7, 0]], dtype=np.int8)
    words = linear.pack(weight)
    lanes = [[1 - 256, 3], [2, 4 + 7 * 256], [5, 0], [0, 0]]  # k and k + 2 in a word
    assert words.shape == (1, 4)
    assert [[int(np.int16(w & 0xFFFF)), int(np.int16(w >> 16))] for w in words[0].astype(np.int64)] == lanes

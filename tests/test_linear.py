"""The linear kernels: every remainder of tokens, channels, features; the limits of the proof; tables; the layout."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from slm2c import process, toolchain
from slm2c.board import load_board
from slm2c.ir import Graph, Node, Quant, Tensor, const_tensor
from slm2c.ops import linear
from slm2c.ops.base import pack_fields
from slm2c.resources import data_dir
from tests import kernels
from tests.test_ops import check_c, run_sanitized

BOUND = 2**23


def layer(
    tokens: int,
    weight: np.ndarray,
    bias: np.ndarray,
    dtype: str = "i8",
    *,
    step: int | None = None,
    tile: int | None = None,
    table: np.ndarray | None = None,
    packed: bool = True,
    **params: int,
) -> kernels.Variant:
    """An integer layer of given weights as a variant to try: `step` elements from a token's output to the next one's,
    `tile` tokens at a time.
    """
    channels, features = weight.shape
    step = channels if step is None else step
    fields = {"shift": 0, "zero_point": -3, "minimum": -128, "maximum": 127} | params
    if dtype == "i16":
        fields |= {"minimum": params.get("minimum", -32768), "maximum": params.get("maximum", 32767)}
    mult = np.linspace(2**20, 2**31 - 1, channels).astype(np.int32)
    consts = {
        "w": weight.astype(np.int8),
        "b": bias.astype(np.int32),
        "m": mult,
        "p": pack_fields(fields, linear.PARAMS),
    } | ({} if table is None else {"t": table.astype(np.int8)})
    title = (
        f"{tokens}x{features}x{channels} step {step} tile {tile} {dtype} {params} {'' if table is None else 'table'}"
    )
    node = Node("linear", title, ("x", *consts), ("y",), {"dtype": dtype})
    tensors = {
        "x": Tensor("x", (tokens, features), "i8", 0, Quant(1.0)),
        "y": Tensor("y", (tokens, step), dtype, 0, Quant(1.0)),
    } | {name: const_tensor(name, value) for name, value in consts.items()}
    graph = Graph("case", ("x",), ("y",), (node,), tensors, consts)
    feeds = {"x": np.full((tokens, features), -128, dtype=np.int8)}
    call = linear.OP.lower_dsp(node, graph)[0] if packed else linear.OP.lower(node, graph)
    if packed:
        size = min(tokens, linear.TILE) if tile is None else tile
        call = replace(call, args=(*call.args[:-2], step, size), scratch=size * 2 * -(-features // 8) * 8)
    else:
        call = replace(call, args=(*call.args[:-1], step))
    in_place = (0,) if packed and dtype == "i8" and step == features else ()
    op = replace(linear.OP, eval_int=spread(step), inplace=in_place if channels == features else ())
    return kernels.Variant(op, f"{title} {call.symbol}", node, {}, node, graph, feeds, call)


def spread(step: int) -> Callable[[Node, Sequence[np.ndarray | None]], np.ndarray]:
    """The layer's output in rows of `step`, the rest of which is what was there before."""

    def evaluate(node: Node, inputs: Sequence[np.ndarray | None]) -> np.ndarray:
        y = linear.OP.eval_int(node, inputs)
        rows = np.frombuffer(bytes([kernels.FILLER]) * (len(y) * step * y.itemsize), y.dtype).reshape(-1, step).copy()
        rows[:, : y.shape[1]] = y
        return rows

    return evaluate


def remainders() -> Iterator[kernels.Variant]:
    """Every remainder of tokens, with channels and features about the sizes of units and runs."""
    rng = np.random.default_rng(1)
    for tokens in range(1, 14):
        for channels, features in ((1, 1), (2, 8), (3, 33), (4, 32), (5, 40), (6, 95), (2, 129), (2, 256), (3, 260)):
            weight = rng.integers(-127, 128, (channels, features))
            bias = rng.integers(-10000, 10000, channels)
            yield layer(tokens, weight, bias, "i16" if tokens % 2 else "i8")
    for params in ({"shift": 3}, {"shift": 5}, {"minimum": 5}, {"maximum": 90}):
        for dtype, tokens in itertools.product(("i8", "i16"), (1, 5)):
            weight = rng.integers(-127, 128, (3, 64))
            yield layer(tokens, weight, rng.integers(-100, 100, 3), dtype, **params)


def random_layers() -> Iterator[kernels.Variant]:
    """Layers of any shape, in any tiles, with and without table, rows of outputs apart or in the input's place."""
    rng = np.random.default_rng(3)
    for _ in range(150):
        tokens, channels, features = (int(2 ** rng.uniform(0, most)) for most in (5, 5, 8))
        if rng.random() < 0.3:
            channels = features = min(features, 90)
        weight = rng.integers(-127, 128, (channels, features))
        if rng.random() < 0.2:
            weight = rng.choice([-127, 127], (channels, features))
        bias = rng.integers(-(2 ** rng.integers(1, 30)), 2 ** rng.integers(1, 30), channels)
        yield layer(
            tokens,
            weight,
            bias,
            rng.choice(["i8", "i16"]),
            step=channels + int(rng.choice([0, 0, 1, 7])),
            tile=int(rng.integers(1, tokens + 1)),
            table=rng.integers(-128, 128, 256) if rng.random() < 0.4 else None,
            packed=bool(rng.random() < 0.9),
            zero_point=int(rng.integers(-128, 128)),
            **rng.choice([{}, {}, {"minimum": 5}, {"shift": 1 if np.abs(bias).max() < 2**28 else 0}]),
        )


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
    return [trial for v in (*remainders(), *random_layers(), *limits()) for trial in kernels.trials(v, rng)]


def test_packed_equals_numpy(tmp_path: Path) -> None:
    check_c(tmp_path, trials(), run_sanitized(tmp_path))


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["mps2-an500", "mps2-an386", "mps2-an505"])
def test_packed_equals_numpy_on_cortex_m(name: str, tmp_path: Path) -> None:
    board = load_board(name)

    def run(sources: list[Path]) -> process.RunResult:
        image = toolchain.build_firmware(sources, board, tmp_path / "kernels.elf", includes=[data_dir("runtime_c")])
        return toolchain.run_qemu(image.elf, board, cwd=tmp_path)

    check_c(tmp_path, trials(), run)


@pytest.mark.parametrize("shift", [0, 2])
@pytest.mark.parametrize("over, symbol", [(0, "packed"), (1, "pieces")])
def test_the_kernel_is_chosen_by_the_largest_sum(over: int, symbol: str, shift: int) -> None:
    weight = np.zeros((2, 10))
    weight[1] = -127
    bias = (BOUND - 1 >> shift) - 128 * 1270 + over
    assert layer(2, weight, np.array([2**20, bias]), shift=shift).call.symbol == f"slm_linear_{symbol}_s8"


def test_layout_of_packed_weights() -> None:
    weight = np.array([[1, 2, 3, 4, 5], [-1, 0, 0, 7, 0]], dtype=np.int8)
    words = linear.pack(weight)
    lanes = [[1 - 256, 3], [2, 4 + 7 * 256], [5, 0], [0, 0]]  # k and k + 2 in a word
    assert words.shape == (1, 4)
    assert [[int(np.int16(w & 0xFFFF)), int(np.int16(w >> 16))] for w in words[0].astype(np.int64)] == lanes

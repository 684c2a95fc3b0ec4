"""Attention, normalization and tables in C on random shapes and types, against numpy, bit for bit."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from slm2c import process, toolchain
from slm2c.board import load_board
from slm2c.ir import Array, Node, Tensor
from slm2c.ops import TABLE, attention, lut
from slm2c.ops.base import Arg, Case, KernelCall
from slm2c.resources import data_dir
from tests import kernels
from tests.test_ops import check_c, run_sanitized

SEED = 20240307


def attention_case(
    rng: np.random.Generator,
    rows: int,
    keys: int,
    heads: int,
    kv_heads: int,
    size: int,
    v_size: int,
    factor: float = 1.0,
) -> Case:
    """With a causal mask and a bias, or not, by chance; scores of all sizes, times a factor."""
    causal = rows <= keys and bool(rng.random() < 0.4)
    bias_heads = int(rng.choice([0, 0, 1, heads])) if keys < 100 else 0
    attrs = {"heads": heads, "kv_heads": kv_heads, "scale": factor * size**-0.5, "causal": causal}
    shapes = {"q": (rows, heads * size), "k": (keys, kv_heads * size), "v": (keys, kv_heads * v_size)}
    name = f"attention {rows} {keys} {heads}/{kv_heads} {size} {v_size} {causal} {bias_heads} {factor}"
    node = Node("attention", name, ("q", "k", "v", "bias" if bias_heads else ""), ("y",), attrs)
    spread = 10 ** rng.uniform(-2, 1)
    feeds = {x: (rng.normal(size=shape) * spread).astype(np.float32) for x, shape in shapes.items()}
    tokens = max(rows, keys)
    consts = {"bias": rng.normal(size=(bias_heads, tokens, tokens)).astype(np.float32)} if bias_heads else {}
    axis = 0 if rows == keys else None
    tensors = {x: Tensor(x, shape, "f32", axis) for x, shape in shapes.items()}
    tensors["y"] = Tensor("y", (rows, heads * v_size), "f32", axis)
    tensors |= {x: Tensor(x, value.shape, "f32") for x, value in consts.items()}
    return Case(node, tensors, consts, feeds)


def attention_cases(rng: np.random.Generator, count: int) -> Iterator[Case]:
    """Every remainder of queries and keys first, then any shape, and heads that are too large to be expanded once."""
    for n in range(1, 10):
        yield attention_case(rng, n, n, 2, 2, 4 * int(rng.integers(1, 10)), 4 * int(rng.integers(1, 10)))
        yield attention_case(rng, n, int(rng.integers(n, 14)), 2, 1, 8, 8)
    for _ in range(count):
        kv_heads, rows, keys = int(rng.integers(1, 4)), int(rng.integers(1, 20)), int(rng.integers(1, 40))
        heads = kv_heads * int(rng.integers(1, 4))
        yield attention_case(
            rng, rows, keys, heads, kv_heads, 4 * int(rng.integers(1, 17)), 4 * int(rng.integers(1, 17))
        )
    for rows, keys in ((5, 5), (3, 300), (33, 70), (1, 1030)):
        yield attention_case(rng, rows, keys, 2, 1, 64, 64)
    yield attention_case(rng, 5, 6, 1, 1, 1100, 4)  # a quad of keys is more than the cache
    yield attention_case(rng, 5, 6, 1, 1, 4, 2000)
    for n in range(4, 8):
        yield attention_case(rng, n, n, 2, 1, 8, 8, factor=1e9)  # scores reach their limit


def layernorm_cases(rng: np.random.Generator, count: int) -> Iterator[Case]:
    for columns in [*range(1, 10), *(4 * int(x) for x in rng.integers(1, 80, count))]:
        rows, residual, centre = int(rng.integers(1, 4)), bool(rng.random() < 0.7), bool(rng.random() < 0.7)
        name = f"layernorm {rows} {columns} {residual} {centre}"
        attrs = {"epsilon": 10 ** rng.uniform(-12, -2), "centre": centre}
        node = Node("layernorm", name, ("x", "r" if residual else "", "g", "b"), ("y",), attrs)
        consts = {x: rng.normal(size=columns).astype(np.float32) for x in ("g", "b")}
        feeds = {
            x: (rng.normal(0.3, 1, (rows, columns)) * 10 ** rng.uniform(-2, 2)).astype(np.float32)
            for x in ("x", *(["r"] if residual else []))
        }
        tensors = {x: Tensor(x, (rows, columns), "f32", 0) for x in (*feeds, "y")}
        tensors |= {x: Tensor(x, (columns,), "f32") for x in consts}
        yield Case(node, tensors, consts, feeds)


def lut_cases(rng: np.random.Generator, count: int) -> Iterator[Case]:
    for size in range(1, count):
        node = Node("lut", f"lut {size}", ("x",), ("y",), {"fn": lut.KNOWN["gelu"]})
        tensors = {x: Tensor(x, (size,), "f32", None) for x in ("x", "y")}
        yield Case(node, tensors, {}, {"x": rng.normal(size=size).astype(np.float32)})


CASES = {"attention": attention_cases, "layernorm": layernorm_cases, "lut": lut_cases}


def trials_of(name: str, count: int) -> list[kernels.Trial]:
    rng = np.random.default_rng(SEED)
    return [
        trial
        for case in CASES[name](rng, count)
        for variant in kernels.variants(TABLE[name], case)
        for trial in kernels.trials(variant, rng)
    ]


@pytest.mark.parametrize("name", CASES)
def test_random_shapes(name: str, tmp_path: Path) -> None:
    check_c(tmp_path, trials_of(name, 30), run_sanitized(tmp_path))


@dataclass(frozen=True)
class Strided(kernels.Trial):
    """An attention whose rows of q and of the output are longer than its heads; what is behind stays as it is."""

    steps: tuple[int, int]

    @cached_property
    def expected(self) -> Array:
        dense = kernels.Trial(self.variant, self.title, self.n, {**self.inputs, "q": self.dense}).expected
        return widen(dense, self.steps[1])

    @property
    def dense(self) -> Array:
        """q without the gaps."""
        size = self.variant.graph.tensors["q"].shape[1]
        return np.ascontiguousarray(self.inputs["q"][:, :size])


def widen(x: Array, columns: int) -> Array:
    """`x` with rows of so many elements, of which those behind its own are filler."""
    wide = np.full((len(x), columns), np.uint8(kernels.FILLER).astype(np.int8), dtype=np.int8)
    wide[:, : x.shape[1]] = x
    return wide


def strided_trials(count: int) -> Iterator[kernels.Trial]:
    rng = np.random.default_rng(SEED)
    for case in attention_cases(rng, count):
        for variant in kernels.variants(attention.OP, case):
            sizes = [variant.graph.tensors[x].shape[1] for x in ("q", "y")]
            gap = int(rng.integers(1, 70))
            steps = (sizes[0] + gap, sizes[1] + gap)
            call = replace(variant.call, args=_with_steps(variant.call, sizes, steps))
            wide = replace(variant, title=f"{variant.title} strided", call=call)
            for trial in list(kernels.trials(variant, rng))[-2:]:
                inputs = {**trial.inputs, "q": widen(trial.inputs["q"], steps[0])}
                yield Strided(wide, trial.title, trial.n, inputs, steps)


def _with_steps(call: KernelCall, sizes: list[int], steps: tuple[int, int]) -> tuple[Arg, ...]:
    """The call's arguments with other steps: they stand behind the number of heads and the two sizes of one."""
    args = list(call.args)
    at = len(args) - (5 if "bias" in call.symbol or "dsp" in call.symbol else 3)
    assert args[at : at + 2] == sizes, call
    args[at : at + 2] = steps
    return tuple(args)


def test_rows_longer_than_the_heads(tmp_path: Path) -> None:
    check_c(tmp_path, list(strided_trials(5)), run_sanitized(tmp_path))


@pytest.mark.qemu
@pytest.mark.parametrize(
    "board", ["mps2-an500", *(pytest.param(x, marks=pytest.mark.slow) for x in ("mps2-an386", "mps2-an505"))]
)
def test_random_shapes_on_cortex_m(board: str, tmp_path: Path) -> None:
    chosen = load_board(board)

    def run(sources: list[Path]) -> process.RunResult:
        image = toolchain.build_firmware(sources, chosen, tmp_path / "kernels.elf", includes=[data_dir("runtime_c")])
        return toolchain.run_qemu(image.elf, chosen, cwd=tmp_path)

    check_c(tmp_path, [trial for name in CASES for trial in trials_of(name, 8)] + list(strided_trials(2)), run)


def weigh_sources() -> list[Path]:
    runtime = data_dir("runtime_c")
    check = Path(__file__).parent / "c" / "weigh_check.c"
    return [check, runtime / "slm_attention_weigh.c", runtime / "slm_attention_row.c"]


def test_weights_of_all_differences(tmp_path: Path) -> None:
    result = run_sanitized(tmp_path)(weigh_sources())
    assert result.exit_code == 0, result.output


@pytest.mark.qemu
@pytest.mark.parametrize("opt", ["-O0", "-Os", "-O2", "-O3"])
def test_weights_of_all_differences_on_cortex_m(opt: str, tmp_path: Path) -> None:
    board, includes = load_board("mps2-an500"), [data_dir("runtime_c")]
    image = toolchain.build_firmware(weigh_sources(), board, tmp_path / "weigh.elf", includes=includes, extra=[opt])
    assert toolchain.run_qemu(image.elf, board).exit_code == 0


@pytest.mark.parametrize("size, v_size", [(4, 4), (32, 32), (64, 64), (64, 8), (2048, 4)])
def test_fewer_keys_need_no_more_scratch_memory(size: int, v_size: int) -> None:
    needed = [attention.dsp_scratch(keys, size, v_size) for keys in range(1, 600)]
    assert needed == sorted(needed)


def test_a_long_head_takes_little_scratch_memory() -> None:
    assert attention.dsp_scratch(512, 64, 64) <= 18 * 1024
    assert attention.dsp_scratch(32, 32, 32) <= 5 * 1024

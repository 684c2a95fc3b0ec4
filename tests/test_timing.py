"""Lengths, and the cycles of an instruction, which LLVM's models of the cores give again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from slm2c import cycles, timing
from slm2c.bench import measure as bench
from slm2c.board import list_boards, load_board
from slm2c.compile import Options, compile_model
from slm2c.resources import data_dir
from tests.generated import SENTENCES, fixed_length, mlp, text_folder
from tests.onnx_models import save

BOARD = "generic-m7-512k-4m"


def test_the_ratio_of_a_cortex_m7_is_that_of_the_bench() -> None:
    """docs/performance.json, homecmd; a single token dual-issues better."""
    path = Path(__file__).parents[1] / "docs" / "performance.json"
    totals = json.loads(path.read_text(encoding="utf-8"))["totals"]
    mine = [t for t in totals if t["model"] == "homecmd" and t["cycles_estimated"]]
    found = {t["tokens"]: t["cycles_estimated"] / t["instructions"] for t in mine}
    assert {8, 9, 16, 32} <= found.keys()
    assert all(abs(found[n] / timing.CYCLES_PER_INSTRUCTION["cortex-m7"] - 1) < 0.02 for n in found if n > 1)


@pytest.mark.qemu
@pytest.mark.parametrize("cpu", sorted(timing.CYCLES_PER_INSTRUCTION.keys() - {"cortex-m7"}))
def test_the_ratio_of_other_cores_is_that_of_their_models(cpu: str, tmp_path: Path) -> None:
    if (cycles.llvm_version() or "").split(".")[0] != "22":
        pytest.skip("needs llvm-mca 22; `make tools` installs it where it is packaged")
    board = next(b for b in map(load_board, list_boards()) if b.cpu == cpu and b.emulator)
    model = bench.compile_into(
        tmp_path / "c", data_dir("examples") / "homecmd", board, Options(name="m", method="minmax")
    )
    image = bench._build(model, board, (9,), tmp_path / "calls.elf", ("SLM_TRACE",)).elf
    found = cycles.executed(image, board, ("m_run", "bench_mark"), board.cpu)
    parts = [part for part in found if part.mark == "bench_mark"]  # a kernel call each
    instructions, estimated = sum(p.instructions for p in parts), sum(p.cycles or 0 for p in parts)
    assert 7_000_000 < instructions < 9_000_000
    assert estimated / instructions == pytest.approx(timing.CYCLES_PER_INSTRUCTION[board.cpu], abs=0.02)


def lengths(model: Path, **options: object) -> list[tuple[str, int]]:
    compiled = compile_model(model, load_board(BOARD), Options(method="minmax", **options))  # type: ignore[arg-type]
    return [(length.what, length.tokens) for length in timing.lengths(compiled)]


def test_lengths(tmp_path: Path) -> None:
    folder = text_folder(tmp_path / "text")
    tokens = sorted(len(text.split()) + 2 + text.count("lamps") for text in SENTENCES)  # [CLS], [SEP], lamp ##s
    median = tokens[(len(tokens) - 1) // 2]
    assert lengths(folder) == [("minimum", 1), ("median", median), ("maximum", 12)]
    (folder / "calib.txt").unlink()
    assert lengths(folder) == [("minimum", 1), ("maximum", 12)]  # random samples have no length to speak of
    assert lengths(save(tmp_path, fixed_length())) == [("maximum", 6)]
    assert lengths(save(tmp_path, mlp())) == [("a run", 0)]


def test_time() -> None:
    assert timing.microseconds(1_000_000, "cortex-m7", 200_000_000) == 3900
    assert timing.microseconds(1_000_000, "rv32imc", 200_000_000) is None

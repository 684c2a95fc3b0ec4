"""The benchmark on an emulated core: a small student's calls and runs; CMSIS-NN that cannot be used."""

from __future__ import annotations

import subprocess
from pathlib import Path

import onnx
import pytest

from slm2c.bench import measure, peers, suite
from slm2c.bench.peers import Layers
from slm2c.board import load_board
from slm2c.compile import Options
from slm2c.errors import CompileError
from slm2c.students import student

TOKENS = (1, 3, 9)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> measure.Model:
    folder = tmp_path_factory.mktemp("bench")
    onnx.save(student(2, 16, 2, 32, 9, 50), folder / "model.onnx")
    return measure.compile_into(folder / "c", folder / "model.onnx", load_board(suite.MAIN), Options(name="small"))


@pytest.mark.qemu
@pytest.mark.parametrize("name", suite.BOARDS)
def test_calls_add_up_to_the_run(small: measure.Model, name: str, tmp_path: Path) -> None:
    board = load_board(name)
    ops, elements, cycles = measure.calls(small, board, TOKENS, tmp_path)
    again = measure.calls(small, board, TOKENS, tmp_path)
    assert (ops, elements, cycles) == again
    runs = measure.runs(small, board, TOKENS, tmp_path, cycles)
    assert [t.tokens for t in runs] == list(TOKENS)
    for run in runs:
        calls = [op for op in ops if op.tokens == run.tokens]
        # The traced image passes what it stored to slm_trace, in a few instructions; a run begins and ends with some.
        assert abs(sum(op.instructions for op in calls) - run.instructions) < 8 * len(calls) + 2 * 50
        assert run.cycles_estimated == cycles.get(run.tokens)
        assert 0 < run.lower_bound <= run.arena and run.code > 0
    linear = [op for op in ops if op.op == "linear" and op.shape == "n x 16 -> n x 32"]
    assert [(op.tokens, op.macs) for op in linear] == [(n, n * 16 * 32) for n in TOKENS]
    norms = [e for e in elements if e.what == "LayerNorm"]
    assert [e.elements for e in norms] == [(3 * n + 2) * 16 for n in TOKENS]
    assert [e.instructions for e in norms] == [
        sum(op.instructions for op in ops if op.op == "layernorm" and op.tokens == n) for n in TOKENS
    ]


def test_weights_of_attention_are_counted(small: measure.Model) -> None:
    attention = [node for node in small.graph.nodes if node.op == "attention"]
    assert [measure.weights(small.graph, node, 5) for node in attention] == [2 * 5 * 5, 2 * 5]
    assert all(measure.weights(small.graph, node, 5) == 0 for node in small.graph.nodes if node.op != "attention")


@pytest.mark.qemu
def test_a_student_of_the_suite(tmp_path: Path) -> None:
    said: list[str] = []
    config = suite.Student("tiny", 1, 8, 1, 12, 5, (2, 5))
    found = suite.students(config, tmp_path, said.append)
    assert [(t.model, t.tokens, t.arena_limit) for t in found] == [("tiny", 2, None), ("tiny", 5, None)]
    assert 0 < found[0].instructions < found[1].instructions and said == ["tiny: 1 layers of 8, 5 tokens"]


# ---------------------------------------------------------------- CMSIS-NN, as far as it goes without one

LAYERS = Layers("m", 6, 128, 4, 512)


def test_work_of_the_layers() -> None:
    assert peers._work(LAYERS, "projection", 8) == (24, 8 * 128 * 128)
    assert peers._work(LAYERS, "down", 8) == (6, 8 * 512 * 128)
    assert peers._work(LAYERS, "scores", 8) == (6, 8 * 8 * 128)
    assert peers._work(LAYERS, "residual", 8) == (12, 0) and peers._work(LAYERS, "GELU", 8) == (6, 0)


def checkout(folder: Path, libraries: int) -> Path:
    (folder / "Include").mkdir()
    (folder / "Include" / "arm_nnfunctions.h").write_text("")
    for i in range(libraries):
        (folder / f"build{i}").mkdir()
        (folder / f"build{i}" / "libcmsis-nn.a").write_text("")
    return folder


@pytest.mark.parametrize("libraries, said", [(0, "holds no libcmsis-nn.a"), (2, "holds 2 files libcmsis-nn.a")])
def test_a_checkout_has_one_library(tmp_path: Path, libraries: int, said: str) -> None:
    with pytest.raises(CompileError, match=said):
        peers.measure(checkout(tmp_path, libraries), LAYERS, load_board(suite.MAIN), [8], tmp_path)


def test_another_folder_is_no_checkout(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="no checkout of CMSIS-NN"):
        peers.measure(tmp_path, LAYERS, load_board(suite.MAIN), [8], tmp_path)


@pytest.mark.qemu
def test_a_library_that_does_not_link_is_the_users(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"cannot be used for mps2-an500.*build it for the Cortex-M7"):
        peers.measure(checkout(tmp_path, 1), LAYERS, load_board(suite.MAIN), [8], tmp_path)


def test_the_version_is_that_of_the_checkout(tmp_path: Path) -> None:
    library = checkout(tmp_path, 1) / "build0" / "libcmsis-nn.a"
    assert peers._version(tmp_path, library) == "a copy of unknown version"
    git = ["git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "m"], ["tag", "v7.0.0"]):
        subprocess.run([*git, *arguments], check=True)
    (library.parent / "CMakeCache.txt").write_text(
        "CMAKE_C_FLAGS:STRING=-mthumb\nCMSIS_OPTIMIZATION_LEVEL:UNINITIALIZED=-O3\n"
    )
    assert peers._version(tmp_path, library) == "v7.0.0, compiled with -mthumb -O3"

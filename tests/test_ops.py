"""Every operator of the table on every one of its cases: its stated error against floats, and the C against numpy."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from slm2c import toolchain
from slm2c.board import load_board
from slm2c.fixedpoint import INT_RANGE
from slm2c.ops import TABLE
from slm2c.resources import data_dir
from tests import kernels
from tests.conftest import skip_or_fail

SEED = 20240229


def variants(name: str) -> list[kernels.Variant]:
    op = TABLE[name]
    return [v for case in op.cases(np.random.default_rng(SEED)) for v in kernels.variants(op, case)]


def batch(name: str) -> list[kernels.Trial]:
    rng = np.random.default_rng(SEED)
    return [trial for variant in variants(name) for trial in kernels.trials(variant, rng)]


@pytest.mark.parametrize("name", TABLE)
def test_integers_stay_within_the_stated_error(name: str) -> None:
    for trial in batch(name):
        low, high = INT_RANGE[trial.variant.output.dtype]
        real, bound = trial.reference()
        error = np.abs(trial.expected().astype(np.float64) - np.clip(real, low, high))
        assert (error <= bound).all(), (
            f"{trial.variant.title}, {trial.title}: {(error - bound).max()} LSB over the bound"
        )


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", TABLE)
def test_c_equals_numpy(name: str, compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On this machine, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    if not shutil.which(compiler):
        skip_or_fail(f"{compiler} not found; `make tools` installs it")
    monkeypatch.setenv("CC", compiler)
    order = kernels.write_program(tmp_path, batch(name))
    program = toolchain.build_host(
        [tmp_path / "kernels.c", *kernels.sources(TABLE[name])],
        tmp_path / "kernels",
        includes=[data_dir("runtime_c")],
        sanitize=True,
        opt="-O1",
    )
    run = toolchain.run_host(program, cwd=tmp_path)
    assert run.exit_code == 0, run.output
    for title, expected, result in kernels.read_results(tmp_path, order):
        np.testing.assert_array_equal(result, expected, err_msg=title)


@pytest.mark.qemu
@pytest.mark.parametrize("board", ["mps2-an500", "mps2-an386", "mps2-an505"])
@pytest.mark.parametrize("name", TABLE)
def test_c_equals_numpy_on_cortex_m(name: str, board: str, tmp_path: Path) -> None:
    target = load_board(board)
    order = kernels.write_program(tmp_path, batch(name))
    image = toolchain.build_firmware(
        [tmp_path / "kernels.c", *kernels.sources(TABLE[name])],
        target,
        tmp_path / "kernels.elf",
        includes=[data_dir("runtime_c")],
    )
    run = toolchain.run_qemu(image.elf, target, cwd=tmp_path)
    assert run.exit_code == 0, run.output
    for title, expected, result in kernels.read_results(tmp_path, order):
        np.testing.assert_array_equal(result, expected, err_msg=title)

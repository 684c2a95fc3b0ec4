"""Every operator of the table on every one of its cases: its stated error against floats, and the C against numpy."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from slm2c import process, toolchain
from slm2c.board import load_board
from slm2c.fixedpoint import INT_RANGE
from slm2c.ops import TABLE
from slm2c.resources import data_dir
from tests import kernels
from tests.conftest import skip_or_fail

SEED = 20240229


def trials_of(*names: str) -> list[kernels.Trial]:
    """All trials of all cases of these operators."""
    rng = np.random.default_rng(SEED)
    return [
        trial
        for name in names
        for case in TABLE[name].cases(np.random.default_rng(SEED))
        for variant in kernels.variants(TABLE[name], case)
        for trial in kernels.trials(variant, rng)
    ]


def check_c(folder: Path, trials: list[kernels.Trial], run: Callable[[list[Path]], process.RunResult]) -> None:
    """Build and run the trials in C, by a function of the sources, and compare every result bit for bit."""
    order = kernels.write_program(folder, trials)
    used = {trial.variant.op.name: trial.variant.op for trial in trials}
    sources = [folder / "kernels.c", *(path for op in used.values() for path in kernels.sources(op))]
    result = run(sources)
    assert result.exit_code == 0, result.output
    for title, expected, actual in kernels.read_results(folder, order):
        np.testing.assert_array_equal(actual, expected, err_msg=title)


def run_sanitized(folder: Path) -> Callable[[list[Path]], process.RunResult]:
    """On this machine, under AddressSanitizer and UndefinedBehaviorSanitizer."""

    def run(sources: list[Path]) -> process.RunResult:
        includes = [data_dir("runtime_c")]
        program = toolchain.build_host(sources, folder / "kernels", includes=includes, sanitize=True, opt="-O1")
        return toolchain.run_host(program, cwd=folder)

    return run


@pytest.mark.parametrize("name", TABLE)
def test_integers_stay_within_the_stated_error(name: str) -> None:
    for trial in trials_of(name):
        low, high = INT_RANGE[trial.variant.output.dtype]
        real, bound = trial.reference()
        excess = np.abs(trial.expected - np.clip(real, low, high)) - bound
        assert (excess <= 0).all(), f"{trial.variant.title}, {trial.title}: {excess.max()} LSB over the bound"


@pytest.mark.parametrize("name", TABLE)
def test_c_equals_numpy(name: str, tmp_path: Path) -> None:
    check_c(tmp_path, trials_of(name), run_sanitized(tmp_path))


@pytest.mark.parametrize("name", sorted(set(TABLE) - {"linear", "conv2d"}))
def test_scales_that_do_not_fit_each_other_saturate(name: str, tmp_path: Path) -> None:
    """As after a calibration on other data: every multiplier, shift and sum must still fit.

    linear and conv2d refuse outputs that a single step of their sums would saturate.
    """
    rng = np.random.default_rng(SEED)
    cases = [case for case in TABLE[name].cases(rng) if all(t.size < 5000 for t in case.tensors.values())]
    trials = [
        next(iter(kernels.trials(variant, rng)))
        for _ in range(5)
        for case in cases
        for variant in kernels.variants(TABLE[name], case, lambda: 10 ** rng.uniform(-7, 7))
    ]
    check_c(tmp_path, trials, run_sanitized(tmp_path))


def test_c_equals_numpy_with_clang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("clang"):
        skip_or_fail("clang not found; `make tools` installs it")
    monkeypatch.setenv("CC", "clang")
    check_c(tmp_path, trials_of(*TABLE), run_sanitized(tmp_path))


@pytest.mark.qemu
@pytest.mark.parametrize(
    "name", ["mps2-an500", *(pytest.param(x, marks=pytest.mark.slow) for x in ("mps2-an386", "mps2-an505"))]
)
def test_c_equals_numpy_on_cortex_m(name: str, tmp_path: Path) -> None:
    board = load_board(name)

    def run(sources: list[Path]) -> process.RunResult:
        image = toolchain.build_firmware(sources, board, tmp_path / "kernels.elf", includes=[data_dir("runtime_c")])
        return toolchain.run_qemu(image.elf, board, cwd=tmp_path)

    check_c(tmp_path, trials_of(*TABLE), run)

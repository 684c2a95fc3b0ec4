"""The package as its users get it: the wheel, and the commands that the documents name."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import slm2c
from slm2c.resources import DataName, data_dir

ROOT = Path(__file__).resolve().parent.parent


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    done = subprocess.run(command, cwd=cwd, env={**os.environ, **env}, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".pyc"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel was installed, without its dependencies."""
    tmp = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp, cwd=ROOT)
    (wheel,) = tmp.glob(f"slm2c-{slm2c.__version__}-*.whl")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-compile", "--no-index"]
    run(*pip, "--target", tmp / "site", wheel, cwd=tmp)
    return tmp / "site"


def python(installed: Path, *args: str, cwd: Path) -> str:
    """Python's output, with the installed package before the checkout on its path."""
    return run(sys.executable, *args, cwd=cwd, PYTHONPATH=str(installed))


@pytest.mark.parametrize("name", get_args(DataName))
def test_data_dir(name: DataName, installed: Path, tmp_path: Path) -> None:
    assert data_dir(name) == ROOT / name
    code = f"from slm2c.resources import data_dir; print(data_dir({name!r}))"
    packed = Path(python(installed, "-c", code, cwd=tmp_path).strip())
    assert packed == installed / "slm2c" / "_data" / name
    assert files(packed) == files(ROOT / name) != set()


def test_data_dir_names_what_is_missing() -> None:
    with pytest.raises(AssertionError, match="nonesuch is missing"):
        data_dir("nonesuch")  # type: ignore[arg-type]


def test_wheel_holds_the_package_only(installed: Path) -> None:
    assert {p.name for p in installed.iterdir()} == {"bin", "slm2c", f"slm2c-{slm2c.__version__}.dist-info"}
    shipped = {name for name in files(installed / "slm2c") if not name.startswith("_data/")}
    assert shipped == files(ROOT / "slm2c")


@pytest.mark.parametrize("command", ["-m slm2c", "bin/slm2c"])
def test_installed_command_runs_from_any_folder(command: str, installed: Path, tmp_path: Path) -> None:
    words = command.replace("bin/", f"{installed}/bin/").split()
    assert "Usage:" in python(installed, *words, "--help", cwd=tmp_path)


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):.*?## ", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_make_lists_its_targets() -> None:
    printed = run("make", "--no-print-directory", cwd=ROOT)
    assert set(re.findall(r"^  make ([a-z-]+) ", printed, re.MULTILINE)) == targets() >= {"demo", "test", "check"}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_documents_name_targets_and_files_that_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    named = set(re.findall(r"^(?:\$ )?make ([a-z][a-z-]*)|`make ([a-z][a-z-]*)`", text, re.MULTILINE))
    assert {a or b for a, b in named} <= targets()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_ci_runs_what_the_readme_names() -> None:
    stages = re.search(r"^for target in ([a-z -]+);", (ROOT / ".ci/run").read_text(), re.MULTILINE)
    assert stages
    named = set(re.findall(r"^make ([a-z][a-z-]*)", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named <= set(stages[1].split())

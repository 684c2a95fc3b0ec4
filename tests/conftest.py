"""Fixtures and markers that the tests share."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy: its threads fight over small products

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.images import Images

# No deadline: machines are shared. In CI the same examples every time.
settings.register_profile("slm2c", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("slm2c")


def skip_or_fail(reason: str) -> None:
    """Skip for want of a tool; in CI, where all tools have to be, fail."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


TOOLS = {
    "qemu": ("arm-none-eabi-gcc", "qemu-system-arm"),
    "riscv": ("riscv64-unknown-elf-gcc", "qemu-system-riscv32"),
    "browser": ("chromium",),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    needed = [tool for mark, tools in TOOLS.items() if item.get_closest_marker(mark) for tool in tools]
    missing = [tool for tool in needed if not shutil.which(tool)]
    if missing:
        skip_or_fail(f"{' and '.join(missing)} not found; `make tools` installs them")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder `shared` beside the repository, with sample models and data."""
    path = Path(__file__).resolve().parents[2] / "shared"
    if not path.is_dir():
        pytest.skip("../shared, the folder of sample models and data, is absent")
    return path


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> "Images":
    """Firmware of small models, built once for each board."""
    from tests.images import Images

    if not shutil.which("make"):
        skip_or_fail("make not found; install it")
    return Images(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session")
def host_cc() -> str:
    """The path of the host's C compiler: $CC, cc, gcc or clang."""
    for name in (os.environ.get("CC"), "cc", "gcc", "clang"):
        if name and (path := shutil.which(name)):
            return path
    skip_or_fail("no C compiler found; install gcc or clang")
    raise AssertionError("unreachable")

"""Where PyTorch is absent, the modules here are skipped with the reason, and none is imported."""

from importlib.util import find_spec
from pathlib import Path

import pytest


class _Skipped(pytest.Module):
    def collect(self) -> list:
        pytest.skip("needs slm2c[distill]; `make test-distill` installs it", allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    return None if find_spec("torch") else _Skipped.from_parent(parent, path=module_path)

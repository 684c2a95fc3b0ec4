"""distill: from a teacher and a CSV file of sentences to a student that `slm2c build` takes.

    read -> tune teachers -> cut vocabulary -> label the pool -> train the student -> finish in integers -> export

`recipe` and `data` are plain Python; everything else needs the extra slm2c[distill], and is imported when it runs.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

from slm2c.errors import CompileError, Problem

# Threads that wait must sleep: on a machine with other work, spinning made a step seven times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_NEEDED = ("torch", "transformers", "tokenizers")


def require_extra() -> None:
    """Raises CompileError naming what is not installed."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        fact = f"training needs {', '.join(missing)}, which slm2c alone does not install"
        remedy = "run: pip install 'slm2c[distill]' (install PyTorch's CPU build first to spare gigabytes)"
        raise CompileError(Problem("", "", fact, remedy))

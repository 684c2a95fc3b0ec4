"""peers: the encoder layers of a model with CMSIS-NN, so that our instructions can be held against the best known.

CMSIS_NN_DIR names a checkout of CMSIS-NN that its user has built with its own CMake for the Cortex-M7. Nothing of it
is here: templates/bench_cmsis_nn.c.j2 includes its headers and is linked with its library. Of the functions that can
compute a part, the one with the fewest instructions counts, at each token count anew.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from slm2c import process, toolchain
from slm2c.bench.measure import render
from slm2c.bench.results import Peer
from slm2c.board import Board
from slm2c.errors import CompileError, Problem

NAME = "CMSIS-NN"
VARIABLE = "CMSIS_NN_DIR"

_LIBRARY = "libcmsis-nn.a"
_BUILD = "build it for the Cortex-M7 with its own CMake: -mcpu=cortex-m7 -mthumb -mfloat-abi=hard -mfpu=fpv5-d16"


@dataclass(frozen=True)
class Layers:
    """Sizes of a model's encoder layers, and how many there are."""

    model: str
    layers: int
    hidden: int
    heads: int
    ffn: int


def measure(folder: Path, layers: Layers, board: Board, tokens: Sequence[int], work: Path) -> list[Peer]:
    """The parts of the layers at each token count, each with the function that needs the fewest instructions.

    Raises CompileError if `folder` holds no CMSIS-NN that can be linked for `board` and run, or without cross
    compiler or QEMU.
    """
    library = _library(folder)
    version = _version(folder, library)
    program = work / "cmsis_nn.c"
    facts = {"hidden": layers.hidden, "heads": layers.heads, "ffn": layers.ffn, "tokens": list(tokens)}
    program.write_text(render("bench_cmsis_nn.c.j2", **facts), encoding="utf-8")
    # No errno: a square root is one instruction.
    extra = ["-fno-math-errno", "-isystem", str(folder / "Include"), "-Xlinker", str(library)]
    try:
        image = toolchain.build_firmware([program], board, work / "cmsis_nn.elf", extra=extra)
        result = toolchain.run_qemu(image.elf, board, timeout=600)
    except process.ToolError as error:
        said = re.search(r"error: (.*)|undefined reference.*", error.output)
        fact = f"cannot be used for {board.name}: {said[0] if said else error}"
        raise CompileError(Problem(str(library), "", fact, _BUILD)) from error
    if result.exit_code != 0:
        last = (result.output.splitlines() or [""])[-1]
        raise CompileError(Problem(str(library), "", f"ended on {board.name} with: {last}", _BUILD))
    found: dict[tuple[int, str], tuple[int, str]] = {}
    for n, part, function, count in (line.split() for line in result.output.splitlines()):
        key, candidate = (int(n), part), (int(count), function)
        found[key] = min(found.get(key, candidate), candidate)
    return [
        Peer(NAME, version, board.name, layers.model, n, part, function, *_work(layers, part, n), count)
        for (n, part), (count, function) in found.items()
    ]


def _work(layers: Layers, part: str, n: int) -> tuple[int, int]:
    """How many calls of a part the layers need, and the multiply-accumulates of one."""
    h, f = layers.hidden, layers.ffn
    calls: Mapping[str, tuple[int, int]] = {
        "projection": (4, n * h * h),
        "up": (1, n * h * f),
        "down": (1, n * f * h),
        "scores": (1, n * n * h),
        "context": (1, n * n * h),
        "residual": (2, 0),
        "LayerNorm": (2, 0),
    }
    times, macs = calls.get(part, (1, 0))
    return times * layers.layers, macs


def _library(folder: Path) -> Path:
    if not (folder / "Include" / "arm_nnfunctions.h").is_file():
        fact = "is no checkout of CMSIS-NN: no Include/arm_nnfunctions.h"
        raise CompileError(Problem(str(folder), "", fact, f"set {VARIABLE} to one, or leave it out"))
    found = sorted(folder.rglob(_LIBRARY))
    if len(found) != 1:
        fact = f"holds {len(found)} files {_LIBRARY}" if found else f"holds no {_LIBRARY}"
        raise CompileError(Problem(str(folder), "", fact, "leave one of them" if found else _BUILD))
    return found[0]


def _version(folder: Path, library: Path) -> str:
    """The tag or commit that is checked out, and what CMake noted that it was compiled with, as far as is known."""
    git = ["git", "-C", str(folder), "describe", "--tags", "--always"]
    version = "a copy of unknown version"
    if (folder / ".git").exists():
        version = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or version
    cache = library.with_name("CMakeCache.txt")
    text = cache.read_text(encoding="utf-8") if cache.is_file() else ""
    names = "CMAKE_C_FLAGS", "CMSIS_OPTIMIZATION_LEVEL"
    found = [re.search(rf"^{name}:\w+=(.+)$", text, re.MULTILINE) for name in names]
    flags = " ".join(match[1] for match in found if match)
    return f"{version}, compiled with {flags}" if flags else version

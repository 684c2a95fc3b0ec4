"""lower: the integer graph as kernel calls, memory plan, C and blob: what decides how many bytes a model takes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from slm2c import memory
from slm2c.board import Board
from slm2c.calibrate import Observed
from slm2c.emit import Emitted, Texts, emit
from slm2c.ir import Graph
from slm2c.memory import MemoryPlan
from slm2c.ops.base import Target
from slm2c.passes import Fused
from slm2c.quantize import quantize
from slm2c.schedule import Program, schedule


@dataclass(frozen=True)
class Lowered:
    """What becomes of an integer graph: kernel calls, their memory, and the model's files."""

    program: Program
    plan: MemoryPlan
    emitted: Emitted


def target_of(board: Board) -> Target:
    """What the board's core offers to kernels."""
    return Target(dsp=board.features.dsp)


def lower(graph: Graph, fused: Fused, texts: Texts, name: str, target: Target) -> Lowered:
    """The integer graph of `fused` as calls, plan and files."""
    program = schedule(graph, target)
    plan = memory.plan(program.buffers)
    memory.check(program.buffers, plan)
    return Lowered(program, plan, emit(program, plan, fused.interface, texts, name, bool(fused.fixed_by)))


def sketch(fused: Fused, texts: Texts, name: str, target: Target) -> Lowered:
    """As `lower`, without calibration: of the size that a build has, save for tensors that calibration makes int16."""
    spread = np.linspace(-1, 1, 64, dtype=np.float32)
    assumed = {x: Observed(-1.0, 1.0, spread, 0.5) for x in fused.graph.tensors if x not in fused.graph.consts}
    return lower(quantize(fused.graph, assumed, "minmax").graph, fused, texts, name, target)

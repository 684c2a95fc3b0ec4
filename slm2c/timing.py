"""timing: instructions of a run at the lengths that matter, and how long they take at least, estimated."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slm2c import costs
from slm2c.compile import Compiled
from slm2c.measure import Emulated

CYCLES_PER_INSTRUCTION: Mapping[str, float] = {
    "cortex-m4": 1.01,
    "cortex-m7": 0.78,
    "cortex-m33": 1.01,
}
"""What llvm-mca 22 makes of the instructions that homecmd executes at 9 to 32 tokens: LLVM's in-order models of the
cores, each straight run of instructions in its steady state. They know no cache, no wait state of a flash and no
mispredicted branch, so that a board takes longer. tests/test_timing.py repeats it for each of them."""


@dataclass(frozen=True)
class Length:
    """A number of tokens; `what` says why it is looked at: "minimum", "median" (of the calibration data), "maximum", or
    "a run" of a model that takes no tokens, which has 0.
    """

    what: str
    tokens: int

    @property
    def rows(self) -> int:
        """Of the run: 1 where there are no tokens."""
        return max(1, self.tokens)


def lengths(compiled: Compiled) -> tuple[Length, ...]:
    """One token, the median of the calibration data where there are some, the maximum; those that differ, ascending."""
    interface = compiled.fused.interface
    if interface is None:
        return (Length("a run", 0),)
    longest = interface.max_tokens
    found = {longest: "maximum"}
    if not compiled.fused.fixed_by:
        if compiled.calibration is not None:
            counts = [len(sample[interface.lookups[0]]) for sample in compiled.samples]
            found.setdefault(statistics.median_low(counts), "median")
        found.setdefault(1, "minimum")
    return tuple(Length(what, tokens) for tokens, what in sorted(found.items()))


def microseconds(instructions: int, cpu: str, clock_hz: int) -> int | None:
    """Estimated time of so many instructions, at least; None for a core without a model."""
    ratio = CYCLES_PER_INSTRUCTION.get(cpu)
    return None if ratio is None else round(1e6 * instructions * ratio / clock_hz)


def cost(compiled: Compiled, emulated: Emulated | None) -> dict[str, Any]:
    """The part `cost` of report.json: at each length the expected instructions, what was counted in QEMU if anything
    was, the time by the better of both, and bytes of weights read.
    """
    board, program, rows = compiled.board, compiled.lowered.program, []
    for length in lengths(compiled):
        expected = costs.instructions(program, length.rows)
        counted = None if emulated is None else emulated.instructions(length.rows)
        rows.append(
            {
                "what": length.what,
                "tokens": length.tokens or None,
                "instructions": expected,
                "measured_instructions": counted,
                "microseconds": microseconds(counted or expected, board.cpu, board.clock_hz),
                "weight_bytes_read": costs.weight_bytes(program, length.rows),
            }
        )
    return {
        "cpu": board.cpu,
        "clock_hz": board.clock_hz,
        "cycles_per_instruction": CYCLES_PER_INSTRUCTION.get(board.cpu),
        "lengths": rows,
    }

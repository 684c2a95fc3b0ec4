"""The one exception that reports a user's mistake, and what it says about it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One reason why something cannot be compiled: where it is, what it is, and what helps.

    `node` is the ONNX node's or tensor's name ("" for the file as a whole), `op` its ONNX operator type ("" if none),
    `reason` the fact that was found, `remedy` what the user can do about it.
    """

    node: str
    op: str
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        where = (
            f"{self.op} '{printable(self.node)}'"
            if self.op and self.node
            else self.op or (f"'{printable(self.node)}'" if self.node else "")
        )
        text = f"{where}: {self.reason}" if where else self.reason
        return printable(f"{text}; {self.remedy}" if self.remedy else text)


class CompileError(Exception):
    """The input cannot be compiled; carries every problem that was found, not only the first."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: tuple[Problem, ...] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        assert self.problems, "a CompileError needs at least one problem"
        super().__init__("\n".join(str(p) for p in self.problems))

    def to_json(self) -> dict[str, object]:
        """The form that `--json` prints: {"message": ..., "nodes": [{"node", "op", "reason", "remedy"}]}."""
        return {
            "message": str(self),
            "nodes": [
                {"node": printable(p.node), "op": p.op, "reason": p.reason, "remedy": p.remedy} for p in self.problems
            ],
        }


def printable(text: str) -> str:
    """`text` with control characters escaped, so that names from a file cannot drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

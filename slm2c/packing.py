"""Packs buffers of known size and life into one arena, as low as possible ("dynamic storage allocation", NP-hard).

First fit over a few orders comes first; it is optimal on encoder graphs. Where it leaves a gap to the lower bound,
a depth-first search looks for a packing under a given height. From MiniMalloc (Moffitt, ASPLOS 2023, doi
10.1145/3623278.3624752) it takes three ideas:

* only canonical packings matter: nothing can slide down, so that an offset is 0 or the top of a buffer beneath;
* time falls into sections between which the set of live buffers does not change; a section whose floor and
  unplaced bytes together exceed the capacity refutes the partial packing;
* where no unplaced buffer crosses a point in time, both sides are independent problems.

The branching is our own. Of an unplaced buffer, either no unplaced neighbour (a buffer whose life overlaps) will lie
beneath it: then it belongs on its `bottom`, the top of what is placed there. Or one will: then it is *lifted*, and
its offset is at least the lowest top that an unplaced neighbour can have. The two cases exclude each other and cover
every canonical packing, so the order of the decisions is free, and a lifted buffer raises the floors of its sections
long before it is placed. The eleven problems of MiniMalloc's benchmark take 23,000 steps in all; MiniMalloc's search,
which places buffers by rising offset (reimplemented, with its three orders in turn), took 510,000.

The search runs in turns, each of which gives up in time. Which buffer comes next decides between a thousand steps and
never, and no rule is best: four rules take turns. Everything is counted in steps, never in seconds: the same input
gives the same packing on every machine.
"""

from __future__ import annotations

import math
import random
from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
Bools: TypeAlias = NDArray[np.bool_]

FAR = 1 << 48  # stands for "no bound"; beyond every offset, and far from overflow when sizes are added

# Among the candidates for the next step: least bottom first, then these keys, see `_Problem.keys` and `_Search.choose`.
# Each rule alone fails on some problems that another solves at once; these four share the work.
RULES = (("pressure", "life", "area"), ("load", "block"), ("load", "span"), ("block", "load"))

# Dead ends that a turn puts up with, and the factor by which that grows when all rules had their turn.
TIGHT = (350, 4.0)  # a quarter of the effort: the height that is wanted or nothing
LOOSE = (16, 1.5)  # the rest: any height below the best, reached from the one that is wanted
RISES = 16  # of the capacity from there to the best height so far
NOISE = 0.03  # in loose turns from the second round on, how often a rule's second choice is taken, not its first
MAX_NESTING = 100  # splits within splits; a deeper search is given up, which costs optimality, not correctness


@dataclass(frozen=True)
class Packing:
    """Offsets in the order of the input, and the height they need (bytes).

    `proved`: no packing is lower. `steps`: decisions the search took; 0 if first fit was good enough.
    """

    offsets: tuple[int, ...]
    height: int
    proved: bool
    steps: int


def pack(
    lives: Sequence[tuple[int, int]], sizes: Sequence[int], alignments: Sequence[int], *, enough: int, effort: int
) -> Packing:
    """Offsets for buffers with `lives` (first, last step; inclusive), `sizes` > 0 and `alignments` (powers of two).

    Stops at a height of `enough` bytes, which must be no less than what the live buffers of some step add up to, or
    after `effort` steps of search.
    """
    unit = math.gcd(*sizes)
    if any(unit % a for a in alignments):
        unit = min(alignments)  # offsets are multiples of it anyway, so sizes may be rounded up to it
    size = np.array([-(-s // unit) for s in sizes], np.int64)
    align = np.array([max(a // unit, 1) for a in alignments], np.int64)
    first, last = np.array(lives, np.int64).reshape(-1, 2).T
    target = enough // unit
    offsets = np.zeros(len(sizes), np.int64)
    height, steps, proved = 0, 0, False
    components = _components(first, last)
    for rest, ids in zip(range(len(components), 0, -1), components, strict=True):
        part = _problem(np.arange(len(ids)), first[ids], last[ids], size[ids], align[ids])
        found, minimal, used = _pack_component(part, max(target, height), (effort - steps) // rest)
        offsets[ids] = found
        steps += used
        top = int((found + part.size).max())
        if top > max(target, height):  # this component alone decides how low the whole can be
            proved = minimal
        height = max(height, top)
    return Packing(tuple(int(o) * unit for o in offsets), height * unit, proved, steps)


def _components(first: Ints, last: Ints) -> list[Ints]:
    """Groups of buffers that share no step with another group, in order of time."""
    order = np.argsort(first, kind="stable")
    reach = np.maximum.accumulate(last[order])
    breaks = np.flatnonzero(first[order][1:] > reach[:-1]) + 1
    return np.split(order, breaks)


def _pack_component(part: _Problem, enough: int, effort: int) -> tuple[Ints, bool, int]:
    """(offsets, whether no lower height than theirs exists, steps used)."""
    best, height = min((_first_fit(part, key) for key in ("size", "life", "area", "pressure")), key=lambda x: x[1])
    refuted = enough - 1  # the greatest height that is known not to do
    steps, tight_turns, loose_turns = 0, count(), count()
    while refuted + 1 < height and steps < effort:
        if steps < effort // 4:
            goal = enough if refuted < enough else height - 1
            search = _Search(goal, goal, TIGHT, next(tight_turns))
        else:
            search = _Search(refuted + 1, height - 1, LOOSE, next(loose_turns))
        fits = search.run(part, effort - steps)
        steps += search.steps
        if fits:
            best, height = search.offsets, int((search.offsets + part.size).max())
        elif fits is False:
            refuted = search.capacity
    return best, refuted + 1 >= height, steps


# ---- first fit ---------------------------------------------------------------------------------------------------


def _first_fit(part: _Problem, order_by: str) -> tuple[Ints, int]:
    """(offsets, height) when each buffer, the greatest `order_by` first, takes the lowest gap that holds it."""
    start, end, size, align = (x.tolist() for x in (part.start, part.end, part.size, part.align))
    offsets = np.zeros(len(size), np.int64)
    placed: list[tuple[int, int, int, int]] = []  # (offset, top, start, end), lowest first
    height = 0
    for j in np.argsort(part.keys[order_by], kind="stable").tolist():
        offset = 0
        for low, top, other_start, other_end in placed:
            if other_start < end[j] and start[j] < other_end:
                if offset + size[j] <= low:
                    break
                offset = max(offset, -(-top // align[j]) * align[j])
        insort(placed, (offset, offset + size[j], start[j], end[j]))
        offsets[j] = offset
        height = max(height, offset + size[j])
    return offsets, height


# ---- search ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Problem:
    """Buffers to place, n of them, and the sections (columns of equal liveness) that they span, s of them."""

    ids: Ints  # [n] index of each buffer in the caller's numbering
    start: Ints  # [n] first section
    end: Ints  # [n] first section after the life
    life: Ints  # [n] steps
    size: Ints  # [n] units
    align: Ints  # [n] units, powers of two
    touch: Bools  # [n, n] lives overlap; False on the diagonal
    members: Ints  # the buffers of section 0, then those of section 1, ...
    heads: Ints  # [s] where each section begins in `members`
    spans: Ints  # [2n] start, end of each buffer in turn, for `reduceat`
    load: Ints  # [s + 1] bytes in each section; the last is 0 and pads `reduceat`
    cuts: Ints  # [s - 1] buffers that live across the border to the next section
    twin: Ints  # [n] an earlier buffer of the same life, size and alignment, or -1
    keys: dict[str, Ints]  # [n] each: what first fit and the rules order by, least first


def _problem(ids: Ints, first: Ints, last: Ints, size: Ints, align: Ints, life: Ints | None = None) -> _Problem:
    # Sections that begin where a buffer's life begins are enough: the load rises nowhere else.
    begins = np.unique(first)
    start = np.searchsorted(begins, first)
    end = np.searchsorted(begins, last, side="right")
    life = last - first + 1 if life is None else life
    span = end - start
    column = np.arange(len(begins))
    alive = (start <= column[:, None]) & (column[:, None] < end)  # [s, n]
    section, members = np.nonzero(alive)
    load = np.append(alive @ size, 0)
    spans = np.stack([start, end], axis=1).ravel()
    touch = (start[:, None] < end) & (start < end[:, None])
    np.fill_diagonal(touch, False)
    twin, seen = np.full(len(ids), -1, np.int64), dict[tuple[int, ...], int]()
    for j, shape in enumerate(zip(start.tolist(), end.tolist(), size.tolist(), align.tolist(), strict=True)):
        twin[j], seen[shape] = seen.get(shape, -1), j
    keys = {
        "size": -size,
        "life": -life,
        "area": -life * size,
        "span": -span,
        "block": -span * size,
        "pressure": -_over_life(np.maximum, load, spans),
    }
    return _Problem(
        ids,
        start,
        end,
        life,
        size,
        align,
        touch,
        members,
        np.searchsorted(section, column),
        spans,
        load,
        (alive[:-1] & alive[1:]).sum(axis=1),
        twin,
        keys,
    )


def _over_life(reduce: np.ufunc, per_section: Ints, spans: Ints) -> Ints:
    """[n]: `reduce` of per_section [s + 1] over the sections of each buffer."""
    return reduce.reduceat(per_section, spans)[::2]


class _State(NamedTuple):
    """A partial packing. Never changed in place: siblings share the arrays."""

    bottom: Ints  # [n] lowest offset on top of what is placed beneath
    bound: Ints  # [n] no offset can be lower; FAR once the buffer is placed
    lifted: Bools  # [n] an unplaced neighbour will lie beneath
    load: Ints  # [s + 1] and
    cuts: Ints  # [s - 1]: as in _Problem, of the unplaced buffers


class _GaveUp(Exception):
    pass


class _Search:
    """One depth-first search for a packing no higher than `capacity`.

    After so many dead ends that the turn's patience is at an end, it raises the capacity and goes on where it is; at
    `most` it gives up. Searching under a capacity that is a little too tight, and giving way where it must, beats
    searching under one that is loose from the start: bounds that bind early steer well.
    """

    def __init__(self, capacity: int, most: int, patience: tuple[int, float], turn: int) -> None:
        self.capacity, self.most = capacity, most
        self.rise = max(1, (most - capacity) // RISES)
        self.patience = int(patience[0] * patience[1] ** min(turn // len(RULES), 30))
        self.rule = RULES[turn % len(RULES)]
        self.noise = NOISE if capacity < most and turn >= len(RULES) else 0.0
        self.random = random.Random(turn)
        self.steps = self.dead_ends = 0

    def run(self, part: _Problem, limit: int) -> bool | None:
        """Whether a packing exists, which is then in `self.offsets`; None if that is still open after `limit` steps."""
        self.limit, start = limit, self.capacity
        n = len(part.size)
        self.offsets = np.zeros(n, np.int64)
        ground = np.zeros(n, np.int64)
        root = _State(ground, ground, np.zeros(n, np.bool_), part.load, part.cuts)
        try:
            fits = self.solve(part, root, nesting=0)
        except _GaveUp:
            return None
        if fits:
            return True
        return False if self.capacity == start else None  # branches cut off before a rise were not refuted

    def solve(self, p: _Problem, root: _State, nesting: int) -> bool:
        """Whether the buffers that `root` leaves unplaced can be placed."""
        if nesting > MAX_NESTING:
            raise _GaveUp
        stack = [root]
        while stack:
            state = self.tighten(p, stack.pop())
            if state is None:
                self.dead_end()
                continue
            unplaced = (state.bound < FAR).nonzero()[0]
            if not unplaced.size:
                return True
            island = (state.cuts == 0).nonzero()[0].searchsorted(p.start[unplaced])
            if (island != island[0]).any():
                groups = (unplaced[island == i] for i in np.unique(island))
                if all(self.solve(*_restrict(p, state, ids), nesting + 1) for ids in groups):
                    return True
                continue
            j = self.choose(p, state)
            if j is None:
                self.dead_end()
                continue
            if self.steps == self.limit:
                raise _GaveUp
            self.steps += 1
            self.offsets[p.ids[j]] = state.bottom[j]  # a later branch may overwrite it
            stack += [_lift(state, j), _place(p, state, j)]
        return False

    def dead_end(self) -> None:
        """Count it, and when patience is at an end, raise the capacity or give up."""
        self.dead_ends += 1
        if self.dead_ends % self.patience == 0:
            if self.capacity == self.most:
                raise _GaveUp
            self.capacity = min(self.most, self.capacity + self.rise)

    def tighten(self, p: _Problem, state: _State) -> _State | None:
        """`state` with higher bounds, or None if a section cannot hold what is left."""
        bound = np.maximum(state.bound, state.bottom)
        lifted = state.lifted.nonzero()[0]
        if lifted.size:
            tops = np.where(p.touch[lifted], bound + p.size, FAR)
            bound[lifted] = np.maximum(bound[lifted], _round_up(tops.min(axis=1), p.align[lifted]))
        floor = np.minimum.reduceat(bound[p.members], p.heads)
        load = state.load[:-1]
        if ((floor + load > self.capacity) & (load > 0)).any():
            return None
        return state._replace(bound=bound)

    def choose(self, p: _Problem, state: _State) -> int | None:
        """The buffer to place on its bottom, or else to lift; None if nothing can come next."""
        above = _over_life(np.maximum, state.load, p.spans)  # it, and what must then lie above it
        placed = state.bound >= FAR
        able = ~(placed | state.lifted) & (state.bottom + above <= self.capacity) & ((p.twin < 0) | placed[p.twin])
        candidates = able.nonzero()[0]
        if not candidates.size:
            return None
        keys = {"bottom": state.bottom, "load": -above, **p.keys}
        best = self.first(candidates, keys)
        if self.noise and candidates.size > 1 and self.random.random() < self.noise:
            best = self.first(candidates[candidates != best], keys)
        return best

    def first(self, candidates: Ints, keys: dict[str, Ints]) -> int:
        """The candidate that the rule puts first."""
        for key in ("bottom", *self.rule):
            value = keys[key][candidates]
            candidates = candidates[value == value.min()]
            if candidates.size == 1:
                break
        return int(candidates[0])


def _place(p: _Problem, state: _State, j: int) -> _State:
    """`state` with buffer j on its bottom."""
    touch = p.touch[j]
    bottom = np.where(touch, np.maximum(state.bottom, _round_up(state.bottom[j] + p.size[j], p.align)), state.bottom)
    bound, load, cuts = state.bound.copy(), state.load.copy(), state.cuts.copy()
    bound[j] = FAR
    load[p.start[j] : p.end[j]] -= p.size[j]
    cuts[p.start[j] : p.end[j] - 1] -= 1
    return _State(bottom, bound, state.lifted & ~touch, load, cuts)


def _lift(state: _State, j: int) -> _State:
    """`state` with buffer j above a neighbour that is yet to be placed."""
    lifted = state.lifted.copy()
    lifted[j] = True
    return state._replace(lifted=lifted)


def _restrict(p: _Problem, state: _State, ids: Ints) -> tuple[_Problem, _State]:
    """The problem of the unplaced buffers `ids` alone, which share no section with the others."""
    q = _problem(p.ids[ids], p.start[ids], p.end[ids] - 1, p.size[ids], p.align[ids], p.life[ids])
    return q, _State(state.bottom[ids], state.bound[ids], state.lifted[ids], q.load, q.cuts)


def _round_up(x: Ints, alignment: Ints) -> Ints:
    return (x + alignment - 1) & -alignment

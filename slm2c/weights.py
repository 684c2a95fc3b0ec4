"""weights: the blob's section of weights, which has the layout of a C struct: a group for each node that has any.

What two nodes share is stored once, with the first that reads it.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from slm2c import blob, runtime
from slm2c.identifiers import comment_text
from slm2c.ir import Array, Graph
from slm2c.ops import TABLE
from slm2c.ops.base import KernelCall

_STRUCTS = {"layout": "slm_layout"}
"""C structs of int32_t fields that constants with this suffix are; a params constant is <kernel>_params."""

_SHARED = 64
"""Bytes from which on equal constants are looked for: sharing small ones would only make the C harder to read."""


@dataclass(frozen=True)
class Member:
    """A constant in the weights struct: member `member` of C type `ctype`, an array of `count` unless it is a
    struct.
    """

    member: str
    ctype: str
    count: int
    data: bytes


@dataclass(frozen=True)
class Group:
    """The constants of a node, from byte `offset` of the section on; `comment` is fit for C."""

    name: str
    comment: str
    members: tuple[Member, ...]
    offset: int

    @property
    def data(self) -> bytes:
        """Every member padded to the blob's alignment."""
        return b"".join(m.data.ljust(blob.pad(len(m.data)), b"\0") for m in self.members)


@dataclass(frozen=True)
class Weights:
    """The section: `groups` in order, the C expression of each constant, and the bytes of each node's group by the
    node's output.
    """

    groups: tuple[Group, ...]
    expressions: Mapping[str, str]
    by_output: Mapping[str, int]

    @property
    def data(self) -> bytes:
        """The bytes of the section."""
        return b"".join(group.data for group in self.groups)


def lay_out(graph: Graph, calls: Sequence[KernelCall], numbers: Mapping[str, int]) -> Weights:
    """Weights of an integer graph with its kernel calls; groups are called after the numbers of tensors."""
    groups = [Group("io", "", tuple(_io_members(graph)), 0)]
    expressions, by_output = dict[str, str](), dict[str, int]()
    end = len(groups[0].data)
    seen: dict[tuple[str, bytes], str] = {}
    for call in calls:
        node = call.node
        name, members = f"n{numbers[node.outputs[0]]}", list[Member]()
        for const in call.names:
            value = call.consts.get(const, graph.consts.get(const))
            if value is None or const in expressions:
                continue
            member = _member(const, value, TABLE[node.op].kernel)
            key = member.ctype, member.data
            if len(member.data) >= _SHARED and key in seen:
                expressions[const] = seen[key]
                continue
            seen[key] = expressions[const] = f"{'' if member.count else '&'}w->{name}.{member.member}"
            members.append(member)
        if members:
            groups.append(Group(name, comment_text(node.name), tuple(members), end))
            by_output[node.outputs[0]] = len(groups[-1].data)
            end += len(groups[-1].data)
    return Weights(tuple(groups), expressions, by_output)


def _io_members(graph: Graph) -> list[Member]:
    quants = [
        [graph.tensors[x].quant for x in names if graph.tensors[x].quant]
        for names in (graph.inputs, dict.fromkeys(graph.outputs))
    ]
    packed = [b"".join(struct.pack("<fi", q.scale, q.zero_point) for q in row if q) for row in quants]
    last = quants[1][0]
    assert last is not None
    score = min(round(last.scale * 2**36), 2**46)  # the difference of two int16 times this fits 64 bits
    return [
        Member(name, "slm_quant", len(row), data)
        for name, row, data in zip(("input", "output"), quants, packed, strict=True)
        if row
    ] + [Member("score_multiplier", "int64_t", 0, struct.pack("<q", score))]


def _member(const: str, value: Array, kernel: str) -> Member:
    suffix = re.sub(r"[^a-z0-9_]", "_", const.rsplit(".", 1)[-1])
    struct_name = _STRUCTS.get(suffix, f"{kernel}_params" if suffix == "params" else "")
    if struct_name and runtime.declares_struct(struct_name):
        return Member(suffix, struct_name, 0, value.astype("<i4").tobytes())
    little = value.astype(value.dtype.newbyteorder("<"))
    ctype = {
        "int8": "int8_t",
        "uint8": "uint8_t",
        "int16": "int16_t",
        "uint16": "uint16_t",
        "int32": "int32_t",
        "uint32": "uint32_t",
    }[value.dtype.name]
    return Member(suffix, ctype, int(np.prod(value.shape, dtype=np.int64)), little.tobytes())

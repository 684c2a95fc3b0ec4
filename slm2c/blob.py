"""The blob's format in both directions; docs/BLOB.md fixes the bits, runtime_c/slm_blob.h reads them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAGIC = b"SLM2CBLB"
FORMAT = 1
ALIGNMENT = 16
WEIGHTS, TOKENIZER, LABELS = 1, 2, 3
SECTION_NAMES: Mapping[int, str] = {WEIGHTS: "weights", TOKENIZER: "tokenizer", LABELS: "labels"}

_HEADER = struct.Struct("<8sII4II2I")  # and the CRC
_SECTION = struct.Struct("<IIII")
HEADER_BYTES = _HEADER.size + 4
assert (HEADER_BYTES, _SECTION.size) == (48, 16), "docs/BLOB.md"


@dataclass(frozen=True)
class Blob:
    """A blob taken apart: the structure hash (16 bytes), the sections by kind, and where in the blob each starts."""

    structure: bytes
    sections: Mapping[int, bytes]
    offsets: Mapping[int, int]


def pad(size: int) -> int:
    """`size` rounded up to the alignment of sections."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def pack(structure: bytes, sections: Mapping[int, bytes]) -> bytes:
    """The bytes of a blob; sections lie in the order given, each aligned, with zeros between."""
    assert len(structure) == 16, len(structure)
    offset = HEADER_BYTES + _SECTION.size * len(sections)
    table, body = b"", b""
    for kind, data in sections.items():
        padded = data.ljust(pad(len(data)), b"\0")
        table += _SECTION.pack(kind, offset + len(body), len(data), zlib.crc32(padded))
        body += padded
    header = _HEADER.pack(MAGIC, FORMAT, offset + len(body), *struct.unpack("<4I", structure), len(sections), 0, 0)
    return header + struct.pack("<I", zlib.crc32(header + table)) + table + body


def unpack(data: bytes) -> Blob:
    """Take a blob apart. Raises ValueError that names the check which failed, as slm_blob_check does."""
    if len(data) < HEADER_BYTES:
        raise ValueError("truncated")
    magic, version, total, *rest = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise ValueError("not a slm2c blob")
    if version != FORMAT:
        raise ValueError(f"format {version}, expected {FORMAT}")
    count = rest[4]
    end = HEADER_BYTES + count * _SECTION.size
    if not end <= total <= len(data) or total % ALIGNMENT:
        raise ValueError("truncated")
    (crc,) = struct.unpack_from("<I", data, _HEADER.size)
    if zlib.crc32(data[: _HEADER.size] + data[HEADER_BYTES:end]) != crc:
        raise ValueError("checksum of the header")
    sections, offsets = {}, {}
    for kind, offset, size, section_crc in _SECTION.iter_unpack(data[HEADER_BYTES:end]):
        outside = offset % ALIGNMENT or offset + size > total
        if outside or zlib.crc32(data[offset : offset + pad(size)]) != section_crc:
            raise ValueError(f"checksum of section {kind}")
        sections[kind], offsets[kind] = data[offset : offset + size], offset
    return Blob(struct.pack("<4I", *rest[:4]), sections, offsets)


def pack_labels(labels: Sequence[str]) -> bytes:
    """The labels section: uint32 count, uint32 offset of each text, texts in UTF-8 that end with 0."""
    texts = [label.encode() + b"\0" for label in labels]
    assert all(b"\0" not in text[:-1] for text in texts), "a label holds a zero byte"
    start = 4 * (1 + len(texts))
    offsets = [start + sum(map(len, texts[:i])) for i in range(len(texts))]
    return struct.pack(f"<{1 + len(texts)}I", len(texts), *offsets) + b"".join(texts)

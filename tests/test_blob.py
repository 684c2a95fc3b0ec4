"""The blob: the page that fixes it, the Python that writes it and the C that reads it say the same."""

import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from slm2c import blob
from slm2c.resources import data_dir
from slm2c.toolchain import build_host, run_host
from tests.conftest import skip_or_fail

ROOT = Path(__file__).parents[1]
STRUCTURE = bytes(range(16))

# slm_status of runtime_c/slm.h, and what slm2c.blob.unpack says.
STATUS = {"SLM_OK": 0, "SLM_ERR_BLOB_SIZE": 5, "SLM_ERR_BLOB_MAGIC": 6, "SLM_ERR_BLOB_VERSION": 7,
          "SLM_ERR_BLOB_STRUCTURE": 8, "SLM_ERR_BLOB_CHECKSUM": 9}  # fmt: skip
REASON = {"truncated": 5, "not a slm2c blob": 6, "format": 7, "checksum": 9}


def example(labels: bytes = blob.pack_labels(["on", "größe", ""])) -> bytes:
    """A blob with sections of odd sizes."""
    return blob.pack(STRUCTURE, {blob.WEIGHTS: bytes(range(33)), blob.TOKENIZER: b"", blob.LABELS: labels})


@pytest.fixture(scope="module")
def check(host_cc: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tests/c/blob_check.c, under ASan and UBSan."""
    runtime = data_dir("runtime_c")
    sources = [ROOT / "tests" / "c" / "blob_check.c", runtime / "slm_blob.c"]
    return build_host(sources, tmp_path_factory.mktemp("blob") / "check", includes=[runtime], sanitize=True)


def in_c(check: Path, blobs: Sequence[bytes], structure: bytes = STRUCTURE) -> list[tuple[int, str]]:
    """(status, labels) of each blob."""
    result = run_host(check, stdin=b"".join(struct.pack("<I", len(b)) + structure + b for b in blobs))
    assert result.exit_code == 0, result.output
    lines = [line.partition(" ") for line in result.output.splitlines()]
    assert len(lines) == len(blobs), result.output[-2000:]
    return [(int(status), labels) for status, _, labels in lines]


def in_python(data: bytes) -> int:
    """The status that the C should have, by what `unpack` says."""
    reason = ""
    try:
        blob.unpack(data)
    except ValueError as error:
        reason = str(error)
    if data[16:32] != STRUCTURE and (not reason or reason.startswith("checksum of section")):
        return STATUS["SLM_ERR_BLOB_STRUCTURE"]  # unpack reports the structure, and leaves it to the caller to judge
    return next((status for start, status in REASON.items() if reason.startswith(start)), STATUS["SLM_OK"])


def test_what_is_packed_can_be_unpacked() -> None:
    found = blob.unpack(example())
    assert found.structure == STRUCTURE
    assert found.sections[blob.WEIGHTS] == bytes(range(33))
    assert found.sections[blob.TOKENIZER] == b""
    assert list(found.sections) == [blob.WEIGHTS, blob.TOKENIZER, blob.LABELS]
    assert blob.unpack(example() + bytes(1000)) == found


def test_the_example_by_hand() -> None:
    """A blob of one section, built from the page and not with the code under test."""
    head = b"SLM2CBLB" + struct.pack("<2I", 1, 80) + STRUCTURE + struct.pack("<3I", 1, 0, 0)
    section = b"abcde" + bytes(11)
    table = struct.pack("<4I", 1, 64, 5, zlib.crc32(section))
    assert blob.pack(STRUCTURE, {1: b"abcde"}) == head + struct.pack("<I", zlib.crc32(head + table)) + table + section


def test_labels(check: Path) -> None:
    assert in_c(check, [example()]) == [(0, "on größe   ")]
    assert in_c(check, [example()], bytes(16)) == [(STATUS["SLM_ERR_BLOB_STRUCTURE"], "")]


@pytest.mark.parametrize(
    "section",
    [b"", b"\0\0", struct.pack("<I", 4), struct.pack("<2I", 0xFFFFFFFF, 8), struct.pack("<2I", 1, 8),
     struct.pack("<2I", 1, 0xFFFFFFFF) + b"a\0", struct.pack("<2I", 1, 8) + b"not ended"],
)  # fmt: skip
def test_labels_that_make_no_sense_are_empty(check: Path, section: bytes) -> None:
    assert in_c(check, [example(section)]) == [(0, "    ")]


def test_c_and_python_refuse_the_same(check: Path) -> None:
    good = example()
    blobs = [good[:size] for size in range(len(good) + 1)]
    for i in range(len(good)):
        blobs += [good[:i] + bytes([good[i] ^ 1 << bit]) + good[i + 1 :] for bit in range(8)]
    for offset in range(8, 48 + 3 * 16, 4):  # numbers at the limits, with a header checksum that is right
        for value in (0, 1, 15, 16, 48, 65, len(good) - 16, len(good) + 16, 2**28, 2**31, 2**32 - 16, 2**32 - 1):
            forged = bytearray(good)
            struct.pack_into("<I", forged, offset, value)
            table = forged[48 : 48 + 16 * struct.unpack_from("<I", forged, 32)[0]]
            struct.pack_into("<I", forged, 44, zlib.crc32(bytes(forged[:44] + table)))
            blobs.append(bytes(forged))
    rng = np.random.default_rng(0)
    blobs += [b"SLM2CBLB\1\0\0\0" + rng.bytes(int(rng.integers(200))) for _ in range(200)]
    expected = [in_python(data) for data in blobs]
    assert set(expected) == set(STATUS.values())
    for data, status, (got, _) in zip(blobs, expected, in_c(check, blobs), strict=True):
        assert got == status, data[:96].hex()


def test_no_byte_can_change_unnoticed(check: Path) -> None:
    good = example()
    damaged = [good[:i] + bytes([good[i] ^ 0x40]) + good[i + 1 :] for i in range(len(good))]
    assert [i for i, (status, _) in enumerate(in_c(check, damaged)) if status == 0] == []


def tables(page: str) -> dict[str, list[dict[str, str]]]:
    """The tables of a page of Markdown by the heading above them, rows by column."""
    found: dict[str, list[dict[str, str]]] = {}
    for part in re.split(r"^#+ ", page, flags=re.MULTILINE):
        rows = [line.strip("| ").split(" | ") for line in part.splitlines() if line.startswith("|")]
        head, *body = [[cell.strip(" `") for cell in row] for row in rows] or [[]]
        found[part.partition("\n")[0]] = [dict(zip(head, row, strict=True)) for row in body[1:]]
    return found


@pytest.fixture(scope="module")
def page() -> Mapping[str, list[dict[str, str]]]:
    """The tables of docs/BLOB.md."""
    return tables((ROOT / "docs" / "BLOB.md").read_text(encoding="utf-8"))


def test_the_page_and_the_c_agree(page: Mapping[str, list[dict[str, str]]], tmp_path: Path, host_cc: str) -> None:
    lines, expected = [], []
    for heading, struct_name in {"Header": "slm_blob_header", "Entry of the section table": "slm_blob_section"}.items():
        rows = page[heading]
        assert [int(r["offset"]) for r in rows] == [sum(int(r["bytes"]) for r in rows[:i]) for i in range(len(rows))]
        for row in rows:
            member = f"{struct_name}, {row['field']}"
            lines.append(f"P(offsetof({member})); P(sizeof((({struct_name} *)0)->{row['field']}));")
            expected += [int(row["offset"]), int(row["bytes"])]
        lines.append(f"P(sizeof({struct_name}));")
        expected.append(sum(int(r["bytes"]) for r in rows))
    for row in page["Sections"]:
        lines.append(f"P(SLM_SECTION_{row['name'].upper()});")
        expected.append(int(row["kind"]))
    main = tmp_path / "main.c"
    head = '#include "slm_blob.h"\n#include <stdio.h>\n#define P(x) printf("%lu ", (unsigned long)(x))\n'
    main.write_text(head + "int main(void)\n{\n" + "\n".join(lines) + "\nreturn 0;\n}\n", encoding="utf-8")
    exe = build_host([main], tmp_path / "main", includes=[data_dir("runtime_c")])
    assert list(map(int, run_host(exe).output.split())) == expected


def test_the_page_and_the_python_agree(page: Mapping[str, list[dict[str, str]]]) -> None:
    layout = {row["part"]: row for row in page["Layout"]}
    assert int(layout["header"]["bytes"]) == int(layout["section table"]["where"]) == blob.HEADER_BYTES
    kinds = {row["name"]: int(row["kind"]) for row in page["Sections"]}
    assert kinds == {"weights": blob.WEIGHTS, "tokenizer": blob.TOKENIZER, "labels": blob.LABELS}
    header = {row["field"]: row for row in page["Header"]}
    assert header["magic"]["meaning"].endswith(f"`{blob.MAGIC.decode()}")
    assert header["format"]["meaning"] == str(blob.FORMAT)
    statuses = {row["status"] for row in page["What init checks"]}
    assert statuses == {"SLM_ERR_NULL", "SLM_ERR_BLOB_ALIGN", *STATUS} - {"SLM_OK"}


def test_statuses_are_numbered_as_here() -> None:
    names = re.findall(r"^    (SLM_\w+)", (data_dir("runtime_c") / "slm.h").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name: number for number, name in enumerate(names) if name in STATUS} == STATUS


def test_big_endian_is_refused(tmp_path: Path) -> None:
    if not shutil.which("arm-none-eabi-gcc"):
        skip_or_fail("arm-none-eabi-gcc not found; `make tools` installs it")
    command = ["arm-none-eabi-gcc", "-mcpu=cortex-m7", "-mthumb", "-c", str(data_dir("runtime_c") / "slm_blob.c"), "-o"]
    assert subprocess.run([*command, str(tmp_path / "little.o")], timeout=60).returncode == 0
    refused = subprocess.run([*command, str(tmp_path / "big.o"), "-mbig-endian"], capture_output=True, timeout=60)
    assert refused.returncode != 0 and b"little-endian" in refused.stderr

"""flash-layout: every byte of the image is shown once in each of its places, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from slm2c import blob, cli, elf, flash_layout, image, output
from slm2c.board import load_board
from slm2c.errors import CompileError
from slm2c.flash_layout import Layout, Part
from tests.binutils import binutils, sections
from tests.boards import board_params
from tests.conftest import skip_or_fail
from tests.generated import run
from tests.images import Images


def named(found: Layout) -> dict[str, Part]:
    return {part.name: part for region in found.regions for part in region.parts if not part.load}


LAYOUTS = ("stm32f746g-disco", "rp2350-pico2", "mps3-an547", "qemu-rv32")


@pytest.mark.parametrize("name", [p for p in board_params() if p.values[0] in LAYOUTS])  # type: ignore[attr-defined]
def test_the_parts_are_those_of_the_image(name: str, images: Images) -> None:
    board = load_board(name)
    folder = images.built(board)
    path = folder / "firmware" / "build" / "text.elf"
    found = flash_layout.read(path, board, "text.elf")
    assert [(r.name, r.origin, r.bytes) for r in found.regions] == [(m.name, m.origin, m.size) for m in board.memory]
    assert {region.name: region.used for region in found.regions} == {
        region.name: sum(
            size for _, size, *places in sections(board, path) for at in {*places} if region.origin <= at < region.end
        )
        for region in board.memory
    }
    for region in found.regions:
        ends = [region.origin]
        for part in region.parts:
            assert ends[-1] <= part.address
            ends.append(part.address + part.bytes)
        assert ends[-1] <= region.origin + region.bytes
    parts, sizes = named(found), elf.elf_sizes(path)
    assert (
        parts["vectors"].bytes
        + parts["text"].bytes
        + parts["rodata"].bytes
        + (parts["hot"].bytes if board.placement.hot else 0)
        == sizes.code
    )
    assert parts["guard"].bytes + parts["stack"].bytes == board.stack_size == sizes.stack
    assert (parts["arena"].bytes, parts["blob"].bytes) == (sizes.arena, sizes.blob)
    regions = {region.name: {part.name for part in region.parts} for region in found.regions}
    assert "blob" in regions[board.placement.blob] and "stack" in regions[board.placement.stack]

    content = (folder / "text_blob.bin").read_bytes()
    pieces = {part.name: part for part in parts["blob"].parts}
    assert list(pieces) == ["header", "weights", "tokenizer", "labels"]
    for kind, data in blob.unpack(content).sections.items():
        piece = pieces[blob.SECTION_NAMES[kind]]
        offset = piece.address - parts["blob"].address
        assert content[offset : offset + piece.bytes] == data


@pytest.mark.qemu
def test_what_is_copied_at_start_is_shown_in_both_places(images: Images) -> None:
    board = load_board("stm32f746g-disco")
    path = images.built(board) / "firmware" / "build" / "text.elf"
    found = flash_layout.read(path, board, "text.elf")
    flash, itcm = found.regions[0], found.regions[2]
    (load,) = [part for part in flash.parts if part.load]
    (hot,) = itcm.parts
    assert (flash.name, itcm.name, load.name, hot.name) == ("flash", "itcm", "hot", "hot")
    assert load.bytes == hot.bytes and hot.address == 0
    with path.open("rb") as file:
        code = ELFFile(file).get_section_by_name(".slm_hot").data()
    binary = (path.parent / "text.bin").read_bytes()
    assert binary[load.address - flash.origin :][: load.bytes] == code


@pytest.mark.qemu
def test_the_command(images: Images, capsys: pytest.CaptureFixture[str]) -> None:
    folder = images.folder("stm32f767zi")
    before = sorted(folder.rglob("*"))
    assert cli.invoke(["flash-layout", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert sorted(folder.rglob("*")) == before, "it leaves nothing behind"
    for line in (
        r"text.elf on stm32f767zi",
        "flash (flash): ",
        "hot (load image)",
        "  weights",
        "0x20000100  S  stack",
    ):
        assert line in printed
    assert max(map(len, printed.splitlines())) <= 100
    bars = [line.strip() for line in printed.splitlines() if line.startswith("  [")]
    assert len(bars) == 4 and {len(bar) for bar in bars} == {66}
    assert bars[3] == "[" + "." * 64 + "]", "nothing lies in SRAM"
    assert cli.invoke(["flash-layout", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["board"] == "stm32f767zi"
    assert [region["name"] for region in facts["regions"]] == ["flash", "itcm", "dtcm", "sram"]
    assert facts["regions"][0]["parts"][0]["name"] == "vectors"


@pytest.mark.qemu
def test_an_image_of_ones_own(images: Images, tmp_path: Path) -> None:
    other = images.built("rp2350-pico2") / "firmware" / "build" / "text.elf"
    built = output.read(images.folder("rp2350-pico2"))
    assert named(flash_layout.layout(built, other))["arena"].bytes == 272
    board = output.read(images.folder("stm32f767zi"))
    with pytest.raises(CompileError, match="vectors at 0x10000000 is in no memory of stm32f767zi"):
        flash_layout.layout(board, other)
    with pytest.raises(CompileError, match=r"none\.elf': cannot be read: No such file"):
        flash_layout.layout(board, tmp_path / "none.elf")
    with pytest.raises(CompileError, match=r"text\.c': cannot be read: not an ELF file"):
        flash_layout.layout(board, images.folder("stm32f767zi") / "text.c")


@pytest.mark.qemu
def test_a_section_of_another_c_library_is_listed(images: Images, tmp_path: Path) -> None:
    board, path = load_board("stm32f767zi"), tmp_path / "other.elf"
    linked = images.built(board) / "firmware" / "build" / "text.elf"
    (tmp_path / "table").write_bytes(bytes(100))
    add = ["--add-section", f".preinit={tmp_path / 'table'}", "--set-section-flags", ".preinit=alloc,load,readonly"]
    binutils(board, "objcopy", *add, "--change-section-address", ".preinit=0x08100000", linked, path)
    expected, found = flash_layout.read(linked, board, ""), flash_layout.read(path, board, "")
    (part,) = {*found.regions[0].parts} - {*expected.regions[0].parts}
    assert part == Part(".preinit", 0x0810_0000, 100, "not of firmware.ld")
    assert elf.elf_sizes(path) == replace(elf.elf_sizes(linked), other=100)
    (piece,) = {*elf.pieces(path, board.memory)} - {*elf.pieces(linked, board.memory)}
    assert piece == elf.Piece("flash", ".preinit", 0x0810_0000, 100, False)
    used = image.used(image.Image(elf.pieces(path, board.memory), {}, {}), board, 0)
    assert used["flash"][".preinit"] == 100


@pytest.mark.qemu
def test_an_elf_for_another_machine_is_refused_by_name(images: Images, tmp_path: Path) -> None:
    built = output.read(images.folder("stm32f767zi"))
    linked = images.built("stm32f767zi") / "firmware" / "build" / "text.elf"
    with pytest.raises(
        CompileError, match=r"holds a 64-bit little-endian .* for EM_\w+; name an image that was linked"
    ):
        flash_layout.layout(built, Path("/proc/self/exe"))
    with pytest.raises(CompileError, match=r"holds a 32-bit little-endian REL \(Relocatable file\) for EM_ARM; name"):
        flash_layout.layout(built, linked.with_name("main.o"))
    content = bytearray(linked.read_bytes())
    content[18] = 243  # e_machine
    (tmp_path / "riscv.elf").write_bytes(content)
    with pytest.raises(CompileError, match=r"for EM_RISCV; .* stm32f767zi: 32-bit little-endian .* for EM_ARM"):
        flash_layout.layout(built, tmp_path / "riscv.elf")


HOSTILE = "a b,c'd\"e$f#g%h;i"


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["stm32f767zi", "qemu-rv32"])
def test_it_builds_wherever_folder_and_temporary_files_lie(
    name: str, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, temporary = tmp_path / HOSTILE / "out", tmp_path / f"{HOSTILE} temporary"
    shutil.copytree(images.folder(name), folder)
    temporary.mkdir()
    expected = flash_layout.layout(output.read(images.folder(name)))
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = sorted(folder.rglob("*"))
    assert flash_layout.layout(output.read(folder)) == expected
    assert sorted(folder.rglob("*")) == before and not list(temporary.iterdir()), "it leaves nothing behind"
    make = ["make", "-j2", "CFLAGS=-O2 -DTITLE=\"'x'\""]
    assert "gcc" in run(make, folder / "firmware") and "gcc" not in run(make, folder / "firmware")
    assert flash_layout.layout(output.read(folder), folder / "firmware" / "build" / "text.elf") == expected


def test_make_refuses_a_folder_with_a_space_before_it_cleans_another(images: Images) -> None:
    folder = images.folder("stm32f767zi") / "firmware"
    done = subprocess.run(
        ["make", "-n", "clean", "BUILD=my build"], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "without white space" in done.stderr and "rm" not in done.stdout


@pytest.mark.parametrize(
    "tools, reason",
    [
        (["make"], "arm-none-eabi-gcc': not found; install it"),
        (["arm-none-eabi-gcc"], "make': not found; install it"),
    ],
)
def test_without_its_tools_it_says_what_to_install(
    tools: list[str], reason: str, images: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    folder = images.folder("stm32f767zi")
    for tool in tools:
        path = shutil.which(tool)
        if path is None:
            skip_or_fail(f"{tool} not found")
        else:
            (tmp_path / tool).symlink_to(path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.invoke(["flash-layout", str(folder)]) == 1
    assert reason in capsys.readouterr().err


@pytest.mark.qemu
def test_a_firmware_that_does_not_build_is_its_user_s(images: Images, tmp_path: Path) -> None:
    shutil.copytree(images.folder("stm32f767zi"), tmp_path / "out")
    main = tmp_path / "out" / "firmware" / "main.c"
    main.write_text(main.read_text(encoding="utf-8").replace("int main(void)", "int man(void)"), encoding="utf-8")
    with pytest.raises(CompileError, match=r"firmware': does not build: .*undefined reference to `main'; `make` there"):
        flash_layout.layout(output.read(tmp_path / "out"))

"""firmware/: it builds for every board, without a warning, and answers what is typed at it."""

from __future__ import annotations

import dataclasses
import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from slm2c import elf as elf_file
from slm2c import flash_layout
from slm2c.board import Console, list_boards, load_board
from slm2c.build import build
from slm2c.compile import Options
from slm2c.firmware import qemu_command
from slm2c.identifiers import is_identifier
from slm2c.resources import data_dir
from tests.boards import board_params
from tests.conftest import skip_or_fail
from tests.generated import run, text_folder
from tests.images import Images, Terminal, terminal

PROMPT = b"> "
LINE_BYTES = 255


@pytest.fixture(scope="module")
def command_line(images: Images, host_cc: str) -> Path:
    """The same model's program for this machine."""
    folder = images.models["text"].folder
    run(["make", "cli"], folder)
    return folder / "build" / "text_cli"


def test_every_board_has_a_console_and_every_console_a_driver() -> None:
    drivers = {path.stem for path in data_dir("templates").glob("image/console_*.c")}
    used = {f"console_{load_board(name).console.kind.replace('-', '_')}" for name in list_boards()}
    assert used == drivers


@pytest.mark.parametrize("name", board_params())
def test_make_links_an_image_for_every_board(name: str, images: Images) -> None:
    board = load_board(name)
    folder = images.built(board) / "firmware"
    elf = folder / "build" / "text.elf"
    code = board.region(board.placement.code)
    with elf.open("rb") as file:
        image = ELFFile(file)
        start = image.get_section_by_name(".text").data()
        symbols = image.get_section_by_name(".symtab")
        address = {s: symbols.get_symbol_by_name(s)[0]["st_value"] for s in ("slm_reset", "slm_stack_top")}
        assert image.get_section_by_name(".text")["sh_addr"] == code.origin
        if board.architecture == "arm":  # what the core loads at reset, Armv7-M: stack pointer and reset vector
            assert struct.unpack("<2I", start[:8]) == (address["slm_stack_top"], address["slm_reset"])
        else:
            assert address["slm_reset"] == code.origin
        words = struct.pack(f"<{len(board.boot_block)}I", *board.boot_block)
        vectors = 64 if board.architecture == "arm" else 0
        assert start[vectors : vectors + len(words)] == words
    binary = (folder / "build" / "text.bin").read_bytes()
    blob = (folder.parent / "text_blob.bin").read_bytes()
    assert binary.startswith(start)
    assert (blob in binary) == (board.placement.blob == board.placement.code)
    assert (folder / "build" / "text.hex").read_text().startswith(":")


@pytest.mark.parametrize("name", board_params())
def test_the_board_s_set_up_is_in_the_image(name: str, images: Images) -> None:
    board = load_board(name)
    text = (images.folder(board) / "firmware" / "board.c").read_text(encoding="utf-8")
    (body,) = re.findall(r"^void slm_setup\(void\)\n{\n(.*?)^}$", text, re.MULTILINE | re.DOTALL)
    lines = body.splitlines()
    assert len(lines) == len(board.setup)
    for line, step in zip(lines, board.setup, strict=True):
        numbers = [int(x, 16) for x in re.findall(r"0x[0-9a-f]{8}", line.partition("/*")[0])]
        assert numbers[0] == step.address and numbers[-1] == step.value
        assert line.endswith(f"/* {step.what} */")
        assert line.lstrip().startswith("wait(" if step.wait else "REGISTER(" if len(numbers) == 2 else "modify(")


def symbols(elf: Path) -> list[tuple[str, int]]:
    """Functions and objects with their sizes; the order of files, which is another, moves them and what aligns them."""
    return sorted((symbol.name, symbol.size) for symbol in elf_file.symbols(elf))


CMAKE_BOARDS = ("mps2-an500", "stm32f746g-disco", "rp2350-pico2", "qemu-rv32")


@pytest.mark.parametrize("name", [p for p in board_params() if p.values[0] in CMAKE_BOARDS])  # type: ignore[attr-defined]
def test_cmake_links_the_same_image(name: str, images: Images, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        skip_or_fail("cmake not found; `make tools` installs it")
    folder = images.built(name) / "firmware"
    run(["cmake", "-S", folder, "-B", tmp_path / "a build", "-DCMAKE_C_FLAGS=-Werror"], tmp_path)
    printed = run(["cmake", "--build", tmp_path / "a build", "-j2"], tmp_path)
    assert "warning" not in printed, printed
    assert {path.suffix for path in (tmp_path / "a build").glob("text.*")} >= {".elf", ".hex", ".bin"}
    found, expected = symbols(tmp_path / "a build" / "text.elf"), symbols(folder / "build" / "text.elf")
    assert [name for name, _ in found] == [name for name, _ in expected]
    assert found == expected or load_board(name).architecture == "riscv"  # whose linker shortens calls by distance


@pytest.mark.qemu
def test_the_folder_can_be_copied_away_from_the_model(images: Images, tmp_path: Path) -> None:
    if not shutil.which("cmake"):
        skip_or_fail("cmake not found; `make tools` installs it")
    out, own = images.folder("mps2-an500", "mlp"), tmp_path / "mine"
    shutil.copytree(out / "firmware", own, ignore=shutil.ignore_patterns("build"))
    run(["make", "-j2", f"MODEL={out}"], own)
    run(["cmake", "-S", own, "-B", "made", f"-DMODEL={out}"], tmp_path)
    run(["cmake", "--build", "made", "-j2"], tmp_path)
    for elf in (own / "build" / "mlp.elf", tmp_path / "made" / "mlp.elf"):
        with terminal(load_board("mps2-an500"), elf) as at:
            assert b"as expected" in at.until(b"again")


def answer(at: Terminal, typed: bytes) -> bytes:
    """The last line that the image prints for a line, without the echo before it."""
    at.type(typed)
    return at.until(PROMPT).removesuffix(b"\r\n" + PROMPT).rpartition(b"\n")[2]


@pytest.mark.parametrize("name", board_params(emulated=True))
def test_an_emulated_board_answers_as_the_host_does(name: str, images: Images, command_line: Path) -> None:
    board = load_board(name)
    texts = {
        b"play music\r": b"play music",
        b"stop\n": b"stop",
        b"turn on the light\r\n": b"turn on the light",
        b"stopx\b\r": b"stop",
        b"\b\x7fplay musi\xc3\xa9\x7fc\r": b"play music",  # nothing to take back; a character of two bytes
        b"set\x02 alarm\x1b for seven\r": b"set alarm for seven",
        b"lamp \xff\xc3( \x80\x80 \xf0\x9f\r": b"lamp \xff\xc3( \x80\x80 \xf0\x9f",
        b"stop\ttoday\r": b"stop\ttoday",
        b"x" * LINE_BYTES + b"\r": b"x" * LINE_BYTES,
    }
    host = subprocess.run([command_line], input=b"\n".join(texts.values()), stdout=subprocess.PIPE, check=True)
    expected = host.stdout.splitlines()
    assert len(expected) == len(texts)
    elf = images.built(board) / "firmware" / "build" / "text.elf"
    with terminal(board, elf) as at:
        assert at.until(PROMPT).startswith(b"text: type a text of at most 255 bytes")
        assert [answer(at, typed) for typed in texts] == expected
        for long in (LINE_BYTES + 1, 2000):
            assert answer(at, b"y" * long + b"\r") == b"error: the line is too long"
        for ask in (b"\r", b"?\r"):
            assert b"this help" in answer(at, ask)
        assert answer(at, b"stop\r") == expected[1], "and goes on"


@pytest.mark.parametrize("name", board_params(emulated=True))
def test_a_model_without_text_runs_its_first_sample(name: str, images: Images) -> None:
    board = load_board(name)
    folder = images.built(board, "mlp")
    outputs = struct.unpack("<5h", (folder / "test" / "outputs.bin").read_bytes()[:10])
    with terminal(board, folder / "firmware" / "build" / "mlp.elf") as at:
        for _ in range(2):
            printed = at.until(b"any key: again\r\n").splitlines()
            assert printed[:2] == [f"output: {' '.join(map(str, outputs))}".encode(), b"as expected"]
            at.type(b"x")


def changed(images: Images, tmp_path: Path, path: str, old: bytes, new: bytes) -> Path:
    """The ELF for mps2-an500 with an edit in the output folder."""
    folder = tmp_path / "out"
    shutil.copytree(images.built("mps2-an500"), folder)
    content = (folder / path).read_bytes()
    assert old in content
    (folder / path).write_bytes(content.replace(old, new, 1))
    run(["make", "-j2"], folder / "firmware")
    return folder / "firmware" / "build" / "text.elf"


@pytest.mark.parametrize("model", ["text", "mlp"])
@pytest.mark.parametrize("name", [p for p in board_params(emulated=True) if p.values[0] in ("mps2-an386", "qemu-rv32")])  # type: ignore[attr-defined]
def test_a_profile_is_printed_behind_each_answer(name: str, model: str, images: Images, tmp_path: Path) -> None:
    """Under the numbers and names of the model's nodes; in cycles where the emulated core counts them."""
    board, folder = load_board(name), images.folder(name, model) / "firmware"
    printed = run(["make", "-j2", "CFLAGS=-O2 -Werror -DSLM_PROFILE", "BUILD=build/profile"], folder)
    assert "warning" not in printed, printed
    nodes = images.models[model].compiled.lowered.program.graph.nodes
    with terminal(board, folder / "build" / "profile" / f"{model}.elf") as at:
        for runs in (1, 2):
            if model == "text":
                at.until(PROMPT)
                at.type(b"play music\r")
            elif runs > 1:
                at.type(b"x")
            counters = at.until(b"  all")
            ticks = int(at.until(b" %").split()[0])
            assert b"runs %d, errors 0; ticks of a run" % runs in counters
            rows = re.findall(rb"^ *(\d+) +\d+ +\d+\.\d % +(\d+)  (\S+) +(.*)\r$", counters, re.MULTILINE)
            assert rows and all(nodes[int(row[0])].name.encode() == row[3] for row in rows)
            assert all(int(row[1]) % runs == 0 for row in rows)
            assert (ticks > 0) == (board.architecture == "riscv")


@pytest.mark.qemu
def test_a_damaged_blob_is_refused_in_words(images: Images, tmp_path: Path) -> None:
    elf = changed(images, tmp_path, "text_blob.bin", b"lights", b"lightz")
    with terminal(load_board("mps2-an500"), elf) as at:
        assert at.until(b"\n") == b"error: the blob is damaged\r\n"


@pytest.mark.qemu
def test_wrong_outputs_are_seen(images: Images, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(images.folder("mps2-an500", "mlp"), folder)
    outputs = folder / "test" / "outputs.bin"
    outputs.write_bytes(bytes(len(outputs.read_bytes())))
    run(["make", "-j2"], folder / "firmware")
    with terminal(load_board("mps2-an500"), folder / "firmware" / "build" / "mlp.elf") as at:
        assert b"\r\nNOT as expected\r\n" in at.until(b"again")


@pytest.mark.qemu
@pytest.mark.parametrize(
    "code, said",
    [
        (
            b"*(volatile int *)0xF0000000 = 1;",
            rb"fault: exception 0x00000003, pc 0x0000[0-9a-f]{4}, cfsr 0x[0-9a-f]{8}",
        ),
        (b"static volatile int depth; depth++; return main() + depth;", b"fault: stack overflow"),
    ],
)
def test_a_fault_is_reported_at_the_console(code: bytes, said: bytes, images: Images, tmp_path: Path) -> None:
    elf = changed(images, tmp_path, "firmware/main.c", b"    help();\n", b"    " + code + b"\n")
    with terminal(load_board("mps2-an500"), elf) as at:
        assert re.fullmatch(said + rb"\r\n", at.until(b"\n"))


def test_run_and_flash_are_offered_where_a_tool_does_it(images: Images) -> None:
    def dry(name: str, target: str) -> str:
        command = ["make", "-n", target]
        done = subprocess.run(
            command, cwd=images.folder(name) / "firmware", capture_output=True, text=True, check=False
        )
        return done.stdout.splitlines()[-1].strip() if done.returncode == 0 else ""

    assert dry("mps2-an500", "run") == "qemu-system-arm -M mps2-an500 -nographic -kernel build/text.elf"
    assert dry("qemu-rv32", "run").startswith("qemu-system-riscv32 -M virt -cpu lowrisc-ibex -bios none -nographic")
    assert "-semihosting-config enable=on" in dry("generic-m7-512k-4m", "run")
    assert dry("stm32f767zi", "run") == "", "its core is emulated, its memories are not"
    program = '-c "program build/text.elf verify reset exit"'
    assert dry("stm32f767zi", "flash") == f"openocd -f board/st_nucleo_f7.cfg {program}"
    assert dry("rp2350-pico2", "flash") == "picotool load -v -x build/text.elf"
    assert dry("nrf5340", "flash") == ""


@pytest.mark.qemu
def test_a_board_of_ones_own_with_another_console(images: Images) -> None:
    """Semihosting where a board file says nothing of a console."""
    board = dataclasses.replace(load_board("mps2-an386"), name="mine", console=Console())
    with terminal(board, images.built(board) / "firmware" / "build" / "text.elf") as at:
        at.until(PROMPT)
        assert answer(at, b"stop\n").endswith(b"\t3")


@pytest.mark.qemu
def test_it_ends_with_its_input_where_that_has_an_end(images: Images) -> None:
    """A pipe into the debugger's console; an end without a line's is none."""
    folder = images.built("generic-m7-512k-4m") / "firmware"
    command = [*qemu_command(load_board("generic-m7-512k-4m")).split(), "-kernel", "build/text.elf"]
    done = subprocess.run(command, cwd=folder, input=b"stop\nhalf a l", capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and re.search(rb"\t3\r\n> $", done.stdout + done.stderr)


@pytest.mark.qemu
def test_kernels_stay_in_flash_where_they_do_not_fit_beside_the_core(tmp_path: Path) -> None:
    text = (data_dir("boards") / "stm32f746g-disco.toml").read_text(encoding="utf-8")
    (tmp_path / "small.toml").write_text(text.replace("size = 0x0000_4000", "size = 0x0000_0100"), encoding="utf-8")
    board = load_board(tmp_path / "small.toml")
    build(text_folder(tmp_path / "in"), tmp_path / "out", board, Options(method="minmax", name="text"))
    run(["make", "-j2"], tmp_path / "out" / "firmware")
    found = flash_layout.read(tmp_path / "out" / "firmware" / "build" / "text.elf", board, "")
    assert {region.name: region.used > 0 for region in found.regions}["itcm"] is False


def test_names_that_would_hide_a_file_are_refused() -> None:
    assert not any(is_identifier(name) for name in ("board", "console", "decimal", "start", "firmware", "flash", "run"))

"""Renode: platform and script of every board, and whole validations with a stand-in that runs the image in QEMU."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from slm2c import cli, output, process, renode, show, toolchain, validate
from slm2c.board import Console, MemoryRegion, list_boards, load_board
from slm2c.build import build
from slm2c.compile import Options
from slm2c.errors import CompileError
from slm2c.validate import Ladder, ladder
from tests import fake_renode
from tests.boards import MARKS, board_params
from tests.generated import Built, compile_into, run, tagger
from tests.repl import Name, parse_console, parse_repl, parse_resc

FPV4, FPV5 = "VFPv4-D16", "FPv5/FP-D16 for ARMv8"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return compile_into(tmp_path_factory.mktemp("renode"), tagger(), "tags")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for temporary ones, with a `renode` on PATH that has the board mps2-an500."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "tmp").mkdir()
    fake_renode.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_RENODE_BOARD", "mps2-an500")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    return tmp_path / "tmp"


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "renode" else which(name))


def climb(built: Built, board: str = "mps2-an500") -> Ladder:
    return ladder(built.output, ["renode"], [board], 3)


# ---------------------------------------------------------------- platform and script


@pytest.mark.parametrize("name", list_boards())
def test_the_platform_is_the_board(name: str) -> None:
    board = load_board(name)
    found = parse_repl(renode.platform(board))
    memories = {(e.name, e.address, e.size) for e in found.values() if e.type == "Memory.MappedMemory"}
    assert memories == {(f"mem_{r.name}", r.origin, r.size) for r in board.memory}
    cpu = found["cpu"].properties
    assert cpu["PerformanceInMips"] == board.clock_hz // 1_000_000
    if board.architecture == "arm":
        assert found["cpu"].type == "CPU.CortexM" and cpu["nvic"] == Name("nvic")
        assert cpu["cpuType"].removesuffix("f") == board.cpu
        assert found["nvic"].address == 0xE000E000 and found["nvic"].interrupts == [("IRQ", "cpu", "0")]
        assert found["nvic"].properties["systickFrequency"] == board.clock_hz
    else:
        assert found["cpu"].type == "CPU.RiscV32" and cpu["timeProvider"] == Name("clint")
        assert cpu["cpuType"] == f"{board.cpu}_zicsr"
        assert found["clint"].interrupts == [("[0, 1]", "cpu", "[3, 7]")]  # software and timer interrupt


@pytest.mark.parametrize("name", list_boards())
def test_the_platform_has_the_board_s_console_and_what_its_setup_wants(name: str) -> None:
    board = load_board(name)
    found = parse_repl(renode.platform(board))
    if board.console.base is not None:
        console = found.get("console", found["uart"])
        assert (console.type, console.address) == (renode.UARTS[board.console.kind].type, board.console.base)
    assert found["uart"].type in ("UART.CMSDK_APB_UART", "UART.NS16550")
    registers = {e.address: e for e in found.values() if e.name.startswith("setup")}
    base = board.console.base or 0
    assert set(registers) == {s.address for s in board.setup if not base <= s.address < base + 0x1000}
    for step in board.setup:
        if step.wait and step.address in registers:
            script = re.fullmatch("request.Value = (.*)", str(registers[step.address].properties["script"]))
            assert script and int(script[1], 0) & step.mask == step.value


@pytest.mark.parametrize("name", list_boards())
def test_the_script_runs_the_image_to_its_end(name: str) -> None:
    board = load_board(name)
    script = parse_resc(renode.script(board, "tags"))
    assert (script.platform, script.elf, script.uart) == ("board.repl", "image.elf", ("uart", "uart.bin"))
    assert script.hook == ("firmware_done", "self.IsHalted = True")
    assert script.vectors == (board.region(board.placement.code).origin if board.architecture == "arm" else None)
    assert script.seconds * board.clock_hz >= renode.INSTRUCTIONS


def test_the_added_uart_lies_where_nothing_is() -> None:
    board = load_board("stm32f407")
    assert renode.uart(board) == Console("cmsdk-uart", 0x4FFF_0000)
    taken = MemoryRegion("device", "sram", 0x4FFE_0000, 0x2_0000)
    assert renode.uart(replace(board, memory=(*board.memory, taken))).base == 0x4FFD_0000


def test_a_description_stays_in_its_comment() -> None:
    board = replace(load_board("stm32f407"), description="two\nlines: Memory.MappedMemory @ sysbus 0x0")
    assert parse_repl(renode.platform(board)).keys() == parse_repl(renode.platform(load_board("stm32f407"))).keys()


@pytest.mark.parametrize("name", board_params())
def test_every_board_s_image_fits_its_platform(name: str, built: Built, tmp_path: Path) -> None:
    board = load_board(name)
    chosen = validate.choose_samples(built.output, 2)
    validate.write_renode(built.folder, built.name, built.output.graph, chosen, tmp_path, board, None)
    script = parse_resc((tmp_path / "run.resc").read_text())
    platform = parse_repl((tmp_path / script.platform).read_text())
    fake_renode.check_image(tmp_path / script.elf, platform, script.vectors, script.hook[0])


@pytest.mark.parametrize("name", list_boards())
def test_the_script_of_the_console(name: str, tmp_path: Path) -> None:
    board = load_board(name)
    renode.write_console(tmp_path, board, "tags")
    if board.console.kind == "semihosting":
        assert not any(tmp_path.iterdir())
        return
    elf, platform, vectors, uart = parse_console((tmp_path / "renode.resc").read_text())
    found = parse_repl((tmp_path / platform).read_text())
    assert elf == "build/tags.elf" and found[uart].address == board.console.base
    assert vectors == (board.region(board.placement.code).origin if board.architecture == "arm" else None)
    renode.write_console(tmp_path / "nowhere", replace(board, cpu="cortex-m85"), "tags")


@pytest.mark.qemu
def test_the_firmware_of_a_build_fits_its_platform(tmp_path: Path) -> None:
    onnx.save(tagger(), tmp_path / "tags.onnx")
    build(tmp_path / "tags.onnx", tmp_path / "out", load_board("stm32f746g-disco"), Options(method="minmax"))
    folder = tmp_path / "out" / "firmware"
    run(["make", "-s"], folder)
    elf, platform, vectors, _ = parse_console((folder / "renode.resc").read_text())
    fake_renode.check_image(folder / elf, parse_repl((folder / platform).read_text()), vectors)


# ---------------------------------------------------------------- versions and cores


@pytest.mark.parametrize(
    "said, version",
    [
        (fake_renode.VERSION, (1, 16, 1)),
        ("Renode, version 1.14.0.10829 (b1a6c8b3-202308081113)\n", (1, 14, 0)),
        ("command not found", None),
    ],
)
def test_parse_version(said: str, version: renode.Version | None) -> None:
    assert renode.parse_version(said) == version


def test_a_renode_that_is_too_old_or_says_nothing(stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert renode.find().release == "1.16.1"
    monkeypatch.setenv("FAKE_RENODE_VERSION", "Renode v1.13.3\n")
    with pytest.raises(CompileError, match=r"is version 1\.13\.3; install Renode 1\.14\.0 or newer"):
        renode.find()
    monkeypatch.setenv("FAKE_RENODE_VERSION", "hello\n")
    with pytest.raises(CompileError, match="does not say its version but 'hello'"):
        renode.find()


def test_a_core_that_renode_lacks() -> None:
    board = load_board("mps3-an547")
    assert renode.require_modelled(board, (1, 16, 1)).type == "cortex-m55"
    with pytest.raises(CompileError, match=r"models its core, cortex-m55, from 1\.16\.1 on; this is 1\.16\.0"):
        renode.require_modelled(board, (1, 16, 0))
    with pytest.raises(CompileError, match="Renode does not model its core, cortex-m85; choose a board with one of"):
        renode.platform(replace(board, cpu="cortex-m85"))


@pytest.mark.qemu
@pytest.mark.parametrize("name", ["stm32f746g-disco", "nrf5340"])
@pytest.mark.parametrize("version, unit", [((1, 16, 0), FPV4), ((1, 16, 1), FPV5), (None, FPV4)])
def test_an_old_renode_gets_no_fpv5(
    name: str, version: renode.Version | None, unit: str, built: Built, tmp_path: Path
) -> None:
    chosen = validate.choose_samples(built.output, 1)
    board = load_board(name)
    validate.write_renode(built.folder, built.name, built.output.graph, chosen, tmp_path, board, version)
    readelf = toolchain.cross_cc().removesuffix("gcc") + "readelf"
    objects = [*(tmp_path / "image.elf.build").glob("[0-9]*.o")]  # compiled, not assembled or of the C library
    said = subprocess.run([readelf, "-A", *objects], capture_output=True, text=True, check=True).stdout
    assert re.findall(r"Tag_FP_arch: (.*)", said) == [unit] * len(objects)


# ---------------------------------------------------------------- runs


@pytest.mark.parametrize(
    "name", [pytest.param(b, marks=MARKS[load_board(b).architecture]) for b in (
        "mps2-an386", "mps2-an500", "mps2-an505", "mps3-an547", "qemu-rv32")]
)  # fmt: skip
def test_every_tensor_is_equal(name: str, built: Built, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_RENODE_BOARD", name)
    (rung,) = climb(built, name).rungs
    assert (rung.name, rung.samples, rung.mismatches, rung.kept) == (f"renode 1.16.1 {name}", 3, 0, None)
    (qemu,) = ladder(built.output, ["qemu"], [name], 3).rungs
    assert rung.tensors == qemu.tensors > 0
    assert not any(stand_in.iterdir())


@pytest.mark.qemu
def test_one_wrong_bit_is_found_and_all_is_kept(built: Built, stand_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_RENODE", "flip")
    found = climb(built)
    (rung,) = found.rungs
    assert rung.mismatches == 1 and rung.first is not None
    assert abs(rung.first.expected - rung.first.got) in (1, 256)
    kept = Path(rung.kept)
    assert kept.parent == stand_in
    assert {"image.elf", "board.repl", "run.resc", "uart.bin", "trace.bin", "renode.log", "run.log"} <= {
        path.name for path in kept.iterdir()
    }
    assert "Renode is quitting" in (kept / "renode.log").read_text()
    assert str(kept) in show.ladder(found)


@pytest.mark.qemu
@pytest.mark.parametrize(
    "wrong, message, log",
    [
        ("warn", "complains 1 times, first of 'sysbus: [cpu: 0x2A] ReadDoubleWord from non existing", "0xDEAD0000"),
        ("crash", "ended with code -6", "tlib abort"),
        ("hang", "did not end within 2 s", "i $CWD/run.resc"),
        ("refuse", "ran an image that did not come to its end; 0 bytes left its UART", "Error E39"),
        ("cut", "ran an image that did not come to its end; ", "Renode is quitting"),
    ],
)
def test_a_run_that_fails_says_why_and_keeps_the_log(
    wrong: str, message: str, log: str, built: Built, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_RENODE", wrong)
    monkeypatch.setattr(renode, "TIMEOUT", 2.0 if wrong == "hang" else renode.TIMEOUT)
    with pytest.raises(CompileError, match=re.escape(message)) as caught:
        climb(built)
    kept = re.search(r"what it said is in (\S+)$", str(caught.value))
    assert kept and Path(kept[1]).is_relative_to(stand_in) and log in Path(kept[1]).read_text()


@pytest.mark.qemu
def test_an_image_that_refuses_its_blob(built: Built, stand_in: Path, tmp_path: Path) -> None:
    """What it prints, and its exit code, come through the UART."""
    shutil.copytree(built.folder, tmp_path / "out")
    blob = bytearray((tmp_path / "out" / "tags_blob.bin").read_bytes())
    blob[-3] ^= 1
    (tmp_path / "out" / "tags_blob.bin").write_bytes(blob)
    with pytest.raises(CompileError, match="the C refuses to run: the blob is damaged"):
        ladder(output.read(tmp_path / "out"), ["renode"], ["mps2-an500"], 1)
    assert not any(stand_in.iterdir())


@pytest.mark.qemu
def test_a_fault_of_the_image_is_reported(built: Built, stand_in: Path, tmp_path: Path) -> None:
    shutil.copytree(built.folder, tmp_path / "out")
    program = tmp_path / "out" / "test" / "validate.c"
    text = program.read_text().replace("    uint32_t count;\n", "    uint32_t count;\n    __builtin_trap();\n", 1)
    program.write_text(text)
    with pytest.raises(CompileError, match=r"ended with code 99; what it left is in (\S+)") as caught:
        ladder(output.read(tmp_path / "out"), ["renode"], ["mps2-an500"], 1)
    assert "fault: exception 0x00000003, pc" in str(caught.value)
    assert "validate.c': is not what the build wrote" in str(caught.value)
    (kept,) = stand_in.iterdir()
    assert str(kept) in str(caught.value) and "fault: exception" in (kept / "run.log").read_text()


def test_a_program_that_does_not_end_leaves_its_log(
    host_cc: str, built: Built, stand_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_host(*_: object, **__: object) -> process.RunResult:
        raise process.ToolError("validate did not end within 600 s", ["validate"], "so far")

    monkeypatch.setattr(toolchain, "run_host", run_host)
    with pytest.raises(process.ToolError, match=r"within 600 s; what it left is in (\S+)") as caught:
        ladder(built.output, ["host"], [], 1)
    (kept,) = stand_in.iterdir()
    assert str(kept) in str(caught.value) and (kept / "run.log").read_text() == "so far"


def frame(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(4, "little") + len(body).to_bytes(4, "little") + body


def test_frames() -> None:
    data = frame(1, b"a") + frame(2, b"xy") + frame(1, b"") + frame(1, b"b\n") + frame(2, b"z")
    done = data + frame(3, b"\x07\0\0\0")
    assert renode.read_frames(done) == ("ab\n", b"xyz", 7)
    assert all(renode.read_frames(done[:size])[2] is None for size in range(len(done)))
    assert renode.read_frames(done + b"\0")[2] is None
    assert renode.read_frames(data + frame(4, b"") + done)[2] is None


# ---------------------------------------------------------------- the command line


@pytest.mark.qemu
def test_without_renode(built: Built, absent: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.invoke(["validate", str(built.folder), "--on", "renode"]) == 1
    assert "'renode': not found; install it from https://renode.io" in capsys.readouterr().err


@pytest.mark.qemu
def test_renode_runs_only_when_asked(
    built: Built, stand_in: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FAKE_RENODE", "warn")
    assert cli.invoke(["validate", str(built.folder), "--samples", "2"]) == 0
    assert "renode" not in capsys.readouterr().out


@pytest.mark.qemu
def test_validate_prints_what_renode_ran(built: Built, stand_in: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["validate", str(built.folder), "--on", "renode", "--board", "mps2-an500", "--samples", "2", "--json"]
    assert cli.invoke(args) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["ok"] and facts["rungs"][0]["name"] == "renode 1.16.1 mps2-an500"


@pytest.mark.qemu
def test_renode_writes_what_would_be_run(
    built: Built, absent: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "for renode"
    args = ["renode", str(built.folder), "-o", str(out), "--board", "stm32f746g-disco"]
    for _ in range(2):  # the second replaces the first
        assert cli.invoke(args) == 0
        assert f"cd '{out}' && renode run.resc" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        "board.repl", "image.elf", "run.resc", "samples.bin"
    ]  # fmt: skip
    assert (out / "board.repl").read_text() == renode.platform(load_board("stm32f746g-disco"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    assert cli.invoke(["renode", str(built.folder), "-o", str(tmp_path / "mine")]) == 1
    assert "is not the output of slm2c" in capsys.readouterr().err


@pytest.mark.qemu
def test_renode_replaces_no_build(built: Built, absent: None, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(path.name for path in built.folder.iterdir())
    assert cli.invoke(["renode", str(built.folder), "-o", str(built.folder), "--board", "stm32f746g-disco"]) == 1
    assert "exists and is not the output of slm2c" in capsys.readouterr().err
    assert sorted(path.name for path in built.folder.iterdir()) == before

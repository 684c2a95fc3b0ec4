"""Board files: what ships is sound, what is wrong is named."""

import dataclasses
import datetime
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from slm2c import budget, importer, output
from slm2c.board import Board, MemoryRegion, board_from_table, emulated, list_boards, load_board
from slm2c.board_tools import blaming, require_flags
from slm2c.build import build
from slm2c.compile import Options
from slm2c.emit import Texts
from slm2c.errors import CompileError
from slm2c.lower import sketch, target_of
from slm2c.passes import fuse
from slm2c.process import ToolError
from slm2c.resources import data_dir
from slm2c.toolchain import cross_cc
from slm2c.validate import ladder
from tests.boards import MARKS, board_params
from tests.generated import text_folder

REFERENCE = (data_dir("boards") / "generic-m7-512k-4m.toml").read_text(encoding="utf-8")


def board_from(tmp_path: Path, text: str, name: str = "mine.toml") -> Board:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return load_board(path)


def test_the_reference_board() -> None:
    board = load_board("generic-m7-512k-4m")
    assert (board.cpu, board.clock_hz) == ("cortex-m7", 200_000_000)
    assert board.region("sram") == MemoryRegion("sram", "sram", 0x2000_0000, 512 * 1024)
    assert (board.flash_bytes, board.ram_bytes) == (4 << 20, 512 << 10)
    assert board.arena_limit == board.ram_bytes - board.stack_size
    assert board.emulator is not None
    assert board.emulator.instructions_per_tick == 40
    assert emulated(board) is board


SOURCE = re.compile(r"\b(RM|UM|PM|DDI |DAI |DUI )\d{4}|datasheet|Product Specification")


@pytest.mark.parametrize("name", list_boards())
def test_shipped_boards_say_where_their_facts_come_from(name: str) -> None:
    text = (data_dir("boards") / f"{name}.toml").read_text(encoding="utf-8")
    comments = "".join(line.partition("#")[2] for line in text.splitlines())
    assert text.startswith("# ") and SOURCE.search(comments)


@pytest.mark.parametrize("name", list_boards())
def test_shipped_boards_are_sound(name: str) -> None:
    board = load_board(name)
    assert board.name == name
    ends = sorted((region.origin, region.end) for region in board.memory)
    assert all(end <= origin for (_, end), (origin, _) in itertools.pairwise(ends))
    double = emulated(board)
    assert double is not None and double.cpu == board.cpu, "every core that we ship runs in an emulator"
    kinds = [board.region(region).kind for region in board.placement.arena]
    assert kinds == sorted(kinds, key=["tcm", "sram"].index), "the fastest first"


@pytest.mark.parametrize(
    "name, arena, data, region",
    [
        ("stm32f746g-disco", 1, 0, "dtcm"),
        ("stm32f746g-disco", 56 << 10, 0, "dtcm"),
        ("stm32f746g-disco", 56 << 10, 1, "sram"),
        ("stm32f746g-disco", 300 << 10, 0, "sram"),
        ("stm32f407", 64 << 10, 99, "ccm"),  # which it has for itself
        ("stm32f407", (64 << 10) + 1, 0, "sram"),
        ("stm32h743zi", 500 << 10, 0, "axi"),
        ("rp2350-pico2", 1 << 20, 0, "sram"),
    ],
)
def test_the_arena_goes_to_the_fastest_memory_that_holds_it(name: str, arena: int, data: int, region: str) -> None:
    board = load_board(name)
    assert board.arena_region(arena, data) == region
    assert board.arena_limit == max(board.arena_room(each) for each in board.placement.arena)


def test_the_serial_flash_of_the_discovery_is_mapped_as_its_memory_says() -> None:
    """QUADSPI_DCR and CCR (RM0385), taken apart again: where the blob lies, and how the N25Q128A is read."""
    board = load_board("stm32f746g-disco")
    qspi = board.region(board.placement.blob)
    words = {step.address: step.value for step in board.setup if not step.wait}
    dcr, ccr = words[0xA000_1004], words[0xA000_1014]
    assert 1 << ((dcr >> 16 & 31) + 1) == qspi.size
    fields = {"instruction": ccr & 0xFF, "imode": ccr >> 8 & 3, "admode": ccr >> 10 & 3, "adsize": ccr >> 12 & 3}
    fields |= {"abmode": ccr >> 14 & 3, "dcyc": ccr >> 18 & 31, "dmode": ccr >> 24 & 3, "fmode": ccr >> 26 & 3}
    assert fields == {
        "instruction": 0x6B, "imode": 1, "admode": 1, "adsize": 2, "abmode": 0, "dcyc": 8, "dmode": 3, "fmode": 3
    }  # fmt: skip
    assert board.setup[-1].address == 0xA000_1014, "nothing comes after the mapping"


@pytest.mark.parametrize("name", board_params())
def test_features_are_what_the_compiler_makes_of_the_flags(name: str) -> None:
    board = load_board(name)
    require_flags(cross_cc(board.architecture), board)
    other = dataclasses.replace(board.features, dsp=not board.features.dsp, mve=not board.features.mve)
    with pytest.raises(CompileError) as caught:
        require_flags(cross_cc(board.architecture), dataclasses.replace(board, features=other))
    assert [p.reason.split(":")[0] for p in caught.value.problems] == ["features.dsp", "features.mve"]


M7, RV = "generic-m7-512k-4m", "qemu-rv32"


@pytest.mark.parametrize(
    "name, flags, message",
    [
        pytest.param(*case, marks=MARKS[load_board(case[0]).architecture])
        for case in [
            (M7, "-mcpu=cortex-m7 -mthumb -mnonsense", r"flags: the compiler refuses .* -mnonsense: .*nonsense"),
            (M7, "-mcpu=cortex-m7 -mthumb -mfpu=fpv9", r"flags: the compiler refuses .*: .*fpv9"),
            (M7, "-mcpu=cortex-m7 -march=armv6-m -mthumb", r"flags: the compiler refuses .*: .*conflicts"),
            (M7, "-mcpu=cortex-m7 -mthumb -mbig-endian", r"flags: .* does not select a little-endian cortex-m7"),
            (M7, "", r"flags: .* does not select a little-endian cortex-m7"),
            (
                M7,
                "-mcpu=cortex-m7 -mthumb -mfloat-abi=soft",
                r"features\.fpu: 'fpv5-d16' is not what the compiler makes",
            ),
            (RV, "-march=rv32imc -mabi=lp64", r"flags: the compiler refuses .*: .*ABI"),
            (RV, "", r"flags: .* does not select a little-endian rv32imc"),
        ]
    ],
)
def test_flags_that_the_compiler_refuses_are_the_board_s(
    name: str, flags: str, message: str, classifier: Path, tmp_path: Path
) -> None:
    board = dataclasses.replace(load_board(name), name="mine", flags=tuple(flags.split()))
    with pytest.raises(CompileError, match=f"'mine': {message}"):
        build(classifier, tmp_path / "out", board, Options(method="minmax"))
    assert not (tmp_path / "out").exists()


@pytest.mark.qemu
def test_what_does_not_link_or_run_on_a_board_of_ones_own_is_the_board_s(classifier: Path, tmp_path: Path) -> None:
    board = load_board("mps2-an500")
    assert board.emulator is not None
    machine = dataclasses.replace(board, name="mine", emulator=dataclasses.replace(board.emulator, machine="none-such"))
    made = build(classifier, tmp_path / "out", machine, Options(method="minmax"))
    assert "'mine': QEMU refuses it: unsupported machine type" in made["measured"]["emulated"]["reason"]
    with pytest.raises(CompileError, match=r"'mine': QEMU refuses it: unsupported machine type; correct \[emulator\]"):
        ladder(output.read(tmp_path / "out"), ["qemu"], [], 1)
    error = ToolError("gcc failed", ["gcc"], "x.c:1: note: a\nx.c:1: error: b\n")
    with (
        pytest.raises(CompileError, match=r"'mine': gcc failed: x\.c:1: error: b; its flags: -mcpu=cortex-m7"),
        blaming(machine),
    ):
        raise error
    for ours in (board, emulated(load_board("stm32f746g-disco"))):
        assert ours is not None
        with pytest.raises(ToolError), blaming(ours):
            raise error


def test_a_board_is_a_file(tmp_path: Path) -> None:
    board = board_from(tmp_path, REFERENCE.replace("0x0008_0000", "0x0004_0000"))
    assert (board.name, board.ram_bytes) == ("mine", 256 << 10)
    assert board == load_board(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize("name", list_boards())
def test_a_board_survives_json(name: str) -> None:
    """As a build keeps it."""
    board = load_board(name)
    assert board_from_table(json.loads(json.dumps(dataclasses.asdict(board))), "slm2c.json") == board


def test_an_arena_in_a_memory_of_its_own(tmp_path: Path) -> None:
    tcm = '[[memory]]\nname = "dtcm"\nkind = "tcm"\norigin = 0x3000_0000\nsize = 0x1_0000\n[placement]'
    text = REFERENCE.replace("[placement]", tcm).replace('stack = "sram"', 'stack = "dtcm"')
    board = board_from(tmp_path, text)
    assert board.arena_limit == 512 << 10
    assert board.ram_bytes == (512 + 64) << 10


def test_unknown_board_names_the_known_ones() -> None:
    with pytest.raises(CompileError, match=r"did you mean 'generic-m7-512k-4m'.*mps2-an386, mps2-an500, mps2-an505"):
        load_board("generic-m7-512k-4")
    with pytest.raises(CompileError, match="known boards: generic") as caught:
        load_board("zzz")
    assert "did you mean" not in str(caught.value)


NO_PLACEMENT = re.sub(r"^\[placement\]\n(?:.+\n)+", "", REFERENCE, flags=re.MULTILINE)
NO_EMULATOR = re.sub(r"^\[emulator\]\n(?:.+\n)+", "", REFERENCE, flags=re.MULTILINE)


UART = "[console]\nkind = {}\nbase = {}\nclock_hz = {}\n[emulator]"
SETUP = 'setup = [{{ what = "{}", address = {}, mask = {}, value = {} }}]\nstack_size'


@pytest.mark.parametrize(
    "old, new, message",
    [
        ('cpu = "cortex-m7"', "cpu = ", "not a TOML file"),
        ("200_000_000", "9" * 5000, "holds a number of thousands of digits; shorten it"),
        ("200_000_000", "9" * 4000, "clock_hz: cannot be a number of 13,288 bits; give a whole number"),
        ("200_000_000", "0x" + "9" * 5000, "clock_hz: cannot be a number of 20,000 bits; give a whole number"),
        ("200_000_000", "[" * 5000 + "]" * 5000, "nests too deeply"),
        ("200_000_000", "5_000_000_000", "clock_hz: 5,000,000,000 is more than 32 bits hold"),
        ("Reference board:", "Reference\\n*/ board", "description: "),
        ('cpu = "cortex-m7"', 'cpu = "x86"', "cpu: 'x86' is no core that slm2c knows; write one from Armv7-M on"),
        ('cpu = "cortex-m7"', 'cpu = "cortex-m0"', "cpu: 'cortex-m0' is no core that slm2c knows"),
        ("-mcpu=cortex-m7", "-mcpu=cortex-m4+nodsp", "flags: '-mcpu=cortex-m4+nodsp' is for another core than cpu"),
        ('name = "sram"', 'name = "org"', "memory[1].name: 'org' is a word of the linker's; choose another name"),
        ("0x2000_0000", "0x2000_0004", "memory[1].origin: 0x20000004 is not a multiple of 256"),
        ("0x4000_0000", "0x1_4000_0000", "emulator.timer: 0x140000000 is not the address of a 32-bit register"),
        ("0x4000_0000", "0x2000_0040", "emulator.timer: 0x20000040 lies in memory sram; correct one of them"),
        ("[emulator]", UART.format('"pl011"', 0x1000, 12_000_000), "console.base: 0x1000 lies in memory flash"),
        ("stack_size", SETUP.format("x", 0x20000000, 1, 1), "setup[0].address: 0x20000000 lies in memory sram"),
        (
            "stack_size",
            'emulated_by = "mps2-an50"\nstack_size',
            "emulated_by: no known board 'mps2-an50'; did you mean 'mps2-an505'?; name one of generic-m7-512k-4m",
        ),
        (
            "stack_size",
            'emulated_by = "mps2-an386"\nstack_size',
            "emulated_by: 'mps2-an386' does not emulate a cortex-m7; name one of generic-m7-512k-4m, mps2-an500",
        ),
        ("clock_hz", "clock_khz", "clock_khz: unknown key; did you mean 'clock_hz'?"),
        ("clock_hz", "clock_khz", "clock_hz: missing"),
        ("description", 'name = "x"\ndescription', "name: unknown key"),
        ("dsp =", "dsb =", "features.dsb: unknown key; did you mean 'dsp'?"),
        ("200_000_000", '"200 MHz"', "clock_hz: cannot be '200 MHz'; give a whole number"),
        ("dsp = true", "dsp = 1", "features.dsp: cannot be 1; give true or false"),
        ("200_000_000", "-5", "clock_hz: -5 is not greater than 0"),
        ("0x0008_0000", "0", "memory[1].size: 0 is not greater than 0"),
        ("0x2000_0000", "0x003f_ffff", "memory[1]: sram overlaps flash; correct origin or size of one"),
        ("0x2000_0000", "0xffff_0000", "memory[1]: sram lies outside the 32-bit address space"),
        ('name = "sram"', 'name = "flash"', "memory[1].name: a second region 'flash'"),
        ('name = "sram"', 'name = "}"', "memory[1].name: '}' may hold"),
        ('kind = "sram"', 'kind = "ram"', "memory[1].kind: cannot be 'ram'; give one of flash, sram, tcm"),
        (REFERENCE, NO_PLACEMENT, "placement: missing"),
        ('blob = "flash"\n', "", "placement.blob: missing"),
        ('arena = "sram"', 'arena = "ram"', "placement.arena: no memory region 'ram'; name one of flash, sram"),
        ('arena = "sram"', 'arena = "flash"', "placement.arena: flash is flash, which cannot be written"),
        ('arena = "sram"', "arena = []", "placement.arena: names no memory region"),
        ('arena = "sram"', 'arena = ["sram", "sram"]', "placement.arena: names a region twice"),
        (
            'arena = "sram"',
            'arena = ["sram", "ram"]',
            "placement.arena[1]: no memory region 'ram'; name one of flash, sram",
        ),
        ('arena = "sram"', 'arena = ["sram", 1]', "placement.arena[1]: cannot be 1; give a text"),
        ('stack = "sram"', 'stack = "sram"\nhot = "flash"', "placement.hot: flash is flash, which cannot be written"),
        ('stack = "sram"', 'stack = ["sram"]', "placement.stack: cannot be ['sram']; give a text"),
        ('blob = "flash"', 'blob = "sram"', "placement.blob: sram is sram, which is empty after a reset"),
        ("stack_size = 8192", "stack_size = 8192\nboot_block = [1, -1]", "boot_block[1]: -0x1 is not a 32-bit word"),
        ("stack_size = 8192", "stack_size = 1000", "stack_size: 1000 is not a multiple of 256"),
        ("stack_size = 8192", "stack_size = 256", "stack_size: 256 is not a multiple of 256 above 256"),
        ("stack_size = 8192", "stack_size = 0x10_0000", "placement.stack: sram is smaller than stack_size"),
        ('"-mthumb"', '"-fplugin=x.so"', "flags: '-fplugin=x.so' does not select a machine"),
        ('"mps2-an500"', '"none -monitor stdio"', "emulator.machine: 'none -monitor stdio' may hold"),
        (
            'cpu = "cortex-m7"',
            'cpu = "rv64gc"',
            "cpu: 'rv64gc' has no 32-bit base with 32 registers; write one like 'rv32imc'",
        ),
        ('cpu = "cortex-m7"', 'cpu = "rv32imc"', "features: dsp and mve are Arm's; write false"),
        ('cpu = "cortex-m7"', 'cpu = "rv32imc"', "emulator.timer: a RISC-V core counts itself; leave it out"),
        ("timer_hz = 25_000_000", "", "emulator.timer_hz: missing"),
        (
            "timer =",
            'timer_kind = "systick"\ntimer =',
            "emulator.timer_kind: cannot be 'systick'; give one of cmsdk-timer, fpgaio",
        ),
        ("timer =", 'cpu = "rv32 -S"\ntimer =', "emulator.cpu: 'rv32 -S' may hold"),
        ("25_000_000", "30_000_000", "emulator.timer_hz: a tick must be a whole number"),
        ("[emulator]", "[emulators]", "emulators: unknown key; did you mean 'emulator'?"),
        (
            "[emulator]",
            UART.format('"uart"', 0, 1),
            "console.kind: cannot be 'uart'; give one of semihosting, cmsdk-uart",
        ),
        ("[emulator]", UART.format('"pl011"', 2, 1_000_000_000), "console.base: 0x2 is not the address of a 32-bit"),
        (
            "[emulator]",
            '[console]\nkind = "pl011"\nbase = 4\n[emulator]',
            "console.clock_hz: missing; a pl011 needs it",
        ),
        ("[emulator]", "[console]\nbase = 4\n[emulator]", "console.base: semihosting has none; leave it out"),
        ("[emulator]", UART.format('"nrf-uarte"', 4, 1), "console.clock_hz: nrf-uarte has none; leave it out"),
        (
            "[emulator]",
            UART.format('"cmsdk-uart"', 4, 1_000_000),
            "console.baud: 115200 does not fit the divisor's register for a cmsdk-uart",
        ),
        (
            "[emulator]",
            UART.format('"ns16550"', 4, 4_000_000),
            "console.baud: 115200 is 125,000 at best for a ns16550 at 4,000,000 Hz; rates that work: 1200, 2400,",
        ),
        ("[emulator]", "[console]\nbaud = 0\n[emulator]", "console.baud: 0 is not greater than 0"),
        (
            "[emulator]",
            '[console]\nkind = "nrf-uarte"\nbase = 4\nbaud = 4800\n[emulator]',
            "console.baud: 4800 is none of its; rates that work: 9600, 115200, 1000000",
        ),
        ("stack_size", SETUP.format("x", 2, 1, 1), "setup[0].address: 0x2 is not the address of a 32-bit register"),
        ("stack_size", SETUP.format("x", 4, 1, 3), "setup[0].value: 0x3 has bits outside the mask 0x1"),
        ("stack_size", SETUP.format("x", 4, 0, 0), "setup[0].mask: 0x0 is not a 32-bit word with a bit set"),
        ("stack_size", SETUP.format("a */ b", 4, 1, 1), "setup[0].what: 'a */ b' is not one line of plain text"),
        ("[emulator]", '[programmer]\ntool = "openocd"\n[emulator]', "programmer.script: openocd needs one"),
        (
            "[emulator]",
            '[programmer]\ntool = "dfu"\n[emulator]',
            "programmer.tool: cannot be 'dfu'; give one of openocd",
        ),
        (
            "[emulator]",
            '[programmer]\ntool = "openocd"\nscript = "x\'; y"\n[emulator]',
            'programmer.script: "x\'; y" may hold letters',
        ),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in REFERENCE
    with pytest.raises(CompileError) as caught:
        board_from(tmp_path, REFERENCE.replace(old, new))
    assert message in str(caught.value)
    assert all(problem.node.endswith("mine.toml") for problem in caught.value.problems)


def test_all_problems_of_a_file_are_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(CompileError) as caught:
        board_from(tmp_path, REFERENCE.replace("cpu =", "cpus =").replace('kind = "sram"', "kind = 3"))
    assert [p.reason.split(":")[0] for p in caught.value.problems] == ["cpus", "cpu", "memory[1].kind"]


CHANGED = [
    *(True, 0, 1, -1, 3, 0xFFFF_FFFF, 1 << 32, (1 << 63) - 1, 1 << 63, 1 << 20_000, 1.5, float("nan"), float("inf")),
    *("", " ", "x", "no", "../x", "\0", "a\nb", "*/", "\"", "é", "x" * 5000, "flash", "org", "-mfoo", "rv32"),
    *([], [1], ["x"], [[]], [{}], [["x"] * 9] * 9, {}, {"x": 1}, {"name": "x"}, datetime.date(2000, 1, 1)),
]  # fmt: skip


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Paths to every table, list and value in a table."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(item, (*path, key))


def changed(table: Any, path: tuple[str | int, ...], value: object) -> Any:
    key, *rest = path
    copy = dict(table) if isinstance(table, dict) else list(table)
    copy[key] = changed(copy[key], tuple(rest), value) if rest else value  # type: ignore[index, call-overload]
    return copy


@pytest.mark.parametrize("name", ["stm32f746g-disco", "qemu-rv32"])
def test_whatever_a_file_says_it_is_a_board_or_an_error_that_names_the_key(name: str) -> None:
    """Every key with every kind of wrong value: in both forms that a board is read from."""
    board = load_board(name)
    table = json.loads(json.dumps(dataclasses.asdict(dataclasses.replace(board, setup=board.setup[:2]))))
    refused = 0
    for path in places(table):
        for value in CHANGED:
            try:
                found = board_from_table(changed(table, path, value), "mine.toml")
            except CompileError as error:
                refused += 1
                for problem in error.problems:
                    assert problem.node == "mine.toml" and problem.remedy and len(str(problem)) < 1000
                    assert re.match(r"(the file's name|[a-z][\w.\[\]]*): ", problem.reason), problem.reason
            else:
                assert isinstance(found, Board) and json.dumps(dataclasses.asdict(found))
                assert min(r.origin for r in found.memory) >= 0 and max(r.end for r in found.memory) <= 1 << 32
    assert refused > 30 * len(list(places(table)))


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match=r"none\.toml': cannot be read: No such file"):
        load_board(tmp_path / "none.toml")


def test_a_board_that_borrows_an_emulator(tmp_path: Path) -> None:
    assert emulated(board_from(tmp_path, NO_EMULATOR)) is None
    board = board_from(tmp_path, 'emulated_by = "mps2-an500"\n' + NO_EMULATOR)
    double, host = emulated(board), load_board("mps2-an500")
    assert double == dataclasses.replace(host, clock_hz=200_000_000)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_folder(tmp_path_factory.mktemp("model") / "classifier")


@pytest.mark.parametrize("name", board_params())
def test_a_small_model_fits_every_board_and_runs_on_its_core(name: str, classifier: Path, tmp_path: Path) -> None:
    board = load_board(name)
    report = build(classifier, tmp_path / "out", board, Options(method="minmax"))
    assert report["flash"]["code_bytes"] > 0
    assert report["sram"]["stack_bytes"] is not None, report["measured"]["stacks"]
    found = ladder(output.read(tmp_path / "out"), ["qemu"], [], 3)
    assert [(rung.name, rung.mismatches) for rung in found.rungs] == [(f"qemu {board.emulated_by or name}", 0)]
    assert found.rungs[0].tensors > 0


@pytest.mark.parametrize("name", list_boards())
def test_a_large_model_fits_or_says_what_is_missing(name: str) -> None:
    """homecmd: 2.39 MB of weights, and an arena that tightly coupled memory holds."""
    fused = fuse(importer.load(data_dir("examples") / "homecmd").graph)
    board = load_board(name)
    lowered = sketch(fused, Texts(bytes(60_000)), "homecmd", target_of(board))
    room = board.region(board.placement.blob).size
    if len(lowered.emitted.blob) <= room:
        budget.check(board, fused, lowered)
    else:
        with pytest.raises(CompileError, match=rf"of flash \(blob [\d,]+\), {room:,} are available: [\d,]+ too many"):
            budget.check(board, fused, lowered)

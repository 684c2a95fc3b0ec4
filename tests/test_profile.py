"""SLM_PROFILE: nothing without it; with it, figures of each node that add up to the run, under the report's names."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest

from slm2c import report, toolchain
from slm2c.board import Board, load_board
from slm2c.build import build
from slm2c.compile import Options
from slm2c.resources import data_dir
from slm2c.students import student
from tests import generated
from tests.boards import board_params
from tests.generated import Built, compile_into
from tests.test_generated_c import HOSTILE

HOOK = 90
"""Instructions that the profile may add to a kernel call, its clock included."""

TOKENS = 36


@dataclass(frozen=True)
class Row:
    """A line of the table; `index` is "other" or "all" at its end."""

    index: str
    ticks: int
    calls: int
    operation: str
    node: str


def table(text: str) -> tuple[str, dict[str, Row]]:
    """The line of counters, and the lines of nodes by their number."""
    counters = re.search(r"^runs .*$", text, re.MULTILINE)
    assert counters, text
    text = text[: text.index("\n", text.index("\n  all ") + 1) + 1]
    line = r"^ *(\d+|other|all) +(\d+) +\d+\.\d %(?: +(\d+)  (\S+) +(.*))?$"
    rows = [Row(i, int(t), int(c or 0), op, node) for i, t, c, op, node in re.findall(line, text, re.MULTILINE)]
    assert len(rows) == text.partition("operator    node\n")[2].count("\n"), text
    return counters[0], {row.index: row for row in rows}


@pytest.fixture(scope="module")
def tiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student whose feed-forward blocks run in tiles: more than 16 tokens."""
    path = tmp_path_factory.mktemp("model") / "tiled.onnx"
    onnx.save(student(2, 32, 2, 256, TOKENS, 50, classes=3), path)
    return path


def cost(folder: Path, name: str, board: Board, work: Path, *defines: str) -> str:
    """What test/cost.c prints for one run at the full length."""
    sources = [folder / f"{name}.c", folder / "test" / "cost.c", *sorted((folder / "slm").glob("*.c"))]
    blob, includes = folder / f"{name}_blob.bin", [folder, folder / "slm"]
    image = work / f"cost{len(defines)}.elf"
    firmware = toolchain.build_firmware(sources, board, image, includes=includes, defines=defines, blob=blob)
    result = toolchain.run_qemu(firmware.elf, board, [str(TOKENS)], cwd=work)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", board_params(emulated=True))
def test_figures_add_up_to_the_run(name: str, tiled: Path, tmp_path: Path) -> None:
    board = load_board(name)
    made = build(tiled, tmp_path / "out", board, Options(method="minmax"))
    layers: list[dict[str, Any]] = report.read(tmp_path / "out")["layers"]
    text = cost(tmp_path / "out", "tiled", board, tmp_path, "SLM_PROFILE")
    counters, rows = table(text)
    total, other = rows.pop("all").ticks, rows.pop("other").ticks
    assert sum(row.ticks for row in rows.values()) + other == total
    assert {int(i): (row.operation, row.node) for i, row in rows.items()} == {
        i: (layer["op"], layer["node"]) for i, layer in enumerate(layers) if layer["kernel"]
    }
    calls = {layers[int(i)]["node"]: row.calls for i, row in rows.items()}
    assert {calls[f"layer.0/{x}"] for x in ("up", "down")} == {3}  # 36 rows in tiles of at most 16
    assert calls["layer.0/query"] == calls["classifier"] == 1
    assert re.fullmatch(
        rf"runs 1, errors 0; ticks of a run: last {total}, shortest {total}, longest {total}, mean {total}", counters
    )
    plain = int(re.search(rf"^run {TOKENS} (\d+)", cost(tmp_path / "out", "tiled", board, tmp_path), re.MULTILINE)[1])  # type: ignore[index]
    tick = board.emulator.instructions_per_tick if board.emulator else 1
    hooks = sum(calls.values()) + 1
    assert -2 * tick <= total - plain <= HOOK * hooks + 2 * tick
    assert other <= HOOK * hooks + tick
    expected = made["cost"]["lengths"][-1]
    assert expected["measured_instructions"] == pytest.approx(plain, abs=2 * tick)


def without_profile(text: str) -> str:
    """C as the preprocessor leaves it where SLM_PROFILE is not defined, as far as that goes."""
    kept, stack = [], list[str]()
    for line in text.splitlines(keepends=True):
        if line.startswith("#ifdef SLM_PROFILE"):
            stack.append("drop")
        elif line.startswith("#if"):
            stack.append("")
        elif line.startswith("#elif defined(SLM_PROFILE)"):
            stack[-1] = "branch"
        elif line.startswith("#else") and stack[-1]:
            stack[-1], line = ("keep", "") if stack[-1] == "drop" else ("", line)
        elif line.startswith("#endif"):
            line = line if not stack.pop() else ""
        if not set(stack) & {"drop", "branch"} and not line.startswith("#ifdef SLM_PROFILE"):
            kept.append(line)
    return "".join(kept)


@pytest.mark.qemu
@pytest.mark.parametrize("cpu", ["cortex-m4", "cortex-m7", "cortex-m33"])
def test_nothing_without_the_define(cpu: str, tmp_path: Path) -> None:
    """The object is the same, byte by byte, as that of code that never heard of a profile."""
    model = compile_into(tmp_path, generated.text_folder(tmp_path / "in"), "text")
    stripped = tmp_path / "stripped"
    shutil.copytree(model.folder, stripped)
    for path in (stripped / "text.c", stripped / "text.h"):
        path.write_text(without_profile(path.read_text(encoding="utf-8")), encoding="utf-8")
        code = re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
        assert "profile" not in code.lower() and "text_run" in code
    objects = []
    for folder in (model.folder, stripped):
        command = [toolchain.cross_cc(), *toolchain.WARNINGS, f"-mcpu={cpu}", "-mthumb", "-O2", "-Islm", "-I."]
        subprocess.run([*command, "-c", "text.c", "-o", "text.o"], cwd=folder, check=True)
        subprocess.run([*command, "-c", "slm/slm_profile.c", "-o", "profile.o"], cwd=folder, check=True)
        objects.append((folder / "text.o").read_bytes())
        size = subprocess.check_output(["arm-none-eabi-size", str(folder / "profile.o")], text=True)
        assert size.splitlines()[1].split()[:3] == ["0", "0", "0"]
    assert objects[0] == objects[1]


COUNTERS = r"""
#include "mlp.h"
#include <stdio.h>
static SLM_ALIGNED uint8_t blob[65536];
static SLM_ALIGNED uint8_t arena[MLP_ARENA_SIZE];
static uint32_t now = 0xFFFFFF00u; /* wraps in the first run */
uint32_t slm_profile_clock(void)
{
    return now += 16u;
}
static void print(const char *text)
{
    (void)fputs(text, stdout);
}
static void show(const mlp_profile *p)
{
    (void)printf("%u %u %s; %u %u %u %u %u\n", p->counters.runs, p->counters.errors,
                 slm_status_text(p->counters.last_error), (unsigned)p->counters.last, (unsigned)p->counters.shortest,
                 (unsigned)p->counters.longest, (unsigned)p->counters.sum, (unsigned)p->counters.other);
}
int main(int argc, char **argv)
{
    static mlp_profile profile;
    mlp_model model;
    int8_t input[MLP_INPUT_0_SIZE] = {0};
    int16_t output[MLP_OUTPUT_0_SIZE];
    FILE *file = argc > 1 ? fopen(argv[1], "rb") : NULL;
    const size_t size = file == NULL ? 0u : fread(blob, 1u, sizeof blob, file);
    if (file == NULL || fclose(file) != 0 || mlp_init(&model, blob, size, arena, sizeof arena) != SLM_OK) {
        return 2;
    }
    (void)mlp_run(&model, input, output); /* no profile: counted nowhere */
    mlp_profile_attach(&model, &profile);
    show(&profile);
    (void)mlp_run(&model, input, output);
    (void)mlp_run(&model, NULL, output);
    show(&profile);
    now += 5u;
    (void)mlp_run(&model, input, output);
    show(&profile);
    slm_profile_print(&profile.counters, print);
    mlp_profile_attach(&model, NULL);
    (void)mlp_run(&model, input, output);
    show(&profile);
    mlp_profile_attach(&model, &profile);
    show(&profile);
    return mlp_run(NULL, input, output) == SLM_ERR_NULL ? 0 : 1;
}
"""


def profiled(model: Built, text: str, work: Path) -> str:
    """What a program with the model prints, compiled with SLM_PROFILE."""
    (work / "main.c").write_text(text, encoding="utf-8")
    sources = [work / "main.c", *model.sources()]
    exe = toolchain.build_host(
        sources, work / "main", includes=model.includes(), defines=["SLM_PROFILE"], sanitize=True
    )
    result = toolchain.run_host(exe, [str(model.blob)])
    assert result.exit_code == 0, result.output
    return result.output


def test_counters(host_cc: str, tmp_path: Path) -> None:
    """With a clock that takes 16 ticks a look: two looks a kernel, one at each end."""
    model = compile_into(tmp_path, generated.mlp(), "mlp")
    kernels = sum(bool(call.symbol) for call in model.compiled.lowered.program.calls)
    run, other = 16 * (2 * kernels + 1), 16 * (kernels + 1)
    before, first, second, *printed = profiled(model, COUNTERS, tmp_path).splitlines()
    assert before == "0 0 ok; 0 0 0 0 0"
    assert first == f"1 1 a required pointer is null; {run} {run} {run} {run} {other}"
    assert second == f"2 1 a required pointer is null; {run} {run} {run} {2 * run} {2 * other}"
    counters, rows = table("\n".join(printed[:-2]) + "\n")
    assert counters.startswith("runs 2, errors 1 (the last: a required pointer is null); ticks of a run: last")
    assert {row.calls for i, row in rows.items() if i.isdigit()} == {2}
    assert [row.ticks for row in rows.values()] == [*[16] * kernels, other, run]
    assert printed[-2:] == [second, before]


NAMES = COUNTERS.replace("slm_profile_print(&profile.counters, print);", "").replace(
    "    return mlp_run",
    "    for (uint32_t i = 0; i < MLP_NODES; i++) {\n        (void)fputs(profile.counters.nodes[i].name, stdout);\n"
    "        (void)putchar(0);\n    }\n    (void)print;\n    return mlp_run",
)


def test_names_are_those_of_the_file(host_cc: str, tmp_path: Path) -> None:
    sizes = (3,) * (len(HOSTILE) + 1)
    proto = generated.mlp(sizes)
    names = iter(HOSTILE)
    for node in proto.graph.node:
        if node.op_type == "Gemm":
            node.name = next(names)
    model = compile_into(tmp_path, proto, "mlp")
    printed = profiled(model, NAMES, tmp_path)
    layers = [node.name for node in model.compiled.lowered.program.graph.nodes]
    assert printed.split("\n", 5)[-1].split("\0")[:-1] == layers
    assert set(layers) & set(HOSTILE)


CLOCK = r"""
#include "slm_profile_clock.h"
#include "slm_port.h"
int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) { /* no device of the emulated cores: compiled, not run */
        return slm_profile_clock_start() == 0 && slm_profile_clock() != 0u ? 0 : 1;
    }
    return 0;
}
"""


@pytest.mark.parametrize("name", board_params(emulated=True))
def test_the_default_clock_is_clean_and_counts_where_it_is_emulated(name: str, tmp_path: Path) -> None:
    (tmp_path / "clock.c").write_text(CLOCK, encoding="utf-8")
    board = load_board(name)
    firmware = toolchain.build_firmware(
        [tmp_path / "clock.c"], board, tmp_path / "clock.elf", includes=[data_dir("runtime_c")], defines=["SLM_PROFILE"]
    )
    args = ["run"] if board.architecture == "riscv" else []
    assert toolchain.run_qemu(firmware.elf, board, args, timeout=20).exit_code == 0


@pytest.mark.qemu
def test_a_core_without_counter_is_told(tmp_path: Path) -> None:
    (tmp_path / "clock.c").write_text('#include "slm_profile_clock.h"\n', encoding="utf-8")
    command = [toolchain.cross_cc(), "-mcpu=cortex-m0", "-mthumb", f"-I{data_dir('runtime_c')}", "-c", "clock.c"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode and "define slm_profile_clock() yourself" in result.stderr


def test_program_for_this_machine_prints_it(host_cc: str, tmp_path: Path) -> None:
    model = compile_into(tmp_path, generated.text_folder(tmp_path / "in"), "text")
    generated.run(["make", "CFLAGS=-O1 -DSLM_PROFILE -Werror", "BUILD=build/profile"], model.folder)
    counters, rows = table(generated.run(["build/profile/text_cli", "stop", "play music"], model.folder))
    assert counters.startswith("runs 2, errors 0;") and rows["all"].ticks > 0

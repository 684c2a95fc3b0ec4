"""Reports and budgets: figures against the files and images that they are about, and what refuses to fit."""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slm2c import budget, importer, measure, output, report, summary, toolchain
from slm2c.board import Board, load_board
from slm2c.build import build
from slm2c.compile import Options, compile_model
from slm2c.emit import Texts
from slm2c.errors import CompileError
from slm2c.lower import sketch, target_of
from slm2c.passes import fuse
from slm2c.text import WIDTH, share, table
from tests.generated import text_folder

BOARD = "generic-m7-512k-4m"


def mlp(path: Path, *sizes: int, rows: int = 1) -> Path:
    """A file with fully connected layers and ReLU between them."""
    rng = np.random.default_rng(0)
    nodes, weights, x = [], [], "x"
    for i, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes)):
        weight = rng.normal(size=(fan_in, fan_out)).astype(np.float32) / np.sqrt(fan_in, dtype=np.float32)
        weights += [numpy_helper.from_array(weight, f"w{i}"), numpy_helper.from_array(weight[0], f"b{i}")]
        y = "y" if i == len(sizes) - 2 else f"h{i}"
        nodes.append(helper.make_node("Gemm", [x, f"w{i}", f"b{i}"], [y if y == "y" else f"{y}_"], name=f"fc{i}"))
        if y != "y":
            nodes.append(helper.make_node("Relu", [f"{y}_"], [y], name=f"relu{i}"))
        x = y
    ports = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, [rows, s]) for n, s in (("x", sizes[0]), ("y", sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "mlp", ports[:1], ports[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mlp(tmp_path_factory.mktemp("model") / "small.onnx", 32, 48, 17, 5)


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """An output folder, and the report that the build returned."""
    out = tmp_path_factory.mktemp("build") / "out"
    return out, build(model, out, load_board(BOARD), Options())


@pytest.fixture(scope="module")
def unmeasured(model: Path) -> dict[str, Any]:
    """The report of a build without cross compiler."""
    return report.build(compile_model(model, load_board(BOARD), Options()), "arm-none-eabi-gcc: not found")


def test_report_is_what_was_written(built: tuple[Path, dict[str, Any]]) -> None:
    out, made = built
    assert report.read(out) == made


def test_report_agrees_with_the_files(built: tuple[Path, dict[str, Any]]) -> None:
    out, made = built
    header = (out / "small.h").read_text()
    arena = re.search(r"#define SMALL_ARENA_SIZE (\d+)u", header)
    assert arena is not None and int(arena[1]) == made["sram"]["arena_bytes"]
    assert (out / "small_blob.bin").stat().st_size == made["flash"]["blob_bytes"]
    assert 0 < made["sram"]["arena_lower_bound_bytes"] <= made["sram"]["arena_bytes"]
    assert made["memory"]["lower_bound_bytes"] <= made["memory"]["arena_bytes"]
    assert made["sram"]["caller_bytes"] == 32 + 2 * 5  # int8 in, int16 out
    assert [layer["macs"] for layer in made["layers"]] == [32 * 48, 48 * 17, 17 * 5]
    assert made["model"]["macs"] == 32 * 48 + 48 * 17 + 17 * 5
    instructions = [layer["instructions"][-1] for layer in made["layers"]]
    assert min(instructions) > 0 and abs(sum(instructions) - made["schedule"]["instructions"]) <= 3  # rounded each
    assert made["model"]["parameters"] == 32 * 48 + 48 + 48 * 17 + 17 + 17 * 5 + 5
    weights = sum(layer["weight_bytes"] for layer in made["layers"])
    assert 0 < made["flash"]["sections"]["weights"] - weights < 64  # the rest: scales of inputs and outputs
    assert {t["tensor"] for t in made["tensors"]} == {"x", "t1", "t2", "t3"}
    assert {t["dtype"] for t in made["tensors"] if t["reason"] == "output"} == {"i16"}
    ends = [p["offset"] + p["bytes"] for p in made["memory"]["placements"]]
    assert made["memory"]["arena_bytes"] - 16 < max(ends) <= made["memory"]["arena_bytes"]


def test_without_calibration_the_report_says_so(
    built: tuple[Path, dict[str, Any]], model: Path, tmp_path: Path
) -> None:
    assert built[1]["calibration"]["source"] is None
    assert "Accuracy was not measured" in summary.summary(built[1])
    np.savez(tmp_path / "real.npz", x=np.random.default_rng(1).normal(size=(9, 32)).astype(np.float32))
    options = Options(calibration=tmp_path / "real.npz", method="percentile")
    made = report.build(compile_model(model, load_board(BOARD), options), "no tools")
    assert made["calibration"]["samples"] == 9 and made["calibration"]["source"] == "real.npz"
    assert list(made["calibration"]["output_sqnr_db"]) == ["percentile"]
    assert "calibrated on 9 samples of real.npz: percentile" in summary.summary(made)


@pytest.mark.qemu
def test_measured_bytes_are_linked_bytes(tmp_path: Path) -> None:
    """Of a model with two rows, which takes the deepest path: that of one row is not as deep."""
    out = tmp_path / "out"
    made = build(mlp(tmp_path / "small.onnx", 32, 48, 17, 5, rows=2), out, load_board(BOARD), Options())
    measured = made["measured"]
    assert measured["compiler"].startswith("arm-none-eabi-gcc")
    deepest = max(measured["stacks"], key=lambda stack: stack["bytes"])
    assert sum(row["bytes"] for row in deepest["path"]) == deepest["bytes"] == made["sram"]["stack_bytes"]
    (run,) = [run for run in measure.runs(out, "small", load_board(BOARD), [1]) if run.entry == "run"]
    assert made["sram"]["stack_bytes"] - 16 <= run.stack <= made["sram"]["stack_bytes"]  # frames pad to 8 bytes
    assert run.instructions == made["cost"]["lengths"][0]["measured_instructions"] > made["model"]["macs"]


def test_without_tools_nothing_is_made_up(unmeasured: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert unmeasured["flash"]["code_bytes"] is None and unmeasured["sram"]["stack_bytes"] is None
    assert unmeasured["measured"] == {"reason": "arm-none-eabi-gcc: not found"}
    text = summary.render(unmeasured)
    assert text.count("not measured: arm-none-eabi-gcc: not found") == 2 and "deepest call path" not in text


def test_build_without_cross_compiler(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLM2C_CROSS", "no-such-")
    made = build(model, tmp_path / "out", load_board(BOARD), Options(method="minmax"))
    assert made["flash"]["code_bytes"] is None and "no-such-gcc" in made["measured"]["reason"]


@pytest.mark.qemu
def test_build_with_an_emulator_that_fails(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is linked is measured all the same; why nothing ran is said."""
    qemu = tmp_path / "bin" / "qemu-system-arm"
    qemu.parent.mkdir()
    qemu.write_text("#!/bin/sh\necho 'QEMU emulator version 0.1'\n[ \"$1\" = --version ]\n")
    qemu.chmod(0o755)
    monkeypatch.setenv("PATH", f"{qemu.parent}:{os.environ['PATH']}")
    made = build(model, tmp_path / "out", load_board(BOARD), Options(method="minmax"))
    assert made["flash"]["code_bytes"] > 0
    assert made["measured"]["emulated"] == {"reason": "test/cost.c ended with code 1"}
    assert "not measured: test/cost.c ended with code 1" in summary.render(made)


def test_render_is_narrow(built: tuple[Path, dict[str, Any]], unmeasured: dict[str, Any]) -> None:
    for facts in (built[1], unmeasured):
        lines = summary.render(facts).splitlines()
        assert max(map(len, lines)) <= WIDTH, max(lines, key=len)
        assert "fc0" in summary.render(facts)


def test_render_escapes_names(unmeasured: dict[str, Any]) -> None:
    evil = json.loads(json.dumps(unmeasured).replace("fc1", "\\u001b[31mfc1\\n"))
    assert "\x1b" not in summary.render(evil) and "\\x1b[31mfc1\\n" in summary.render(evil)


@pytest.mark.parametrize(
    "content, told",
    [
        ("", r"report\.json': is damaged: Expecting value"),
        ("[]", r"report\.json': is damaged: its checksum is not that of its contents"),
        ("{", r"report\.json': is damaged: Expecting property name"),
        ('{"slm2c": "0.0.0"}', r"is of slm2c 0\.0\.0, this is "),
        (None, r"has no report\.json, so it is not the output of `slm2c build`"),
    ],
)
def test_read_refuses(content: str | None, told: str, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(CompileError, match=told):
        report.read(tmp_path)


@pytest.mark.parametrize("part", ["board", "model", "memory", "layers", "checksum", "measured"])
def test_a_damaged_report_is_no_bug(part: str, built: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    for value in ([], {}, None, 1, "x", [1], {"name": 1}):
        (tmp_path / "report.json").write_text(json.dumps(built[1] | {part: value}))
        with pytest.raises(CompileError, match=r"report\.json': is damaged: its checksum .*; build it again"):
            report.read(tmp_path)


def small_board(tmp_path: Path, flash: int, sram: int) -> Board:
    text = (toolchain.data_dir("boards") / f"{BOARD}.toml").read_text()
    text = text.replace("size = 0x0040_0000", f"size = {flash}").replace("size = 0x0008_0000", f"size = {sram}")
    (tmp_path / "tiny.toml").write_text(text)
    return load_board(tmp_path / "tiny.toml")


def figure(pattern: str, text: str) -> int:
    """The number that a pattern finds."""
    found = re.search(pattern, text)
    assert found, text
    return int(found[1].replace(",", ""))


def test_too_little_flash(model: Path, tmp_path: Path) -> None:
    board = small_board(tmp_path, 2048, 65536)
    with pytest.raises(CompileError) as caught:
        build(model, tmp_path / "out", board, Options())
    first, *rest = caught.value.problems
    blob, code = (figure(rf"{what} ([\d,]+)", first.reason) for what in ("blob", "code"))
    assert f"needs {blob + code:,} bytes of flash" in first.reason and "2,048 are available" in first.reason
    assert first.node == "tiny" and f"{blob + code - 2048:,} too many" in first.reason
    assert BOARD in first.remedy
    assert [p.node for p in rest] == ["fc0", "fc1", "fc2"]  # the largest first
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny.toml"]


def test_too_little_ram(model: Path, tmp_path: Path) -> None:
    board = small_board(tmp_path, 1 << 20, 8192 + 64)
    with pytest.raises(CompileError) as caught:
        compile_model(model, board, Options())
    first, *rest = caught.value.problems
    assert re.search(r"stack 8,192, variables \d{3}, arena \d+, inputs and outputs 42\)", first.reason)
    assert figure("needs ([\\d,]+) bytes of sram", first.reason) == 8192 + 64 + figure("([\\d,]+) too", first.reason)
    assert {p.node for p in rest} == {"relu0", "relu1"} or {p.node for p in rest} == {"fc0", "fc1"}
    assert all("at the arena's peak" in p.reason for p in rest)
    assert not (tmp_path / "out").exists()


@pytest.mark.qemu
def test_code_counts_too(model: Path, tmp_path: Path) -> None:
    """Everything but the code fits; the linked image does not, and nothing is written."""
    blob = len(compile_model(model, load_board(BOARD), Options(method="minmax")).lowered.emitted.blob)
    board = small_board(tmp_path, blob + 64, 65536)
    with pytest.raises(CompileError, match="flash"):
        build(model, tmp_path / "out", board, Options(method="minmax"))
    assert list(tmp_path.iterdir()) == [tmp_path / "tiny.toml"]


@pytest.mark.qemu
@pytest.mark.parametrize("text", [False, True])
def test_what_just_fits_links(model: Path, tmp_path: Path, text: bool) -> None:
    """What is kept for variables suffices, and what decides is the linked image, to the byte."""
    source = text_folder(tmp_path / "text") if text else model
    options = Options(method="minmax", name="just")
    roomy = compile_model(source, load_board(BOARD), options)
    expected = sum(n.bytes for n in budget.needs(roomy.board, roomy.lowered) if n.region == "sram")

    def sram(size: int, name: str) -> int:
        built = build(source, tmp_path / name, small_board(tmp_path, 1_000_000, size), options)
        return sum(next(r for r in built["board"]["regions"] if r["name"] == "sram")["used"].values())

    used = sram(expected, "out")
    assert expected - budget.DATA_BYTES < used <= expected
    assert sram(used, "less") == used
    with pytest.raises(CompileError, match=f"needs {used:,} bytes of sram .* {used - 8:,} are available: 8 too many"):
        sram(used - 8, "least")


def test_hopeless_models_are_not_calibrated(tmp_path: Path) -> None:
    path = mlp(tmp_path / "wide.onnx", 8, 3000, 8)
    stages: list[str] = []
    with pytest.raises(CompileError, match="too many"):
        compile_model(path, small_board(tmp_path, 16384, 65536), Options(), lambda stage, *_: stages.append(stage))
    assert "calibrate" not in stages and "plan" in stages


def test_sketch_has_the_size_of_the_build(model: Path) -> None:
    board = load_board(BOARD)
    compiled, target = compile_model(model, board, Options(method="minmax")), target_of(board)
    assert sketch(fuse(importer.load(model).graph), Texts(), "model", target).plan == compiled.lowered.plan
    assert len(sketch(compiled.fused, Texts(), "small", target).emitted.blob) == len(compiled.lowered.emitted.blob)


def test_remedies_of_a_text_model(tmp_path: Path) -> None:
    """Vocabulary, layers and length with figures that suffice."""
    fused = fuse(importer.load(toolchain.data_dir("examples") / "homecmd").graph)
    lowered = sketch(fused, Texts(b"\0" * 60_000), "homecmd", target_of(load_board(BOARD)))
    board = small_board(tmp_path, 1_500_000, 8192 + 16_000)
    with pytest.raises(CompileError) as caught:
        budget.check(board, fused, lowered)
    flash, ram = [p for p in caught.value.problems if p.node == "tiny"]
    blob = len(lowered.emitted.blob)
    entries = figure(r"a vocabulary of at most ([\d,]+) instead of 8,192", flash.remedy)
    row = (128 * 8192 + 60_000) / 8192
    assert blob - (8192 - entries) * row <= 1_500_000 < blob - (8192 - entries - 1) * row
    assert re.search(r"at most 1 layer instead of 6 save about 1,0\d\d,\d{3} bytes", flash.remedy)
    assert re.search(r"at most \d\d? tokens instead of 32 save [\d,]+ bytes \(--shape input_ids=1,\d\d?", ram.remedy)


def test_too_large_image_model(shared: Path) -> None:
    with pytest.raises(CompileError) as caught:
        compile_model(shared / "models/bad/bad_too_large_sram.onnx", load_board(BOARD), Options())
    first, *rest = caught.value.problems
    assert "arena 1,605,632, inputs and outputs 150,560, stack 8,192, variables" in first.reason
    assert "524,288 are available" in first.reason
    assert [(p.node, p.op) for p in rest] == [("a", "conv2d"), ("c", "conv2d")]
    assert "mps2-an500" in first.remedy


def test_needs_lie_where_the_board_says(model: Path) -> None:
    board = load_board("mps2-an500")  # code and blob in different memories
    lowered = compile_model(model, board, Options(method="minmax")).lowered
    found = budget.by_region(budget.needs(board, lowered, code=1000))
    assert {name: [n.what for n in group] for name, group in found.items()} == {
        "psram": ["blob"],
        "ssram1": ["code"],
        "ssram23": ["arena", "stack", "inputs and outputs", "variables"],
    }
    assert budget.excess(board, budget.needs(board, lowered)) == {}


def test_board_of_a_build_is_kept(model: Path, tmp_path: Path) -> None:
    board = small_board(tmp_path, 1 << 20, 65536)
    build(model, tmp_path / "out", board, Options(method="minmax"))
    (tmp_path / "tiny.toml").unlink()
    assert output.read(tmp_path / "out").board == board


def test_table() -> None:
    assert table([("a", 1234567, None)], "lrr") == "  a  1,234,567"
    assert table([("a\n", 1), ("bc", 22)], "lr", ("x", "y")) == "  x     y\n  a\\n   1\n  bc   22"
    wide = table([("x" * 90 + "end", "y" * 40, 7)], "*lr")
    assert len(wide) == WIDTH and "..x" in wide and "end  yyy" in wide
    assert table([], "l") == ""


def test_share() -> None:
    assert (
        share(0, 10, 4) == "...."
        and share(5, 10, 4) == "##.."
        and share(20, 10, 4) == "####"
        and share(1, 0, 2) == ".."
    )

"""The commands as a user meets them: output, errors, exit codes, signals, full disks."""

from __future__ import annotations

import errno
import json
import os
import pty
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slm2c import __version__, board, cli, console, folders, seal, toolchain
from slm2c.resources import data_dir

BOARD = "generic-m7-512k-4m"
ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = data_dir("examples") / "homecmd"
COMMANDS = sorted(cli.cli.commands)


def save(path: Path, nodes: list[onnx.NodeProto], weights: Mapping[str, Any], shape: list[int | str]) -> Path:
    ports = [helper.make_tensor_value_info(x, TensorProto.FLOAT, s) for x, s in (("x", shape), ("y", None))]
    initializers = [numpy_helper.from_array(np.asarray(v, np.float32), k) for k, v in weights.items()]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers, of 12 numbers in and 5 out."""
    rng = np.random.default_rng(0)
    weights = {
        "a": rng.normal(size=(12, 20)),
        "b": rng.normal(size=20),
        "c": rng.normal(size=(20, 5)),
        "d": np.zeros(5),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "a", "b"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"], name="bend"),
        helper.make_node("Gemm", ["r", "c", "d"], ["y"], name="second"),
    ]
    return save(tmp_path_factory.mktemp("model") / "tiny.onnx", nodes, weights, [1, 12])


@pytest.fixture(scope="module")
def unsupported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nodes = [helper.make_node("Det", ["x"], ["d"], name="area"), helper.make_node("Det", ["d"], ["y"], name="volume")]
    return save(tmp_path_factory.mktemp("model") / "odd.onnx", nodes, {}, [1, 4, 4, 4])


@pytest.fixture(scope="module")
def built(model: Path, tmp_path_factory: pytest.TempPathFactory, host_cc: str) -> Path:
    """The output folder of `model`."""
    out = tmp_path_factory.mktemp("built") / "out"
    assert cli.invoke(["build", str(model), "-o", str(out), "--board", BOARD]) == 0
    return out


@pytest.fixture(scope="module")
def homecmd(tmp_path_factory: pytest.TempPathFactory, host_cc: str) -> Path:
    """The example student, calibrated on a few sentences."""
    folder = tmp_path_factory.mktemp("homecmd")
    (folder / "some.txt").write_text("\n".join((EXAMPLE / "commands.txt").read_text().splitlines()[::2]))
    args = ["build", str(EXAMPLE), "-o", str(folder / "out"), "--board", BOARD, "--method", "minmax"]
    assert cli.invoke([*args, "--calib", str(folder / "some.txt")]) == 0
    return folder / "out"


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """Run a command in this process: (exit code, stdout, stderr), without progress however slow the machine is."""
    monkeypatch.setattr(console, "_PATIENCE", 600.0)

    def run(*args: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.invoke([str(arg) for arg in args])
        return code, *capsys.readouterr()

    return run


def slm2c(*args: str | Path) -> list[str]:
    return [sys.executable, "-m", "slm2c", *map(str, args)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


# ---------------------------------------------------------------- help and usage


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, call: Call) -> None:
    code, out, _ = call(command, "--help")
    assert code == 0 and f"Example: slm2c {command}" in out and "--json" in out
    assert max(map(len, out.splitlines())) <= 100


def test_example_commands_parse() -> None:
    """The examples in the help use arguments and options that exist."""
    for name, command in cli.cli.commands.items():
        words = re.sub(r'"[^"]*"', "TEXT", command.epilog or "").removeprefix(f"Example: slm2c {name}").split()
        with command.make_context(name, words, obj=console.State()) as context:
            assert context.params is not None


def test_commands_are_those_promised() -> None:
    assert COMMANDS == [
        "boards",
        "build",
        "compress",
        "demo",
        "distill",
        "eval",
        "fit",
        "flash-layout",
        "inspect",
        "renode",
        "report",
        "run",
        "validate",
    ]


def test_help_loads_nothing_heavy() -> None:
    heavy = "{'numpy', 'onnx', 'jinja2', 'elftools'}"
    code = f"import sys; from slm2c import cli; cli.invoke(['--help']); print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "args, message",
    [
        (["frobnicate"], "No such command"),
        (["build", "x.onnx"], "Missing option"),
        (["inspect"], "Missing argument"),
        (["inspect", "x.onnx", "--shape", "x"], "'x' is not NAME=SIZE"),
        (["inspect", "x.onnx", "--shape", f"x={'1' * 5000}"], "is not NAME=SIZE"),
        (["build", "x", "-o", "y", "--board", "z", "--reserve", "a=1", "--reserve", "a=2"], "'a' is given twice"),
        (["build", "x", "-o", "y", "--board", "z", "--reserve", f"a={'1' * 5000}"], "is not REGION=BYTES"),
        (["inspect", "x.onnx", "--shape", "=1,2"], "is not NAME=SIZE"),
        (["inspect", "x.onnx", "--shape", "x="], "is not NAME=SIZE"),
        (["inspect", "x.onnx", "--shape", "x=1,0"], "is not NAME=SIZE"),
        (["inspect", "x.onnx", "--shape", "x=1,-2"], "is not NAME=SIZE"),
        (["inspect", "x.onnx", "--shape", "x=1,²"], "is not NAME=SIZE"),
        (["inspect", "x.onnx", "--shape", "x=1", "--shape", "x=2"], "given twice"),
        (["validate", "out", "--on", "moon"], "'moon' is not one of"),
        (["validate", "out", "--samples", "0"], "x>=1"),
        (["build", "x.onnx", "-o", "y", "--board", BOARD, "--method", "magic"], "'magic' is not one of"),
        (["build", "x.onnx", "-o", "y", "--board", BOARD, "--arena", "abc"], "not a valid number of bytes"),
        (["build", "x.onnx", "-o", "y", "--board", BOARD, "--arena", "-1"], "x>=1"),
        (["run", "out"], "give either texts, or --input and --output"),
        (["run", "out", "hello", "--input", "x.npz", "--output", "y.npz"], "give either texts"),
        (["run", "out", "--input", "x.npz"], "give either texts"),
    ],
)
def test_wrong_usage(args: list[str], message: str, call: Call) -> None:
    code, out, err = call(*args)
    assert code == 2 and out == "" and message in err and "Usage:" in err


def test_version(call: Call) -> None:
    assert call("--version")[:2] == (0, f"slm2c {console.__version__}\n")


# ---------------------------------------------------------------- errors

WRONG: list[tuple[list[str], str]] = [
    (["inspect", "MISSING"], "MISSING"),
    (["inspect", "EMPTY"], "EMPTY"),
    (["inspect", "TEXT"], "TEXT"),
    (["build", "MISSING", "-o", "NEW", "--board", BOARD], "MISSING"),
    (["build", "EMPTY", "-o", "NEW", "--board", BOARD], "EMPTY"),
    (["build", "MODEL", "-o", "NEW", "--board", "generic-m7-512k"], f"did you mean '{BOARD}'"),
    (["build", "MODEL", "-o", "NEW", "--board", "MISSING.toml"], "MISSING.toml"),
    (["build", "MODEL", "-o", "NEW", "--board", BOARD, "--name", "../x"], "is not usable as a C prefix"),
    (["build", "MODEL", "-o", "NEW", "--board", BOARD, "--shape", "z=1,2"], "'z'"),
    (["build", "MODEL", "-o", "NEW", "--board", BOARD, "--calib", "MISSING.npz"], "MISSING.npz"),
    (["build", "MODEL", "-o", "NEW", "--board", BOARD, "--calib", "TEXT"], "no tokenizer"),
    (["build", "MODEL", "-o", "NEW", "--board", BOARD, "--tokenizer", "TEXT"], "not a JSON file"),
    (["build", "MODEL", "-o", "NEW", "--board", BOARD, "--labels", "TEXT"], "TEXT"),
    (["build", "MODEL", "-o", "FOREIGN", "--board", BOARD], "is not the output of slm2c"),
    (["build", "MODEL", "-o", "TEXT", "--board", BOARD], "is not the output of slm2c"),
    (["build", "MODEL", "-o", "TEXT/below", "--board", BOARD], "is not a folder"),
    (["validate", "EMPTY"], "is not the output of `slm2c build`"),
    (["validate", "BUILT", "--board", "moon"], "unknown board"),
    (["eval", "BUILT", "MISSING.csv"], "MISSING.csv"),
    (["eval", "BUILT", "TEXT"], "has no column text and no column label"),
    (["eval", "BUILT", "DATA"], "does not answer text"),
    (["run", "EMPTY", "hello"], "is not the output of `slm2c build`"),
    (["run", "BUILT", "hello"], "does not answer text"),
    (["run", "BUILT", "--input", "MISSING.npz", "--output", "NEW"], "MISSING.npz"),
    (["run", "BUILT", "--input", "WRONG", "--output", "NEW"], "has no array for the inputs x"),
    (["run", "BUILT", "--input", "RIGHT", "--output", "TEXT/below"], "cannot be written: Not a directory"),
    (["run", "BUILT", "--input", "RIGHT", "--output", "/"], "'/': cannot be written: "),
    (["report", "MISSING"], "is not the output of `slm2c build`"),
    (["report", "EMPTY"], "is not the output of `slm2c build`"),
    (["boards", "stm32f746"], "unknown board"),
    (["demo", "-o", "FOREIGN"], "is not the output of slm2c"),
]


@pytest.fixture
def things(tmp_path: Path, model: Path, built: Path) -> dict[str, Path]:
    """Files and folders that the wrong commands name."""
    found = {"MODEL": model, "BUILT": built}
    for name in ("MISSING", "EMPTY", "TEXT", "FOREIGN", "NEW", "DATA", "WRONG", "RIGHT"):
        found[name] = tmp_path / f"the {name.lower()} one"
    found["DATA"], found["WRONG"], found["RIGHT"] = (tmp_path / x for x in ("data.csv", "wrong.npz", "right.npz"))
    found["EMPTY"].mkdir()
    found["FOREIGN"].mkdir()
    (found["FOREIGN"] / "precious.txt").write_text("keep me")
    found["TEXT"].write_text("neither a model\nnor JSON")
    found["DATA"].write_text("text,label\nhello,greeting\n")
    np.savez(found["WRONG"], z=np.zeros((3, 12), np.float32))
    np.savez(found["RIGHT"], x=np.zeros((3, 12), np.float32))
    return found


@pytest.mark.parametrize("args, message", WRONG, ids=[" ".join(args) for args, _ in WRONG])
def test_errors(args: list[str], message: str, things: dict[str, Path], tmp_path: Path, call: Call) -> None:
    """One `error:` line for each problem on stderr, or JSON on stdout; exit code 1; nothing is left behind."""
    before = sorted(tmp_path.rglob("*"))
    pattern = re.compile("|".join(things))
    real = [pattern.sub(lambda m: str(things[m[0]]), arg) for arg in args]
    expected = pattern.sub(lambda m: str(things[m[0]]), message)
    code, out, err = call(*real)
    assert code == 1 and out == "" and expected in err and "Traceback" not in err
    assert all(line.startswith("error: ") for line in err.splitlines())
    code, out, err = call(*real, "--json")
    error = json.loads(out)["error"]
    assert code == 1 and expected in error["message"]
    assert error["nodes"] and all(set(n) == {"node", "op", "reason", "remedy"} for n in error["nodes"])
    assert sorted(tmp_path.rglob("*")) == before
    assert (things["FOREIGN"] / "precious.txt").read_text() == "keep me"


def test_every_problem_is_listed(unsupported: Path, tmp_path: Path, call: Call) -> None:
    code, out, err = call("build", unsupported, "-o", tmp_path / "out", "--board", BOARD)
    assert code == 1 and out == "" and not (tmp_path / "out").exists()
    assert [line.split(":")[1] for line in err.splitlines()] == [" Det 'area'", " Det 'volume'"]


def test_names_cannot_drive_the_terminal(tmp_path: Path, call: Call) -> None:
    path = save(
        tmp_path / "evil.onnx", [helper.make_node("Det", ["x"], ["y"], name="\x1b[2J\nerror: x")], {}, [1, 4, 4]
    )
    code, _, err = call("build", path, "-o", tmp_path / "out", "--board", BOARD)
    assert code == 1 and "\x1b" not in err and len(err.splitlines()) == 1


@pytest.mark.parametrize("debug", [False, True])
def test_a_bug_of_ours(debug: bool, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    def broken() -> tuple[str, ...]:
        raise ValueError("two\nlines")

    monkeypatch.setattr(board, "list_boards", broken)
    monkeypatch.delenv("SLM2C_DEBUG", raising=False)
    if debug:
        monkeypatch.setenv("SLM2C_DEBUG", "1")
    code, out, err = call("boards")
    assert code == 70 and out == "" and "a bug in slm2c" in err and "ValueError: two; please report it" in err
    assert ("Traceback" in err) == debug
    code, out, _ = call("boards", "--json")
    assert code == 70 and "a bug in slm2c" in json.loads(out)["error"]["message"]


# ---------------------------------------------------------------- what the commands show


def test_boards(call: Call) -> None:
    code, out, err = call("boards")
    assert code == 0 and err == ""
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(board.list_boards())
    facts = json.loads(call("boards", "--json")[1])
    assert [f["name"] for f in facts] == list(board.list_boards())
    one = json.loads(call("boards", BOARD, "--json")[1])
    assert one == next(f for f in facts if f["name"] == BOARD)
    assert (one["flash_bytes"], one["ram_bytes"]) == (4 << 20, 512 << 10)
    assert "0x20000000" in call("boards", BOARD)[1]


def test_inspect(model: Path, call: Call) -> None:
    code, out, _ = call("inspect", model)
    assert code == 0 and "x: float32 [1, 12], data" in out and "2 Gemm" in out and "2 linear" in out and BOARD in out
    facts = json.loads(call("inspect", model, "--json")[1])
    assert facts["parameters"] == 12 * 20 + 20 + 20 * 5 + 5 and facts["macs"] == 12 * 20 + 20 * 5
    assert facts["onnx_operators"] == {"Gemm": 2, "Relu": 1} and facts["operators"] == {"linear": 2}
    assert facts["boards"][0]["fits"] and "error" not in facts


def test_inspect_of_a_text_model(call: Call) -> None:
    facts = json.loads(call("inspect", EXAMPLE, "--json")[1])
    assert [p["role"] for p in facts["inputs"]] == ["token ids", "mask, replaced by the token count n"]
    assert facts["max_tokens"] == 32 and facts["macs_per_token"] == facts["macs"] // 32 and not facts["length_fixed_by"]
    assert facts["operators"]["attention"] == 6 and facts["operators"]["embedding"] == 1
    assert facts["estimate"]["sections"]["tokenizer"] > 8192


def test_inspect_of_what_is_not_supported(unsupported: Path, call: Call) -> None:
    code, out, _ = call("inspect", unsupported)
    assert code == 1 and "not supported: 2" in out and "Det 'area'" in out and "Det 'volume'" in out
    code, out, _ = call("inspect", unsupported, "--json")
    facts = json.loads(out)
    assert code == 1 and facts["onnx_operators"] == {"Det": 2} and facts["boards"] is None
    assert [n["node"] for n in facts["error"]["nodes"]] == ["area", "volume"]


def test_open_shapes_are_bound(tmp_path: Path, call: Call) -> None:
    path = save(tmp_path / "open.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, [1, "length"])
    code, _, err = call("inspect", path)
    assert code == 1 and "--shape x=" in err
    facts = json.loads(call("inspect", path, "--shape", "x=1,7", "--json")[1])
    assert facts["inputs"][0]["shape"] == [1, 7]


def test_build_says_what_it_costs(model: Path, tmp_path: Path, call: Call) -> None:
    code, out, err = call("build", model, "-o", tmp_path / "out", "--board", BOARD)
    assert code == 0 and err == ""
    blob = (tmp_path / "out" / "tiny_blob.bin").stat().st_size
    assert (
        re.search(rf"flash +blob +{blob:,} ", out) and "not calibrated" in out and f"slm2c validate {tmp_path}" in out
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    facts = json.loads(call("build", model, "-o", tmp_path / "out", "--board", BOARD, "--name", "other", "--json")[1])
    assert facts["output"] == str(tmp_path / "out") and facts["flash"]["blob_bytes"] == blob
    assert {"arena_bytes", "arena_lower_bound_bytes", "stack_bytes"} <= set(facts["sram"])
    assert {"blob_bytes", "code_bytes"} <= set(facts["flash"])
    assert (tmp_path / "out" / "other.c").is_file() and not (tmp_path / "out" / "tiny.c").exists()


def test_report(built: Path, call: Call) -> None:
    code, out, _ = call("report", built)
    assert code == 0 and "first" in out and "deepest call path" in out and out.endswith(f"{built / 'report.html'}\n")
    assert json.loads(call("report", built, "--json")[1]) == json.loads((built / "report.json").read_text())


def test_validate(built: Path, call: Call) -> None:
    code, out, _ = call("validate", built, "--on", "host", "--on", "sanitize", "--samples", "5", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["ok"] and [r["name"] for r in facts["rungs"]] == ["host", "sanitize"]
    assert all(r["samples"] == 5 and r["tensors"] == 10 and r["mismatches"] == 0 for r in facts["rungs"])
    code, out, _ = call("validate", built, "--on", "host")
    assert code == 0 and re.search(r"equal +host +32 +64 +0\n", out)


@pytest.mark.qemu
def test_validate_on_other_boards(built: Path, call: Call) -> None:
    args = ["--on", "qemu", "--board", "mps2-an386", "--board", "mps2-an505", "--samples", "3", "--json"]
    code, out, _ = call("validate", built, *args)
    assert code == 0 and [r["name"] for r in json.loads(out)["rungs"]] == ["qemu mps2-an386", "qemu mps2-an505"]


def test_validate_for_a_board_without_an_emulator(built: Path, call: Call, tmp_path: Path) -> None:
    text = (data_dir("boards") / "stm32f407.toml").read_text(encoding="utf-8")
    (tmp_path / "mine.toml").write_text(re.sub("emulated_by.*\n", "", text), encoding="utf-8")
    code, out, _ = call("validate", built, "--board", tmp_path / "mine.toml", "--samples", "2")
    assert code == 0 and "host" in out and "qemu was left out: 'mine': no emulator runs this board" in out
    code, _, err = call("validate", built, "--board", tmp_path / "mine.toml", "--on", "qemu")
    assert code == 1 and "'mine': no emulator runs this board" in err


def test_validate_without_cross_tools(built: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLM2C_CROSS", "no-such-")
    code, out, _ = call("validate", built, "--samples", "2")
    assert code == 0 and "qemu was left out: 'no-such-gcc': not found" in out
    code, _, err = call("validate", built, "--on", "qemu")
    assert code == 1 and "no-such-gcc" in err


def test_a_folder_whose_c_was_broken_shows_the_compiler_s_words(built: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "edited"
    shutil.copytree(built, folder)
    (folder / "tiny.c").write_text("#error edited by hand\n")
    code, _, err = call("validate", folder, "--on", "host")
    assert code == 1 and "edited by hand" in err and "Traceback" not in err
    assert f"'{folder / 'tiny.c'}': is not what the build wrote; build it again" in err


def test_c_that_does_not_compile_as_it_was_written_is_a_bug(built: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "out"
    shutil.copytree(built, folder)
    (folder / "tiny.c").write_text("#error written so\n")
    seal_again(folder)
    code, _, err = call("validate", folder, "--on", "host")
    assert code == console.EXIT_BUG and "written so" in err


def seal_again(folder: Path) -> None:
    """As if the build had written what is there now."""
    path = folder / "slm2c.json"
    facts = json.loads(path.read_text())
    facts["files"] = {name: digest for name, digest in seal.digests(folder).items() if name in facts["files"]}
    path.write_text(json.dumps(seal.signed(facts)))


@pytest.mark.parametrize(
    "lost, args, expected",
    [
        ("slm2c.json", ["run", "--input", "X", "--output", "Y"], "has no slm2c.json, so it is not the output of"),
        ("reference/integer.json", ["validate", "--on", "host"], "reference/integer.json': is missing; build it"),
        ("tiny_blob.bin", ["validate", "--on", "host"], "tiny_blob.bin': is missing; build it again"),
        ("tiny_blob.bin", ["run", "--input", "X", "--output", "Y"], "tiny_blob.bin: cannot be read; build it again"),
        ("tiny.h", ["run", "--input", "X", "--output", "Y"], "tiny.h': is missing; build it again"),
        ("host/main.c", ["run", "--input", "X", "--output", "Y"], "main.c': is missing; build it again"),
        ("test/validate.c", ["validate", "--on", "host"], "validate.c': is missing; build it again"),
        ("slm/slm.h", ["validate", "--on", "host"], "slm.h': is missing; build it again"),
        ("report.json", ["report"], "has lost report.json; build it again"),
        ("report.html", ["report"], ""),
    ],
)
def test_a_file_that_is_lost_is_named(
    lost: str, args: list[str], expected: str, built: Path, tmp_path: Path, call: Call
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(built, folder)
    (folder / lost).unlink()
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 12), np.float32))
    files = {"X": tmp_path / "x.npz", "Y": tmp_path / "y.npz"}
    code, out, err = call(args[0], folder, *(files.get(arg, arg) for arg in args[1:]))
    assert code == bool(expected) and expected in err and "Traceback" not in err
    assert "report.html" not in out and not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize("name", ["slm2c.json", "report.json"])
@pytest.mark.parametrize("content", ["", "[]", "{", '{"slm2c": "0.0.0"}'])
def test_facts_that_are_not_as_they_were_written(
    name: str, content: str, built: Path, tmp_path: Path, call: Call
) -> None:
    folder = tmp_path / "out"
    shutil.copytree(built, folder)
    (folder / name).write_text(content)
    code, _, err = call("report" if name == "report.json" else "validate", folder)
    expected = f"is of slm2c 0.0.0, this is {__version__}; build it" if "0.0.0" in content else f"{name}': is damaged: "
    assert code == 1 and expected in err


def test_validate_names_what_differs(built: Path, tmp_path: Path, call: Call) -> None:
    """A reference with another bias: the first tensor behind it is named, with element, expectation and fact."""
    folder = tmp_path / "out"
    shutil.copytree(built, folder)
    with np.load(folder / "reference" / "integer.npz") as arrays:
        changed = {k: v + (v.dtype == np.int32 and v.shape == (5,)) * 1000 for k, v in arrays.items()}
    np.savez(folder / "reference" / "integer.npz", **changed)
    code, _, err = call("validate", folder, "--on", "host")
    assert code == 1 and "integer.npz': is not what the build wrote; build it again" in err
    seal_again(folder)
    code, out, _ = call("validate", folder, "--on", "host", "--samples", "3", "--json")
    first = json.loads(out)["rungs"][0]["first"]
    assert code == 1 and not json.loads(out)["ok"] and (first["sample"], first["node"]) == (0, "second")
    code, out, _ = call("validate", folder, "--on", "host", "--samples", "3")
    assert code == 1 and "DIFFERS" in out and "linear 'second'" in out and f"got {first['got']}" in out


def test_damaged_blob(built: Path, tmp_path: Path, call: Call) -> None:
    folder = tmp_path / "out"
    shutil.copytree(built, folder)
    blob = bytearray((folder / "tiny_blob.bin").read_bytes())
    blob[-3] ^= 1
    (folder / "tiny_blob.bin").write_bytes(blob)
    np.savez(tmp_path / "x.npz", x=np.zeros((1, 12), np.float32))
    changed = f"error: '{folder / 'tiny_blob.bin'}': is not what the build wrote; build it again"
    for args, more in (
        (["validate", folder, "--on", "host"], [changed]),
        (["run", folder, "--input", tmp_path / "x.npz", "--output", "y.npz"], []),
    ):
        code, _, err = call(*args)
        first, *others = err.splitlines()
        assert code == 1 and "damaged" in first.lower() and others == more, err


def test_run_on_arrays(built: Path, model: Path, tmp_path: Path, call: Call) -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(6, 12)).astype(np.float32)
    np.savez(tmp_path / "x.npz", **{"in/x": x})
    code, out, _ = call("run", built, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    assert code == 0 and "[6, 5]" in out
    w = {t.name: numpy_helper.to_array(t).astype(np.float64) for t in onnx.load(model).graph.initializer}
    y = np.maximum(x @ w["a"] + w["b"], 0) @ w["c"] + w["d"]
    got = np.load(tmp_path / "y.npz")["out/y"]
    assert 10 * np.log10(np.square(y).sum() / np.square(got - y).sum()) > 30  # dB; 8 bits a layer
    facts = json.loads(call("run", built, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz", "--json")[1])
    assert facts["shapes"] == {"y": [6, 5]}


def test_run_and_eval_on_text(homecmd: Path, tmp_path: Path, call: Call) -> None:
    code, out, _ = call("run", homecmd, "wake me up at seven", "make me a coffee")
    assert code == 0 and re.search(r"wake me up at seven +alarm_set +0\.\d\d\n.*coffee +iot_coffee +0\.\d\d\n", out)
    (answer,) = json.loads(call("run", homecmd, "wake me up at seven", "--json")[1])["answers"]
    assert answer["label"] == "alarm_set" and answer["n"] == len(answer["ids"]) == 7 and 0.5 < answer["score"] <= 1
    rows = ["wake me up at seven,alarm_set", "make me a coffee,iot_coffee", '"hello, robot",alarm_set']
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    folder = tmp_path / "homecmd"
    shutil.copytree(homecmd, folder)  # eval changes its report
    facts = json.loads(call("eval", folder, tmp_path / "data.csv", "--json")[1])
    assert facts["n"] == 3 and facts["accuracy_c"] == facts["accuracy_float"] == pytest.approx(2 / 3)
    assert facts["agreement"] == 1 and facts["worst"] == []
    code, out, _ = call("eval", folder, tmp_path / "data.csv")
    assert code == 0 and re.search(r"accuracy of the C +66\.67%", out) and re.search(r"agreement +100\.00%", out)
    text = "right on 66.67% of 3 texts of data.csv, the float model on 66.67%; the same class from both for 100.00%"
    assert text in " ".join(call("report", folder)[1].split())
    assert text[1:] in " ".join((folder / "report.html").read_text().split())


@pytest.mark.slow
def test_demo(tmp_path: Path, call: Call) -> None:
    code, out, _ = call("demo", "-o", tmp_path / "demo", "--json")
    facts = json.loads(out)
    assert code == 0 and len(facts["commands"]) >= 8 and (tmp_path / "demo" / "homecmd.c").is_file()
    labels = {c["text"]: c["label"] for c in facts["commands"]}
    assert labels["wake me up at half past six tomorrow"] == "alarm_set"
    assert labels["what is 17 times 23"] == "qa_maths"
    assert "reason" in facts["instructions"] or facts["instructions"]["median"] > 1_000_000


# ---------------------------------------------------------------- determinism


def test_builds_are_equal_to_the_byte(model: Path, built: Path, tmp_path: Path) -> None:
    """Another process, folder, hash seed and locale; the model at another path."""
    shutil.copyfile(model, tmp_path / "tiny.onnx")
    command = slm2c("build", "tiny.onnx", "-o", "elsewhere", "--board", BOARD)
    env = environment(PYTHONHASHSEED="7", LC_ALL="C", OPENBLAS_NUM_THREADS="2")
    subprocess.run(command, cwd=tmp_path, env=env, check=True, capture_output=True)
    first, second = contents(built), contents(tmp_path / "elsewhere")
    assert {k: v for k, v in first.items() if not k.startswith("build/")} == second
    assert not any(str(ROOT).encode() in v or str(tmp_path).encode() in v for v in second.values())


def test_text_builds_are_equal_to_the_byte(homecmd: Path, tmp_path: Path) -> None:
    calibration = homecmd.parent / "some.txt"
    command = slm2c("build", EXAMPLE, "-o", "out", "--board", BOARD, "--method", "minmax", "--calib", calibration)
    subprocess.run(command, cwd=tmp_path, env=environment(PYTHONHASHSEED="7"), check=True, capture_output=True)
    second = contents(tmp_path / "out")
    assert {k: v for k, v in contents(homecmd).items() if not k.startswith("build/")} == second


# ---------------------------------------------------------------- progress, signals, full disks


def long_build(model: Path, tmp_path: Path) -> list[str]:
    """A build that calibrates for a while."""
    np.savez(tmp_path / "many.npz", x=np.zeros((300_000, 12), np.float32))
    return slm2c("build", model, "-o", tmp_path / "out", "--board", BOARD, "--calib", tmp_path / "many.npz")


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_while_calibrating(number: signal.Signals, model: Path, tmp_path: Path) -> None:
    command = long_build(model, tmp_path)
    with subprocess.Popen(
        command, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stderr is not None
        for line in child.stderr:  # one line for a stage that takes long, where stderr is no terminal
            if line == "calibrate ...\n":
                break
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    assert child.returncode == 128 + number and out == "" and "Traceback" not in err
    assert err.split() == (["interrupted"] if number == signal.SIGINT else [])
    assert [p.name for p in tmp_path.iterdir()] == ["many.npz"]


def test_stopped_while_a_compiler_runs(model: Path, tmp_path: Path) -> None:
    """An earlier output stays, the half-written one goes, and the compiler dies."""
    tools = tmp_path / "tools"
    tools.mkdir()
    gcc = tools / "slow-gcc"
    said = r"#define __ARM_ARCH_PROFILE 77\n#define __ARM_FEATURE_DSP 1\n#define __ARM_FP 14\n"  # of -E -dM
    gcc.write_text(
        f"""#!/bin/sh
case "$*" in -dumpversion) echo 12; exit;; *-dM*) printf '{said}'; exit;; esac
touch {tools}/$$.pid
exec sleep 600
"""
    )
    gcc.chmod(0o755)
    out = tmp_path / "out"
    out.mkdir()
    (out / "slm2c.json").write_text("an earlier build")
    command = slm2c("build", model, "-o", out, "--board", BOARD)
    env = environment(SLM2C_CROSS=str(tools / "slow-"))
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as child:
        wait_for(lambda: len(list(tools.glob("*.pid"))) == toolchain.JOBS)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=30)
    assert child.returncode == 130 and "Traceback" not in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "tools"]
    assert contents(out) == {"slm2c.json": b"an earlier build"}
    for path in tools.glob("*.pid"):
        with pytest.raises(ProcessLookupError):
            os.kill(int(path.stem), 0)


def test_interrupted_while_a_process_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C before Popen has returned reaches the child, too."""
    real, children = subprocess.Popen, []

    def start(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        children.append(real(*args, **options))
        signal.raise_signal(signal.SIGINT)  # to this thread: the command line has no other, a test process has
        return children[-1]

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(KeyboardInterrupt):
        toolchain.run_host(Path(shutil.which("sleep") or "sleep"), ["600"])
    try:
        (child,) = children
        assert child.wait(timeout=60) == -signal.SIGKILL
    finally:
        for child in children:
            child.kill()


def test_interrupted_between_the_renames(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    shutil.copytree(built, out)
    real, calls = os.replace, []

    def replace(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        folders.replace_folder(out, lambda folder: None)
    assert contents(out) == contents(built) and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_disk_full(model: Path, tmp_path: Path) -> None:
    """No file may grow beyond 2,000 bytes: the kernel refuses the write as it does on a full disk."""
    limit = (2000, resource.RLIM_INFINITY)
    command = slm2c("build", model, "-o", tmp_path / "out", "--board", BOARD)
    done = subprocess.run(
        command, env=environment(PYTHONDONTWRITEBYTECODE="1"), capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit),
    )  # fmt: skip
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith("error: ")
    assert "cannot be written: File too large" in done.stderr and len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.qemu
@pytest.mark.parametrize("temporary", [True, False])
def test_a_full_disk_is_named(
    temporary: bool, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """That of the temporary files of a build, and that of its output; a copy's error names what was read."""
    (tmp_path / "work").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "work"))
    copy = shutil.copyfile

    def full(source: Path, target: Path) -> Path:
        if target.is_relative_to(tmp_path / "work") == temporary:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source), None, str(target))
        return copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", full)
    code, out, err = call("build", model, "-o", tmp_path / "out", "--board", BOARD)
    where, remedy = (tmp_path / "work", "set TMPDIR") if temporary else (tmp_path, "choose another folder with -o")
    assert (code, out) == (1, "") and f"'{where}': is full: No space left on device; make room there" in err
    assert remedy in err and len(err.splitlines()) == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["work"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    "args, told",
    [
        (["boards"], "error: 'standard output': cannot be written: No space left on device\n"),
        (["boards", "--json"], "error: 'standard output': cannot be written: No space left on device\n"),
        (["--help"], "error: No space left on device\n"),
        (["report", "nowhere", "--json"], "error: 'nowhere': has no report.json, so it is not the output of"),
    ],
)
def test_full_stdout(args: list[str], told: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(slm2c(*args), env=environment(), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(told)


def test_closed_stdout_is_no_bug() -> None:
    command = ["sh", "-c", 'exec "$@" >&-', "sh", *map(str, slm2c("boards"))]
    done = subprocess.run(command, env=environment(), stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_interrupted_while_modules_load() -> None:
    program = """
import sys
import tempfile
class Interrupted:
    def find_spec(self, name, *_):
        if name == "slm2c.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
from slm2c.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", program], env=environment(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_closed_pipe_is_quiet(built: Path) -> None:
    with subprocess.Popen(slm2c("report", built, "--json"), env=environment(), stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout is not None and child.stderr is not None
        child.stdout.close()
        assert child.stderr.read() == b""
    assert child.returncode == 1


def test_progress_on_a_terminal(model: Path, tmp_path: Path) -> None:
    """A line that is drawn over, and gone at the end."""
    here, there = pty.openpty()
    command = slm2c("build", model, "-o", tmp_path / "out", "--board", BOARD)
    done = subprocess.run(command, env=environment(), stdout=subprocess.PIPE, stderr=there, text=True)
    os.close(there)
    shown = os.read(here, 1 << 16).decode()
    os.close(here)
    assert done.returncode == 0 and "\r\x1b[Kimport ..." in shown and "\r\x1b[Kmeasure ..." in shown
    assert re.search(r"\r\x1b\[Kcalibrate  \.{20}  0 of 32", shown) and shown.endswith("\r\x1b[K") and "\n" not in shown


def test_json_has_no_progress(model: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "_PATIENCE", 0.0)
    code, out, err = call("build", model, "-o", tmp_path / "out", "--board", BOARD, "--json")
    assert code == 0 and err == "" and json.loads(out)
    code, _, err = call("build", model, "-o", tmp_path / "out", "--board", BOARD)
    assert code == 0 and "calibrate ...\n" in err


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
def test_names_that_the_terminal_cannot_show(encoding: str, tmp_path: Path) -> None:
    names = [tmp_path / "модель.onnx", tmp_path / "mod\udce8le.onnx"]
    for name in names:
        done = subprocess.run(slm2c("inspect", name), env=environment(PYTHONIOENCODING=encoding), capture_output=True)
        assert done.returncode == 1 and done.stderr.startswith(b"error: ") and b"Traceback" not in done.stderr


def test_interrupt_is_an_abort(monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    def stopped() -> tuple[str, ...]:
        raise KeyboardInterrupt

    monkeypatch.setattr(board, "list_boards", stopped)
    code, out, err = call("boards")
    assert (code, out, err.split()) == (130, "", ["interrupted"])

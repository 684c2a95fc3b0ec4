"""The generated C: what it refuses, and what the names in a file and another training do to it."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from slm2c import blob, toolchain
from slm2c.identifiers import comment_text, is_identifier
from slm2c.quantize import run_int
from slm2c.validate import write_samples
from tests import generated
from tests.generated import MODELS, Built, build_template, built_models, compile_into, run

CROSS_FLAGS = "-mcpu=cortex-m7 -mthumb -O2 -Werror"
HOSTILE = (
    "*/ int x; /*", 'a"b', "line\nbreak\r", "trigraph ??/", "%s%n%d", "back\\slash\\", "ünï→😀", "// \\", "#if 0",
    "{{ m }}", "../../etc", "a" * 500, "\x1b[31m",
)  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Built]:
    """Small models of every kind of interface, by name."""
    return built_models(tmp_path_factory.mktemp("models"))


# ---------------------------------------------------------------- what it refuses


@pytest.mark.parametrize("name", [*MODELS, "text"])
def test_every_misuse_is_refused(name: str, models: Mapping[str, Built], host_cc: str, tmp_path: Path) -> None:
    model, other = models[name], models["two" if name == "mlp" else "mlp"]
    exe = build_template(model, "robust.c.j2", tmp_path / "robust")
    result = toolchain.run_host(exe, [str(model.blob), str(other.blob)], timeout=300)
    assert (result.exit_code, result.output) == (0, "0 failures\n")


@pytest.mark.slow
def test_every_misuse_of_homecmd_is_refused(models: Mapping[str, Built], host_cc: str, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n".join(generated.SENTENCES), encoding="utf-8")
    folder = Path(__file__).parents[1] / "examples" / "homecmd"
    model = compile_into(tmp_path, folder, "homecmd", calibration=few, method="minmax")
    exe = build_template(model, "robust.c.j2", tmp_path / "robust")
    result = toolchain.run_host(exe, [str(model.blob), str(models["mlp"].blob)], timeout=600)
    assert (result.exit_code, result.output) == (0, "0 failures\n")


SHARED_ARENA = r"""
#include "mlp.h"
#include "tagger.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static SLM_ALIGNED uint8_t blobs[2][65536];
static SLM_ALIGNED uint8_t arena[TAGGER_ARENA_SIZE > MLP_ARENA_SIZE ? TAGGER_ARENA_SIZE : MLP_ARENA_SIZE];

static size_t load(const char *path, uint8_t *blob)
{
    FILE *file = fopen(path, "rb");
    const size_t size = file == NULL ? 0u : fread(blob, 1u, sizeof blobs[0], file);
    return file == NULL || fclose(file) != 0 ? 0u : size;
}

int main(int argc, char **argv)
{
    mlp_model mlp;
    tagger_model tagger;
    int8_t input[7] = {1, -20, 30, -40, 50, -60, 127};
    const int32_t ids[9] = {0, 49, 7, 7, 1, 2, 3, 4, 5};
    int16_t alone[2][27] = {{0}};
    int16_t output[2][27] = {{0}};
    (void)argc;
    if (mlp_init(&mlp, blobs[0], load(argv[1], blobs[0]), arena, sizeof arena) != SLM_OK ||
        mlp_run(&mlp, input, alone[0]) != SLM_OK ||
        tagger_init(&tagger, blobs[1], load(argv[2], blobs[1]), arena, sizeof arena) != SLM_OK ||
        tagger_run(&tagger, ids, 9u, alone[1]) != SLM_OK) {
        return 2;
    }
    for (int i = 0; i < 3; i++) {
        if (mlp_run(&mlp, input, output[0]) != SLM_OK || memcmp(output[0], alone[0], sizeof alone[0]) != 0 ||
            tagger_run(&tagger, ids, 9u, output[1]) != SLM_OK || memcmp(output[1], alone[1], sizeof alone[1]) != 0) {
            return 1;
        }
    }
    return 0;
}
"""


def test_models_take_turns_in_one_arena(models: Mapping[str, Built], host_cc: str, tmp_path: Path) -> None:
    mlp, tagger = models["mlp"], models["tagger"]
    (tmp_path / "main.c").write_text(SHARED_ARENA, encoding="utf-8")
    every = {path.name: path for b in (mlp, tagger) for path in b.sources()}
    includes = [*mlp.includes(), *tagger.includes()]
    sources = [tmp_path / "main.c", *every.values()]
    exe = toolchain.build_host(sources, tmp_path / "main", includes=includes, sanitize=True)
    assert toolchain.run_host(exe, [str(mlp.blob), str(tagger.blob)]).exit_code == 0


# ---------------------------------------------------------------- names from the file


def test_hostile_names_reach_comments_and_strings_only(host_cc: str, tmp_path: Path) -> None:
    source, target = 'in*/put"\n??/%s\\😀', "../out\t*/"
    model = generated.mlp([3] * (len(HOSTILE) + 1), source=source, target=target)
    gemms = [node for node in model.graph.node if node.op_type == "Gemm"]
    for node, name in zip(gemms, HOSTILE, strict=True):
        node.name = name
    built = compile_into(tmp_path, model, "hostile")
    assert list(built.output.outputs) == [target] and list(built.output.float_graph.inputs) == [source]
    code = (built.folder / "hostile.c").read_text(encoding="utf-8")
    assert code.isascii()
    for name in HOSTILE:
        assert f"/* {comment_text(name)}: linear" in code or len(name) > 100
    rest = re.sub(r'"[^"\n]*"', "", re.sub(r"/\*.*?\*/", "", code, flags=re.DOTALL))
    assert not re.search(r"int x|trigraph|slash|#if 0|etc", rest)
    for compiler in filter(shutil.which, ("gcc", "clang")):
        includes = [f"-I{path}" for path in built.includes()]
        flags = ["-Wcomment", "-Wtrigraphs", "-Wpedantic"]
        run([compiler, *toolchain.WARNINGS, *flags, *includes, "-c", *built.sources()], tmp_path)
        run([compiler, *toolchain.WARNINGS, *flags, *includes, "-DSLM_PROFILE", "-c", *built.sources()], tmp_path)
    run(["make", "check", "CFLAGS=-Werror"], built.folder)


@pytest.mark.parametrize("text", HOSTILE)
def test_comment_text_cannot_leave_its_comment(text: str) -> None:
    for variant in (text, text * 2, f"*{text}", f"{text}*/", f"/{text}*", f"**{text}//"):
        safe = comment_text(variant)
        assert safe.isascii() and safe.isprintable() and len(safe) <= 120
        assert "*/" not in f"{safe} */"[:-2] and "/*" not in safe and "?" not in safe and "\\" not in safe


LABEL_PROGRAM = r"""
#include "classes.h"
#include <stdio.h>
static SLM_ALIGNED uint8_t arena[CLASSES_ARENA_SIZE];
static SLM_ALIGNED uint8_t blob[65536];
int main(int argc, char **argv)
{
    classes_model model;
    FILE *file = fopen(argv[argc - 1], "rb");
    if (file == NULL || classes_init(&model, blob, fread(blob, 1, sizeof blob, file), arena, sizeof arena) != SLM_OK) {
        return 1;
    }
    for (uint32_t i = 0; i < CLASSES_OUTPUT_0_SIZE; i++) {
        int16_t scores[CLASSES_OUTPUT_0_SIZE] = {0};
        classes_result result;
        scores[i] = INT16_MAX;
        if (classes_answer(&model, scores, &result) != SLM_OK || result.index != i) {
            return 2;
        }
        printf("%s%c", result.label, 0);
    }
    return fclose(file);
}
"""


def test_labels_come_out_as_they_went_in(host_cc: str, tmp_path: Path) -> None:
    labels = [*HOSTILE, ""]
    (tmp_path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    model = generated.mlp((4, len(labels)))
    built = compile_into(tmp_path, model, "classes", labels=tmp_path / "labels.json")
    (tmp_path / "main.c").write_text(LABEL_PROGRAM, encoding="utf-8")
    sources = [tmp_path / "main.c", *built.sources()]
    exe = toolchain.build_host(sources, tmp_path / "main", includes=built.includes(), sanitize=True)
    result = toolchain.run_host(exe, [str(built.blob)])
    assert result.exit_code == 0
    assert result.output.split("\0") == [*labels, ""]


@pytest.mark.parametrize("name", ["home", "a", "x1_y", "int8", "tests", "slmx"])
def test_names_that_can_be_c_prefixes(name: str) -> None:
    assert is_identifier(name)


@pytest.mark.parametrize(
    "name", ["", "Home", "1a", "a-b", "ä", "int", "main", "slm", "slm_blob", "string", "test", "a" * 49]
)
def test_names_that_cannot(name: str) -> None:
    assert not is_identifier(name)


# ---------------------------------------------------------------- another training


def retrained(model: onnx.ModelProto, noise: float = 0.2) -> onnx.ModelProto:
    """The same architecture with other weights."""
    rng = np.random.default_rng(9)
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in copy.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.dtype == np.float32:
            new = value * (1 + noise * rng.normal(size=value.shape)) + noise * rng.normal(size=value.shape)
            tensor.CopyFrom(numpy_helper.from_array(new.astype(np.float32), tensor.name))
    return copy


@pytest.mark.parametrize("name", [*MODELS, "text"])
def test_a_retrained_model_is_a_new_blob_for_the_old_code(
    name: str, models: Mapping[str, Built], host_cc: str, tmp_path: Path
) -> None:
    old = models[name]
    if name == "text":
        folder = generated.text_folder(tmp_path / "in", labels=["new", "labels", "of", "other", "lengths"])
        onnx.save(retrained(generated.text_classifier()), folder / "model.onnx")
        new = compile_into(tmp_path, folder, name)
    else:
        new = compile_into(tmp_path, retrained(MODELS[name]()), name)
    assert new.blob.read_bytes() != old.blob.read_bytes()
    assert without_comments(new.folder / f"{name}.c") == without_comments(old.folder / f"{name}.c")
    assert (new.folder / f"{name}.h").read_text("utf-8") == (old.folder / f"{name}.h").read_text("utf-8")

    graph = new.compiled.quantized.graph
    write_samples(tmp_path / "samples.bin", graph, new.output.samples)
    sources = [old.folder / "host" / "main.c", *old.sources()]
    exe = toolchain.build_host(sources, tmp_path / "cli", includes=old.includes())
    files = [str(tmp_path / "samples.bin"), str(tmp_path / "outputs.bin")]
    assert toolchain.run_host(exe, ["-b", str(new.blob), "-r", *files]).output == ""
    expected = b"".join(run_int(graph, s)[x].tobytes() for s in new.output.samples for x in graph.outputs)
    assert (tmp_path / "outputs.bin").read_bytes() == expected


def without_comments(path: Path) -> str:
    return re.sub(r"/\*.*?\*/", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def transposed(order: Sequence[int]) -> onnx.ModelProto:
    """A transposition of [4, 4, 4] in front of a linear layer."""
    nodes = [
        helper.make_node("Reshape", ["x", "cube"], ["c"]),
        helper.make_node("Transpose", ["c"], ["t"], perm=order),
        helper.make_node("Reshape", ["t", "flat"], ["f"]),
        helper.make_node("Relu", ["f"], ["r"]),
        helper.make_node("Gemm", ["r", "w", "b"], ["y"]),
    ]
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.normal(size=(64, 3)),
        "b": rng.normal(size=3),
        "cube": np.array([4, 4, 4]),
        "flat": np.array([1, 64]),
    }
    return generated.model_of(nodes, {"x": (TensorProto.FLOAT, [1, 64])}, {"y": [1, 3]}, weights)


@pytest.mark.parametrize(
    "one, other",
    [
        (generated.mlp((7, 33, 5)), generated.mlp((7, 32, 5))),
        (generated.mlp((7, 33, 5)), generated.mlp((7, 33, 33, 5))),
        (generated.mlp((16, 8)), generated.mlp((8, 16))),
        (generated.tagger(tokens=9), generated.tagger(tokens=10)),
        (transposed((0, 2, 1)), transposed((1, 0, 2))),
    ],
    ids=["width", "depth", "sides", "tokens", "transposition"],
)
def test_a_blob_of_another_structure_is_refused(
    one: onnx.ModelProto, other: onnx.ModelProto, host_cc: str, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    first, second = compile_into(tmp_path, one, "model"), compile_into(tmp_path / "other", other, "model")
    assert blob.unpack(first.blob.read_bytes()).structure != blob.unpack(second.blob.read_bytes()).structure
    sources = [first.folder / "host" / "main.c", *first.sources()]
    exe = toolchain.build_host(sources, tmp_path / "cli", includes=first.includes(), opt="-O0")
    result = toolchain.run_host(exe, ["-b", str(second.blob), "-r", "none", "none"], cwd=tmp_path)
    assert result.exit_code == 2
    assert result.output == f"model_cli: {second.blob}: the blob is that of another model\n"

"""The output folder: its program, and how make, CMake, cross compilers and C++ build it."""

import re
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

import pytest

from slm2c import toolchain
from tests.conftest import skip_or_fail
from tests.generated import MODELS, Built, built_models, run

CROSS_FLAGS = "-mcpu=cortex-m7 -mthumb -O2 -Werror"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Built]:
    """Small models of every kind of interface, by name."""
    return built_models(tmp_path_factory.mktemp("models"))


def need(*commands: str) -> None:
    missing = [x for x in commands if not shutil.which(x)]
    if missing:
        skip_or_fail(f"{' and '.join(missing)} not found; `make tools` installs them")


def host_program(built: Built, output: Path) -> Path:
    """The program of host/main.c, under ASan and UBSan."""
    sources = [built.folder / "host" / "main.c", *built.sources()]
    return toolchain.build_host(sources, output, includes=built.includes(), sanitize=True, opt="-O1")


@pytest.mark.parametrize("name", ["mlp", "tagger"])
def test_the_program_takes_no_broken_samples(
    name: str, models: Mapping[str, Built], host_cc: str, tmp_path: Path
) -> None:
    model = models[name]
    exe = host_program(model, tmp_path / "cli")
    good = (model.folder / "test" / "samples.bin").read_bytes()
    samples = tmp_path / "samples.bin"

    def outcome(content: bytes) -> tuple[int, str]:
        samples.write_bytes(content)
        result = toolchain.run_host(exe, ["-b", str(model.blob), "-r", "samples.bin", "outputs.bin"], cwd=tmp_path)
        return result.exit_code, result.output

    assert outcome(good) == (0, "")
    assert (tmp_path / "outputs.bin").read_bytes() == (model.folder / "test" / "outputs.bin").read_bytes()
    for size in (0, 1, 3, 4, 5, 7, 8, 9, len(good) // 2, len(good) - 1):
        code, printed = outcome(good[:size])
        assert code == 2 and printed.startswith(f"{name}_cli: samples: too short"), (size, printed)
    if name == "tagger":  # n and the ids are in the file
        assert outcome(struct.pack("<2I", 1, 0)) == (2, "tagger_cli: samples: the input has no token\n")
        assert outcome(struct.pack("<2I", 1, 2**32 - 1) + bytes(99))[0] == 2
        assert outcome(struct.pack("<2Ii", 1, 1, 50)) == (
            2,
            "tagger_cli: samples: a token id lies outside the vocabulary\n",
        )


def test_the_program_s_arguments(models: Mapping[str, Built], host_cc: str, tmp_path: Path) -> None:
    text, mlp = models["text"], models["mlp"]
    cli = {b.name: host_program(b, tmp_path / f"{b.name}_cli") for b in (text, mlp)}

    def outcome(name: str, *args: str, stdin: bytes = b"") -> tuple[int, str]:
        result = toolchain.run_host(cli[name], args, stdin=stdin, cwd=tmp_path)
        return result.exit_code, result.output

    assert outcome("text", "stop") == (2, f"text_cli: {tmp_path}/text_blob.bin: cannot be read\n")
    for model in (text, mlp):
        shutil.copy(model.blob, tmp_path)
    code, both = outcome("text", "stop", "play music")
    first, second = both.splitlines(keepends=True)
    assert code == 0 and first != second
    assert (
        outcome("text", "--", "stop")
        == outcome("text", stdin=b"stop")
        == outcome("text", stdin=b"stop\n")
        == (0, first)
    )
    assert outcome("text", stdin=b"stop\nplay music\n") == (0, both)
    assert outcome("text", "-0", stdin=b"stop\0play music\0") == (0, both.replace("\n", "\0"))
    assert outcome("text", "-i", "stop")[1].startswith(first.rstrip("\n") + "\t")
    assert outcome("text", stdin=b"\n\n")[1].count("\n") == 2
    assert outcome("text", "-b", str(mlp.blob), "stop") == (
        2,
        f"text_cli: {mlp.blob}: the blob is that of another model\n",
    )
    for name, args in [("text", ["-h"]), ("text", ["-b"]), ("text", ["-r", "one"]), ("mlp", []), ("mlp", ["stop"])]:
        code, printed = outcome(name, *args)
        assert code == 2 and printed.startswith(f"usage: {name}_cli")
    assert outcome("mlp", "-r", "none", "out") == (2, "mlp_cli: none: No such file or directory\n")
    folder = str(mlp.folder / "test" / "samples.bin")
    assert outcome("mlp", "-r", folder, "no/where") == (2, "mlp_cli: no/where: No such file or directory\n")


@pytest.mark.parametrize("name", ["mlp", "text"])
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_make_builds_the_program_and_it_checks_itself(
    compiler: str, name: str, models: Mapping[str, Built], tmp_path: Path
) -> None:
    need(compiler, "make")
    folder = tmp_path / "a folder"
    shutil.copytree(models[name].folder, folder)
    flags = [f"CC={compiler}", "CFLAGS=-O1 -Werror"]
    run(["make", "check", *flags], folder)
    assert (folder / "build" / "outputs.bin").read_bytes() == (folder / "test" / "outputs.bin").read_bytes()
    assert run(["make", "cli", *flags], folder) == "", "nothing has changed"
    assert " -O2 " in run(["make", flags[0]], folder), "other flags compile everything again"
    if name == "text":
        (tmp_path / "elsewhere").mkdir()
        printed = run([folder / "build" / "text_cli", "turn on the light", "stop"], tmp_path / "elsewhere")
        assert [line.split("\t")[2] for line in printed.splitlines()] == ["6", "3"]


@pytest.mark.parametrize("name", ["two", "text"])
def test_make_builds_a_library_for_cortex_m(name: str, models: Mapping[str, Built], tmp_path: Path) -> None:
    need("arm-none-eabi-gcc", "make")
    folder = tmp_path / name
    shutil.copytree(models[name].folder, folder)
    run(["make", "CROSS=arm-none-eabi-", f"CFLAGS={CROSS_FLAGS}"], folder)
    symbols = run(["arm-none-eabi-nm", f"build/arm-none-eabi/lib{name}.a"], folder)
    defined = {symbol: kind for kind, symbol in re.findall(r" ([A-TV-Za-z]) (\w+)$", symbols, re.MULTILINE)}
    assert {defined[f"{name}_{x}"] for x in ("init", "run")} == {"T"}
    assert {defined[f"{name}_{x}"] for x in ("blob", "blob_size")} == {"R"}
    assert not set(defined.values()) & set("BbDdC"), "variables that change"
    wanted = set(re.findall(r" U (\w+)$", symbols, re.MULTILINE)) - set(defined)
    assert {x for x in wanted if not x.startswith("__aeabi_")} <= {"memcpy", "memset", "memcmp", "memmove", "strlen"}
    part = f"build/arm-none-eabi/{name}_blob.o"
    run(["arm-none-eabi-objcopy", "-O", "binary", "-j", ".slm_blob", part, "x.bin"], folder)
    assert (folder / "x.bin").read_bytes() == models[name].blob.read_bytes()


CMAKE = """
cmake_minimum_required(VERSION 3.14)
project(app LANGUAGES C)
add_subdirectory("{mlp}" mlp)
include(FetchContent)
FetchContent_Declare(text SOURCE_DIR "{text}")
FetchContent_MakeAvailable(text)
add_executable(app main.c)
target_link_libraries(app PRIVATE mlp mlp_blob text text_blob)
"""
CMAKE_MAIN = r"""
#include "mlp.h"
#include "text.h"
#include <stdio.h>
static SLM_ALIGNED uint8_t arenas[2][TEXT_ARENA_SIZE > MLP_ARENA_SIZE ? TEXT_ARENA_SIZE : MLP_ARENA_SIZE];
int main(void)
{
    mlp_model mlp;
    text_model text;
    text_result result = {0};
    if (mlp_init(&mlp, mlp_blob, mlp_blob_size, arenas[0], sizeof arenas[0]) != SLM_OK ||
        text_init(&text, text_blob, text_blob_size, arenas[1], sizeof arenas[1]) != SLM_OK ||
        text_classify(&text, "play music", &result) != SLM_OK) {
        return 1;
    }
    puts(result.label);
    return 0;
}
"""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_cmake(compiler: str, models: Mapping[str, Built], tmp_path: Path) -> None:
    need(compiler, "cmake")
    run(["cmake", "-S", models["text"].folder, "-B", "alone"], tmp_path, CC=compiler)
    run(["cmake", "--build", "alone"], tmp_path)
    run(["ctest"], tmp_path / "alone")
    answer = run(["alone/text_cli", "play music"], tmp_path)

    text = CMAKE.format(mlp=models["mlp"].folder, text=models["text"].folder)
    (tmp_path / "CMakeLists.txt").write_text(text, encoding="utf-8")
    (tmp_path / "main.c").write_text(CMAKE_MAIN, encoding="utf-8")
    run(["cmake", "-S", ".", "-B", "both", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror"], tmp_path, CC=compiler)
    run(["cmake", "--build", "both"], tmp_path)
    assert run(["both/app"], tmp_path).strip() == answer.split("\t")[0]


CPLUSPLUS = r"""
#include "text.h"
#include "slm_blob.h"
#include <cstdio>
static SLM_ALIGNED uint8_t arena[TEXT_ARENA_SIZE];
struct holder {
    SLM_ALIGNED uint8_t blob[65536];
};
static holder h;
int main(int, char **argv)
{
    std::FILE *file = std::fopen(argv[1], "rb");
    const std::size_t size = std::fread(h.blob, 1, sizeof h.blob, file);
    std::fclose(file);
    text_model model{};
    text_result result{};
    const slm_status status = text_init(&model, h.blob, size, arena, sizeof arena);
    std::puts(slm_status_text(status));
    if (status != SLM_OK || text_classify(&model, "stop", &result) != SLM_OK || slm_crc32(0, "abc", 3) != 0x352441C2u) {
        return 1;
    }
    return reinterpret_cast<std::uintptr_t>(arena) % SLM_ALIGNMENT == 0 && alignof(holder) == SLM_ALIGNMENT ? 0 : 2;
}
"""


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("standard", ["c++11", "c++20"])
def test_the_header_is_cplusplus_too(compiler: str, standard: str, models: Mapping[str, Built], tmp_path: Path) -> None:
    cplusplus = {"gcc": "g++", "clang": "clang++"}[compiler]
    need(compiler, cplusplus)
    (tmp_path / "main.cpp").write_text(CPLUSPLUS.replace("<cstdio>", "<cstdio>\n#include <cstdint>"), encoding="utf-8")
    text = models["text"]
    includes = [f"-I{path}" for path in text.includes()]
    run([compiler, "-std=c11", "-c", *includes, *text.sources()], tmp_path)
    flags = [f"-std={standard}", "-Wall", "-Wextra", "-pedantic", "-Werror"]
    run([cplusplus, *flags, *includes, "main.cpp", *tmp_path.glob("*.o"), "-o", "main"], tmp_path)
    assert run(["./main", text.blob], tmp_path) == "ok\n"


@pytest.mark.parametrize("name", [*MODELS, "text"])
def test_the_example_in_the_readme_compiles(
    name: str, models: Mapping[str, Built], host_cc: str, tmp_path: Path
) -> None:
    (code,) = re.findall(r"^```c\n(.*?)^```", (models[name].folder / "README.md").read_text("utf-8"), re.M | re.S)
    (tmp_path / "example.c").write_text(code, encoding="utf-8")
    includes = [f"-I{path}" for path in models[name].includes()]
    run([host_cc, *toolchain.WARNINGS, *includes, "-c", "example.c"], tmp_path)


def test_builds_are_equal_byte_for_byte_wherever_they_lie(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "the other"]
    found: list[dict[str, bytes]] = []
    for folder in folders:
        folder.mkdir()
        built = built_models(folder).values()
        files = [path for model in built for path in model.folder.rglob("*") if path.is_file()]
        found.append({str(path.relative_to(folder)): path.read_bytes() for path in files})
    assert found[0].keys() == found[1].keys()
    for path, content in found[0].items():
        assert content == found[1][path], path
        for place in (*folders, Path.home(), Path(__file__).parents[1]):
            assert str(place).encode() not in content, f"{path} holds {place}"

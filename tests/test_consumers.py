"""The output folder in the projects of others: plain CMake, Zephyr, PlatformIO."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from slm2c.board import load_board
from tests.conftest import skip_or_fail
from tests.generated import run
from tests.images import Images, terminal

BOARD = "mps2-an500"
COMMAND = "turn on the light"

# An application that knows the model's header only. Where its words go is another file's business.
MAIN = """
#include "text.h"
void say(const char *text);
static SLM_ALIGNED uint8_t arena[TEXT_ARENA_SIZE];
int main(void)
{
    static text_model model;
    text_result result;
    if (text_init(&model, text_blob, text_blob_size, arena, sizeof arena) != SLM_OK ||
        text_classify(&model, "COMMAND", &result) != SLM_OK) {
        say("refused\\n");
        return 1;
    }
    say(result.label);
    say("\\n");
    return 0;
}
""".replace("COMMAND", COMMAND)
HOST_SAY = "#include <stdio.h>\nvoid say(const char *text)\n{\n    fputs(text, stdout);\n}\n"
FIRMWARE_SAY = '#include "console.h"\nvoid say(const char *text)\n{\n    console_print(text);\n}\n'


def need(*tools: str) -> None:
    missing = [tool for tool in tools if not shutil.which(tool)]
    if missing:
        skip_or_fail(f"{' and '.join(missing)} not found; `make tools` installs them")


def project(folder: Path, cmake: str, say: str = HOST_SAY) -> Path:
    folder.mkdir()
    for name, text in (("CMakeLists.txt", cmake), ("main.c", MAIN), ("say.c", say)):
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def cmake_build(folder: Path, *options: str) -> Path:
    need("cmake")
    run(["cmake", "-S", ".", "-B", "build", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror", *options], folder)
    run(["cmake", "--build", "build", "-j2"], folder)
    return folder / "build"


@pytest.fixture(scope="module")
def label(images: Images, host_cc: str) -> str:
    """What the model's own program answers."""
    folder = images.models["text"].folder
    run(["make", "cli"], folder)
    return run([folder / "build" / "text_cli", COMMAND], folder).split("\t")[0]


# ---------------------------------------------------------------- CMake

PLAIN = """
cmake_minimum_required(VERSION 3.13)
project(app LANGUAGES C)
add_subdirectory("{out}" text)
add_executable(app main.c say.c)
target_link_libraries(app PRIVATE text text_blob)
"""

# The same application on a board: with the start-up code and the console of firmware/, and a main of its own.
EMBEDDED = """
cmake_minimum_required(VERSION 3.13)
project(app LANGUAGES C ASM)
set(firmware "{out}/firmware")
add_subdirectory("{out}" text)
add_executable(app main.c say.c ${{firmware}}/board.c ${{firmware}}/start.c ${{firmware}}/start_arm.c
    ${{firmware}}/console.c ${{firmware}}/console_cmsdk_uart.c)
target_include_directories(app PRIVATE ${{firmware}})
target_link_libraries(app PRIVATE text text_blob)
target_link_options(app PRIVATE -nostartfiles -T${{firmware}}/firmware.ld -Wl,--gc-sections,-z,noexecstack)
"""


def test_a_plain_application_on_this_machine(images: Images, label: str, tmp_path: Path) -> None:
    build = cmake_build(project(tmp_path / "app", PLAIN.format(out=images.folder(BOARD))))
    assert run([build / "app"], tmp_path) == f"{label}\n"


@pytest.mark.qemu
def test_a_plain_application_on_an_emulated_board(images: Images, label: str, tmp_path: Path) -> None:
    out = images.folder(BOARD)
    folder = project(tmp_path / "app", EMBEDDED.format(out=out), FIRMWARE_SAY)
    build = cmake_build(folder, f"-DCMAKE_TOOLCHAIN_FILE={out / 'firmware' / 'toolchain.cmake'}")
    with terminal(load_board(BOARD), build / "app") as at:
        assert at.until(b"\n") == f"{label}\r\n".encode()


# ---------------------------------------------------------------- Zephyr

# What the module uses of Zephyr's build system, as docs.zephyrproject.org describes it (CMake reference, extensions).
ZEPHYR = """
cmake_minimum_required(VERSION 3.20)
project(app LANGUAGES C ASM)
add_library(zephyr_interface INTERFACE)
function(zephyr_include_directories)
    target_include_directories(zephyr_interface INTERFACE ${{ARGN}})
endfunction()
macro(zephyr_library_named name)
    set(ZEPHYR_CURRENT_LIBRARY ${{name}})
    add_library(${{name}} STATIC)
    target_link_libraries(${{name}} PUBLIC zephyr_interface)
    set_property(GLOBAL APPEND PROPERTY ZEPHYR_LIBS ${{name}})
endmacro()
function(zephyr_library_sources)
    target_sources(${{ZEPHYR_CURRENT_LIBRARY}} PRIVATE ${{ARGN}})
endfunction()
function(zephyr_linker_sources location)
    foreach(file ${{ARGN}})
        get_filename_component(path ${{file}} ABSOLUTE)
        file(APPEND ${{CMAKE_BINARY_DIR}}/linker_sources "${{location}} ${{path}}\\n")
    endforeach()
endfunction()

{config}
add_subdirectory("{out}/zephyr" module)
get_property(libraries GLOBAL PROPERTY ZEPHYR_LIBS)
add_executable(app main.c say.c)
target_link_libraries(app PRIVATE zephyr_interface ${{libraries}})
"""


def test_a_zephyr_application(images: Images, label: str, tmp_path: Path) -> None:
    out = images.folder(BOARD)
    options = "set(CONFIG_SLM_TEXT y)\nset(CONFIG_SLM_TEXT_BLOB y)"
    build = cmake_build(project(tmp_path / "app", ZEPHYR.format(out=out, config=options)))
    assert run([build / "app"], tmp_path) == f"{label}\n"
    location, path = (build / "linker_sources").read_text(encoding="utf-8").split()
    assert location == "RODATA" and "KEEP(*(.slm_blob))" in Path(path).read_text(encoding="utf-8")


def test_zephyr_builds_what_its_configuration_asks_for(images: Images, tmp_path: Path) -> None:
    out = images.folder(BOARD)
    without = ZEPHYR.format(out=out, config="").replace("add_executable(app main.c say.c)", "add_library(app say.c)")
    build = cmake_build(project(tmp_path / "none", without))
    assert not list(build.rglob("libtext.a"))
    own_blob = without.replace('add_subdirectory("', 'set(CONFIG_SLM_TEXT y)\nadd_subdirectory("')
    build = cmake_build(project(tmp_path / "own", own_blob))
    symbols = run(["nm", build / "module" / "libtext.a"], tmp_path)
    assert " T text_init" in symbols and "text_blob" not in symbols
    assert not (build / "linker_sources").exists()


def test_zephyr_s_module_file(images: Images) -> None:
    """The keys that scripts/zephyr_module.py of Zephyr wants, and the options that the CMake file asks for."""
    folder = images.folder(BOARD)
    module = yaml.safe_load((folder / "zephyr" / "module.yml").read_text(encoding="utf-8"))
    assert module == {"name": "text", "build": {"cmake": "zephyr", "kconfig": "zephyr/Kconfig"}}
    assert (folder / module["build"]["cmake"] / "CMakeLists.txt").is_file()
    kconfig = (folder / module["build"]["kconfig"]).read_text(encoding="utf-8")
    options = re.findall(r"^config (\w+)\n\tbool \"[^\"]+\"$", kconfig, re.MULTILINE)
    cmake = (folder / "zephyr" / "CMakeLists.txt").read_text(encoding="utf-8")
    assert {f"CONFIG_{option}" for option in options} == set(re.findall(r"\bCONFIG_\w+", cmake))
    assert len(options) == 2


# ---------------------------------------------------------------- PlatformIO


def selected(folder: Path, patterns: Sequence[str]) -> list[Path]:
    """The sources that PlatformIO builds: each pattern adds or removes what it matches, in order."""
    files = [path for path in sorted(folder.rglob("*")) if path.suffix in (".c", ".S")]
    chosen: dict[Path, None] = {}
    for pattern in patterns:
        sign, glob = re.fullmatch(r"([+-])<(.*)>", pattern).groups()  # type: ignore[union-attr]
        for path in files:
            if glob == "*" or fnmatch.fnmatch(path.relative_to(folder).as_posix(), glob):
                chosen.pop(path, None) if sign == "-" else chosen.setdefault(path)
    return list(chosen)


def test_a_platformio_application(images: Images, label: str, host_cc: str, tmp_path: Path) -> None:
    """The files that the manifest selects, with its flags and nothing else, are a library that an application uses."""
    folder = images.folder(BOARD)
    manifest = json.loads((folder / "library.json").read_text(encoding="utf-8"))
    build = manifest["build"]
    sources = selected(folder, build["srcFilter"])
    assert {path.name for path in sources} == {
        "text.c", "text_blob.S", *(path.name for path in (folder / "slm").glob("*.c"))
    }  # fmt: skip
    assert manifest["headers"] == "text.h" and (folder / "text.h").is_file()
    flags = [word for flag in build["flags"] for word in flag.split()]
    objects = []
    for source in sources:
        objects.append(tmp_path / f"{source.name}.o")
        run([host_cc, "-Wall", "-Wextra", "-Werror", *flags, "-c", source, "-o", objects[-1]], folder)
    for name, text in (("main.c", MAIN), ("say.c", HOST_SAY)):
        (tmp_path / name).write_text(text, encoding="utf-8")
    run([host_cc, *flags, tmp_path / "main.c", tmp_path / "say.c", *objects, "-o", tmp_path / "app"], folder)
    assert run([tmp_path / "app"], tmp_path) == f"{label}\n"


def test_platformio_packs_the_library(images: Images, tmp_path: Path) -> None:
    own = Path(sys.prefix) / "platformio" / "bin"  # where `make tools` puts it
    if not (python := shutil.which("python", path=own)):
        skip_or_fail("PlatformIO is not there: make tools")
    package = tmp_path / "text.tar.gz"
    command = [python, "-m", "platformio", "pkg", "pack", "-o", package, images.folder(BOARD)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    packed = set(run(["tar", "tzf", package], tmp_path).split())
    assert {"library.json", "text.c", "text.h", "text_blob.S", "text_blob.bin", "slm/slm.h"} <= packed
    assert not [path for path in packed if re.match("test/|host/|firmware/|reference/|zephyr/|report", path)]

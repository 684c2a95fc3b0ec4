"""Which file is read, what it is taken for, and where its external data may lie."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from slm2c import core, onnx_file
from slm2c.importer import load, require_supported
from tests.onnx_models import failure, linear, save


@pytest.mark.parametrize(
    "data,words",
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>", "web page"),
        (b"hello world\n" * 9, "text file"),
        (b"PK\x03\x04" + bytes(50), "PyTorch checkpoint"),
        (b"\x80\x02}q\x00.", "pickle"),
        (b"\x89HDF\r\n\x1a\n", "HDF5"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(20), "TensorFlow Lite"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs"),
        (bytes(range(256)), "not an ONNX model"),
        (b"\x08\x07", "not an ONNX model"),
    ],
)
def test_other_files_are_recognized(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    assert words in failure(tmp_path / "m.onnx")


def test_missing_file_and_folders(tmp_path: Path) -> None:
    assert "No such file" in failure(tmp_path / "none.onnx")
    assert "no ONNX file" in failure(tmp_path)
    save(tmp_path, linear())
    assert load(tmp_path).graph.name == tmp_path.name
    shutil.copy(tmp_path / "m.onnx", tmp_path / "n.onnx")
    assert "2 ONNX files: m.onnx, n.onnx" in failure(tmp_path)
    shutil.copy(tmp_path / "m.onnx", tmp_path / "model.onnx")
    assert load(tmp_path, name="given").graph.name == "given"


def test_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, linear())
    monkeypatch.setattr(onnx_file, "MAX_FILE_BYTES", path.stat().st_size - 1)
    assert "the limit is" in failure(path)


def external(tmp_path: Path, location: str, offset: int = 0, length: int | None = 96) -> Path:
    proto = linear()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    (tmp_path / "m").mkdir()
    return save(tmp_path / "m", proto)


def test_external_data_is_read_from_the_models_folder(tmp_path: Path) -> None:
    path = external(tmp_path, "sub/w.bin", offset=4, length=None)
    (tmp_path / "m" / "sub").mkdir()
    (tmp_path / "m" / "sub" / "w.bin").write_bytes(b"\0\0\0\0" + np.full(24, 2, np.float32).tobytes())
    imported = require_supported(load(path))
    got = core.run(imported.graph, {"x": np.ones((1, 8), np.float32)})
    assert got[imported.graph.outputs[0]].tolist() == [[16.0] * 3]


@pytest.mark.parametrize(
    "location,offset,length,words",
    [
        ("{tmp}/secret", 0, 96, "outside"),
        ("../secret", 0, 96, "outside"),
        ("link", 0, 96, "outside"),
        ("sub/../w.bin", 0, 96, "outside"),
        ("", 0, 96, "outside"),
        ("w\0.bin", 0, 96, "not a usable path"),
        ("none", 0, 96, "missing"),
        ("x" * 300, 0, 96, "too long"),
        (".", 0, 96, "missing"),
        ("w.bin", 1, 96, "needs bytes 1 to 97"),
        ("w.bin", -4, 96, "needs"),
        ("w.bin", 0, 97, "needs"),
        ("w.bin", 0, 1 << 62, "needs"),
        ("w.bin", "zero", 96, "no number"),
        ("w.bin", 0, 92, "92 bytes"),
    ],
)
def test_external_data_elsewhere_is_refused(
    location: str, offset: Any, length: int, words: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(bytes(96))
    path = external(tmp_path, location.replace("{tmp}", str(tmp_path)), offset, length)
    (tmp_path / "m" / "w.bin").write_bytes(bytes(96))
    os.symlink(tmp_path / "secret", tmp_path / "m" / "link")
    message = failure(path)
    assert message.startswith("'w': ")
    assert words in message

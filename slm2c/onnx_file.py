"""Reading an ONNX file with distrust: which file, how much of it, and its tensors as arrays.

Names, paths and sizes in a file are claims. Everything is checked against the bytes that are there before it is
believed, and external data is read only from files inside the model's own folder.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto, numpy_helper

from slm2c.errors import CompileError, Problem
from slm2c.ir import Array

MAX_FILE_BYTES = 1 << 28
"""Largest model or external data file that is read; far beyond any board's flash."""

MAX_ELEMENTS = 1 << 24
"""Largest tensor, in elements."""

_ITEM_BITS: Mapping[int, int] = {
    TensorProto.FLOAT: 32,
    TensorProto.DOUBLE: 64,
    TensorProto.FLOAT16: 16,
    TensorProto.BFLOAT16: 16,
    TensorProto.INT8: 8,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.UINT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}
"""Bits of one element in `raw_data`."""

_FIELDS: Mapping[int, str] = {
    TensorProto.FLOAT: "float_data",
    TensorProto.DOUBLE: "double_data",
    TensorProto.INT64: "int64_data",
    TensorProto.UINT32: "uint64_data",
    TensorProto.UINT64: "uint64_data",
}
"""Where the values stand when not in `raw_data`; all other types use int32_data (onnx.proto, TensorProto)."""

_SIGNATURES = (
    (b"PK\x03\x04", "is a zip archive, such as a PyTorch checkpoint", "export the model with torch.onnx.export"),
    (b"\x80\x02", "is a Python pickle, such as a PyTorch checkpoint", "export the model with torch.onnx.export"),
    (b"\x89HDF", "is an HDF5 file, such as a Keras model", "convert it with tf2onnx or Keras's export to ONNX"),
    (b"version https://git-lfs", "is a Git LFS pointer, not the model", "fetch the file itself with `git lfs pull`"),
    (b"<", "is a web page or XML, not a model", "download the file again"),
)


def locate(path: str | Path) -> Path:
    """The .onnx file that `path` means: itself, or in a folder `model.onnx` or the only .onnx file.

    Raises CompileError if there is none, or no telling which.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    if (path / "model.onnx").is_file():
        return path / "model.onnx"
    found = sorted(p.name for p in path.glob("*.onnx"))
    if len(found) == 1:
        return path / found[0]
    if found:
        raise CompileError(
            Problem(
                str(path),
                "",
                f"the folder holds {len(found)} ONNX files: {', '.join(found)}",
                "name the file to compile",
            )
        )
    raise CompileError(Problem(str(path), "", "the folder holds no ONNX file", "export the model to model.onnx in it"))


def read_model(path: Path) -> onnx.ModelProto:
    """The parsed file, without external data. Raises CompileError, saying what the file seems to be instead."""
    data = _read(path)
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError:
        model = None
    if model is None or not model.HasField("graph") or not model.opset_import or not _is_text(model):
        raise CompileError(Problem(str(path), "", *_what_it_is(data)))
    imports = [*model.opset_import, *(o for function in model.functions for o in function.opset_import)]
    if not 0 <= model.ir_version < 1000 or not all(0 < o.version < 1000 for o in imports):
        raise CompileError(Problem(str(path), "", "has an impossible IR or operator set version", "export it again"))
    return model


def _is_text(message: Message) -> bool:
    """Whether every string in `message` is UTF-8; protobuf hands out others as bytes."""
    pending = [message]
    while pending:
        for field, value in pending.pop().ListFields():
            values = [value] if isinstance(value, (str, bytes, Message)) else value
            if field.type == field.TYPE_MESSAGE:
                pending += [v for v in values if isinstance(v, Message)]
            elif field.type == field.TYPE_STRING and not all(isinstance(v, str) for v in values):
                return False
    return True


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size <= MAX_FILE_BYTES and path.is_file():
            return path.read_bytes()
    except OSError as error:
        raise CompileError(Problem(str(path), "", f"cannot be read: {error.strerror}")) from error
    if not path.is_file():
        raise CompileError(Problem(str(path), "", "is not a regular file"))
    raise CompileError(Problem(str(path), "", f"has {size:,} bytes; the limit is {MAX_FILE_BYTES:,}"))


def _what_it_is(data: bytes) -> tuple[str, str]:
    head = data.lstrip()[:32]
    for signature, reason, remedy in _SIGNATURES:
        if head.startswith(signature):
            return reason, remedy
    if not data:
        return "is empty", "export or download the file again"
    if data[4:8] == b"TFL3":
        return "is a TensorFlow Lite model", "convert it with tf2onnx --tflite"
    if data[:512].isascii() and all(c.isprintable() or c in "\r\n\t" for c in data[:512].decode("ascii")):
        return "is a text file, not a model", "export or download the file again"
    return "is not an ONNX model, or is truncated or damaged", "export or download the file again"


def load_external_data(tensor: TensorProto, folder: Path) -> None:
    """Move the values that `tensor` keeps in another file into its raw_data.

    The file must lie inside `folder`, also after symbolic links are followed; else, or if it is missing or too short,
    CompileError.
    """
    entries = {e.key: e.value for e in tensor.external_data}
    location = entries.get("location", "")

    def refuse(reason: str, remedy: str = "put the file that was exported with the model next to it") -> CompileError:
        return CompileError(Problem(tensor.name, "", f"external data '{location}' {reason}", remedy))

    try:
        home = folder.resolve()
        target = (folder / location).resolve()
        inside = target.is_relative_to(home) and not Path(location).is_absolute() and ".." not in Path(location).parts
    except (OSError, ValueError, RuntimeError) as error:  # name too long, embedded NUL, loop of links
        raise refuse("is not a usable path") from error
    if not location or not inside:
        raise refuse("lies outside the model's folder", "export again, with the weights inside the folder or the file")
    try:
        offset, length = int(entries.get("offset", "0")), int(entries.get("length", "-1"))
    except ValueError as error:
        raise refuse("has an offset or length that is no number", "export again") from error
    try:
        if not target.is_file():
            raise refuse("is missing")
        size = target.stat().st_size
        wanted = length if length >= 0 else size - offset
        if offset < 0 or wanted < 0 or wanted > MAX_FILE_BYTES or offset + wanted > size:
            raise refuse(
                f"has {size:,} bytes; the tensor needs bytes {offset:,} to {offset + wanted:,}",
                "it was cut short: copy or export it again",
            )
        with target.open("rb") as file:
            file.seek(offset)
            tensor.raw_data = file.read(wanted)
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from error
    tensor.data_location = TensorProto.DEFAULT
    del tensor.external_data[:]


def type_name(data_type: int) -> str:
    """ONNX's name of an element type, in lower case as users know it: float16, int64, string."""
    if data_type == TensorProto.FLOAT:
        return "float32"
    names = {int(number): name for name, number in TensorProto.DataType.items()}
    return names.get(data_type, f"number {data_type}").lower()


def tensor_values(tensor: TensorProto, folder: Path) -> Array:
    """The values of a tensor in the file; int4 comes as int8, bfloat16 as float32.

    Raises CompileError for strings and other types without an IR counterpart, absurd dims, and data of another length
    than the dims say.
    """

    def refuse(reason: str, remedy: str = "export the model again") -> CompileError:
        return CompileError(Problem(tensor.name, "", reason, remedy))

    if tensor.data_type not in _ITEM_BITS:
        raise refuse(
            f"tensor of element type {type_name(tensor.data_type)} is unsupported",
            "only numbers and booleans reach the firmware",
        )
    if any(d < 0 for d in tensor.dims) or len(tensor.dims) > 32:
        raise refuse(f"impossible dims {list(tensor.dims)[:8]}")
    count = math.prod(tensor.dims)
    if count > MAX_ELEMENTS:
        raise refuse(f"tensor of {count:,} elements; the limit is {MAX_ELEMENTS:,}", "use a smaller model")
    if tensor.data_location == TensorProto.EXTERNAL:
        load_external_data(tensor, folder)
    bits = _ITEM_BITS[tensor.data_type]
    if tensor.HasField("raw_data"):
        have, want, unit = len(tensor.raw_data), -(-count * bits // 8), "bytes"
    else:
        have, want, unit = len(getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data"))), count, "values"
        want = -(-count // 2) if bits == 4 else want
    if have != want:
        raise refuse(f"has {have:,} {unit} of data where its dims {list(tensor.dims)} need {want:,}")
    values = numpy_helper.to_array(tensor)
    if bits == 4:
        return values.astype(np.int8)
    return values.astype(np.float32) if tensor.data_type == TensorProto.BFLOAT16 else np.asarray(values)

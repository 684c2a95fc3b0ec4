"""Graphs survive a round trip through files, and samples are read as the graph takes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from slm2c import samples
from slm2c.core import Builder
from slm2c.errors import CompileError
from slm2c.ir import Graph
from slm2c.passes import Fused, fuse
from slm2c.sentences import Row, read_labelled, read_texts
from slm2c.serialize import load_graph, read_arrays, save_graph

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    RNG.bit_generator.state = np.random.default_rng(0).bit_generator.state


N = 6


def token_model() -> Fused:
    b = Builder()
    ids, mask = b.input("ids", (1, N), "i64"), b.input("mask", (1, N), "i64")
    x = b.op("gather", [b.const(RNG.normal(size=(11, 8)).astype(np.float32)), ids], {"axis": 0})
    real = b.op("cast", [b.reshape(mask, (1, N, 1))], {"to": "f32"})
    y = b.op("gelu", [b.op("mul", [x, real])], {"approximate": "tanh"})
    return fuse(b.graph("tokens", [b.op("matmul", [y, b.const(RNG.normal(size=(8, 3)).astype(np.float32))])]))


def float_model() -> Graph:
    b = Builder()
    x = b.input("x", (1, 4), "f32")
    return fuse(b.graph("f", [b.op("matmul", [x, b.const(np.ones((4, 2), np.float32))])])).graph


def test_a_graph_comes_back_as_it_was(tmp_path: Path) -> None:
    graph = token_model().graph
    save_graph(graph, tmp_path / "g")
    back = load_graph(tmp_path / "g")
    assert (back.name, back.inputs, back.outputs, dict(back.tensors)) == (
        graph.name,
        graph.inputs,
        graph.outputs,
        dict(graph.tensors),
    )
    assert [(n.op, n.name, n.inputs, n.outputs) for n in back.nodes] == [
        (n.op, n.name, n.inputs, n.outputs) for n in graph.nodes
    ]
    for a, b in zip(back.nodes, graph.nodes, strict=True):
        assert set(a.attrs) == set(b.attrs)
        assert all(
            np.array_equal(a.attrs[k], b.attrs[k]) if k == "index" else a.attrs[k] == b.attrs[k] for k in a.attrs
        )
    assert all(np.array_equal(back.consts[k], v) and back.consts[k].dtype == v.dtype for k, v in graph.consts.items())


def test_equal_graphs_give_equal_files(tmp_path: Path) -> None:
    graph = token_model().graph
    save_graph(graph, tmp_path / "a")
    save_graph(graph, tmp_path / "b")
    for suffix in (".json", ".npz"):
        assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_n_comes_from_the_mask() -> None:
    fused = token_model()
    ids = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 9]])
    mask = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    found = samples.from_arrays({"ids": ids, "mask": mask}, fused.graph, fused.interface, "test")
    assert [s["ids"].tolist() for s in found] == [[1, 2, 3], [4, 5, 6, 7, 8, 9]]
    assert found[0]["ids"].dtype == np.int32


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"mask": np.ones((1, N))}, "no array for the inputs ids"),
        ({"ids": np.ones((1, N)), "mask": np.array([[1, 0, 1, 0, 0, 0]])}, "not the first"),
        ({"ids": np.ones((1, N)), "mask": np.zeros((1, N))}, "not the first"),
        ({"ids": np.ones((1, N + 1)), "mask": np.ones((1, N + 1))}, "has shape"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: dict[str, np.ndarray], message: str) -> None:
    fused = token_model()
    with pytest.raises(CompileError, match=message):
        samples.from_arrays(arrays, fused.graph, fused.interface, "test")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_refused(bad: float) -> None:
    with pytest.raises(CompileError, match="NaN or infinity"):
        samples.from_arrays({"x": np.full((2, 1, 4), bad)}, float_model(), None, "test")


def test_an_array_file_names_what_it_lacks(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", **{"in/x": np.ones((2, 1, 4), np.float32), "out/y": np.ones(2)})
    assert len(samples.read_arrays(tmp_path / "c.npz", float_model(), None)) == 2
    (tmp_path / "no.npz").write_text("no archive")
    with pytest.raises(CompileError, match=r"not an \.npz"):
        samples.read_arrays(tmp_path / "no.npz", float_model(), None)


def test_texts_and_labels(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"one, two",x\nthree,y\n', encoding="utf-8")
    assert read_labelled(tmp_path / "a.csv") == [Row(2, "one, two", "x"), Row(3, "three", "y")]
    assert read_texts(tmp_path / "a.csv") == ["one, two", "three"]
    (tmp_path / "a.txt").write_text("one\n\n two \n", encoding="utf-8")
    assert read_texts(tmp_path / "a.txt") == ["one", "two"]
    for name, content in (("b.csv", "sentence\nx\n"), ("c.txt", "\n"), ("d.csv", "")):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(CompileError):
            read_texts(tmp_path / name)


def test_synthetic_samples_have_all_lengths() -> None:
    fused = token_model()
    lengths = [len(s["ids"]) for s in samples.synthetic(fused.graph, fused.interface, 64)]
    assert lengths[:2] == [1, N] and set(lengths) == set(range(1, N + 1))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": np.array(3)}, "holds no samples"),
        ({"ids": np.ones((0, N), int)}, "holds no samples"),
        ({"ids": np.full((1, N), "a")}, "is of type <U1, expected numbers"),
        ({"ids": np.ones((1, N), complex)}, "is of type complex128"),
        ({"ids": np.full((1, N), 11)}, r"sample 0 of ids': holds 11; ids are whole numbers below 11"),
        ({"ids": np.full((1, N), -1)}, "holds -1; ids are"),
        ({"ids": np.full((1, N), 0.5)}, r"holds 0\.5; ids are"),
        ({"ids": np.full((1, N), 2**40)}, "holds 1099511627776; ids are"),
        ({"ids": np.ones((2, N)), "mask": np.ones((1, N))}, "input mask has shape"),
        ({"ids": np.ones((1, N)), "mask": np.ones((1, N - 1))}, "input mask has shape"),
    ],
)
def test_arrays_that_are_no_ids_are_refused(arrays: dict[str, np.ndarray], message: str) -> None:
    fused = token_model()
    with pytest.raises(CompileError, match=message):
        samples.from_arrays(arrays, fused.graph, fused.interface, "test")


def test_numbers_beyond_float32_are_refused() -> None:
    with pytest.raises(CompileError, match="beyond float32"):
        samples.from_arrays({"x": np.full((2, 1, 4), 1e300)}, float_model(), None, "test")


def test_what_lies_behind_the_last_token_may_be_anything() -> None:
    fused = token_model()
    given = {"ids": np.array([[1, 2, -100, -100, -100, -100]]), "mask": np.array([[1, 1, 0, 0, 0, 0]])}
    assert samples.from_arrays(given, fused.graph, fused.interface, "test")[0]["ids"].tolist() == [1, 2]


def test_shorter_token_inputs_are_taken() -> None:
    fused = token_model()
    given = {"ids": np.ones((2, 4), int), "mask": np.ones((2, 4), int)}
    assert [len(s["ids"]) for s in samples.from_arrays(given, fused.graph, fused.interface, "test")] == [4, 4]


def damaged_archives(whole: bytes) -> dict[str, bytes]:
    """An .npz file in the ways that files break."""
    middle = len(whole) // 2
    return {
        "empty": b"",
        "text": b"no archive",
        "cut": whole[:-30],
        "bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
    }


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "bit"])
def test_damaged_archives_are_refused(tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "whole.npz", x=RNG.normal(size=(2, 1, 400)))
    path = tmp_path / "damaged.npz"
    path.write_bytes(damaged_archives((tmp_path / "whole.npz").read_bytes())[kind])
    with pytest.raises(ValueError, match=r"damaged\.npz"):
        read_arrays(path)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    with (tmp_path / "single.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"single\.npz is no archive"):
        read_arrays(tmp_path / "single.npz")


def test_the_byte_order_mark_of_spreadsheets_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbftext,label\r\none,x\r\n")
    assert read_labelled(tmp_path / "a.csv") == [Row(2, "one", "x")]
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfone\r\n")
    assert read_texts(tmp_path / "a.txt") == ["one"]

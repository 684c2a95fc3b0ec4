"""The simulated integers against the compiler's own."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from slm2c import fixedpoint
from slm2c.distill import export, finish, integer, simulate, vocabulary
from slm2c.distill.data import Sentences
from slm2c.distill.recipe import Shape
from slm2c.distill.simulate import Simulation
from slm2c.distill.student import Student
from slm2c.interpret import run_fused
from slm2c.ir import Quant
from slm2c.ops.linear import quantize_weight, scale_floor
from slm2c.quantize import run_int
from tests.distill.tiny import PIECES, rows


@dataclass(frozen=True)
class Made:
    student: Student
    compiled: integer.Compiled
    simulation: Simulation


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A random student, with outputs far enough apart to be told apart, and what the compiler makes of it."""
    folder = tmp_path_factory.mktemp("student")
    torch.manual_seed(0)
    pieces = vocabulary._bert(PIECES, None, None, 100)
    student = Student(Shape(2, 32, 2, 64, 200, 12), len(PIECES), ("a", "b", "c"), 0.0).eval()
    with torch.no_grad():
        for p in student.parameters():
            p.add_(0.15 * torch.randn_like(p))
    texts = tuple(text for text, _ in rows())
    ids = [x.ids for x in pieces.encode_batch(list(texts))]
    sentences = Sentences(texts, tuple(i % 3 for i in range(len(texts))))
    export.write_model(student, pieces, export.calibration(sentences, ids, 12, 0), folder)
    compiled = integer.compile_folder(folder, lambda *_: None)
    return Made(student, compiled, Simulation(compiled.fused.graph, compiled.quantized.graph, student))


def test_every_constant_follows_a_parameter(made: Made) -> None:
    assert made.simulation.frozen == 0
    logits = made.simulation(torch.tensor([[2, 60, 61, 62, 3]]))
    logits.square().sum().backward()
    still = {name for name, p in made.student.named_parameters() if p.grad is None or not p.grad.abs().sum()}
    made.student.zero_grad()
    # A key's bias shifts all scores of a row alike.
    assert {name for name in still if not name.endswith("key.bias")} == set()


def _cases(made: Made) -> Iterator[tuple[dict, dict]]:
    """(integer values, the same as real numbers) of each sample's tensors."""
    graph = made.compiled.quantized.graph
    for sample in made.compiled.samples[::7]:
        ints = run_int(graph, sample)
        reals = {
            name: torch.from_numpy(fixedpoint.dequantize(value, graph.tensors[name].quant))[None]
            for name, value in ints.items()
            if name not in graph.consts and graph.tensors[name].quant
        }
        reals["input_ids"] = torch.from_numpy(sample["input_ids"].astype(np.int64))[None]
        yield ints, reals


def test_each_operator_gives_the_integers_of_the_compiler(made: Made) -> None:
    """Fed with the reference's own inputs: within one step of the reference everywhere, and nearly always equal.

    What is between two roundings is exact in linear, lut and view, but for the rounding of a multiplier or two.
    """
    graph, integers = made.compiled.fused.graph, made.compiled.quantized.graph
    equal: dict[str, list[int]] = {}
    with torch.no_grad():
        for ints, reals in _cases(made):
            for node in graph.nodes:
                name = node.outputs[0]
                described = integers.tensors[name]
                found = simulate.activation(made.simulation._node(node, reals), described.quant, described.dtype)
                steps = torch.round(found / described.quant.scale).numpy()[0] + described.quant.zero_point
                off = np.abs(steps - ints[name])
                assert off.max() <= 1, f"{node.op} {node.name}"
                equal.setdefault(node.op, []).extend((off == 0).ravel())
    shares = {op: float(np.mean(flags)) for op, flags in equal.items()}
    assert set(shares) == {"embedding", "layernorm", "linear", "attention", "lut", "view"}
    assert min(shares[op] for op in ("linear", "lut", "view", "embedding")) > 0.999, shares
    assert min(shares.values()) > 0.97, shares


def test_the_simulation_is_nearer_to_the_integers_than_the_float_graph(made: Made) -> None:
    """Roundings that fall to the other side grow from layer to layer; in the first one there are few."""
    graph, integers = made.compiled.fused.graph, made.compiled.quantized.graph
    first = next(node.outputs[0] for node in graph.nodes if node.op == "attention")
    ends = {name: np.zeros(2) for name in (first, graph.outputs[0])}
    with torch.no_grad():
        for sample in made.compiled.samples[::4]:
            ints, real = run_int(integers, sample), run_fused(graph, sample)
            ids = torch.from_numpy(sample["input_ids"].astype(np.int64))[None]
            simulated = made.simulation.values(ids)
            for name, errors in ends.items():
                exact = fixedpoint.dequantize(ints[name], integers.tensors[name].quant)
                errors += [np.square(x - exact).sum() for x in (simulated[name][0].numpy(), real[name])]
    assert ends[first][0] < ends[first][1] / 4
    assert ends[graph.outputs[0]][0] < ends[graph.outputs[0]][1]


def test_gradients_are_the_same_each_time(made: Made) -> None:
    """Of a table, too, from which all threads read the same few rows: else a run would not end with the same bytes."""
    ids = torch.randint(2, 6, (1024, 12), generator=torch.Generator().manual_seed(1))
    scale = torch.randn(1024, 3, generator=torch.Generator().manual_seed(2))
    threads, found = torch.get_num_threads(), []
    torch.set_num_threads(4)
    try:
        for _ in range(8):
            made.student.zero_grad()
            (made.simulation(ids) * scale).sum().backward()
            found.append([p.grad.clone() for p in made.student.parameters() if p.grad is not None])
    finally:
        torch.set_num_threads(threads)
        made.student.zero_grad()
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_constants_follow_the_weights(made: Made) -> None:
    ids = torch.tensor([[2, 60, 61, 62, 3]])
    with torch.no_grad():
        before = made.simulation(ids)
        weight = made.student.bert.classifier.weight
        weight.mul_(2)
        assert (made.simulation(ids) - before).abs().max() > 0
        weight.div_(2)
        assert torch.equal(made.simulation(ids), before)


def test_batches_of_one_length() -> None:
    lengths = [3, 5, 3, 3, 5, 4, 3]
    found = finish.same_length(np.array([6, 0, 1, 2, 3, 4, 1]), lengths, 3, [1, 2])
    assert sorted(np.concatenate(found).tolist()) == [0, 1, 1, 2, 3, 4, 6]
    assert all(len({lengths[i] for i in batch}) == 1 for batch in found) and sorted(map(len, found)) == [1, 3, 3]


def test_simulated_logits_stand_in_the_order_of_the_sentences(made: Made) -> None:
    ids = [[2, 60, 61, 3], [2, 62, 3], [2, 63, 64, 3], [2, 65, 3]]
    with torch.no_grad():
        each = [made.simulation(torch.tensor([row]))[0] for row in ids]
    assert torch.allclose(finish.simulated(made.simulation, ids), torch.stack(each), atol=1e-5)


@pytest.mark.parametrize("dtype, quant", [("i8", Quant(0.1, -7)), ("i8", Quant(0.37)), ("i16", Quant(0.001))])
def test_activations_are_rounded_as_fixedpoint_does(dtype: str, quant: Quant) -> None:
    low, high = fixedpoint.INT_RANGE[dtype]
    steps = np.arange(low - 5, high + 5, 0.25 if dtype == "i8" else 31.25)
    x = ((steps - quant.zero_point) * quant.scale).astype(np.float32)
    away = np.abs(np.abs(steps % 1) - 0.5) > 1e-3  # from ties, which float32 and float64 may break differently
    expected = fixedpoint.dequantize(fixedpoint.quantize(x, quant, dtype), quant)
    assert np.allclose(simulate.activation(torch.from_numpy(x), quant, dtype).numpy()[away], expected[away], rtol=1e-6)


def test_gradients_go_straight_through_and_stop_where_values_are_cut() -> None:
    x = torch.tensor([-13.0, -12.71, -3.3, 0.0, 12.6, 12.71], requires_grad=True)
    rounded = simulate.rounded(x, 0.1, -127, 127)
    assert rounded.tolist() == pytest.approx([-12.7, -12.7, -3.3, 0, 12.6, 12.7])
    rounded.backward(torch.arange(1.0, 7.0))
    assert x.grad.tolist() == [0, 0, 3, 4, 5, 0]


def test_weights_are_those_of_the_compiler() -> None:
    rng = np.random.default_rng(3)
    w, bias = rng.normal(size=(5, 17)).astype(np.float32), rng.normal(size=5).astype(np.float32)
    w[3] = 0  # its scale is the floor
    x, out = Quant(0.05, 3), Quant(0.2, -9)
    expected, scale = quantize_weight(w, scale_floor(bias, x, out))
    found, added = simulate.weight(torch.from_numpy(w), torch.from_numpy(bias), x, out)
    assert np.array_equal(np.rint(found.double().numpy() / scale[:, None]), expected)
    assert np.array_equal(np.rint(added.double().numpy() / (x.scale * scale)), np.rint(bias / (x.scale * scale)))


def test_tables_are_those_of_the_compiler() -> None:
    table = np.random.default_rng(4).normal(size=(9, 6)).astype(np.float32)
    scale = float(np.abs(table).max()) / 127
    expected = fixedpoint.quantize(table, Quant(scale), "i8")
    assert np.array_equal(np.rint(simulate._table(torch.from_numpy(table)).double().numpy() / scale), expected)

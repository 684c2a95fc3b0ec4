"""What is cut away is what gates at 0 silence; what is written is what was cut."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from slm2c import cli
from slm2c.distill import prune, shrink
from slm2c.distill.importance import gated, gates, importance
from slm2c.distill.recipe import Recipe, Shape, to_toml
from slm2c.distill.restore import restore
from slm2c.distill.student import Student, factors
from slm2c.distill.vocabulary import SPECIAL, _bert
from slm2c.errors import CompileError
from tests.distill import students, tiny
from tests.distill.students import student

SHAPE = Shape(layers=3, hidden=16, heads=4, ffn=24, tokens=12)
KEPT = prune.Kept(((1,), (0, 1, 2, 3), (0, 3)), (tuple(range(8)), (3, 5, *range(8, 22)), tuple(range(24))))
IDS, MASK = torch.tensor([[2, 7, 40, 41, 3], [2, 50, 3, 0, 0]]), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])

MANY = _bert([*SPECIAL, *(f"x{i}" for i in range(200))], None, None, 100)


def answer(model: Student) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS, MASK)


def closed(shape: Shape, kept: prune.Kept) -> object:
    """Gates at 1 for what is kept, else 0."""
    found = gates(shape, torch.zeros)
    for gate, positions in zip(
        (*found.heads, *found.columns, found.components), (*kept.heads, *kept.columns, kept.components), strict=True
    ):
        gate[list(positions)] = 1
    return found


@pytest.mark.parametrize("rank", [0, 12])
def test_a_pruned_student_is_the_student_with_gates_at_zero(rank: int) -> None:
    shape = replace(SHAPE, rank=rank)
    whole, kept = student(shape), replace(KEPT, components=(0, 2, 3, 7) if rank else ())
    with gated(whole, closed(shape, kept)):
        wanted = answer(whole)
    found = prune.prune(whole, kept)
    assert found.shape == replace(shape, heads=(1, 4, 2), ffn=(8, 16, 24), head_size=4, rank=len(kept.components))
    torch.testing.assert_close(answer(found), wanted, rtol=0, atol=1e-5)
    assert not torch.allclose(answer(whole), wanted, rtol=0, atol=1e-3)
    assert not whole.layers[0].output.dense._forward_pre_hooks


def test_what_is_kept_whole_stays_the_same() -> None:
    whole = student(SHAPE)
    assert torch.equal(answer(prune.prune(whole, prune.everything(SHAPE))), answer(whole))


def test_layers_that_share_weights_are_cut_once_and_stay_one() -> None:
    whole = student(replace(SHAPE, share=2))
    kept = replace(KEPT, heads=((1, 2), (1, 2), (0,)), columns=(tuple(range(8)),) * 2 + (tuple(range(16)),))
    with gated(whole, closed(whole.shape, kept)):
        wanted = answer(whole)
    found = prune.prune(whole, kept)
    torch.testing.assert_close(answer(found), wanted, rtol=0, atol=1e-5)
    first, second, third = found.layers
    assert first.intermediate.dense.weight is second.intermediate.dense.weight
    assert second.intermediate.dense.weight is not third.intermediate.dense.weight


def test_a_layer_that_is_gone_passes_on_what_it_gets() -> None:
    whole = student(SHAPE)
    silent = student(SHAPE)
    # A layer whose two halves put out nothing normalizes what is normalized: with gamma 1 and beta 0 that changes
    # nothing, so the one before it is given these.
    for model in (whole, silent):
        for norm in (
            model.layers[0].output.LayerNorm,
            *(model.layers[1].get_submodule(x).LayerNorm for x in ("attention.output", "output")),
        ):
            torch.nn.init.ones_(norm.weight)
            torch.nn.init.zeros_(norm.bias)
    for part in (silent.layers[1].attention.output.dense, silent.layers[1].output.dense):
        torch.nn.init.zeros_(part.weight)
        torch.nn.init.zeros_(part.bias)
    torch.testing.assert_close(answer(prune.without_layers(whole, [0, 2])), answer(silent), rtol=0, atol=1e-4)


def test_importance_is_the_derivative_by_the_gate() -> None:
    """Central differences, of each sentence alone, in double precision."""
    model = student(replace(SHAPE, rank=8)).double()
    ids, labels = [[2, 7, 40, 41, 3], [2, 50, 3], [2, 60, 61, 3]], [0, 2, 1]
    found = importance(model, ids, labels, lambda *_: None)
    step, parts = 1e-4, {"heads": (1, 2), "columns": (0, 11), "components": (None, 5)}

    def loss(i: int, kind: str, layer: int | None, part: int, value: float) -> float:
        own = gates(model.shape, lambda count: torch.ones(count, dtype=torch.float64))
        gate = getattr(own, kind) if layer is None else getattr(own, kind)[layer]
        gate[part] = value
        with gated(model, own), torch.no_grad():
            logits = model(torch.tensor([ids[i]]), torch.ones(1, len(ids[i]), dtype=torch.long))
        return float(torch.nn.functional.cross_entropy(logits, torch.tensor([labels[i]])))

    for kind, (layer, part) in parts.items():
        slopes = [
            (loss(i, kind, layer, part, 1 + step) - loss(i, kind, layer, part, 1 - step)) / (2 * step) for i in range(3)
        ]
        mine = getattr(found, kind) if layer is None else getattr(found, kind)[layer]
        assert float(mine[part]) == pytest.approx(sum(map(abs, slopes)) / 3, rel=1e-5), kind
        assert any(slope < 0 for slope in slopes) or kind != "columns"


def test_importance_of_a_part_that_does_nothing_is_zero() -> None:
    model = student(SHAPE)
    with torch.no_grad():
        model.layers[2].attention.output.dense.weight[:, 4:8] = 0  # reads head 1
        model.layers[0].output.dense.weight[:, 5] = 0
    found = importance(model, [[2, 7, 3], [2, 50, 3]], [0, 1], lambda *_: None)
    assert found.heads[2][1] == 0 and (found.heads[2][[0, 2, 3]] > 0).all()
    assert found.columns[0][5] == 0 and (found.columns[0][:5] > 0).all()


def test_importance_of_shared_layers_is_that_of_the_weights_they_share() -> None:
    model = student(replace(SHAPE, share=3))
    found = importance(model, [[2, 7, 3]], [0], lambda *_: None)
    assert found.heads[0] is found.heads[2] and len(found.tensors) == 3


def test_factors_are_the_nearest_product() -> None:
    """Of [[2, 0], [0, 1], [0, 0]] the nearest product of rank 1 is its first row and nothing else."""
    table, up = factors(torch.tensor([[2.0, 0], [0, 1], [0, 0]]), 1)
    torch.testing.assert_close(table @ up.T, torch.tensor([[2.0, 0], [0, 0], [0, 0]]))
    torch.testing.assert_close(table.norm(dim=0), up.norm(dim=0))
    rows = torch.randn(30, 8)
    whole = factors(rows, 8)
    torch.testing.assert_close(whole[0] @ whole[1].T, rows)
    errors = [float((factors(rows, r)[0] @ factors(rows, r)[1].T - rows).square().sum()) for r in range(1, 9)]
    tails = [*torch.linalg.svdvals(rows).square().flip(0).cumsum(0).flip(0)[1:].tolist(), 0.0]
    assert errors == pytest.approx(tails, abs=1e-4)


def test_a_table_in_as_many_factors_as_it_has_columns_computes_the_same() -> None:
    model = student(SHAPE)
    found = shrink.factored(model, 16)
    assert found.shape.rank == 16
    torch.testing.assert_close(answer(found), answer(model), rtol=0, atol=1e-4)


def test_layers_go_and_lend_their_weights_by_the_loss() -> None:
    model = student(SHAPE)
    wanted = answer(prune.without_layers(model, [0, 2]))
    found = shrink.fewer_layers(model, 2, lambda made: float((answer(made)[0, 0] - wanted[0, 0]).abs()))
    assert torch.equal(answer(found), wanted)
    mixed = prune.prune(model, KEPT)

    def first_weight(made: Student) -> float:  # least where layer 2 lends to 1 and 0
        return abs(made.layers[0].output.LayerNorm.weight[0].item() - mixed.layers[2].output.LayerNorm.weight[0].item())

    one = shrink.shared(mixed, 3, first_weight)
    assert one.shape == replace(SHAPE, heads=(2, 2, 2), ffn=(24, 24, 24), head_size=4, share=3)
    assert all(torch.equal(x.output.dense.weight, mixed.layers[2].output.dense.weight) for x in one.layers)


@pytest.mark.parametrize("share, rank", [(1, 0), (1, 4), (2, 0)])
def test_a_written_student_is_restored(share: int, rank: int, tmp_path: Path) -> None:
    whole = student(replace(SHAPE, share=share, rank=rank))
    kept = KEPT if share == 1 else replace(KEPT, heads=((1,), (1,), (0, 3)), columns=(KEPT.columns[0],) * 3)
    made = prune.prune(whole, replace(kept, components=tuple(range(rank))))
    students.write(tmp_path, made)
    (tmp_path / "student.toml").write_text(to_toml(replace(Recipe(), student=made.shape)))
    found = restore(tmp_path)
    assert found.student.shape == made.shape and found.student.labels == made.labels
    for (name, value), (_, wanted) in zip(found.student.state_dict().items(), made.state_dict().items(), strict=True):
        assert torch.equal(value, wanted), name


@pytest.mark.parametrize(
    "shape, kept",
    [
        (replace(SHAPE, rank=8), replace(KEPT, components=(0, 1, 5))),
        (replace(SHAPE, share=2), replace(KEPT, heads=((2,), (2,), (0, 3)), columns=(KEPT.columns[0],) * 3)),
    ],
)
def test_it_compiles_and_the_c_is_the_reference(shape: Shape, kept: prune.Kept, tmp_path: Path, host_cc: str) -> None:
    made = prune.prune(student(shape), kept)
    students.write(tmp_path / "student", made)
    out = str(tmp_path / "out")
    assert cli.invoke(["build", str(tmp_path / "student"), "-o", out, "--board", "generic-m7-512k-4m"]) == 0
    assert cli.invoke(["validate", out, "--on", "host"]) == 0


def rename_piece(path: Path, old: str, new: str) -> None:
    path.write_text(path.read_text().replace(f'"{old}"', f'"{new}"'))


@pytest.mark.parametrize(
    "change, expected",
    [
        (lambda folder: (folder / "student.toml").unlink(), "has no student.toml"),
        (lambda folder: (folder / "model.onnx").unlink(), "has no model.onnx"),
        (
            lambda folder: (folder / "student.toml").write_text(
                "[student]\nlayers = 4\nhidden = 16\nffn = 24\ntokens = 12"
            ),
            "layer.3/attention/self/query/MatMul': ",
        ),
        (
            lambda folder: (folder / "student.toml").write_text(
                "[student]\nlayers = 3\nhidden = 16\nffn = 32\ntokens = 12"
            ),
            "has [24, 16] where student.toml says [32, 16]",
        ),
        (
            lambda folder: (folder / "student.toml").write_text(
                "[student]\nlayers = 3\nhidden = 16\nheads = 2\nffn = 24\ntokens = 12"
            ),
            "computes something else",
        ),
        (
            lambda folder: _bert([*SPECIAL, *(f"x{i}" for i in range(200))], None, None, 100).save(
                str(folder / "tokenizer.json")
            ),
            "has 205 pieces, the student's table 86 rows",
        ),
        (
            lambda folder: _bert(tiny.PIECES[:60], None, None, 100).save(str(folder / "tokenizer.json")),
            "has 60 pieces, the student's table 86 rows",
        ),
        (lambda folder: rename_piece(folder / "tokenizer.json", "[SEP]", "sep"), "has no [SEP]"),
        (
            lambda folder: (folder / "config.json").write_text('{"id2label": {"0": "on", "1": "off", "2": "on"}}'),
            "has the label 'on' twice",
        ),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no labels"),
        (lambda folder: (folder / "tokenizer.json").write_text("{}"), "tokenizer.json"),
    ],
)
def test_a_folder_that_is_no_student_is_refused(change: object, expected: str, tmp_path: Path) -> None:
    students.write(tmp_path, student(SHAPE))
    (tmp_path / "student.toml").write_text(to_toml(replace(Recipe(), student=SHAPE)))
    change(tmp_path)
    with pytest.raises(CompileError) as caught:
        restore(tmp_path)
    assert expected in str(caught.value)

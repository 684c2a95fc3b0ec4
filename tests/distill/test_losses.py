"""The losses against cases worked by hand and against numerical gradients."""

import math

import pytest
import torch

from slm2c.distill import losses
from slm2c.distill.data import UNLABELLED
from slm2c.distill.recipe import Phase, Recipe
from slm2c.distill.training import Moment


def random(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(sum(shape)))


def test_soft_loss_by_hand() -> None:
    # At T = 2 the teacher says (3/4, 1/4) and the student (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2).
    teacher = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64, requires_grad=True)
    loss = losses.soft_loss(student, teacher, 2.0)
    assert loss.item() == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-12)
    loss.backward()
    # The gradient of T**2 KL is T (p_student - p_teacher).
    assert student.grad[0].tolist() == pytest.approx([2 * (0.5 - 0.75), 2 * (0.5 - 0.25)], rel=1e-12)


def test_soft_loss_is_the_mean_over_the_batch_and_0_for_equal_logits() -> None:
    a, b = random(3, 5), random(3, 5) + 1
    each = [losses.soft_loss(a[i : i + 1], b[i : i + 1], 3.0).item() for i in range(3)]
    assert losses.soft_loss(a, b, 3.0).item() == pytest.approx(sum(each) / 3, rel=1e-12)
    assert losses.soft_loss(a, a + 7, 3.0).item() == pytest.approx(0, abs=1e-12)  # a shift changes no softmax


def test_soft_loss_at_high_temperature_compares_logits() -> None:
    """Hinton et al., section 2.1: for logits of mean 0 the gradient of T**2 KL tends to (z - v) / N."""
    z, v = (x - x.mean(-1, keepdim=True) for x in (random(1, 4), random(1, 4).flip(1)))
    z = z.detach().requires_grad_()
    losses.soft_loss(z, v, 1e4).backward()
    assert z.grad[0].tolist() == pytest.approx(((z - v) / 4)[0].tolist(), rel=1e-3)


def test_hard_loss_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0], [5.0, 1.0], [0.0, math.log(3)]], dtype=torch.float64)
    labels = torch.tensor([1, UNLABELLED, 1])
    expected = (math.log(2) + math.log(4 / 3)) / 3
    assert losses.hard_loss(logits, labels).item() == pytest.approx(expected, rel=1e-12)
    assert losses.hard_loss(logits, torch.full((3,), UNLABELLED)).item() == 0


def test_hidden_loss_by_hand() -> None:
    assert losses.hidden_loss(torch.ones(2, 3), torch.full((2, 3), 3.0), 2.0).item() == 2.0
    assert losses.hidden_loss(torch.ones(0, 3), torch.ones(0, 3), 2.0).item() == 0


def test_attention_loss_by_hand() -> None:
    teacher = torch.tensor([[0.75, 0.25, 0.0], [0.0, 1.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]], dtype=torch.float64)
    kl = [0.75 * math.log(1.5) + 0.25 * math.log(0.5), math.log(2)]
    assert losses.attention_loss(student, teacher).item() == pytest.approx(sum(kl) / 2, rel=1e-12)
    assert losses.attention_loss(teacher, teacher).item() == 0


@pytest.mark.parametrize("temperature", [1.0, 2.7, 5.0])
def test_gradients(temperature: float) -> None:
    logits, teacher = random(4, 6).requires_grad_(), random(4, 6) * 2
    labels = torch.tensor([0, UNLABELLED, 5, 2])
    assert torch.autograd.gradcheck(lambda z: losses.soft_loss(z, teacher, temperature), logits)
    assert torch.autograd.gradcheck(lambda z: losses.hard_loss(z, labels), logits)
    states = random(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda h: losses.hidden_loss(h, random(5, 3) + 1, 0.7), states)
    rows = random(5, 4).softmax(-1).detach()
    assert torch.autograd.gradcheck(lambda a: losses.attention_loss(a.softmax(-1), rows), random(5, 4).requires_grad_())


def test_averaged_teachers_by_hand() -> None:
    # (8, 2) and (5, 5) tenths: the geometric mean is sqrt(40) : sqrt(10) = 2 : 1. Shifts of logits do not matter.
    logits = [torch.log(torch.tensor([[0.8, 0.2]])) + 3, torch.log(torch.tensor([[0.5, 0.5]])) - 1]
    mean = losses.average_teachers(logits)
    assert mean.softmax(-1)[0].tolist() == pytest.approx([2 / 3, 1 / 3], rel=1e-6)
    assert torch.allclose(losses.average_teachers(logits[:1]).softmax(-1), logits[0].softmax(-1))


def test_temperature_decays_from_5_to_1_while_distilling() -> None:
    phase = Recipe().distil
    assert [Moment(phase, share).temperature for share in (0.0, 0.25, 0.5, 1.0)] == [5, 4, 3, 1]
    assert Moment(Recipe().warm_up, 1.0).temperature == 5
    assert Moment(Recipe().fine_tune, 0.0).temperature == 1


def test_values_within_a_phase() -> None:
    phase = Phase(2, rate=(0.0, 1.0), hidden=(1.0, 0.0), attention=(0.5, 0.5))
    found = [Moment(phase, share) for share in (0.0, 0.5, 1.0)]
    assert [m.hidden for m in found] == [1, 0.5, 0] and [m.attention for m in found] == [0.5] * 3
    assert [m.rate for m in found] == pytest.approx([0, 0.5, 1])
    assert Moment(phase, 1 / 3).rate == pytest.approx((1 - math.cos(math.pi / 3)) / 2)


def test_layer_map() -> None:
    assert losses.layer_map(6, 6, 3) == ((2, 2), (4, 4), (6, 6))
    assert losses.layer_map(4, 12, 4) == ((1, 3), (2, 6), (3, 9), (4, 12))  # TinyBERT's
    assert losses.layer_map(2, 6, 3) == ((1, 3), (2, 6))
    assert losses.layer_map(12, 6, 4) == ((3, 2), (6, 3), (9, 4), (12, 6))
    assert losses.layer_map(5, 1, 2) == ((3, 1), (5, 1))

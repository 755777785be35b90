"""Discriminators and their losses: shapes, known answers, balancer shares, when they take part."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from codec.objectives.adversarial import (
    Adversary,
    Balancer,
    Discriminators,
    Judgement,
    discriminator_loss,
    feature_matching,
    generator_loss,
    normalise,
)
from training.config import compose


def test_judgements_and_gradients() -> None:
    torch.manual_seed(0)
    judges = Discriminators([32, 64, 1024], [16] * 3, 24000)
    wav = (torch.randn(2, 4800) * 0.1).requires_grad_()
    found = judges(wav)
    assert len(found) == 3
    assert all(j.score.shape[:2] == (2, 1) and torch.isfinite(j.score).all() for j in found)
    assert all(len(j.features) == 6 for j in found)
    (generator_loss(found) + feature_matching(judges(wav.detach() * 0.5 + 0.01), found)).backward()
    assert torch.isfinite(wav.grad).all() and wav.grad.abs().sum() > 0


def judgement(score: float, feature: float) -> list[Judgement]:
    return [Judgement(torch.full((2, 1, 3, 3), score), [torch.full((2, 4), feature)])]


def test_losses_have_their_textbook_values() -> None:
    real, fake = judgement(0.5, 2.0), judgement(-0.25, 3.0)
    assert generator_loss(fake).item() == pytest.approx(1.25)
    assert discriminator_loss(real, fake).item() == pytest.approx(0.5 + 0.75)
    assert feature_matching(real, fake).item() == pytest.approx(0.5)


def test_the_balancer_gives_each_loss_its_share_whatever_its_scale() -> None:
    accelerator, balancer = Accelerator(cpu=True), Balancer()
    output = torch.randn(2, 50, requires_grad=True)
    losses = {"a": 1e4 * output[:, :25].square().mean(), "b": 1e-3 * output[:, 25:].square().mean()}
    gradient = len(output) * balancer.gradient(losses, {"a": 3.0, "b": 1.0}, output, accelerator)
    norms = gradient[:, :25].norm(dim=1).mean(), gradient[:, 25:].norm(dim=1).mean()
    assert norms[0].item() == pytest.approx(0.75, rel=1e-4) and norms[1].item() == pytest.approx(0.25, rel=1e-4)
    copy = Balancer()
    copy.load_state_dict(balancer.state_dict())
    assert copy.sums == balancer.sums and copy.counts == balancer.counts


def test_discriminators_learn_from_all_batches_of_a_step() -> None:
    gan = compose("codec_train", ["gan.sizes=[64,256]", "gan.channels=[8,8]", "gan.start=0", "gan.learning_rate=1"]).gan
    output, wav = torch.randn(4, 4800) * 0.1, torch.randn(4, 4800).cumsum(1) * 0.01
    whole, halves, last = ([(output, wav)], [(output[:2], wav[:2]), (output[2:], wav[2:])], [(output[2:], wav[2:])])
    learnt, losses = [], []
    for heard in (whole, halves, last):
        torch.manual_seed(0)
        adversary = Adversary(gan, 24000, Accelerator(cpu=True), seed=0)
        adversary.optimizer = torch.optim.SGD(adversary.core.parameters())  # Adam would hide a gradient's size
        losses.append(adversary.train(heard, slice(0, 4800), 1.0)["discriminator"])
        learnt.append(torch.cat([p.detach().flatten() for p in adversary.core.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    same, other = ((learnt[0] - weights).norm() for weights in learnt[1:])
    assert same < 1e-6 and other > 1e-4


def adversary(rank: int = 0, seed: int = 0, **changes: object) -> Adversary:
    """Discriminators as process ``rank`` would have them, without other processes."""
    cfg = compose("codec_train", ["gan.start=100", "gan.sizes=[64]", "gan.channels=[8]"]).gan
    cfg.update(changes)
    accelerator: Any = SimpleNamespace(process_index=rank, prepare=lambda *x: x, unwrap_model=lambda model: model)
    return Adversary(cfg, 24_000, accelerator, seed)


def test_the_discriminators_take_part_from_their_start_on() -> None:
    judges = adversary()
    assert [step for step in range(0, 103) if judges.draw(step, 9_600) is not None] == [100, 101, 102]
    assert adversary(start=0).draw(0, 9_600) is not None


def test_all_processes_draw_the_same_whatever_they_drew_before() -> None:
    """A process that judges another part, or skips an update that others make, waits for them for ever."""
    changes: dict[str, object] = {"crop_seconds": 0.2}
    one, other = adversary(0, **changes), adversary(1, **changes)
    first = [one.draw(step, 9_600) for step in range(100, 150)]
    torch.manual_seed(7)
    np.random.seed(7)
    assert [other.draw(step, 9_600) for step in reversed(range(100, 150))][::-1] == first
    reseeded = adversary(0, seed=1, **changes)
    assert [reseeded.draw(step, 9_600) for step in range(100, 150)] != first


def test_the_judged_part_lies_anywhere_in_the_crop() -> None:
    judges = adversary(crop_seconds=0.2, start=0)
    draws = [judges.draw(step, 9_600) for step in range(300)]
    assert {draw.stop - draw.start for draw in draws if draw} == {4_800}
    starts = [draw.start for draw in draws if draw]
    assert min(starts) >= 0 and max(starts) <= 4_800
    assert min(starts) < 240 and max(starts) > 4_560
    for crop_seconds in (0, 1.0):  # the whole crop: asked for, or there is no more
        whole = adversary(crop_seconds=crop_seconds, start=0).draw(3, 9_600)
        assert whole == slice(0, 9_600)


def test_normalise_removes_the_mean_and_sets_the_peak() -> None:
    wav = torch.tensor([[1.0, 3.0, 2.0, 2.0], [-0.1, -0.1, -0.1, 0.3]])
    expected = torch.tensor([[-0.8, 0.8, 0.0, 0.0], [-0.8 / 3, -0.8 / 3, -0.8 / 3, 0.8]])
    torch.testing.assert_close(normalise(wav), expected)
    noise = torch.randn(2, 500)
    torch.testing.assert_close(normalise(0.01 * noise + 5), normalise(noise), atol=1e-3, rtol=0)
    assert torch.equal(normalise(torch.full((1, 10), 0.25)), torch.zeros(1, 10)), "a constant is silence"
    # silence stays silent instead of being blown up to the full scale: peaks below 1e-4 count as 1e-4
    quiet = normalise(torch.tensor([[1e-6, -1e-6]]))
    torch.testing.assert_close(quiet, torch.tensor([[0.008, -0.008]]))

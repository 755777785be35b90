"""Discriminators and their losses: shapes, known answers, balancer shares."""

import pytest
import torch
from accelerate import Accelerator

from codec.adversarial import Adversary, AdversaryDraw, Balancer, discriminator_loss, feature_matching, generator_loss
from codec.discriminator import Discriminators, Judgement
from training.config import compose


@pytest.mark.parametrize(("kind", "sizes"), [("mel", [32, 64, 1024]), ("stft", [128, 1024])])
def test_judgements_and_gradients(kind: str, sizes: list[int]) -> None:
    torch.manual_seed(0)
    judges = Discriminators(kind, sizes, [16] * len(sizes), 24000, True)
    wav = (torch.randn(2, 4800) * 0.1).requires_grad_()
    found = judges(wav)
    assert len(found) == len(sizes)
    assert all(j.score.shape[:2] == (2, 1) and torch.isfinite(j.score).all() for j in found)
    assert all(len(j.features) == (6 if kind == "mel" else 5) for j in found)
    (generator_loss(found, "hinge") + feature_matching(judges(wav.detach() * 0.5 + 0.01), found)).backward()
    assert torch.isfinite(wav.grad).all() and wav.grad.abs().sum() > 0


def judgement(score: float, feature: float) -> list[Judgement]:
    return [Judgement(torch.full((2, 1, 3, 3), score), [torch.full((2, 4), feature)])]


def test_losses_have_their_textbook_values() -> None:
    real, fake = judgement(0.5, 2.0), judgement(-0.25, 3.0)
    assert generator_loss(fake, "hinge").item() == pytest.approx(1.25)
    assert generator_loss(fake, "least_squares").item() == pytest.approx(1.25**2)
    assert discriminator_loss(real, fake, "hinge").item() == pytest.approx(0.5 + 0.75)
    assert discriminator_loss(real, fake, "least_squares").item() == pytest.approx(0.25 + 0.0625)
    assert feature_matching(real, fake).item() == pytest.approx(0.5)
    with pytest.raises(ValueError, match="neither"):
        generator_loss(fake, "wgan")


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
        losses.append(adversary.train(heard, AdversaryDraw(0, 4800, True), 1.0)["discriminator"])
        learnt.append(torch.cat([p.detach().flatten() for p in adversary.core.parameters()]))
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    same, other = ((learnt[0] - weights).norm() for weights in learnt[1:])
    assert same < 1e-6 and other > 1e-3


def test_sizes_and_channels_must_match() -> None:
    with pytest.raises(ValueError, match="one per size"):
        Discriminators("mel", [32, 64], [16], 24000, True)

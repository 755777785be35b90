"""Flow matching against known answers: a Gaussian's exact velocity, orders of the solvers, guidance, masks, noise."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from codec.network.flow import (
    TAPE_FRAMES,
    Sampling,
    guided,
    interpolate,
    masked_mean_square,
    noise,
    solve,
    stratified_times,
)
from codec.network.flow_decoder import FlowNetwork

CPU = torch.device("cpu")
MEAN, DEVIATION = 0.7, 0.4


def exact(x: torch.Tensor, t: float, deviation: float = DEVIATION) -> torch.Tensor:
    """E[x₁ − z | x_t = x] of targets N(MEAN, deviation²): both are Gaussian, so it is linear in x."""
    variance = (1 - t) ** 2 + (t * deviation) ** 2
    slope = (t * deviation**2 - (1 - t)) / variance
    return MEAN + slope * (x - t * MEAN)


@pytest.mark.parametrize(("solver", "order"), [("euler", 1), ("midpoint", 2)])
def test_the_exact_velocity_gives_the_targets_moments(solver: str, order: int) -> None:
    z = noise(0, TAPE_FRAMES, 4, 0, CPU)[None].double()
    found = {n: solve(exact, z, n, solver) for n in (64, 128, 256)}
    best = found[256]
    assert best.mean() == pytest.approx(MEAN, abs=0.02) and best.std() == pytest.approx(DEVIATION, rel=0.02)
    true = MEAN + DEVIATION * z  # the path of a Gaussian keeps each sample's quantile
    falls = [(found[n] - true).abs().mean() / (found[2 * n] - true).abs().mean() for n in (64, 128)]
    assert min(falls) > 0.95 * 2**order, "on a path of Gaussians the midpoint rule even gains an order"
    assert solver == "midpoint" or max(falls) < 1.05 * 2**order


@pytest.mark.parametrize("deviation", [1.0, 0.5, 0.25])
def test_the_default_makes_samples_of_the_right_deviation(deviation: float) -> None:
    """Which Euler, with as many evaluations, does not."""
    z = torch.tensor([[[-1.0, 1.0]]])
    spread = {
        how: float(solve(partial(exact, deviation=deviation), z, 8, how).diff().abs()) / (2 * deviation)
        for how in (Sampling().solver, "euler")
    }
    assert spread[Sampling().solver] == pytest.approx(1, abs=0.015) and spread["euler"] < 0.86


def test_the_network_starts_from_the_exact_velocity_of_a_standard_normal_target() -> None:
    t = torch.linspace(0, 1, 9)
    network = FlowNetwork(3, 2, 8, 1, 8, 4)
    network.reset_parameters()
    x = torch.randn(9, 5, 3, generator=torch.Generator().manual_seed(0))
    found = network(x, t, torch.randn(9, 5, 2))
    expected = torch.stack([exact(x[i] + t[i] * MEAN, float(t[i]), 1.0) - MEAN for i in range(9)])
    torch.testing.assert_close(found, expected)


@pytest.mark.slow
def test_a_linear_gaussian_toy_is_learnt_in_two_moments() -> None:
    """x₁ = a c + s ε: whatever c, samples have its mean and the deviation s."""
    torch.manual_seed(0)
    network = FlowNetwork(2, 1, 32, 1, 8, 4)
    network.reset_parameters()
    slope, deviation = torch.tensor([1.5, -0.5]), torch.tensor([0.3, 0.8])
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    draws = torch.Generator().manual_seed(0)
    for _ in range(400):
        given, error, z = (torch.randn(64, 8, n, generator=draws) for n in (1, 2, 2))
        t = stratified_times(64, draws)
        point, velocity = interpolate(slope * given + deviation * error, z, t)
        (network(point, t, given) - velocity).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        falling.step()
    given = torch.linspace(-1.5, 1.5, 7).repeat_interleave(500)[:, None, None].expand(-1, 8, 1)
    z = torch.randn(len(given), 8, 2, generator=draws)
    with torch.inference_mode():
        found = solve(lambda x, t: network(x, torch.full((len(x),), t), given), z, 16, "midpoint")
    left = (found - slope * given).unflatten(0, (7, 500)).flatten(1, 2)
    assert left.mean(1).abs().max() < 0.1
    assert ((left.std(1) / deviation - 1).abs() < 0.1).all()


def test_the_path_leads_from_noise_to_the_target_at_its_velocity() -> None:
    target, z = torch.randn(2, 3, 5, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1).chunk(2)
    z = z + 1
    ends = [interpolate(target, z, torch.full((2,), t))[0] for t in (0.0, 1.0)]
    torch.testing.assert_close(ends[0], z)
    torch.testing.assert_close(ends[1], target)
    point, velocity = interpolate(target, z, torch.tensor([0.25, 0.5]))
    torch.testing.assert_close(point[1], z[1] + 0.5 * velocity[1])


def test_times_are_spread_evenly() -> None:
    times = stratified_times(8, torch.Generator().manual_seed(0))
    assert ((times * 8).long() == torch.arange(8)).all() and len(times.unique()) == 8


@pytest.mark.parametrize("batch", [1, 3])
def test_guidance_of_one_and_of_zero_is_one_evaluation(batch: int) -> None:
    calls: list[str] = []

    def velocity(name: str, value: float):
        return lambda x, t: (calls.append(name), torch.full_like(x, value))[1]

    x = torch.zeros(batch, 4, 2)
    for guidance, expected, called in ((1.0, 3.0, ["with"]), (0.0, 1.0, ["without"]), (1.5, 4.0, ["without", "with"])):
        calls.clear()
        found = guided(velocity("with", 3.0), velocity("without", 1.0), guidance)(x, 0.0)
        assert torch.equal(found, torch.full_like(x, expected)) and calls == called


def test_padding_is_in_neither_the_loss_nor_its_gradient() -> None:
    a = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True] * 4, [True, True, False, False]])
    weight = torch.rand(3) + 0.1
    found = []
    for padding in (0.0, float("nan")):
        x = torch.where(valid[..., None], a, padding).requires_grad_()
        loss = masked_mean_square(x, torch.where(valid[..., None], -a, padding), weight, valid)
        loss.backward()
        found.append((loss.item(), x.grad))
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
    assert not found[1][1][~valid].any() and found[1][1][valid].all()
    rows = torch.cat([(2 * a[0]).square(), (2 * a[1, :2]).square()])
    assert found[0][0] == pytest.approx(((rows * weight).sum() / (len(rows) * weight.sum())).item())


def test_noise_belongs_to_the_frames_number() -> None:
    whole = noise(0, TAPE_FRAMES + 50, 6, 0, CPU)
    assert torch.equal(whole[100:140], noise(100, 40, 6, 0, CPU))
    assert torch.equal(whole[TAPE_FRAMES:], whole[:50]), "it is a loop"
    assert not torch.equal(whole[:40], noise(0, 40, 6, 1, CPU))
    assert whole[:TAPE_FRAMES].mean().abs() < 0.02 and whole[:TAPE_FRAMES].std() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"steps": 0}, "tokenizer.flow.steps=0 must be from 1 to 1000."),
        ({"steps": 2.5}, "tokenizer.flow.steps=2.5 must be a whole number"),
        ({"guidance": -0.1}, "tokenizer.flow.guidance=-0.1 must be from 0 to 10."),
        ({"temperature": float("nan")}, "tokenizer.flow.temperature=nan must be from 0 to 10."),
        ({"seed": -1}, "tokenizer.flow.seed=-1 must be from 0 to 8191."),
        ({"solver": "rk4"}, "tokenizer.flow.solver=rk4 is unknown; choose one of euler, midpoint, regression."),
        ({"steps": 5}, "tokenizer.flow.steps=5 must be even"),
    ],
)
def test_samplings_that_cannot_be_are_refused(how: dict, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        Sampling(**how)
    assert reason in str(refused.value)

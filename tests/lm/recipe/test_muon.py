"""Muon: orthogonal updates, AdamW equal to torch's, state that survives saving."""

from __future__ import annotations

import copy

import torch

from lm.recipe.muon import Muon, orthogonalise


def test_singular_values_come_near_one():
    for shape in [(3, 16, 16), (2, 16, 48), (2, 48, 16)]:
        matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        values = torch.linalg.svdvals(orthogonalise(matrices))
        assert values.min() > 0.5 and values.max() < 1.3
        single = orthogonalise(matrices[:1])
        torch.testing.assert_close(single, orthogonalise(matrices)[:1])


def test_its_adamw_part_is_adamw():
    torch.manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(7, 5))
    reference = torch.nn.Parameter(ours.detach().clone())
    optimisers = [
        Muon([{"params": [ours], "weight_decay": 0.1}], lr=0.01),
        torch.optim.AdamW([reference], lr=0.01, betas=(0.9, 0.95), weight_decay=0.1),
    ]
    for _ in range(6):
        gradient = torch.randn(7, 5)
        for parameter, optimiser in zip((ours, reference), optimisers, strict=True):
            parameter.grad = gradient.clone()
            optimiser.step()
    torch.testing.assert_close(ours, reference)


def test_its_state_survives_saving(tmp_path):
    torch.manual_seed(0)
    weights = [
        torch.nn.Parameter(torch.randn(6, 4)),
        torch.nn.Parameter(torch.randn(6, 4)),
        torch.nn.Parameter(torch.randn(4)),
    ]

    def optimiser(parameters):
        return Muon(
            [
                {"params": parameters[:2], "weight_decay": 0.1, "orthogonal": True, "lr": 0.02},
                {"params": parameters[2:], "weight_decay": 0.0},
            ],
            lr=0.01,
        )

    def run(parameters, opt, seed):
        torch.manual_seed(seed)
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        opt.step()

    first = optimiser(weights)
    run(weights, first, 1)
    twins = [torch.nn.Parameter(w.detach().clone()) for w in weights]
    second = optimiser(twins)
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(copy.deepcopy(torch.load(tmp_path / "state.pt", weights_only=True)))
    run(weights, first, 2)
    run(twins, second, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights, twins, strict=True))

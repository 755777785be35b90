"""Muon: orthogonal updates, AdamW equal to torch's."""

from __future__ import annotations

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

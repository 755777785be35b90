"""The code space: whitening, the measure of what is in use, and the loss that keeps it open."""

import math

import pytest
import torch

from codec.network.code_space import Whitening, axes_in_use, coding_rate_loss
from codec.network.quantizer import ResidualQuantizer
from codec.recipe.crops import draw_unquantised
from training.config import compose


def correlated(count: int, seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    mix = torch.randn(6, 6, generator=random)
    return torch.randn(count, 6, generator=random) @ mix + 3.0


def test_whitened_latents_have_unit_covariance() -> None:
    whitening = Whitening(6, decay=0.9)
    x = correlated(5000, 0)
    whitening.observe(x)
    y = whitening(x)
    torch.testing.assert_close(y.mean(0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(y.T @ y / len(y), torch.eye(6), atol=2e-3, rtol=0)


def test_the_map_is_the_symmetric_root_and_an_empty_axis_is_not_blown_up() -> None:
    whitening = Whitening(6, decay=0.9)
    x = correlated(2000, 3)
    x[:, 5] = 1.0
    whitening.observe(x)
    torch.testing.assert_close(whitening.map, whitening.map.T, atol=1e-5, rtol=1e-4)
    assert torch.isfinite(whitening.map).all()
    largest = 1 / math.sqrt(whitening.floor * float(whitening.covariance.diagonal().mean()))
    assert float(torch.linalg.eigvalsh(whitening.map).max()) <= largest * 1.001


@pytest.mark.parametrize("used", [0, 3, 8])
def test_axes_that_stand_out_of_the_error_are_counted(used: int) -> None:
    random = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0] * used + [0.1] * (8 - used))
    latents = torch.randn(4000, 8, generator=random) * scale
    error = 0.3 * torch.randn(4000, 8, generator=random)
    rotation, _ = torch.linalg.qr(torch.randn(8, 8, generator=random))
    assert axes_in_use(latents @ rotation, (latents + error) @ rotation) == used


def test_the_coding_rate_is_highest_for_equal_variances_and_blind_to_scale() -> None:
    random = torch.Generator().manual_seed(0)
    equal = torch.randn(1, 4000, 8, generator=random)
    narrow = equal * torch.tensor([1.0] * 2 + [0.01] * 6)
    assert coding_rate_loss(equal) < coding_rate_loss(narrow) - 0.5
    torch.testing.assert_close(coding_rate_loss(equal), coding_rate_loss(7 * equal + 2))
    assert float(coding_rate_loss(equal)) == pytest.approx(-0.5 * math.log(21), abs=0.01)


def test_the_coding_rate_of_a_narrow_space_is_exact_under_autocast() -> None:
    random = torch.Generator().manual_seed(0)
    narrow = torch.randn(4, 40, 1, generator=random) @ torch.randn(1, 64, generator=random)
    with torch.autocast("cpu", torch.bfloat16):
        under = coding_rate_loss(narrow)
    torch.testing.assert_close(under, coding_rate_loss(narrow))


def test_a_whitened_quantizer_learns_its_statistics_when_a_step_ends() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(16, 16, 4, (32, 32), 0.99, 0.1, whiten=True)
    x = torch.randn(2, 50, 16)
    first = quantizer.train()(x)
    assert quantizer.whitening is not None and int(quantizer.whitening.steps) == 0
    quantizer.finish_step([first], None)  # in the warm-up, too
    assert int(quantizer.whitening.steps) == 1
    flat = quantizer(x).inputs.detach().flatten(0, 1)
    torch.testing.assert_close(flat.T @ flat / len(flat), torch.eye(4), atol=1e-3, rtol=0)


def test_unquantised_clips_pass_as_they_are_and_the_others_do_not() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(16, 16, 4, (32, 32), 0.99, 0.1)
    x = torch.randn(3, 20, 16)
    free = torch.tensor([True, False, True])
    mixed, coded = quantizer(x, unquantised=free), quantizer(x)
    torch.testing.assert_close(mixed.latents[free], quantizer.project_out(mixed.inputs)[free])
    torch.testing.assert_close(mixed.latents[~free], coded.latents[~free])
    assert not torch.allclose(mixed.latents[0], coded.latents[0])
    assert torch.equal(mixed.codes, coded.codes)


def test_which_clips_pass_is_drawn_per_clip_of_the_global_batch() -> None:
    half, other, none = (
        compose("codec_train", [f"trainer.unquantised_share={share}", f"seed={seed}"])
        for share, seed in ((0.5, 0), (0.5, 1), (0.0, 0))
    )
    whole = draw_unquantised(7, half, 0, 64)
    assert whole is not None and 16 < int(whole.sum()) < 48
    parts = [draw_unquantised(7, half, first, 16) for first in range(0, 64, 16)]
    assert torch.equal(torch.cat([part for part in parts if part is not None]), whole)
    assert draw_unquantised(7, none, 0, 64) is None
    another = draw_unquantised(7, other, 0, 64)
    assert another is not None and not torch.equal(another, whole), "another seed draws others"

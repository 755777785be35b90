"""Tones: frequencies measured and predicted, phases that keep steady tones steady, peaks against brute force."""

import math

import pytest
import torch

from codec.network.patchify import nearest_peak, overlap_add, spectrum, tone_phase, tones
from codec.objectives.losses import tone_loss

HOP, SIZE, RATE = 320, 960, 24_000
BINS = SIZE // 2 + 1


def sine(*frequencies: float, seconds: float = 1.0) -> torch.Tensor:
    """``[1, samples]``, the sum of sines of amplitude 0.2."""
    t = torch.arange(int(seconds * RATE) // HOP * HOP, dtype=torch.float64) / RATE
    return sum(0.2 * torch.sin(2 * math.pi * f * t + f) for f in frequencies).float()[None]


def test_nearest_peak_is_brute_force() -> None:
    level = torch.randn(3, 5, 40, generator=torch.Generator().manual_seed(0))
    found = nearest_peak(level)
    for row, index in zip(level.flatten(0, 1), found.flatten(0, 1), strict=True):
        peaks = [k for k in range(40) if (k == 0 or row[k] > row[k - 1]) and (k == 39 or row[k] >= row[k + 1])]
        for k in range(40):
            assert abs(int(index[k]) - k) == min(abs(p - k) for p in peaks) and int(index[k]) in peaks


@pytest.mark.parametrize("frequency", [1000.0, 1010.0, 3333.3])
def test_the_loss_measures_instantaneous_frequency(frequency: float) -> None:
    target = spectrum(sine(frequency), SIZE, HOP)
    exact = (frequency * SIZE / RATE - torch.arange(BINS)).clamp(-1.5, 1.5).expand(1, target.shape[1], BINS)
    near = target.abs() > 0.2 * target.abs().max()
    measured = tone_loss(exact, target * near, HOP, SIZE)
    assert measured < 5e-3
    assert tone_loss(exact + 0.25, target * near, HOP, SIZE).item() == pytest.approx(0.25, abs=5e-3)


def test_silence_costs_nothing_and_gives_no_nan() -> None:
    offset = torch.zeros(1, 8, BINS, requires_grad=True)
    loss = tone_loss(offset, torch.zeros(1, 8, BINS, dtype=torch.complex64), HOP, SIZE)
    loss.backward()
    assert loss == 0 and torch.isfinite(offset.grad).all()


def rendered(frequencies: tuple[float, ...], seconds: float = 1.0) -> torch.Tensor:
    """The tones of a signal's own magnitudes and true frequencies: no phase is taken from it."""
    target = spectrum(sine(*frequencies, seconds=seconds), SIZE, HOP)
    bins = torch.arange(BINS, dtype=torch.float32)
    closest = torch.tensor(frequencies)[(torch.tensor(frequencies)[:, None] * SIZE / RATE - bins).abs().argmin(0)]
    offset = (closest * SIZE / RATE - bins).clamp(-1.49, 1.49)
    raw = torch.atanh(offset / 1.5).expand(1, target.shape[1], BINS)
    spectra, found, _ = tones(torch.cat((torch.log(target.abs() + 1e-6), raw), dim=-1), HOP, SIZE)
    torch.testing.assert_close(found[0, 0], offset, atol=1e-4, rtol=0)
    return overlap_add(spectra, SIZE, HOP)


@pytest.mark.parametrize("frequency", [440.0, 1012.5, 2637.0])
def test_a_steady_tone_stays_steady_and_has_its_frequency(frequency: float) -> None:
    wav = rendered((frequency,))[0, 4 * HOP : -4 * HOP].double()
    t = torch.arange(len(wav), dtype=torch.float64) / RATE
    basis = torch.stack((torch.sin(2 * math.pi * frequency * t), torch.cos(2 * math.pi * frequency * t)), dim=1)
    fit = basis @ torch.linalg.lstsq(basis, wav[:, None]).solution
    error = (wav - fit[:, 0]).square().mean() / wav.square().mean()
    assert 10 * torch.log10(error) < -25, "one sine of constant amplitude explains it"
    assert wav.square().mean().sqrt().item() == pytest.approx(0.2 / 2**0.5, rel=0.03)


def test_two_tones_do_not_disturb_each_other() -> None:
    both = rendered((440.0, 1012.5))[0, 4 * HOP : -4 * HOP]
    peaks = torch.fft.rfft(both * torch.hann_window(len(both))).abs()
    hertz = torch.fft.rfftfreq(len(both), 1 / RATE)
    for frequency in (440.0, 1012.5):
        around = (hertz - frequency).abs() < 4
        assert peaks[around].max() > 0.8 * peaks.max()
    elsewhere = torch.stack([(hertz - f).abs() > 40 for f in (440.0, 1012.5)]).all(0)
    assert peaks[elsewhere].max() < 0.05 * peaks.max()


def test_phases_continue_from_where_a_piece_ended() -> None:
    generator = torch.Generator().manual_seed(0)
    level = torch.randn(2, 30, 33, generator=generator)
    offset = torch.rand(2, 30, 33, generator=generator) - 0.5
    whole, running = tone_phase(level, offset, HOP, SIZE, None)
    piece, _ = tone_phase(level[:, 12:], offset[:, 12:], HOP, SIZE, running[:, 12])
    difference = (whole[:, 12:] - piece + 0.5) % 1.0 - 0.5
    assert difference.abs().max() < 1e-6

"""The signal processing under the network: spectra, pulses, pitch, losses, against known answers."""

import math
from typing import Any

import numpy as np
import torch
from scipy.signal import get_window, lfilter

from codec.network.patchify import STFTUnpatchify, overlap_add, pulse_train, spectrum
from codec.network.pitch import GAIN, PitchInput, autocorrelations, pitch, pitches
from codec.objectives.losses import Resolution, loss_filters, pitch_loss, spectral_losses


def test_overlap_add_inverts_spectrum() -> None:
    wav = torch.randn(2, 320 * 30)
    for size in (640, 960, 1280):
        torch.testing.assert_close(overlap_add(spectrum(wav, size, 320), size, 320), wav, atol=1e-5, rtol=1e-4)


def test_spectrum_is_the_windowed_dft() -> None:
    wav = torch.randn(1, 320 * 8)
    window = get_window("hann", 960)
    padded = np.pad(wav[0].numpy(), (320, 320))
    expected = np.fft.rfft(padded[3 * 320 : 3 * 320 + 960] * window / np.sqrt((window**2).sum()))
    np.testing.assert_allclose(spectrum(wav, 960, 320)[0, 3].numpy(), expected, atol=1e-4)


def test_white_noise_keeps_its_level() -> None:
    noise = torch.randn(1, 320 * 300, generator=torch.Generator().manual_seed(0)) * 0.3
    rms = spectrum(noise, 1024, 256)[:, 5:-5].abs().square().mean().sqrt()
    assert abs(rms - 0.3) < 0.01


def test_pulse_train_holds_all_harmonics_at_equal_level() -> None:
    wav = pulse_train(torch.full((1, 75), 200.0), 320, 24000)[0]
    levels = torch.fft.rfft(wav).abs()  # one second: bin = Hz
    harmonics = levels[200:12000:200]
    assert harmonics.min() > 0.97 * harmonics.max()
    others = levels.clone()
    others[::200] = 0
    assert others.max() < 0.02 * harmonics.max()
    assert abs(wav.square().mean() - 1) < 0.05


def test_pulse_train_follows_a_glide() -> None:
    """Through a low-pass, as a voice is: bare pulses sampled at a few lags per period read an octave low at times."""
    frequency = torch.linspace(100, 300, 150)[None]
    pulses = pulse_train(frequency, 320, 24000)[0].numpy()
    voice = torch.from_numpy(lfilter([1.0], [1.0, -0.97], pulses)).float()[None] * 0.1
    found, _ = pitch(voice, 24000, 320)
    inner = slice(5, -5)
    assert (torch.log2(found / frequency)[0, inner].abs() < 0.06).float().mean() > 0.97


def test_pitch_of_harmonic_tones_and_of_noise() -> None:
    t = torch.arange(24000) / 24000
    for f0 in (80.0, 125.0, 220.0, 400.0):
        tone = sum(torch.cos(2 * math.pi * f0 * k * t) / k for k in range(1, 12))
        found, periodicity = pitch(tone[None] * 0.1, 24000, 320)
        assert (found[0, 5:-5] / f0 - 1).abs().max() < 0.03
        assert periodicity[0, 5:-5].min() > 0.85
    noise = torch.randn(1, 24000, generator=torch.Generator().manual_seed(0)) * 0.1
    assert (pitch(noise, 24000, 320)[1] > 0.6).float().mean() < 0.1
    assert pitch(torch.zeros(1, 24000), 24000, 320)[1].max() == 0


def test_several_ranges_are_searched_in_one_pass() -> None:
    passes = []

    def correlate(*given: Any) -> torch.Tensor:
        passes.append(given)
        return autocorrelations(*given)

    time = torch.arange(24000) / 24000
    sounds = torch.stack((pulse_train(torch.full((1, 75), 150.0), 320, 24000)[0], torch.sin(2 * math.pi * 1400 * time)))
    within, above = pitches(0.1 * sounds, 24000, 320, 60.0, [500.0, 2000.0], correlate=correlate)
    assert len(passes) == 1
    for found, high in ((within, 500.0), (above, 2000.0)):
        torch.testing.assert_close(found, pitch(0.1 * sounds, 24000, 320, 60.0, high), atol=1e-6, rtol=0)
    octaves = torch.log2(above[0] / within[0])[:, 5:-5].abs()
    assert octaves[0].max() < 0.1 and octaves[1].min() > 1, "a whistle's pitch lies above the range of a voice"


def test_a_frame_hears_octaves_from_the_middle_of_the_range_and_whether_it_has_a_pitch() -> None:
    hears = PitchInput(2, 320, 24000, 50.0, 450.0, causal=False)  # the middle is 150 Hz
    with torch.no_grad():
        hears.weight.copy_(torch.eye(2) / GAIN)
        hears.bias.zero_()
    for f0, octaves in ((75.0, -1.0), (150.0, 0.0), (300.0, 1.0)):
        voice = pulse_train(torch.full((1, 75), f0), 320, 24000) * 0.1
        heard = hears(voice)[0, 5:-5]
        torch.testing.assert_close(heard.median(0).values, torch.tensor([octaves, 1.0]), atol=0.05, rtol=0)
    assert not hears(torch.zeros(1, 3200)).any(), "a frame without a pitch says nothing"


def test_losses_are_zero_for_equal_and_known_for_scaled_signals() -> None:
    wav = torch.randn(2, 24000, generator=torch.Generator().manual_seed(0))
    same = spectral_losses(wav, wav, 24000, Resolution(1024, 80))
    assert same["mel"] == 0 and same["convergence"] == 0
    for sound in (wav, torch.zeros_like(wav)):  # silence that is answered by silence, too
        output = sound.clone().requires_grad_()
        sum(spectral_losses(output, sound, 24000, Resolution(1024, 80)).values()).backward()
        assert output.grad is not None and not output.grad.any()
    half = spectral_losses(0.5 * wav, wav, 24000, Resolution(1024, 80))
    assert abs(half["convergence"] - 0.5) < 1e-3
    assert abs(half["mel"] - math.log(2)) < 5e-3


def test_mel_filters_cover_every_frequency() -> None:
    for size, bands in ((256, 32), (1024, 80), (2048, 128)):
        filters = loss_filters(24000, size, bands, torch.device("cpu"))
        torch.testing.assert_close(filters.sum(0), torch.ones(bands))
        assert (filters.sum(1)[2:-2] > 0).all()


def test_pitch_loss_counts_octaves_on_voiced_frames_only() -> None:
    wav = torch.cat((pulse_train(torch.full((1, 75), 150.0), 320, 24000) * 0.1, torch.zeros(1, 24000)), dim=1)
    predicted = torch.full((1, 150), 300.0)
    predicted[:, 75:] = 60.0
    assert abs(pitch_loss(predicted, *pitch(wav, 24000, 320, 60, 500)) - 1) < 0.02


def test_excitation_carries_the_predicted_pitch() -> None:
    torch.manual_seed(0)
    head = STFTUnpatchify(8, 320, 960, 24000, True, 60.0, 500.0)
    with torch.no_grad():
        head.spectra.weight.zero_()
        head.pitch.weight.zero_()
        head.pitch.bias.fill_(0.0)  # the middle of the logarithmic range
        bias = head.spectra.bias.view(4, -1)
        bias[0], bias[2], bias[3] = -9.0, -1.0, -9.0
    out = head(torch.zeros(1, 80, 8))
    expected = math.sqrt(60 * 500)
    assert abs(out.frequency[0, 0] - expected) < 0.1
    found, _ = pitch(out.wav.detach(), 24000, 320)
    assert (found[0, 5:-5] / expected - 1).abs().max() < 0.03

"""The ends of the codec in real arithmetic: the same codes and the same sound as those of complex spectra."""

import copy

import pytest
import torch
from tiny_models import tiny_codec

from codec.network import patchify
from codec.network.real_valued import RealSpectrum, in_real_arithmetic, nearest_peak


@pytest.mark.parametrize(("size", "causal"), [(640, False), (640, True), (962, False)])
def test_a_spectrum_is_a_convolution(size: int, causal: bool) -> None:
    wav = torch.randn(2, 320 * 9)
    real, imaginary = RealSpectrum(size, 320, causal)(wav)
    expected = patchify.spectrum(wav, size, 320, causal)
    torch.testing.assert_close(torch.complex(real, imaginary), expected, atol=2e-5, rtol=1e-4)


def test_peaks_are_the_same_without_cummax() -> None:
    level = torch.randn(3, 5, 77)
    level[0, 0] = 0.5  # flat
    level[1, 1, 10:14] = level[1, 1].max() + 1  # a plateau
    assert torch.equal(nearest_peak(level), patchify.nearest_peak(level))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tonal": True},
        {"pitch_input": True},
        {"excitation": False},
        {"stft_causal": True, "encoder_block_causal": True},
        {"patchify": "conv"},
    ],
    ids=str,
)
def test_codes_and_sound_are_those_of_the_codec(changes: dict) -> None:
    """Two clips of different lengths in one batch, so that what is padding must stay silent here as there."""
    codec = tiny_codec(**changes)
    real = in_real_arithmetic(copy.deepcopy(codec))
    wav, lengths = torch.randn(2, 320 * 6 * 5) / 10, torch.tensor([320 * 6 * 5, 320 * 6 * 3 - 77])
    codes = codec.encode(wav, lengths)
    again = real.encode(wav, lengths)
    assert (again.codes == codes.codes).float().mean() > 0.99
    sound = codec.decode(codes)
    assert sound.abs().max() > 1e-4
    torch.testing.assert_close(real.decode(codes), sound, atol=1e-4 * float(sound.abs().max()), rtol=1e-3)

"""Discriminators over time-frequency pictures of a waveform, at several resolutions.

``mel``: the form of the author's other codecs. Each looks at two channels, mel and log-mel magnitudes; six hops from 32
to 1024 samples, windows four times as long; seven convolutions per discriminator.
``stft``: EnCodec's MS-STFT discriminator. Real and imaginary part as channels, five window lengths, dilated in time.

All return scores and the features between the layers (for feature matching). Which of the two the paper uses is not
stated ("multi-scale discriminators" in its figure).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from codec.network.patchify import spectrum
from codec.objectives.losses import mel_filters


@dataclass
class Judgement:
    """One discriminator's view of a batch: ``score [batch, 1, time, bands]`` and its layers' features."""

    score: Tensor
    features: list[Tensor]


def normalise(wav: Tensor) -> Tensor:
    """Remove the mean and scale the peak of ``[batch, samples]`` to 0.8, as DAC does before its discriminators."""
    wav = wav - wav.mean(1, keepdim=True)
    return 0.8 * wav / wav.abs().amax(1, keepdim=True).clamp(min=1e-4)


class ConvStack(nn.Module):
    """Weight-normed 2-D convolutions with leaky ReLU between them, the last one to a single score channel."""

    def __init__(self, convs: list[nn.Conv2d]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(weight_norm(conv) for conv in convs)

    def forward(self, picture: Tensor) -> Judgement:
        """``picture [batch, channels, time, bands]`` → scores and features."""
        features = []
        for conv in self.convs[:-1]:
            picture = F.leaky_relu(conv(picture), 0.2)
            features.append(picture)
        return Judgement(self.convs[-1](picture), features)


class MelDiscriminator(nn.Module):
    """Mel and log-mel magnitudes at one hop.

    Args:
        channels: width of the deepest layer; the first has a 32nd of it.
    """

    def __init__(self, hop: int, channels: int, sample_rate: int, bands: int = 64) -> None:
        super().__init__()
        self.hop, self.fft_size, self.sample_rate, self.bands = hop, 4 * hop, sample_rate, bands
        widths = [2, *(max(2, channels // 2**i) for i in (5, 4, 3, 2, 1, 0))]
        convs = [
            nn.Conv2d(a, b, 3, stride=1 + i % 2, padding=1)
            for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False))
        ]
        self.stack = ConvStack([*convs, nn.Conv2d(widths[-1], 1, 3, padding=1)])

    def picture(self, wav: Tensor) -> Tensor:
        """``[batch, samples]`` → ``[batch, 2, time, bands]``."""
        wav = wav[:, : wav.shape[1] // self.hop * self.hop]
        magnitude = spectrum(wav, self.fft_size, self.hop).abs()
        mel = magnitude @ mel_filters(self.sample_rate, self.fft_size, self.bands, wav.device)
        return torch.stack((mel, torch.log(mel + 1e-4)), dim=1)


class STFTDiscriminator(nn.Module):
    """Complex spectra at one window length; hop a quarter of it."""

    def __init__(self, fft_size: int, channels: int) -> None:
        super().__init__()
        self.fft_size, self.hop = fft_size, fft_size // 4
        c = channels
        convs = [nn.Conv2d(2, c, (3, 9), padding=(1, 4))]
        convs += [nn.Conv2d(c, c, (3, 9), stride=(1, 2), dilation=(d, 1), padding=(d, 4)) for d in (1, 2, 4)]
        convs += [nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, 1, 3, padding=1)]
        self.stack = ConvStack(convs)

    def picture(self, wav: Tensor) -> Tensor:
        """``[batch, samples]`` → ``[batch, 2, time, bins]``."""
        wav = wav[:, : wav.shape[1] // self.hop * self.hop]
        spectra = spectrum(wav, self.fft_size, self.hop)
        return torch.stack((spectra.real, spectra.imag), dim=1)


class Discriminators(nn.Module):
    """All resolutions of one kind.

    Args:
        kind: ``mel`` or ``stft``.
        sizes: hops (``mel``) or window lengths (``stft``), in samples.
        channels: width per size.
    """

    def __init__(self, kind: str, sizes: list[int], channels: list[int], sample_rate: int, normalised: bool) -> None:
        super().__init__()
        if len(sizes) != len(channels):
            raise ValueError(f"gan.sizes has {len(sizes)} entries, gan.channels {len(channels)}: give one per size.")
        self.normalised = normalised
        if kind == "mel":
            parts: list = [MelDiscriminator(s, c, sample_rate) for s, c in zip(sizes, channels, strict=True)]
        elif kind == "stft":
            parts = [STFTDiscriminator(s, c) for s, c in zip(sizes, channels, strict=True)]
        else:
            raise ValueError(f"gan.kind={kind} is neither mel nor stft.")
        self.parts = nn.ModuleList(parts)

    def forward(self, wav: Tensor) -> list[Judgement]:
        """``wav [batch, samples]`` → one :class:`Judgement` per resolution."""
        with torch.autocast(wav.device.type, enabled=False):  # FFT and log want float32; the convolutions do not
            wav = normalise(wav.float()) if self.normalised else wav.float()
            pictures = [part.picture(wav) for part in self.parts]
        return [part.stack(picture) for part, picture in zip(self.parts, pictures, strict=True)]

"""Waveform ⇄ frames at 75 Hz (24 kHz, hop 320): the ends of the codec.

``stft``: the fast one. In: log-magnitudes of short-time spectra at two window lengths through one linear layer. Out: a
spectrum per frame, inverse STFT, overlap-add (no upsampling convolutions, which cost most of a codec's CPU time).

The output spectrum is ``filter × excitation + tones + direct``. The excitation is a pulse train at the predicted pitch
and a fixed noise sequence; the network predicts their filters. At 412 bit/s no phase can be coded, and learning to
invent consistent phase from nothing takes an adversarial loss and many GPU hours; with an excitation that is coherent
by construction (the source-filter model of speech, as in neural source-filter vocoders and DDSP), spectral losses
suffice. The ``direct`` part (magnitude and phase predicted per bin, as in Vocos) serves what neither explains.

``tones`` does the same for several steady pitches, as of an organ chord or a telephone's bell: noise behind a narrow
filter flutters, and pulses have one pitch. The network predicts for each bin how loud it is and how far the frequency
in it lies from the bin's centre (the instantaneous frequency, which GANSynth predicts for notes: Engel et al., 2019).
Phase is their sum over time, so a tone stays coherent for as long as it sounds, though no phase is ever coded. Bins
around a spectral peak take the peak's phase (identity phase locking of the phase vocoder: Laroche and Dolson, 1999).

The paper's patchify is convolutional (``codec/network/convolutions.py``); this one is ours, for CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.network.pitch import PitchInput
from codec.network.waveform_frames import Patchify

MOST_GAIN = 30.0  # 30 dB: what the spectrum lacks altogether is not made from its rounding errors
NOISE_SAMPLES = 1 << 17  # the noise repeats after 5.5 s: long enough not to be heard as a loop


@lru_cache(maxsize=16)
def hann(size: int, device: torch.device) -> Tensor:
    """Periodic Hann window ``[size]`` (cached, not a buffer: nothing to save)."""
    with torch.inference_mode(False):
        return torch.hann_window(size, device=device)


@lru_cache(maxsize=4)
def noise_sequence(device: torch.device) -> Tensor:
    """The fixed excitation noise ``[NOISE_SAMPLES]``, unit variance; the same on every machine and device."""
    with torch.inference_mode(False):
        return torch.randn(NOISE_SAMPLES, generator=torch.Generator().manual_seed(412)).to(device)


def spectrum(wav: Tensor, fft_size: int, hop: int, causal: bool = False) -> Tensor:
    """Short-time spectra centred on frames of ``hop`` samples, scaled so that white noise keeps its RMS.

    Args:
        wav: ``[batch, frames * hop]``.
        causal: windows end with their frame instead of standing around it.

    Returns:
        complex ``[batch, frames, fft_size / 2 + 1]``.
    """
    left = fft_size - hop if causal else (fft_size - hop) // 2
    x = F.pad(wav, (left, fft_size - hop - left)).unfold(1, fft_size, hop)
    window = hann(fft_size, wav.device)
    return torch.fft.rfft(x * (window / window.square().sum().sqrt()))


def overlap_add(spectra: Tensor, fft_size: int, hop: int, valid: Tensor | None = None) -> Tensor:
    """Inverse of :func:`spectrum`: complex ``[batch, frames, bins]`` → ``[batch, frames * hop]``.

    Frames that are not ``valid`` (``[batch, frames]`` bool) take no part, as if the clip ended before them.
    """
    window = hann(fft_size, spectra.device)
    frames = torch.fft.irfft(spectra, n=fft_size) * (window * window.square().sum().sqrt())
    total = (frames.shape[1] - 1) * hop + fft_size

    def fold(x: Tensor) -> Tensor:
        return F.fold(x.transpose(1, 2), (1, total), (1, fft_size), stride=(1, hop))[:, 0, 0]

    weight = torch.ones(1, frames.shape[1], device=frames.device) if valid is None else valid.float()
    frames = frames * weight[..., None]
    norm = fold(window.square() * weight[..., None])
    left = (fft_size - hop) // 2
    wav = fold(frames) / norm.clamp(min=1e-3)
    return wav[:, left : left + frames.shape[1] * hop]


def pulse_phase(frequency: Tensor, hop: int, sample_rate: int, first: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Frequency (Hz) and phase (cycles) of each sample, float64 ``[batch, frames * hop]``: hours keep their phase.

    Args:
        frequency: ``[batch, frames]`` in Hz, interpolated between the centres of frames.
        first: ``[batch]``, the phase at the last sample of the first frame when the frames continue earlier ones
            (before that sample the interpolation lacks its left neighbour); None at the start of a clip.
    """
    f0 = F.interpolate(frequency[:, None].double(), scale_factor=float(hop), mode="linear", align_corners=False)[:, 0]
    phase = torch.cumsum(f0 / sample_rate, dim=1)
    if first is not None:
        phase = phase + (first - phase[:, hop - 1])[:, None]
    return f0, phase % 1.0


def pulse_train(frequency: Tensor, hop: int, sample_rate: int, first: Tensor | None = None) -> Tensor:
    """Band-limited pulses at ``frequency [batch, frames]`` (Hz) → ``[batch, frames * hop]``, unit power.

    The sum of all harmonics below Nyquist has a closed form (the Dirichlet kernel), so it costs two sines per sample.
    ``first`` as in :func:`pulse_phase`.
    """
    f0, phase = pulse_phase(frequency, hop, sample_rate, first)
    theta = (phase * 2 * math.pi).float()
    harmonics = torch.floor(sample_rate / 2 / f0).float()
    half = torch.sin(theta / 2)
    kernel = torch.sin((harmonics + 0.5) * theta) / torch.where(half.abs() < 1e-4, half.new_ones(()), half)
    kernel = torch.where(half.abs() < 1e-4, 2 * harmonics + 1, kernel)
    return (kernel - 1) / (2 * harmonics).sqrt()


class ToneHead(nn.Linear):
    """Frame → log-magnitude and raw frequency offset of each bin: ``[..., dim]`` → ``[..., 2 * bins]``."""

    def __init__(self, dim: int, bins: int) -> None:
        super().__init__(dim, 2 * bins)
        self.bins = bins

    def reset_parameters(self) -> None:
        """Start quiet, at the centres of the bins."""
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
        if hasattr(self, "bins"):  # nn.Linear's constructor calls this before the layout is known
            with torch.no_grad():
                self.bias[: self.bins] = -5.0


def nearest_peak(level: Tensor) -> Tensor:
    """The bin of the closest local maximum, for each bin of ``level [..., bins]`` → int64 ``[..., bins]``."""
    bins = torch.arange(level.shape[-1], device=level.device)
    up = F.pad(level[..., 1:] > level[..., :-1], (1, 0), value=True)
    down = F.pad(level[..., :-1] >= level[..., 1:], (0, 1), value=True)
    peak = up & down
    far = 2 * len(bins)
    left = torch.where(peak, bins, -far).cummax(-1).values
    right = torch.where(peak, bins, far).flip(-1).cummin(-1).values.flip(-1)
    # a spectrum that is not finite has no peak: its bins stay legal, and the loss says what is wrong
    return torch.where(bins - left <= right - bins, left, right).clamp(0, len(bins) - 1)


@torch.no_grad()
def tone_phase(level: Tensor, offset: Tensor, hop: int, fft_size: int, first: Tensor | None) -> tuple[Tensor, Tensor]:
    """Phase of each bin, in cycles.

    Args:
        level, offset: ``[batch, frames, bins]``, log-magnitude and distance of the frequency from the bin, in bins.
        first: ``[batch, bins]``, the running phase of the first frame when the frames continue earlier ones.

    Returns:
        the phases to use ``[batch, frames, bins]`` float32, and the running phases (float64: hours keep their phase)
        that a later piece continues from.
    """
    bins = torch.arange(level.shape[-1], device=level.device)
    peak = nearest_peak(level)
    frequency = (bins + offset.double()).gather(-1, peak)
    running = (frequency * (hop / fft_size)).cumsum(1)
    if first is not None:
        running = running + (first - running[:, 0])[:, None]
    running = running % 1.0
    # running phases are those at the window's centre, where all bins of a sinusoid agree; a spectrum counts from the
    # window's first sample, half a cycle from bin to bin
    locked = running.gather(-1, peak) - bins / 2
    return (locked % 1.0).float(), running


def tone_spectra(
    level: Tensor, offset: Tensor, hop: int, fft_size: int, first: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Complex spectra ``[batch, frames, bins]`` of the tones, and their running phases; arguments of `tone_phase`."""
    phase, running = tone_phase(level.detach(), offset.detach(), hop, fft_size, first)
    return torch.polar(torch.exp(level.clamp(max=6.0)), phase * (2 * math.pi)), running


def tones(parts: Tensor, hop: int, fft_size: int, first: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Output of :class:`ToneHead` → spectrum of the tones.

    Args:
        parts: ``[batch, frames, 2 * bins]``.
        first: as in :func:`tone_phase`.

    Returns:
        complex spectra ``[batch, frames, bins]``, frequency offsets ``[batch, frames, bins]`` in bins, and the running
        phases.
    """
    level, raw = parts.float().chunk(2, dim=-1)
    offset = torch.tanh(raw) * (fft_size / (2 * hop))  # further away, a frame's advance is ambiguous
    spectra, running = tone_spectra(level, offset, hop, fft_size, first)
    return spectra, offset, running


def tone_offsets(spectra: Tensor, hop: int, fft_size: int) -> Tensor:
    """Measured instantaneous frequencies, in bins from each bin: the phase that passed since the frame before.

    Args:
        spectra: complex ``[batch, frames, bins]``, windows of ``fft_size`` every ``hop``.

    Returns:
        ``[batch, frames - 1, bins]`` within ± fft_size / (2 hop), of all frames but the first.
    """
    step = spectra[:, 1:] * spectra[:, :-1].conj()
    centre = torch.arange(spectra.shape[-1], device=spectra.device) * (-2 * math.pi * hop / fft_size)
    return torch.angle(step * torch.polar(torch.ones_like(centre), centre)) * (fft_size / (2 * math.pi * hop))


@dataclass
class Synthesis:
    """Output of unpatchify: ``wav [batch, samples]``; each of the others may be None.

    ``frequency [batch, frames]``: predicted pitch in Hz; ``tone_offset [batch, frames, bins]``: predicted frequencies
    of the tones, in bins from the bin; ``tone_phase``: their running phases, from which a stream continues;
    ``unpitched [batch, frames]``: the energy of tones and direct spectrum, as a share of that and of the excitation's.
    """

    wav: Tensor
    frequency: Tensor | None = None
    tone_offset: Tensor | None = None
    tone_phase: Tensor | None = None
    unpitched: Tensor | None = None


def mean_and_deviation(parts: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``[dim]`` float64 of all rows of ``parts``, each ``[n, dim]``, one after another."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for part in parts:
        x = part.double()
        count, total, squares = count + len(x), total + x.sum(0), squares + x.square().sum(0)
    mean = total / count
    return mean, ((squares - count * mean.square()) / (count - 1)).clamp(min=0).sqrt()


class STFTPatchify(Patchify):
    """Log-magnitude spectra at several window lengths, normalised per bin → frames.

    A short window shows when things happen, a long one separates the harmonics of a low voice.

    Args:
        pitch: says the pitch of each frame beside its spectra; None: the spectra alone.
    """

    def __init__(
        self, dim: int, hop: int, fft_sizes: tuple[int, ...], causal: bool = False, pitch: PitchInput | None = None
    ) -> None:
        super().__init__()
        self.hop, self.fft_sizes, self.causal = hop, fft_sizes, causal
        bins = sum(size // 2 + 1 for size in fft_sizes)
        self.register_buffer("mean", torch.full((bins,), -5.0))
        self.register_buffer("scale", torch.full((bins,), 0.4))
        self.project = nn.Linear(bins, dim)
        self.pitch = pitch

    @property
    def reach(self) -> tuple[int, int]:
        windows = self.fft_sizes if self.pitch is None else (*self.fft_sizes, self.pitch.window)
        around = max(windows) - self.hop
        left = around if self.causal else around // 2
        return -(-left // self.hop), -(-(around - left) // self.hop)

    def features(self, wav: Tensor) -> Tensor:
        """``wav [batch, frames * hop]`` → log-magnitudes ``[batch, frames, bins]``."""
        spectra = [spectrum(wav, size, self.hop, self.causal).abs() for size in self.fft_sizes]
        return torch.log(torch.cat(spectra, dim=-1) + 1e-4)

    @torch.no_grad()
    def calibrate(self, batches: Sequence[Tensor]) -> None:
        """Set the per-bin normalisation from training audio, each ``[batch, frames * hop]``."""
        mean, deviation = mean_and_deviation(self.features(wav).flatten(0, 1) for wav in batches)
        self.mean.copy_(mean)
        self.scale.copy_(1 / deviation.clamp(min=0.1))

    def forward(self, wav: Tensor, valid: Tensor | None = None) -> Tensor:
        """``wav [batch, frames * hop]``, zero beyond a clip's end → ``[batch, frames, dim]``; no mask is needed."""
        frames = self.project((self.features(wav) - self.mean) * self.scale)
        return frames if self.pitch is None else frames + self.pitch(wav)


class SpectralHead(nn.Linear):
    """Frame → log-magnitude and phase of the direct part, and (with excitation) log-filters of pulses and noise."""

    def __init__(self, dim: int, bins: int, excitation: bool) -> None:
        super().__init__(dim, bins * (4 if excitation else 2))
        self.bins = bins

    def reset_parameters(self) -> None:
        """Start quiet: filters near −35 dB, the direct part below them."""
        nn.init.normal_(self.weight, std=0.02)
        nn.init.zeros_(self.bias)
        if not hasattr(self, "bins"):  # called by nn.Linear's constructor, before the layout is known
            return
        with torch.no_grad():
            rows = self.bias.view(-1, self.bins)
            rows[0] = -6.0
            rows[2:] = -4.0


class STFTUnpatchify(nn.Module):
    """Frames → waveform through a predicted spectrum and the inverse STFT."""

    def __init__(
        self,
        dim: int,
        hop: int,
        fft_size: int,
        sample_rate: int,
        excitation: bool,
        pitch_low: float,
        pitch_high: float,
        tonal: bool = False,
    ) -> None:
        super().__init__()
        self.hop, self.fft_size, self.sample_rate, self.excitation = hop, fft_size, sample_rate, excitation
        self.pitch_low, self.pitch_high = pitch_low, pitch_high
        self.bins = fft_size // 2 + 1
        self.spectra = SpectralHead(dim, self.bins, excitation)
        self.pitch = nn.Linear(dim, 1) if excitation else None
        self.tones = ToneHead(dim, self.bins) if tonal else None

    @torch.no_grad()
    def calibrate(self, batches: Sequence[Tensor]) -> None:
        """Start from the mean log-spectrum of training audio, each ``[batch, frames * hop]``.

        Otherwise the first hundreds of steps move every frame's spectrum by the same amount, which the network does
        by driving its latents to a constant; codes then collapse (measured: STOI .36 after 700 steps, one code used).
        """
        spectra = (spectrum(wav, self.fft_size, self.hop).abs().flatten(0, 1) for wav in batches)
        level = mean_and_deviation(torch.log(part + 1e-4) for part in spectra)[0].float()
        rows = self.spectra.bias.view(-1, self.bins)
        rows[0] = level - 2.0
        rows[2:] = level - 0.7
        if self.tones is not None:
            self.tones.bias[: self.bins] = level - 1.5

    @property
    def reach(self) -> tuple[int, int]:
        """Frames before and after its own that a frame of the waveform depends on (the pulses' phase apart)."""
        sides = (self.fft_size - self.hop) // 2, (self.fft_size - self.hop + 1) // 2
        near = tuple(-(-side // self.hop) for side in sides)
        # an excitation's spectrum takes in its neighbours, and their pitch is interpolated with the next ones'
        further = sum(near) + 1 if self.excitation else 0
        return (further, further) if self.excitation else (near[1], near[0])

    def forward(
        self,
        frames: Tensor,
        noise_offset: int = 0,
        valid: Tensor | None = None,
        pulse_start: Tensor | None = None,
        tone_start: Tensor | None = None,
        level: Tensor | None = None,
    ) -> Synthesis:
        """``frames [batch, frames, dim]`` → ``wav [batch, frames * hop]``.

        Args:
            noise_offset: where in the noise sequence to start (training varies it; 0 otherwise).
            valid: ``[batch, frames]`` bool, a prefix of each clip; the clip sounds as if it ended there.
            pulse_start: ``first`` of :func:`pulse_phase`, where the frames continue earlier ones.
            tone_start: ``first`` of :func:`tone_phase`, likewise.
            level: ``[batch, frames, bins]``, log-magnitudes that the spectrum is brought to, by gains of at most 30.
        """
        parts = self.spectra(frames).float().unflatten(-1, (-1, self.bins))
        magnitude = torch.exp(parts[..., 0, :].clamp(max=6.0))
        phase = parts[..., 1, :]
        total = torch.complex(magnitude * torch.cos(phase), magnitude * torch.sin(phase))
        frequency = unpitched = None
        if self.pitch is not None:
            position = torch.sigmoid(self.pitch(frames).float()[..., 0])
            frequency = self.pitch_low * (self.pitch_high / self.pitch_low) ** position
            pulses, noise = self.excitations(frequency.detach(), noise_offset, valid, pulse_start)
            filters = torch.exp(parts[..., 2:, :].clamp(max=6.0))
            excited = filters[..., 0, :] * pulses + filters[..., 1, :] * noise
        tone_offset = tone_phase = None
        if self.tones is not None:
            spectra, tone_offset, tone_phase = tones(self.tones(frames), self.hop, self.fft_size, tone_start)
            total = total + spectra
        if self.pitch is not None:
            if self.training:
                energy = torch.view_as_real(torch.stack((total, excited))).square().sum((-1, -2))
                unpitched = energy[0] / energy.sum(0).clamp(min=1e-9)
            total = total + excited
        if level is not None:
            total = total * (level.clamp(max=6.0).exp() / total.abs().clamp(min=1e-6)).clamp(max=MOST_GAIN)
        return Synthesis(
            overlap_add(total, self.fft_size, self.hop, valid), frequency, tone_offset, tone_phase, unpitched
        )

    @torch.no_grad()
    def excitations(
        self, frequency: Tensor, noise_offset: int, valid: Tensor | None, pulse_start: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Spectra ``[batch or 1, frames, bins]`` of pulses at ``frequency [batch, frames]`` and of the noise."""
        frames = frequency.shape[1]
        index = (torch.arange(frames * self.hop, device=frequency.device) + noise_offset) % NOISE_SAMPLES
        noise = noise_sequence(frequency.device)[index][None]
        if valid is not None:  # nothing beyond a clip's end may reach into its last frames
            last = valid.sum(1, keepdim=True).clamp(min=1) - 1
            frequency = frequency.gather(1, torch.arange(frames, device=frequency.device).minimum(last))
        pulses = pulse_train(frequency, self.hop, self.sample_rate, pulse_start)
        if valid is not None:
            sounding = valid.repeat_interleave(self.hop, dim=1)
            pulses, noise = pulses * sounding, noise * sounding
        return tuple(spectrum(x, self.fft_size, self.hop) for x in (pulses, noise))  # type: ignore[return-value]

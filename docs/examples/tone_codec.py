"""A tokenizer of one's own, complete: each 80 ms become the number of a tone and the number of a loudness.

Copy this file anywhere, rename it, put its folder on PYTHONPATH, and every command takes it:

    export PYTHONPATH=~/mine
    python codec/encode.py tokenizer=custom tokenizer._target_=tone_codec.ToneCodec +tokenizer.tones=64

What a tokenizer owes is in codec/interface.py. `tests/codec/baselines/test_conformance.py` checks it on this one, too.
"""

import hashlib
import math

import torch
from torch import Tensor

from codec.interface import AudioTokenizer, Codes

LOWEST, HIGHEST = 80.0, 4000.0  # Hz
LOUDNESSES, STEP = 32, 2.0  # levels of loudness, dB apart


class ToneCodec(AudioTokenizer):
    """Two levels: the strongest of ``tones`` frequencies, and the loudness.

    Args:
        device: every tokenizer is made with the device of the command.
    """

    name = "tone-codec"
    sample_rate = 16_000
    samples_per_frame = 1_280
    causal = True

    def __init__(self, tones: int = 128, device: str | torch.device = "cpu") -> None:
        self.codebook_sizes = (tones, LOUDNESSES)
        self.frequencies = torch.logspace(math.log10(LOWEST), math.log10(HIGHEST), tones, device=device)
        time = torch.arange(self.samples_per_frame, device=device) / self.sample_rate
        self.waves = torch.exp(-2j * math.pi * time * self.frequencies[:, None])  # [tones, samples_per_frame]

    @property
    def fingerprint(self) -> str:
        """Changes with everything that changes the codes: tokens of another fingerprint are never mixed in."""
        return hashlib.sha256(f"{self.name} {self.codebook_sizes} {LOWEST} {HIGHEST} {STEP}".encode()).hexdigest()

    @torch.inference_mode()
    def encode(self, wav: Tensor, lengths: Tensor) -> Codes:
        """``wav [batch, samples]``, of which each clip has ``lengths`` samples, and zeros behind them.

        The base class has checked both. Whoever calls may leave the lengths out; here they always arrive.
        """
        wav, lengths = wav.to(self.waves.device), lengths.cpu()
        frames = (lengths + self.samples_per_frame - 1) // self.samples_per_frame
        missing = int(frames.max()) * self.samples_per_frame - wav.shape[1]
        pieces = torch.nn.functional.pad(wav, (0, missing)).unflatten(1, (-1, self.samples_per_frame))
        tone = torch.stack([(piece.to(self.waves.dtype) @ self.waves.T).abs().argmax(-1) for piece in pieces])
        decibels = 10 * torch.log10(pieces.square().mean(-1) + 1e-10)
        loudness = (LOUDNESSES - 1 + decibels / STEP).round().long().clamp(0, LOUDNESSES - 1)
        codes = torch.stack([tone, loudness], dim=1).cpu()  # [batch, levels, frames]
        codes = codes * (torch.arange(codes.shape[2]) < frames[:, None])[:, None]
        return Codes(codes, frames, lengths)

    @torch.inference_mode()
    def decode(self, codes: Codes) -> Tensor:
        """``wav [batch, samples]``: an oscillator whose phase runs on from frame to frame; zeros behind a clip."""
        tone, loudness = codes.codes.to(self.waves.device).repeat_interleave(self.samples_per_frame, dim=2).unbind(1)
        phase = torch.cumsum(self.frequencies[tone].double() / self.sample_rate, dim=1) % 1
        level = 10 ** ((loudness - (LOUDNESSES - 1)) * STEP / 20)
        wav = level * math.sqrt(2) * torch.sin(2 * math.pi * phase).float()
        samples = codes.lengths * self.samples_per_frame if codes.samples is None else codes.samples
        wav = wav[:, : int(samples.max())]
        return wav * (torch.arange(wav.shape[1]) < samples[:, None]).to(wav.device)

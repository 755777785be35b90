"""X-Codec2 (Ye et al., 2025, arXiv 2502.04128) through transformers.

16 kHz, 50 frames/s, one level of 4⁸ = 65,536 codes: 0.8 kbit/s. Its encoder also listens with w2v-BERT 2.0, whose
spectrogram is computed here: the feature extractor of transformers needs torchaudio. Not causal.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from transformers import Xcodec2Model

from codec.audio.mel import mel_filters
from codec.baselines.baseline import BaselineTokenizer, check_levels
from codec.baselines.weights import PublicWeights, load_transformers

WEIGHTS = PublicWeights(
    name="xcodec2",
    repository="HKUSTAudio/xcodec2-hf",
    files=("config.json", "model*.safetensors*"),
    size="about 2.5 GB",
    licence="code MIT, weights CC-BY-NC-4.0",
)
BINS = 80  # of the spectrogram; two of its frames make one of w2v-BERT's
FRAME, SHIFT, FFT = 400, 160, 512  # samples
SAMPLE_RATE = 16000


def kaldi_spectrogram(wav: Tensor) -> Tensor:
    """``wav [samples]`` at 16 kHz in 16-bit scale → log-mel energies ``[frames, BINS]``, as Kaldi's ``fbank``.

    Whole frames of 25 ms every 10 ms, mean removed, pre-emphasis 0.97, Povey's window (Hann to the power 0.85).
    """
    frames = wav.unfold(0, FRAME, SHIFT)
    frames = frames - frames.mean(1, keepdim=True)
    frames = frames - 0.97 * torch.cat((frames[:, :1], frames[:, :-1]), dim=1)
    window = torch.hann_window(FRAME, periodic=False, device=wav.device).pow(0.85)
    power = torch.fft.rfft(frames * window, FFT).abs().square()[:, : FFT // 2]
    # triangles from 20 Hz, as Kaldi lays them (no Nyquist bin)
    filters = torch.from_numpy(mel_filters(SAMPLE_RATE, FFT, BINS, "kaldi", area=False, low=20.0)[:, : FFT // 2].T)
    return (power @ filters.to(wav.device)).clamp(min=torch.finfo(torch.float32).eps).log()


class Xcodec2Tokenizer(BaselineTokenizer):
    """X-Codec2: always one level."""

    name = "xcodec2"

    def __init__(self, model: Xcodec2Model, levels: int = 1) -> None:
        check_levels("xcodec2", levels, 1)
        config = model.config
        sizes = (math.prod(config.quantization_levels),)
        super().__init__(model, config.sampling_rate, config.hop_length, sizes, causal=False)

    def inputs(self, wav: Tensor) -> tuple[Tensor, Tensor]:
        """``wav [1, samples]`` → what the model hears ``[1, 1, frames * hop]`` and sees ``[1, frames, 2 * BINS]``.

        As published, one zero is appended before the padding to whole frames, and each bin of the spectrogram is
        normalised over the clip.
        """
        wav = nn.functional.pad(wav, (0, 1))
        wav = nn.functional.pad(wav, (0, -wav.shape[1] % self.samples_per_frame))
        half = self.samples_per_frame // 2
        seen = kaldi_spectrogram(nn.functional.pad(wav[0], (half, half)) * 2**15)
        seen = (seen - seen.mean(0)) / (seen.var(0) + 1e-7).sqrt()
        return wav[None], seen[: len(seen) // 2 * 2].reshape(1, -1, 2 * BINS)

    def encode_clip(self, wav: Tensor) -> Tensor:
        heard, seen = self.inputs(wav)
        codes = self.model.encode(heard, input_features=seen).audio_codes.long()
        # The appended zero makes one frame too many of a clip of whole frames.
        return codes[:, :, : -(-wav.shape[1] // self.samples_per_frame)]

    def decode_clip(self, codes: Tensor) -> Tensor:
        return self.model.decode(codes).audio_values[:, 0]


def load(path: str = WEIGHTS.repository, levels: int = 1, device: str | torch.device = "cpu") -> Xcodec2Tokenizer:
    """X-Codec2 from a folder or hub id, in the format of transformers.

    Raises:
        TokenizerError: no weights, another model, or more than one level.
    """
    return Xcodec2Tokenizer(load_transformers(Xcodec2Model, WEIGHTS, path), levels).to(device)

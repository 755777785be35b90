"""What a trained listener hears: hidden states of a frozen Whisper encoder, as a loss of the training.

At 412 bit/s not all of a spectrum can be told; spectral losses spend the bits evenly, a listener for speech spends them
where words differ. Ours (SpeechTokenizer and Mimi distil a self-supervised encoder into the first
level; WavLM features as a loss of the output are X-Codec's and StableCodec's): the output's hidden states against the
recording's, with the gradient through the encoder.

The encoder hears the crop as it is, without the padding to 30 s that it was trained with.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import WhisperModel

from codec.audio.mel import mel_filters
from codec.network.patchify import hann
from training.config import ConfigError
from training.pretrained import PretrainedError, load_model

RATE = 16_000


class Listener(nn.Module):
    """The first ``layers`` blocks of a Whisper encoder, frozen.

    Args:
        path: folder or hub id of a Whisper checkpoint, for example ``openai/whisper-base``.
        sample_rate: of what it will hear, Hz; a multiple of 200 of at least 16 kHz.

    Raises:
        ConfigError: there is no such checkpoint, it has no such layer, or the rate cannot be heard.
    """

    filters: Tensor

    def __init__(self, path: str, layers: int, sample_rate: int) -> None:
        super().__init__()
        try:
            model, info = load_model(WhisperModel, path)
        except PretrainedError as error:
            raise ConfigError(f"hearing.encoder={path} is no Whisper checkpoint: {error}") from None
        if missing := [key for key in info["missing_keys"] if key.startswith("encoder.")]:
            raise ConfigError(
                f"hearing.encoder={path} lacks weights of a Whisper encoder ({', '.join(missing[:3])} …)."
            )
        encoder = model.get_encoder()
        if not 1 <= layers <= len(encoder.layers):
            raise ConfigError(f"hearing.layers={layers}: {path} has layers 1 to {len(encoder.layers)}.")
        if sample_rate < RATE or sample_rate % 200:
            raise ConfigError(f"hearing: a codec of {sample_rate} Hz cannot be heard; 16000, 24000, 48000 can.")
        self.conv1, self.conv2 = encoder.conv1, encoder.conv2
        self.positions = encoder.embed_positions.weight
        self.blocks = encoder.layers[:layers]
        # windows of 25 ms give bins of 40 Hz at any rate: those below 8 kHz are Whisper's own, without resampling
        self.window, self.hop = sample_rate // 40, sample_rate // 100
        self.gain = RATE / sample_rate
        bank = mel_filters(RATE, RATE // 40, encoder.config.num_mel_bins)
        self.register_buffer("filters", torch.from_numpy(bank.T.copy()))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> Listener:
        """Always as in inference."""
        return super().train(False)

    def log_mel(self, wav: Tensor) -> Tensor:
        """``[batch, samples]`` → Whisper's features ``[batch, bands, frames]``, 100 frames a second."""
        window = hann(self.window, wav.device)
        spectra = torch.stft(wav.float(), self.window, self.hop, window=window, return_complex=True)
        power = spectra[:, : len(self.filters), :-1].abs().square() * self.gain**2
        log = (self.filters.T @ power).clamp(min=1e-10).log10()
        log = torch.maximum(log, log.detach().amax((1, 2), keepdim=True) - 8.0)
        return (log + 4.0) / 4.0

    def forward(self, wav: Tensor) -> list[Tensor]:
        """``[batch, samples]``, at most 30 s → hidden states ``[batch, frames, dim]`` after each block, 50 a second."""
        x = F.gelu(self.conv1(self.log_mel(wav).to(self.conv1.weight.dtype)))
        x = F.gelu(self.conv2(x)).transpose(1, 2)
        x = x + self.positions[: x.shape[1]]
        states = []
        for block in self.blocks:
            x = block(x, None)
            x = x[0] if isinstance(x, tuple) else x
            states.append(x)
        return states


def hearing_loss(heard: list[Tensor], target: list[Tensor]) -> Tensor:
    """Mean over states of the squared distance of normalised frames, 0 … 4."""
    terms = [
        (F.layer_norm(a.float(), a.shape[-1:]) - F.layer_norm(b.detach().float(), b.shape[-1:])).square().mean()
        for a, b in zip(heard, target, strict=True)
    ]
    return torch.stack(terms).mean()

"""A small CTC recogniser on log-mels: an expert of a codec, or the second judge, ``ctc-mini``, which ships.

    wav 16 kHz -> log-mel [batch, 80, 100/s] -> two strided convolutions (25/s) -> residual dilated
    convolutions -> characters and blank -> greedy CTC decoding

It is trained by ``scripts/train_recogniser.py`` on ground-truth audio with level, filter, noise and
reverberation augmentation, never on the output of a codec, so it judges a codec or a language model without
having seen one. A clip gives the same transcript alone and inside a padded batch: every layer masks what lies
beyond the clip.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from codec.audio.mel import mel_filters
from training.pretrained import PretrainedError, check_finite, telling

ALPHABET = " 'abcdefghijklmnopqrstuvwxyz"
BLANK = 0  # character i of ALPHABET has the id i + 1
SAMPLE_RATE = 16_000
HOP = 160


@dataclass(frozen=True)
class CTCConfig:
    """Sizes of the network."""

    mels: int = 80
    width: int = 176
    blocks: int = 8
    kernel: int = 7
    dilations: tuple[int, ...] = (1, 1, 2)  # cycled over the blocks; 25 frames/s, so the last sees +- 0.24 s
    expansion: int = 2
    dropout: float = 0.1


def text_to_ids(text: str) -> list[int]:
    """Character ids of a normalised text.

    Raises:
        ValueError: a character outside ``ALPHABET`` (normalise first: lower case, no punctuation, no digits).
    """
    unknown = sorted(set(text) - set(ALPHABET))
    if unknown:
        raise ValueError(f"the CTC alphabet has no {unknown[0]!r} (text {text!r}); normalise the text first.")
    return [ALPHABET.index(character) + 1 for character in text]


def ids_to_text(ids: list[int]) -> str:
    """Greedy CTC collapse: repeats merged, blanks dropped, spaces tidied."""
    kept = [i for n, i in enumerate(ids) if i != BLANK and (n == 0 or ids[n - 1] != i)]
    return " ".join("".join(ALPHABET[i - 1] for i in kept).split())


def mask_of(lengths: Tensor, size: int) -> Tensor:
    """``[batch, 1, size]``: one inside each clip, zero beyond."""
    return (torch.arange(size, device=lengths.device)[None] < lengths[:, None]).float()[:, None]


class LogMel(nn.Module):
    """Waveform to log-mel with the mean of each band over the clip removed (so level and fixed filters
    cancel).
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.n_fft = 512
        self.register_buffer("window", torch.hann_window(400), persistent=False)
        filters = mel_filters(SAMPLE_RATE, self.n_fft, bands, "htk", area=False, low=20.0, high=7600.0)
        self.register_buffer("filters", torch.from_numpy(filters), persistent=False)

    def forward(self, wav: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """``wav [batch, samples]``, ``lengths [batch]`` -> ``([batch, bands, frames], frames [batch])``."""
        padded = functional.pad(wav, (self.n_fft // 2, self.n_fft // 2))
        spectrum = torch.stft(
            padded, self.n_fft, HOP, win_length=400, window=self.window, center=False, return_complex=True
        )
        power = self.filters @ (spectrum.real.square() + spectrum.imag.square())
        frames = torch.div(lengths, HOP, rounding_mode="floor") + 1
        mask = mask_of(frames, power.shape[-1])
        # the floor is 80 dB below the clip's loudest band: digital silence and dither look alike
        peak = (power * mask).amax(dim=(1, 2), keepdim=True).clamp(min=1e-10)
        mel = torch.log(power.clamp(min=1e-10).maximum(peak * 1e-8))
        mean = (mel * mask).sum(-1, keepdim=True) / mask.sum(-1, keepdim=True)
        return (mel - mean) / 3.0 * mask, frames


class Block(nn.Module):
    """Depthwise dilated convolution, then a pointwise MLP, each residual with a layer norm over channels."""

    def __init__(self, config: CTCConfig, dilation: int) -> None:
        super().__init__()
        width, inner = config.width, config.width * config.expansion
        self.norm = nn.LayerNorm(width)
        self.gate = nn.Linear(width, 2 * width)
        self.depthwise = nn.Conv1d(
            width,
            width,
            config.kernel,
            padding=dilation * (config.kernel // 2),
            dilation=dilation,
            groups=width,
        )
        self.mix = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, width))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x [batch, frames, width]``, ``mask [batch, 1, frames]``."""
        hidden = functional.glu(self.gate(self.norm(x))).transpose(1, 2) * mask
        hidden = functional.silu(self.depthwise(hidden)).transpose(1, 2)
        x = x + self.dropout(self.mix(hidden))
        return x + self.dropout(self.mlp(self.norm_mlp(x)))


class CTCRecogniser(nn.Module):
    """Waveforms to character log-probabilities."""

    def __init__(self, config: CTCConfig) -> None:
        super().__init__()
        self.config = config
        self.features = LogMel(config.mels)
        self.down = nn.ModuleList(
            [nn.Conv1d(config.mels, config.width, 5, 2, 2), nn.Conv1d(config.width, config.width, 5, 2, 2)]
        )
        dilations = [config.dilations[i % len(config.dilations)] for i in range(config.blocks)]
        self.blocks = nn.ModuleList([Block(config, dilation) for dilation in dilations])
        self.norm = nn.LayerNorm(config.width)
        self.head = nn.Linear(config.width, len(ALPHABET) + 1)

    def forward(self, wav: Tensor, lengths: Tensor, mel_noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """Log-probabilities of the characters.

        Args:
            wav: ``[batch, samples]`` at 16 kHz.
            lengths: ``[batch]`` samples.
            mel_noise: training only: standard deviation of noise on the features, and bands and spans blanked
                out.

        Returns:
            ``[batch, frames, characters + 1]`` and the frames of each clip (25 per second).
        """
        x, frames = self.hidden(wav, lengths, mel_noise)
        return self.head(x).log_softmax(-1), frames

    def hidden(self, wav: Tensor, lengths: Tensor, mel_noise: float = 0.0) -> tuple[Tensor, Tensor]:
        """What the characters are read from, ``[batch, frames, width]``, and the frames; arguments of `forward`."""
        x, frames = self.features(wav, lengths)
        if mel_noise > 0.0:
            x = corrupt_mel(x, mel_noise)
        for conv in self.down:
            x = functional.gelu(conv(x * mask_of(frames, x.shape[-1])))
            frames = torch.div(frames + 1, 2, rounding_mode="floor")
        mask = mask_of(frames, x.shape[-1])
        x = x.transpose(1, 2)
        for block in self.blocks:
            x = block(x, mask)
        return self.norm(x), frames

    @torch.inference_mode()
    def transcribe(self, wav: Tensor, lengths: Tensor) -> list[str]:
        """Greedy transcripts of ``wav [batch, samples]`` at 16 kHz."""
        scores, frames = self(wav, lengths)
        best = scores.argmax(-1)
        return [ids_to_text(row[:n].tolist()) for row, n in zip(best, frames.tolist(), strict=True)]

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors``."""
        folder.mkdir(parents=True, exist_ok=True)
        record = {"architecture": "CTCRecogniser", "alphabet": ALPHABET, **asdict(self.config)}
        (folder / "config.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        save_file({k: v.contiguous() for k, v in self.state_dict().items()}, str(folder / "model.safetensors"))

    @classmethod
    def load(cls, folder: Path) -> CTCRecogniser:
        """Read a folder written by ``save``, in eval mode.

        Raises:
            PretrainedError: files missing, or written for another alphabet.
        """
        missing = [name for name in ("config.json", "model.safetensors") if not (folder / name).is_file()]
        if missing:
            raise PretrainedError(
                f"no CTC recogniser at '{folder}' ({missing[0]} is missing): train one with "
                "`python scripts/train_recogniser.py`, or leave it out of recognisers=[...]."
            )
        try:
            with telling(folder, "the CTC recogniser in "):
                record = json.loads((folder / "config.json").read_text(encoding="utf-8"))
                if record.pop("alphabet") != ALPHABET or record.pop("architecture") != "CTCRecogniser":
                    raise ValueError("its config.json describes another network or alphabet")
                record["dilations"] = tuple(record["dilations"])
                model = cls(CTCConfig(**record))
                model.load_state_dict(load_file(str(folder / "model.safetensors")))
                check_finite(model, folder)
        except PretrainedError as error:
            raise PretrainedError(f"{error} Train it again.") from None
        return model.eval()


def corrupt_mel(mel: Tensor, noise: float) -> Tensor:
    """Noise and holes in log-mels ``[batch, bands, frames]`` (training only): two band and two time masks per
    clip.
    """
    batch, bands, frames = mel.shape
    mel = mel + noise * torch.rand(batch, 1, 1) * torch.randn_like(mel)
    for size, axis, widest in ((bands, 1, 12), (frames, 2, 12)) * 2:
        start = torch.randint(0, max(1, size - widest), (batch, 1))
        width = torch.randint(0, widest, (batch, 1))
        position = torch.arange(size)[None]
        hole = (position >= start) & (position < start + width)
        mel = mel.masked_fill(hole[:, :, None] if axis == 1 else hole[:, None, :], 0.0)
    return mel

"""Speaker similarity offline: the cosine of two embeddings of the GE2E voice encoder whose weights the package
Resemblyzer carries.

    judge = VoiceEncoder(find_weights())
    judge.similarity(reference, other, sample_rate)

The network (Wan et al. 2018: three LSTM layers over 40 mel bands, a linear layer, ReLU, length 1) and its mel are our
own; the test compares them with the package. Only the weights are read from it, as tensors and nothing else, so that
its dependencies (webrtcvad needs a C compiler and old setuptools) need not be installed:
``pip install --no-deps Resemblyzer``.

Unlike the package we do not cut pauses out, which takes a voice detector. The scale is this network's own and coarse
(two synthetic voices reach 0.95): never in one column with x-vectors of WavLM or "SIM-o".
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from codec.audio.mel import mel_filters
from eval.harness.audio import RESAMPLER, CannotScore, Wave, resample
from eval.harness.networks import inside_package, path_or_installed, reading_checkpoint, weights_hash
from eval.metrics.voices import VoiceSimilarity, check_voice
from training.identity import file_hash
from training.pretrained import check_finite

RATE, N_FFT, HOP, BANDS = 16_000, 400, 160, 40
PART = 160  # frames: 1.6 s, which is what the network was trained on
PARTS_PER_SECOND = 1.3
LOUDNESS = -30.0  # dB: quieter clips are raised to this level, louder ones are left
UNUSED = ("similarity_weight", "similarity_bias")  # of the training loss


def find_weights() -> Path | None:
    """``pretrained.pt`` of the installed package, which is not imported; None where it is not installed."""
    return inside_package("resemblyzer", "pretrained.pt")


def voice_encoder_path(setting: str) -> Path:
    """``installed`` → the weights inside the package; else the path itself. Raises NetworkError."""
    return path_or_installed("resemblyzer", setting, find_weights(), "pip install --no-deps Resemblyzer")


class GE2E(nn.Module):
    """Mels ``[parts, frames, bands]`` → embeddings ``[parts, 256]`` of length 1."""

    def __init__(self, hidden: int = 256) -> None:
        super().__init__()
        self.lstm = nn.LSTM(BANDS, hidden, 3, batch_first=True)
        self.linear = nn.Linear(hidden, hidden)

    def forward(self, mels: Tensor) -> Tensor:
        _, (last, _) = self.lstm(mels)
        found = functional.relu(self.linear(last[-1]))
        return found / found.norm(dim=1, keepdim=True).clamp(min=1e-9)

    @classmethod
    def load(cls, path: Path) -> GE2E:
        """Read a public checkpoint.

        Raises:
            NetworkError: not there, or its weights are not those of this network.
        """
        with reading_checkpoint("resemblyzer", path, "GE2E voice encoder's"):
            state = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
            network = cls(len(state["linear.weight"]))
            network.load_state_dict({key: value for key, value in state.items() if key not in UNUSED})
            check_finite(network, path)
        return network.eval()


def raise_level(wav: Wave) -> Wave:
    """A clip below -30 dB (RMS) is raised to it."""
    level = 10 * np.log10(max(float(np.square(wav, dtype=np.float64).mean()), 1e-20))
    return wav if level >= LOUDNESS else (wav * 10 ** ((LOUDNESS - level) / 20)).astype(np.float32)


def mel_power(wav: Wave) -> Tensor:
    """``[frames, bands]``: power, no logarithm, 100 frames per second."""
    padded = functional.pad(torch.from_numpy(np.ascontiguousarray(wav, np.float32)), (N_FFT // 2, N_FFT // 2))
    spectrum = torch.stft(padded, N_FFT, HOP, window=torch.hann_window(N_FFT), center=False, return_complex=True)
    return (torch.from_numpy(mel_filters(RATE, N_FFT, BANDS)) @ spectrum.abs().square()).T


def part_starts(samples: int) -> list[int]:
    """First frames of the parts of a clip; a last part that the clip fills to less than three quarters is left out."""
    frames = -(-(samples + 1) // HOP)
    step = round(RATE / PARTS_PER_SECOND / HOP)
    starts = list(range(0, max(1, frames - PART + step + 1), step))
    if len(starts) > 1 and (samples - starts[-1] * HOP) / (PART * HOP) < 0.75:
        starts.pop()
    return starts


class VoiceEncoder(VoiceSimilarity):
    """Mean cosine of GE2E embeddings.

    Args:
        path: ``pretrained.pt`` of Resemblyzer; see ``find_weights``.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.network, self.path = GE2E.load(path), path

    @torch.inference_mode()
    def embed(self, wav: Wave, sample_rate: int) -> NDArray[np.float32]:
        """The embedding ``[256]`` of one clip, of length 1: the mean over parts of 1.6 s.

        Raises:
            CannotScore: no audio, NaN, silence, or shorter than 0.5 s.
        """
        check_voice(wav, sample_rate)
        samples = raise_level(resample(wav, sample_rate, RATE))
        starts = part_starts(len(samples))
        end = (starts[-1] + PART) * HOP
        mels = mel_power(np.pad(samples, (0, max(0, end - len(samples)))))
        found = self.network(torch.stack([mels[start : start + PART] for start in starts])).mean(0).numpy()
        length = float(np.linalg.norm(found))
        if not length > 0:
            raise CannotScore("the voice encoder sees nothing in it")
        return (found / length).astype(np.float32)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What a result records about these scores."""
        return {
            "network": "GE2E voice encoder (Resemblyzer's weights, our code)",
            "id": "resemblyzer-ge2e",
            "file_sha256": file_hash(self.path),
            "weights_sha256": weights_hash(self.network),
            "sample_rate": RATE,
            "pauses": "kept (the package cuts them out)",
            "resampler": RESAMPLER,
        }

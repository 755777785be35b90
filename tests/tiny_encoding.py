"""A toy tokenizer (loudness and zero crossings per frame), so that no encoding waits for a model, and corpora of noise.

Other processes import this file, too.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from json_files import write_lines
from torch import Tensor

from codec.interface import AudioTokenizer, Codes


class LoudnessTokenizer(AudioTokenizer):
    """Two levels per 80 ms: loudness and zero crossings. Kills its process at batch `kill_at`."""

    name = "toy/loudness"
    sample_rate = 16_000
    codebook_sizes = (64, 2_000)
    causal = True

    def __init__(self, kill_at: int | None = None, fingerprint: str = "0123456789ab" * 5) -> None:
        self.kill_at = kill_at
        self._fingerprint = fingerprint
        self.batches: list[tuple[int, int]] = []  # shapes of the batches that were encoded

    @property
    def samples_per_frame(self) -> int:
        return 1_280

    @property
    def fingerprint(self) -> str:
        return self._fingerprint

    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        self.batches.append((wav.shape[0], wav.shape[1]))
        if len(self.batches) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        lengths = torch.full((len(wav),), wav.shape[1]) if lengths is None else lengths
        frames = -(-lengths // self.samples_per_frame)
        total = int(frames.max()) * self.samples_per_frame
        padded = torch.nn.functional.pad(wav, (0, total - wav.shape[1])).reshape(len(wav), -1, self.samples_per_frame)
        loudness = (padded.abs().mean(-1) * 63).long().clamp(0, 63)
        crossings = ((padded[..., 1:] > 0) != (padded[..., :-1] > 0)).sum(-1)
        codes = torch.stack([loudness, crossings], dim=1)
        valid = torch.arange(codes.shape[2]) < frames[:, None]
        return Codes(codes * valid[:, None], frames, lengths)

    def decode(self, codes: Codes) -> Tensor:
        assert codes.samples is not None
        wav = (codes.codes[:, 0] / 63).repeat_interleave(self.samples_per_frame, dim=1)
        return wav[:, : int(codes.samples.max())]


class NotingTokenizer(LoudnessTokenizer):
    """Writes how many clips this process has encoded to PATH-<process id>."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.notes, self.clips = Path(f"{path}-{os.getpid()}"), 0

    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        self.clips += len(wav)
        self.notes.write_text(str(self.clips))
        return super().encode(wav, lengths)


def load_noting(path: str, device: str = "cpu", window: int | None = None) -> NotingTokenizer:
    """Stands for codec.load.load in the command-line test."""
    return NotingTokenizer(path)


class Meddling(LoudnessTokenizer):
    """Calls ``meddle`` when it is to encode a batch."""

    def __init__(self, meddle: Callable[[], object]) -> None:
        super().__init__()
        self.meddle = meddle

    def encode(self, wav: Tensor, lengths: Tensor | None = None) -> Codes:
        self.meddle()
        return super().encode(wav, lengths)


def make_corpus(root: Path, count: int, seconds: tuple[float, float] = (0.1, 1.0), rate: int = 16_000) -> Path:
    """Noise bursts of random length and loudness with texts, in three splits."""
    random = np.random.default_rng(0)
    root.mkdir(parents=True)
    lines = []
    for number in range(count):
        samples = int(random.uniform(*seconds) * rate)
        wav = random.uniform(-1, 1, samples) * random.uniform(0.05, 1)
        soundfile.write(root / f"{number:05d}.wav", wav, rate, subtype="PCM_16")
        split = ("train", "train", "valid", "test")[number % 4]
        lines.append(
            {
                "file_name": f"{number:05d}.wav",
                "id": f"clip-{number}",
                "text": f"No. {number}",
                "split": split,
            }
        )
    write_lines(root / "metadata.jsonl", lines)
    return root


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def start(code: str, *arguments: object, **more: Any) -> subprocess.Popen:
    """Runs `code` in another Python that can import the repository and this file."""
    environment = {**os.environ, "PYTHONPATH": f"{os.environ['PYTHONPATH']}{os.pathsep}{Path(__file__).parent}"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, **more)

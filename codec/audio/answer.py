"""What one hands in, a file or an array, and what one gets back: audio or text, to look at or to save.

wav = wave_of("a.mp3", 24_000)                     # float32 [samples]
wav = wave_of(array, 24_000, sample_rate=44_100)
Answer(audio=wav, sample_rate=24_000).save("b.flac")
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from codec.audio.files import AudioError, read_audio, write_audio
from training.checkpoint import write_file

AUDIO_FORMATS, TEXT_FORMATS = (".wav", ".flac"), (".txt", ".json")


def names_a_file(out: str | Path, suffixes: Sequence[str]) -> bool:
    """Whether `out` names the one file to write, of one of `suffixes`, and not a folder."""
    return Path(out).suffix.lower() in suffixes and not Path(out).is_dir()


@dataclass
class Answer:
    """What a codec or a model gives back.

    Attributes:
        audio: float32 ``[samples]`` in −1…1, mono; None where the answer is a text.
        sample_rate: Hz, of the audio.
        text: that was written, or is said in the audio; empty where there is none.
        codes: ``[frames, levels]`` int64 of the audio, as the tokenizer numbers them.
        scores: what is known about it, by name: ``ended``, ``log_probability`` (mean per token, nats), ``seed``, …
    """

    audio: np.ndarray | None = None
    sample_rate: int = 0
    text: str = ""
    codes: np.ndarray | None = None
    scores: dict[str, Any] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Duration of the audio."""
        return 0.0 if self.audio is None else len(self.audio) / self.sample_rate

    def save(self, path: str | Path) -> Path:
        """Write the audio as ``.wav`` or ``.flac`` (16 bit), or the text as ``.txt``, with its scores as ``.json``.

        Raises:
            ValueError: another suffix, or one of what this answer is not.
        """
        path = Path(path)
        formats = TEXT_FORMATS if self.audio is None else AUDIO_FORMATS
        if path.suffix.lower() not in formats:
            raise ValueError(f"{path}: give a file that ends in {' or '.join(formats)}.")
        if self.audio is not None:
            write_audio(path, self.audio, self.sample_rate)
        else:
            whole = json.dumps({"text": self.text, **self.scores}, ensure_ascii=False)
            write_file(path, (self.text if path.suffix.lower() == ".txt" else whole) + "\n")
        return path

    def __str__(self) -> str:
        return self.text


def wave_of(source: Any, rate: int, sample_rate: int | None = None) -> np.ndarray:
    """float32 ``[samples]`` at ``rate`` Hz.

    Args:
        source: an audio file, an `Answer`, or an array or tensor ``[samples]`` of floats in −1…1.
        sample_rate: Hz of an array; None: it is at ``rate``.

    Raises:
        AudioError: a file that cannot be read, or what is no audio.
    """
    if isinstance(source, str | Path):
        return read_audio(Path(source), rate)
    if isinstance(source, Answer):
        if source.audio is None:
            raise AudioError("the answer is a text and holds no audio")
        source, sample_rate = source.audio, source.sample_rate
    wave = np.asarray(source.detach().cpu() if hasattr(source, "detach") else source)
    if wave.ndim != 1 or not len(wave) or not np.issubdtype(wave.dtype, np.floating):
        raise AudioError(
            f"audio must be a file, or floats in -1…1 of shape [samples], got {wave.dtype} {list(wave.shape)}: take "
            "the mean of channels, divide 16-bit samples by 32768"
        )
    wave = np.ascontiguousarray(wave, dtype=np.float32)
    if sample_rate is None or sample_rate == rate:
        return wave
    if not 1000 <= sample_rate <= 768_000:
        raise AudioError(f"sample_rate={sample_rate} must be from 1000 to 768000 Hz")
    return soxr.resample(wave, sample_rate, rate, "HQ")

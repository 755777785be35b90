"""Files and arrays through a tokenizer, and back; codes in a file of their own.

codec = Codec.open("checkpoints/codec-real")
codec.reconstruct("a.mp3").save("again.wav")
codec.encode("a.mp3").save("a.safetensors")
codec.decode("a.safetensors").audio                 # float32 [samples]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec.audio.answer import Answer, wave_of
from codec.encoded import Encoded
from codec.interface import AudioTokenizer, Codes
from codec.load import load
from training.launch import pick_device


class Codec:
    """A tokenizer for files and arrays: one clip in, one clip out.

    Attributes:
        tokenizer: takes and gives batches of tensors; says ``bitrate``, ``frame_rate``, ``levels``.
    """

    def __init__(self, tokenizer: AudioTokenizer) -> None:
        self.tokenizer = tokenizer

    @classmethod
    def open(
        cls,
        path: str | Path = "checkpoints/codec-real",
        device: str = "auto",
        window: int | None = None,
        levels: int | None = None,
    ) -> Codec:
        """A saved ALMTokenizer (`codec.load.load`): a folder, one that ships, or a hub id. Raises as that."""
        return cls(load(path, pick_device(device) if device == "auto" else device, window, levels))

    @property
    def sample_rate(self) -> int:
        """Hz of what it gives back."""
        return self.tokenizer.sample_rate

    def codes_of(self, wave: np.ndarray) -> np.ndarray:
        """``wave [samples]`` at its rate → codes ``[frames, levels]`` int64."""
        return self.tokenizer.encode(torch.from_numpy(wave)[None].to(self.tokenizer.device)).clip(0).cpu().numpy()

    def wave_of(self, codes: np.ndarray, samples: int | None = None) -> np.ndarray:
        """Codes ``[frames, levels]`` → float32 ``[samples]``, so many where they are given. Raises ValueError."""
        batch = Codes.from_clips([torch.as_tensor(codes)])
        length = None if samples is None else torch.tensor([samples])
        on_device = Codes(batch.codes.to(self.tokenizer.device), batch.lengths.to(self.tokenizer.device), length)
        return self.tokenizer.decode(on_device)[0].float().cpu().numpy()

    def encode(self, audio: Any, sample_rate: int | None = None) -> Encoded:
        """The codes of a file, or of floats ``[samples]`` at ``sample_rate`` Hz (None: at the codec's own).

        Raises:
            AudioError: what cannot be read, or is no audio.
        """
        wave = wave_of(audio, self.sample_rate, sample_rate)
        return Encoded(self.codes_of(wave), len(wave), self.tokenizer.describe())

    def decode(self, codes: Any) -> Answer:
        """The audio of codes: what `encode` gave, a file of it, or whole numbers ``[frames, levels]``.

        Raises:
            TokenizerError: no file of codes, or codes of another tokenizer.
            ValueError: not codes of this tokenizer.
        """
        codes = Encoded.load(codes) if isinstance(codes, str | Path) else codes
        samples = None
        if isinstance(codes, Encoded):
            codes.check(self.tokenizer.fingerprint)
            samples, codes = codes.samples, codes.codes
        return self._answer(np.asarray(codes), samples)

    def _answer(self, codes: np.ndarray, samples: int | None) -> Answer:
        wave = self.wave_of(codes, samples)
        bits = len(codes) * self.tokenizer.bitrate / self.tokenizer.frame_rate
        rates = {"frames": len(codes), "bits_per_second": bits * self.sample_rate / len(wave) if len(wave) else 0.0}
        return Answer(wave, self.sample_rate, codes=codes, scores=rates)

    def reconstruct(self, audio: Any, sample_rate: int | None = None) -> Answer:
        """`encode` and `decode`: what the codec keeps, exactly as long as what went in. Raises as they do."""
        wave = wave_of(audio, self.sample_rate, sample_rate)
        return self._answer(self.codes_of(wave), len(wave))

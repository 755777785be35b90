"""Files and arrays through a tokenizer, and back; codes in a file of their own.

codec = Codec.open("checkpoints/codec-real")
codec.reconstruct("a.mp3").save("again.wav")
codec.encode("a.mp3").save("a.safetensors")
codec.decode("a.safetensors").audio                 # float32 [samples]
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from codec.audio.answer import Answer, wave_of
from codec.interface import AudioTokenizer, Codes, TokenizerError
from codec.load import load
from training.checkpoint import write_file
from training.launch import pick_device

SUFFIX = ".safetensors"  # of a file of codes


@dataclass(frozen=True)
class Encoded:
    """The codes of one clip.

    Attributes:
        codes: ``[frames, levels]`` int64.
        samples: of the clip, at the rate of the tokenizer.
        tokenizer: what `AudioTokenizer.describe` says of the one that made them; its ``fingerprint`` among it.
    """

    codes: np.ndarray
    samples: int
    tokenizer: dict[str, Any]

    @property
    def seconds(self) -> float:
        """Duration of the clip."""
        return self.samples / float(self.tokenizer["sample_rate"])

    def check(self, fingerprint: str) -> None:
        """Refuse codes that another tokenizer than that of ``fingerprint`` made. Raises TokenizerError."""
        own = str(self.tokenizer.get("fingerprint"))
        if own != fingerprint:
            raise TokenizerError(
                f"these codes are of the tokenizer {own[:12]} and not of {fingerprint[:12]}: open the codec that made "
                "them, with its window and levels."
            )

    def save(self, path: str | Path) -> Path:
        """Write a safetensors file: the tensor ``codes``, int32, and the rest as its metadata.

        Raises:
            ValueError: a path of another suffix.
        """
        path = Path(path)
        if path.suffix.lower() != SUFFIX:
            raise ValueError(f"{path}: give a file that ends in {SUFFIX}.")
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = {"samples": str(self.samples), "tokenizer": json.dumps(self.tokenizer)}
        write_file(path, save({"codes": torch.from_numpy(self.codes).int().contiguous()}, kept))
        return path

    @classmethod
    def load(cls, path: str | Path) -> Encoded:
        """What `save` wrote.

        Raises:
            TokenizerError: no such file, or none of codes.
        """
        try:
            with safe_open(path, "pt") as file:
                said = file.metadata() or {}
                codes, samples, tokenizer = (
                    file.get_tensor("codes"),
                    int(said["samples"]),
                    json.loads(said["tokenizer"]),
                )
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise TokenizerError(f"{path} is no file of codes, as `almkit encode` writes them ({error}).") from None
        whole = codes.ndim == 2 and not codes.is_floating_point() and codes.dtype != torch.bool
        rate = tokenizer.get("sample_rate") if isinstance(tokenizer, dict) else None
        if not whole or not isinstance(rate, int | float) or not rate > 0 or samples < 0:
            raise TokenizerError(f"{path} is no file of codes, as `almkit encode` writes them.")
        return cls(codes.long().numpy(), samples, tokenizer)


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
        return Answer(wave, self.sample_rate, codes=codes, scores=self._rates(len(codes), len(wave)))

    def reconstruct(self, audio: Any, sample_rate: int | None = None) -> Answer:
        """`encode` and `decode`: what the codec keeps, exactly as long as what went in. Raises as they do."""
        wave = wave_of(audio, self.sample_rate, sample_rate)
        return self._answer(self.codes_of(wave), len(wave))

    def _rates(self, frames: int, samples: int) -> dict[str, Any]:
        """Frames, and the bits per second that they take."""
        bits = frames * self.tokenizer.bitrate / self.tokenizer.frame_rate
        return {"frames": frames, "bits_per_second": bits * self.sample_rate / samples if samples else 0.0}

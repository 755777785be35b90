"""Codes to audio while they are generated: windows with context on both sides, of which the middle is kept."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from codec.interface import AudioTokenizer, Codes


class StreamDecoder:
    """Gives the audio of the frames that are certain.

    A decoder that looks at neighbours (ALMTokenizer's does) changes a frame's samples when later frames come. So a
    piece is decoded with ``context`` frames before and ``ahead`` frames after it, and only its own samples are kept;
    where the decoder sees no further, the pieces together equal decoding the whole.

    Args:
        frames: per piece.
    """

    def __init__(self, tokenizer: AudioTokenizer, frames: int, context: int, ahead: int) -> None:
        if frames < 1:
            raise ValueError(f"a piece needs at least one frame, got {frames}.")
        self.tokenizer, self.frames, self.context, self.ahead = tokenizer, frames, context, ahead
        self.codes = np.zeros((0, tokenizer.levels), dtype=np.int64)
        self.given = 0  # frames whose audio has been given

    def feed(self, codes: np.ndarray) -> Iterator[np.ndarray]:
        """Pieces ``[samples]`` float32 that new ``codes [frames, levels]`` make certain."""
        self.codes = np.concatenate([self.codes, codes])
        while len(self.codes) - self.given >= self.frames + self.ahead:
            yield self._decode(self.given + self.frames)

    def finish(self) -> Iterator[np.ndarray]:
        """The rest, when no further frame will come."""
        if len(self.codes) > self.given:
            yield self._decode(len(self.codes))

    def _decode(self, stop: int) -> np.ndarray:
        first = max(0, self.given - self.context)
        part = torch.from_numpy(self.codes[first : stop + self.ahead])
        codes = Codes.from_clips([part])
        device = getattr(self.tokenizer, "device", "cpu")
        wave = self.tokenizer.decode(Codes(codes.codes.to(device), codes.lengths.to(device)))[0]
        size = self.tokenizer.samples_per_frame
        piece = wave[(self.given - first) * size : (stop - first) * size]
        self.given = stop
        return piece.float().cpu().numpy()

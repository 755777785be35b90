"""Codes to audio: whole, and while they are generated, by windows with context of which the middle is kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from codec.files import Codec
from codec.interface import AudioTokenizer


def decode(tokenizer: AudioTokenizer, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Waveforms ``[samples]`` of codes ``[frames, levels]``, one clip at a time: as long as each is, and whatever the
    others are.
    """
    codec = Codec(tokenizer)
    return [codec.wave_of(clip) for clip in clips]


class StreamDecoder:
    """Gives the audio of the frames that are certain.

    A decoder that looks at neighbours (ALMTokenizer's does) changes a frame's samples when later frames come. So a
    piece is decoded with ``context`` frames before and ``ahead`` frames after it, and only its own samples are kept;
    where the decoder sees no further, the pieces together equal decoding the whole.

    Args:
        frames: per piece, at least: all that is certain by then goes into it, so that who is late catches up.
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
        certain = len(self.codes) - self.ahead
        if certain - self.given >= self.frames:
            yield self._decode(certain)

    def finish(self) -> Iterator[np.ndarray]:
        """The rest, when no further frame will come."""
        if len(self.codes) > self.given:
            yield self._decode(len(self.codes))

    def _decode(self, stop: int) -> np.ndarray:
        first = max(0, self.given - self.context)
        wave = decode(self.tokenizer, [self.codes[first : stop + self.ahead]])[0]
        size = self.tokenizer.samples_per_frame
        piece = wave[(self.given - first) * size : (stop - first) * size]
        self.given = stop
        return piece

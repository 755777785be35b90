"""Which ids may come next in generated audio: plain arithmetic, shared by every engine that serves a model.

transformers (`lm.generation.sampling.LegalAudio`), vLLM (`lm.serving.vllm_legality`) and llama.cpp
(`scripts/gguf_speak.py`) put the same rule into their own forms. It needs nothing but numpy, so that it can be imported
where our training cannot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lm.sequences.vocabulary import AudioVocabulary

Ids = range | int


class Legality:
    """The rule for one clip.

    It looks at the number of ids since ``<audio>`` and since ``</audio>``, never at codes: a place taken from values
    would shift for good after one wrong token. Where a pattern delays levels, their rest follows ``</audio>``; then
    only ``<pad>`` is legal, and marks the end.

    Args:
        min_frames: the end is not legal before.
        max_frames: then only the end is legal; None: no limit.
    """

    def __init__(self, vocabulary: AudioVocabulary, min_frames: int = 1, max_frames: int | None = None) -> None:
        if max_frames is not None and max_frames < max(1, min_frames):
            raise ValueError(f"max_frames={max_frames} must be at least 1 and at least min_frames={min_frames}.")
        self.vocabulary = vocabulary
        self.end, self.pad = vocabulary.control_id("</audio>"), vocabulary.control_id("<pad>")
        self.min_frames, self.max_frames = min_frames, max_frames

    def after(self, written: Sequence[int]) -> list[Ids]:
        """What may follow ``written``, the ids since the last ``<audio>``: blocks of ids and single ids."""
        levels, pattern = self.vocabulary.levels, self.vocabulary.order
        number = len(written)
        if self.end in written:
            place = list(written).index(self.end)
            tail = pattern.tail(pattern.place(place, levels)[0], levels)
            number -= place + 1
            return [self.vocabulary.block(tail[number])] if number < len(tail) else [self.pad]
        step, level = pattern.place(number, levels)
        if level == 0 and self.max_frames is not None and step >= self.max_frames:
            return [self.end]
        block: list[Ids] = [self.vocabulary.block(level)]
        return [*block, self.end] if level == 0 and step >= self.min_frames else block

    def ended(self, written: Sequence[int]) -> bool:
        """Whether ``written`` is a whole clip."""
        return self.after(written) == [self.pad]

    def codes(self, written: Sequence[int]) -> list[list[int]]:
        """Raw codes ``[frames, levels]`` of a whole clip (without what follows it); of one that was cut off, its whole
        frames in the flat pattern.

        Raises:
            VocabularyError: an id that is no code of its level.
            ValueError: a clip of another pattern that was cut off.
        """
        levels, pattern = self.vocabulary.levels, self.vocabulary.order
        ids = np.array([i for i in written if i != self.pad], dtype=np.int64)
        if self.end in written:
            return self.vocabulary.ids_to_codes(pattern.open(ids, levels, self.end)).tolist()
        if max(pattern.delays(levels)):
            raise ValueError(f"the clip was cut off: pattern {pattern.name} still owes codes of its last frames.")
        return self.vocabulary.ids_to_codes(ids[: len(ids) // levels * levels].reshape(-1, levels)).tolist()

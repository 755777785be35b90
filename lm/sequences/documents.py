"""Documents: text and audio segments in any order, and the ONE function that turns them into ids.

    <|tts|> <text> slt: peter carried the ladder </text> <|speech|> <audio> c c c … </audio>

Training renders the whole document; inference renders the same document with its last segment open (content
None), so the prompt of an inference call is a prefix of the training ids by construction. Learnt are the
contents and the closing token of segments with ``learn=True``; the tokens that open a segment belong to the
prompt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from lm.sequences.patterns import fold
from lm.sequences.vocabulary import AudioVocabulary, VocabularyError
from tasks.document import AudioSegment, Document, TextSegment


@dataclass(frozen=True)
class Rendered:
    """Ids of a document and which of them are learnt.

    Attributes:
        ids: ``[length]`` int32.
        learn: ``[length]`` bool; True where the id is a target of the loss.
    """

    ids: np.ndarray
    learn: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


def text_ids(tokenizer: Any, text: str, vocabulary: AudioVocabulary) -> list[int]:
    """Ids of ``text``: text rows only, whatever the text contains.

    ``split_special_tokens`` spells out strings like ``</s>`` or ``<|s_5|>`` instead of reading them as
    tokens.
    """
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if ids and max(ids) >= vocabulary.text_size:
        raise VocabularyError(f"the text tokenizer gave id {max(ids)}, beyond the {vocabulary.text_size} text rows.")
    return ids


def segment_ids(
    segment: TextSegment | AudioSegment, vocabulary: AudioVocabulary, tokenizer: Any
) -> tuple[np.ndarray, int]:
    """Ids of one segment (int32) and how many of them open it; an open segment has only those."""
    content: list[int] | np.ndarray | None
    if isinstance(segment, TextSegment):
        opening = ["<text>"]
        content = None
        if segment.text is not None:
            content = [*text_ids(tokenizer, segment.text, vocabulary), vocabulary.control_id("</text>")]
    else:
        opening = [f"<|{segment.domain}|>", "<audio>"]
        content = None
        if segment.codes is not None:
            codes = vocabulary.codes_to_ids(segment.codes)
            content = vocabulary.order.close(codes, vocabulary.control_id("</audio>"))
    parts: list[Any] = [[vocabulary.control_id(name) for name in opening]]
    if content is not None:
        parts.append(content)
    return np.concatenate([np.asarray(part, dtype=np.int32) for part in parts]), len(opening)


def render(document: Document, vocabulary: AudioVocabulary, tokenizer: Any) -> Rendered:
    """Turn a document into ids.

    An open segment (content None) must be the last one; the ids then end where the model is to continue.

    Raises:
        VocabularyError: codes of another tokenizer.
        ValueError: an open segment that is not the last.
    """
    ids = [np.array([vocabulary.control_id(f"<|{document.task}|>")], dtype=np.int32)]
    learn = [np.zeros(1, dtype=bool)]
    for index, segment in enumerate(document.segments):
        part, opening = segment_ids(segment, vocabulary, tokenizer)
        if len(part) == opening and index != len(document.segments) - 1:
            raise ValueError(f"document '{document.id}': only the last segment may be open.")
        ids.append(part)
        learn.append((np.arange(len(part)) >= opening) & segment.learn)
    return Rendered(np.concatenate(ids), np.concatenate(learn))


def without_condition(prompt: np.ndarray, vocabulary: AudioVocabulary) -> np.ndarray:
    """A prompt whose text ids are ``<no_condition>``, as training with ``trainer.drop_condition`` has seen it."""
    prompt = np.asarray(prompt)
    return np.where(prompt < vocabulary.text_size, vocabulary.control_id("<no_condition>"), prompt)


def folded(ids: np.ndarray, vocabulary: AudioVocabulary) -> np.ndarray:
    """``[length]`` → ``[positions, levels]``: one row per step of audio, as the depth variant reads it."""
    return fold(ids, vocabulary.levels_of(ids), vocabulary.levels)

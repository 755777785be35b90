"""The rows of the embedding table: text | control tokens | one block per codebook level | unused rows.

Text rows keep the ids of the text tokenizer. Control tokens (with spares) follow, then one block per codebook
level, then unused rows up to a multiple of 64. Token shards hold raw codes; this file is the only place where
an offset is added to a code or taken from an id. The layout is saved beside the weights as
``audio_vocabulary.json`` with a hash over all of it and with the tokenizer's fingerprint, so that a model
never reads tokens of another codec.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lm.sequences.patterns import PATTERNS, Pattern
from training.checkpoint import write_file

FILE_NAME = "audio_vocabulary.json"
MULTIPLE = 64

CONTROL_TOKENS: tuple[str, ...] = (
    "<pad>",
    "<mask>",  # stands for an input token that training hides
    "<no_condition>",  # stands for a dropped condition (classifier-free guidance)
    "<text>",
    "</text>",
    "<audio>",
    "</audio>",
    "<|speech|>",
    "<|sound|>",
    "<|music|>",
    "<|tts|>",
    "<|asr|>",
    "<|text_to_sound|>",
    "<|text_to_music|>",
    "<|audio_captioning|>",
    "<|music_captioning|>",
    "<|interleaved|>",
    "<|text_only|>",
    "<|audio_only|>",
)
CONTROL_ROWS = 64  # named control tokens plus spares, so that a new task or tag does not move the audio blocks


class VocabularyError(ValueError):
    """A layout or a tokenizer that does not fit the one the model was trained with."""


@dataclass(frozen=True)
class AudioVocabulary:
    """Layout of the ids of one language model.

    Attributes:
        text_size: rows of the text part, unchanged.
        codebook_sizes: codes per level, coarsest level first.
        tokenizer: what `AudioTokenizer.describe` says: name, fingerprint, sample_rate (Hz), frame_rate …
        control: names of the control tokens, in id order; spares are named ``<|spare_N|>``.
        pattern: how the levels of a clip become one sequence (`lm.sequences.patterns`).
    """

    text_size: int
    codebook_sizes: tuple[int, ...]
    tokenizer: dict[str, Any] = field(default_factory=dict)
    control: tuple[str, ...] = ()
    pattern: str = "flat"

    def __post_init__(self) -> None:
        if not self.codebook_sizes or min(self.codebook_sizes) < 1:
            raise VocabularyError(f"codebook_sizes must name at least one code per level, got {self.codebook_sizes}.")
        if self.pattern not in PATTERNS:
            raise VocabularyError(f"pattern '{self.pattern}' is unknown; choose one of {', '.join(PATTERNS)}.")
        if not self.control:
            spares = tuple(f"<|spare_{i}|>" for i in range(CONTROL_ROWS - len(CONTROL_TOKENS)))
            object.__setattr__(self, "control", CONTROL_TOKENS + spares)
        object.__setattr__(self, "_control_ids", {name: self.text_size + i for i, name in enumerate(self.control)})

    # ---- layout: the only arithmetic on offsets ----------------------------------------------------------
    @property
    def levels(self) -> int:
        """Codebook levels per frame."""
        return len(self.codebook_sizes)

    def block(self, level: int) -> range:
        """Ids of the codes of ``level``."""
        start = self.text_size + len(self.control) + sum(self.codebook_sizes[:level])
        return range(start, start + self.codebook_sizes[level])

    @property
    def starts(self) -> list[int]:
        """The first id of each level."""
        return [self.block(level).start for level in range(self.levels)]

    @property
    def used(self) -> int:
        """Rows that have a meaning; ids from here to ``size`` are padding and never legal."""
        return self.block(self.levels - 1).stop

    @property
    def size(self) -> int:
        """Rows of the embedding table: ``used`` rounded up to a multiple of 64."""
        return -(-self.used // MULTIPLE) * MULTIPLE

    @property
    def order(self) -> Pattern:
        """The provider of ``pattern``."""
        return PATTERNS[self.pattern]

    def control_id(self, name: str) -> int:
        """Id of a control token."""
        try:
            return self._control_ids[name]  # type: ignore[attr-defined]
        except KeyError:
            raise VocabularyError(f"the vocabulary has no control token '{name}'.") from None

    def codes_to_ids(self, codes: np.ndarray) -> np.ndarray:
        """Raw codes ``[frames, levels]`` → ids of the same shape (int64).

        Raises:
            VocabularyError: another number of levels, or a code outside its codebook.
        """
        codes = np.asarray(codes).astype(np.int64)
        if codes.ndim != 2 or codes.shape[1] != self.levels:
            raise VocabularyError(f"codes must be [frames, {self.levels}], got shape {codes.shape}.")
        if codes.size and (codes.min() < 0 or (codes >= np.array(self.codebook_sizes)).any()):
            raise VocabularyError(f"a code lies outside its codebook; the sizes are {self.codebook_sizes}.")
        return codes + np.array(self.starts)

    def ids_to_codes(self, ids: np.ndarray) -> np.ndarray:
        """Ids ``[frames, levels]`` → raw codes (int64).

        Raises:
            VocabularyError: an id that is no code of the level of its column.
        """
        ids = np.asarray(ids).astype(np.int64)
        if ids.ndim != 2 or ids.shape[1] != self.levels:
            raise VocabularyError(f"ids must be [frames, {self.levels}], got shape {ids.shape}.")
        codes = ids - np.array(self.starts)
        if codes.size and (codes.min() < 0 or (codes >= np.array(self.codebook_sizes)).any()):
            raise VocabularyError("the ids are no audio tokens in level order.")
        return codes

    def levels_of(self, ids: np.ndarray) -> np.ndarray:
        """Level of each id, −1 for an id that is no audio token; same shape as ``ids``."""
        edges = np.array([*self.starts, self.used])
        level = np.searchsorted(edges, np.asarray(ids), side="right") - 1
        return np.where(level < self.levels, level, -1)

    # ---- identity ----------------------------------------------------------------------------------------
    def to_dict(self) -> dict[str, Any]:
        """Everything that gives ids and their order their meaning."""
        return {
            "text_size": self.text_size,
            "control": list(self.control),
            "codebook_sizes": list(self.codebook_sizes),
            "size": self.size,
            "tokenizer": self.tokenizer,
            **({} if self.pattern == "flat" else {"pattern": self.pattern}),
        }

    @property
    def hash(self) -> str:
        """SHA-256 (hex) of the layout and the tokenizer's identity."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``folder/audio_vocabulary.json``."""
        write_file(
            Path(folder) / FILE_NAME,
            json.dumps({**self.to_dict(), "hash": self.hash}, indent=1, ensure_ascii=False) + "\n",
        )

    @classmethod
    def load(cls, folder: Path) -> AudioVocabulary:
        """Read ``folder/audio_vocabulary.json``.

        Raises:
            VocabularyError: the file is missing, incomplete, or was changed after it was written.
        """
        path = Path(folder) / FILE_NAME
        if not path.is_file():
            raise VocabularyError(f"'{folder}' has no {FILE_NAME}: it is no language model of this framework.")
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            vocabulary = cls(
                text_size=data["text_size"],
                codebook_sizes=tuple(data["codebook_sizes"]),
                tokenizer=data["tokenizer"],
                control=tuple(data["control"]),
                pattern=data.get("pattern", "flat"),
            )
            stored_hash, stored_size = data["hash"], data["size"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise VocabularyError(
                f"{path} is damaged ({error!r}): take it from the checkpoint's source again."
            ) from None
        if vocabulary.hash != stored_hash or vocabulary.size != stored_size:
            raise VocabularyError(
                f"{path} does not fit its own hash ({stored_hash[:12]} stored, {vocabulary.hash[:12]} computed): "
                "the layout was edited after training; take the file from the checkpoint's source again."
            )
        return vocabulary

    def check_tokenizer(
        self,
        description: dict[str, Any],
        where: str = "the audio tokenizer",
        named: Callable[[str], str | None] = lambda fingerprint: None,
    ) -> None:
        """Refuse a tokenizer other than the one the model was trained with.

        Args:
            description: `AudioTokenizer.describe()` or the index of token shards; needs ``name``,
                ``fingerprint``.
            named: where the codec of a fingerprint lies, as far as that is known.

        Raises:
            VocabularyError: naming both tokenizers.
        """
        own = str(self.tokenizer.get("fingerprint"))
        if description["fingerprint"] != own:
            ships = named(own)
            raise VocabularyError(
                f"the language model speaks the tokens of '{self.tokenizer.get('name')}' (fingerprint {own[:12]}), but "
                f"{where} is '{description['name']}' ({str(description['fingerprint'])[:12]}): use the tokenizer the "
                f"model was trained with{f', tokenizer.path={ships}' if ships else ''}, or train a model on this one's "
                "tokens."
            )

"""What the model sounds like during training: a few held-out prompts, spoken at each validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import nn

from codec.interface import AudioTokenizer
from lm.generation.frames import generate
from lm.generation.sampling import Sampling
from lm.generation.streaming import decode
from lm.sequences.documents import render
from lm.sequences.vocabulary import AudioVocabulary
from tasks.base import Task


class Listening:
    """Prompts of fixed clips of the valid split, with fixed seeds, so that validations can be compared by ear.

    Args:
        rows: valid rows of the task; of a mixture, every task that writes audio gives ``clips``.
        clips: how many, the first by id.
    """

    def __init__(
        self,
        rows: Sequence[Any],
        task: Task,
        vocabulary: AudioVocabulary,
        text_tokenizer: Any,
        tokenizer: AudioTokenizer,
        clips: int,
    ) -> None:
        self.vocabulary, self.tokenizer = vocabulary, tokenizer
        of_task: dict[str, list[Any]] = {}
        for row in sorted(rows, key=lambda row: row.id):
            if task.task_of(row).target == "audio":
                of_task.setdefault(task.task_of(row).name, []).append(row)
        self.groups = {}
        for name, members in sorted(of_task.items()):
            chosen = members[:clips]
            prompts = [render(task.document(row, with_target=False), vocabulary, text_tokenizer).ids for row in chosen]
            self.groups[name] = (chosen, prompts, Sampling.of(task.task_of(chosen[0]).decoding))

    def recorded(self) -> dict[str, np.ndarray]:
        """The clips themselves through the tokenizer: the best that the model could sound. Name → ``[samples]``."""
        rows = {str(row.id): row for chosen, _, _ in self.groups.values() for row in chosen}
        clips = [np.asarray(row.codes).astype(np.int64) for row in rows.values()]
        return dict(zip(rows, decode(self.tokenizer, clips), strict=True))

    def spoken(self, model: nn.Module) -> dict[str, np.ndarray]:
        """What ``model`` says to the prompts now, name → ``[samples]``; the mode of the model stays what it was."""
        training = model.training
        model.eval()
        heard: dict[str, np.ndarray] = {}
        for rows, prompts, sampling in self.groups.values():
            limits = [2 * len(row.codes) + 12 for row in rows]
            clips = generate(model, self.vocabulary, prompts, limits, sampling=sampling)  # type: ignore[arg-type]
            waves = decode(self.tokenizer, [clip.codes for clip in clips])
            heard |= dict(zip((str(row.id) for row in rows), waves, strict=True))
        model.train(training)
        return heard

"""Word and character error rates.

The corpus rate is (substitutions + deletions + insertions) / reference units over all clips together, which
is what ASR papers print; ``mean`` averages the rate of each clip, which is what Seed-TTS prints. They differ
as soon as sentences differ in length, so both are reported by name. Alignment: jiwer 4.

Outcomes at the edges: an empty hypothesis counts every reference word as deleted (rate 1); an empty reference
has no rate, so that clip is a failure with a reason and never a score; insertions can take a rate above 1.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import jiwer
import torch
from torch import Tensor
from torchmetrics import Metric

from eval.harness.audio import CannotScore
from tasks.text import headline, scoring_normaliser


def describe_normaliser(name: str) -> str:
    """The normaliser as a result records it."""
    if name == "whisper-english":
        return f"whisper-english (whisper-normalizer {importlib.metadata.version('whisper-normalizer')})"
    return {"plain": "plain (NFKC, lower case, punctuation removed)", "none": "none"}[name]


@dataclass(frozen=True)
class Edits:
    """The alignment of one hypothesis with its reference, in units (words or characters)."""

    substitutions: int
    deletions: int
    insertions: int
    units: int  # in the reference

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        return self.errors / self.units


def edits(reference: str, hypothesis: str, unit: Literal["word", "character"] = "word") -> Edits:
    """Align two normalised texts. Characters of a script without spaces are compared without spaces: those that are
    there stand for punctuation, or are the recogniser's habit.

    Raises:
        CannotScore: the reference is empty ("empty reference").
    """
    if not reference.strip():
        raise CannotScore("empty reference")
    process = jiwer.process_words if unit == "word" else jiwer.process_characters
    if unit == "character" and headline([reference]) == "cer":
        reference, hypothesis = reference.replace(" ", ""), hypothesis.replace(" ", "")
    aligned = process(reference, hypothesis)
    units = aligned.hits + aligned.substitutions + aligned.deletions
    return Edits(aligned.substitutions, aligned.deletions, aligned.insertions, units)


class ErrorRate(Metric):
    """Word or character error rate over clips.

    ``compute()`` returns the corpus rate (``average="corpus"``) or the mean over clips (``average="mean"``).
    The per-clip counts are kept, so that ``counts()`` can feed a bootstrap, and reduce over processes.
    """

    full_state_update = False
    higher_is_better = False
    clips: list[Tensor]
    empty_references: Tensor

    def __init__(
        self,
        unit: Literal["word", "character"] = "word",
        average: Literal["corpus", "mean"] = "corpus",
        normaliser: str = "plain",
    ) -> None:
        super().__init__()
        self.unit: Literal["word", "character"] = unit
        self.average = average
        self.normalise = scoring_normaliser(normaliser)
        self.add_state("clips", default=[], dist_reduce_fx="cat")
        self.add_state("empty_references", default=torch.tensor(0), dist_reduce_fx="sum")

    def add(self, hypothesis: str, reference: str) -> Edits:
        """Add one clip; its alignment.

        Raises:
            CannotScore: nothing is to be said in it, which is counted.
        """
        try:
            found = edits(self.normalise(reference), self.normalise(hypothesis), self.unit)
        except CannotScore:
            self.empty_references += 1
            raise
        row = [found.substitutions, found.deletions, found.insertions, found.units]
        self.clips.append(torch.tensor([row], dtype=torch.long))
        return found

    def update(self, hypotheses: Sequence[str], references: Sequence[str]) -> None:
        """Add clips; the two lists go together."""
        for hypothesis, reference in zip(hypotheses, references, strict=True):
            with suppress(CannotScore):
                self.add(hypothesis, reference)

    def counts(self) -> Tensor:
        """``[clips, 4]``: substitutions, deletions, insertions, reference units."""
        if isinstance(self.clips, Tensor):  # after a reduction over processes
            return self.clips
        return torch.cat(self.clips) if self.clips else torch.zeros(0, 4, dtype=torch.long)

    def compute(self) -> Tensor:
        """The rate, NaN when no clip could be scored."""
        counts = self.counts().double()
        if not len(counts):
            return torch.tensor(float("nan"))
        errors, units = counts[:, :3].sum(1), counts[:, 3]
        return errors.sum() / units.sum() if self.average == "corpus" else (errors / units).mean()

"""What a task is: which clips it can use, the document it builds, how its output is decoded and scored.

Tasks know nothing of tensors or ids. A *row* is anything with the fields of a token shard (`codec.shards.Row`);
for a clip that does not exist yet `Request` has the fields that prompts need.

A row can give several documents: one per caption, and one per phrasing of the prompt. They are its *variants*;
training draws one by (seed, id, epoch), validation and inference take variant 0.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig

from tasks.document import Document, TextSegment
from tasks.pauses import length
from tasks.phonemes import phonemes

PROMPTS = ("fixed", "paraphrased")
INPUTS = ("text", "audio", "audio_text")  # what a person can give: a text, recordings, and what is said in them


class TaskError(ValueError):
    """Options of a task that cannot work, with the cure."""


@dataclass(frozen=True)
class Request:
    """What is asked of a model: the fields that prompts are built from.

    Attributes:
        codes: raw codes ``[frames, levels]`` of the audio that is the condition (of ASR, captioning, continuation),
            or that a passage has already.
        reference: a row with ``text`` and ``codes``: the voice of voice-prompted speech.
    """

    id: str
    text: str = ""
    captions: list[str] = field(default_factory=list)
    speaker: str = ""
    domain: str = "speech"
    codes: Any = None
    reference: Any = None


def changed(row: Any, **fields: Any) -> Any:
    """``row`` with other ``fields``; whatever kind of object it is, the result has the fields that tasks read."""
    known = ("id", "text", "captions", "speaker", "domain", "codes", "reference")
    return SimpleNamespace(**{**{name: getattr(row, name, None) for name in known}, **fields})


class Task(ABC):
    """One mapping between text and audio.

    Args:
        prompts: ``fixed``: the task's control token is the whole instruction. ``paraphrased``: a sentence of
            ``paraphrases`` follows it, as a text segment of its own.
        paraphrases: the sentences, each meaning the task.
        decoding: defaults for generation, by name, as configs/task/<name>.yaml explains them.
        weight: in a mixture, how often each document comes per epoch; 0.5 gives every second one.

    Attributes:
        target: what the model writes: ``audio`` or ``text``.
        token: the control token ``<|token|>`` that opens the document; the name, unless a task shares another's.
        needs, takes: of `INPUTS`, what must and what can be given to it in generation.
        metrics: what its output is scored with (eval/metrics/).
        evaluations: the commands that score the newest model of the task; its likelihood, unless it names others.
        normalise: applied to every text the task reads or writes, in training and inference alike
            (`tasks.text`).
    """

    name: str
    domains: tuple[str, ...]  # of the clips it uses
    target: str = "audio"
    token: str = ""
    needs: tuple[str, ...] = ("text",)
    takes: tuple[str, ...] = ("text",)
    metrics: tuple[str, ...] = ()
    evaluations: tuple[str, ...] = ()

    def __init__(
        self,
        prompts: str = "fixed",
        paraphrases: Sequence[str] = (),
        decoding: Mapping[str, Any] | None = None,
        weight: float = 1.0,
    ) -> None:
        if prompts not in PROMPTS:
            raise TaskError(f"task {self.name}: prompts={prompts} is unknown; choose one of {', '.join(PROMPTS)}.")
        if prompts == "paraphrased" and not paraphrases:
            raise TaskError(f"task {self.name}: prompts=paraphrased needs sentences in paraphrases.")
        if not weight > 0:
            raise TaskError(f"task {self.name}: weight={weight} must be above 0; leave a task out to give it none.")
        self.instructions = tuple(paraphrases) if prompts == "paraphrased" else ()
        self.decoding = dict(decoding or {})
        self.weight = float(weight)
        self.evaluations = self.evaluations or (f"python eval/likelihood.py task={self.name}",)
        self.normalise: Callable[[str], str] = str

    # ---- what each task says -------------------------------------------------------------------------------------
    def accepts(self, row: Any) -> bool:
        """Whether ``row`` has what this task reads: a text of which something is left, unless the task says else."""
        return bool(row.text) and bool(self.normalise(row.text))

    @abstractmethod
    def segments(self, row: Any, with_target: bool, choice: int) -> tuple[Any, ...]:
        """The document's segments; without target the last one is open. ``choice`` < `choices` picks a caption."""

    @abstractmethod
    def with_condition_of(self, row: Any, other: Any) -> Any:
        """``row`` with the condition of ``other`` and its own target: validation's wrong-condition example."""

    def asked(self, id: str, text: str, heard: Sequence[Request], speaker: str = "", domain: str = "") -> Any:
        """The row that asks for ``text`` after the recordings ``heard`` (with codes, and texts where the task reads
        them): what `document` takes in generation.
        """
        codes = heard[-1].codes if heard else None
        return Request(id, text, [text], speaker, domain or self.domains[0], codes)

    def said(self, row: Any) -> str | None:
        """The text that the audio of ``row`` says, where its duration follows from it."""
        return None

    def seconds(self, row: Any) -> tuple[float, float]:
        """(least, most) duration of the audio that ``row`` asks for: ``decoding.max_seconds``, and where a text is said
        ``least_per_character`` and ``most_per_character`` of it, plus a second; digits are said at more length.

        Raises:
            TaskError: the decoding has no ``max_seconds``.
        """
        if "max_seconds" not in self.decoding:
            raise TaskError(f"task {self.name}: decoding.max_seconds is missing, the duration of the longest clip.")
        least, most = 0.0, float(self.decoding["max_seconds"])
        text = self.said(row)
        if text is not None:
            most = min(most, 1 + self.decoding.get("most_per_character", math.inf) * length(text))
            least = min(self.decoding.get("least_per_character", 0.0) * len(text), most)
        return least, most

    def choices(self, row: Any) -> int:
        """How many contents the document of ``row`` can have: one, or one per caption."""
        return 1

    def captions_of(self, row: Any) -> list[str]:
        """The captions of ``row``, normalised; those of which nothing is left are no captions."""
        return [caption for caption in map(self.normalise, row.captions or []) if caption]

    def words(self, text: str) -> str:
        """``text`` as the model learns texts. Raises TaskError where nothing of it is left."""
        words = self.normalise(text)
        if not words.strip():
            raise self._nothing_left(text)
        return words

    def _nothing_left(self, text: str) -> TaskError:
        return TaskError(f"task {self.name}: of the text {text[:80]!r} text.normalise leaves nothing: write words.")

    # ---- what all tasks share ------------------------------------------------------------------------------------
    def variants(self, row: Any) -> int:
        """Documents that ``row`` can become: contents times phrasings of the prompt."""
        return self.choices(row) * max(1, len(self.instructions))

    def document(self, row: Any, with_target: bool = True, variant: int = 0) -> Document:
        """The document of ``row``; without target its last segment is open: the prompt."""
        contents = self.choices(row)
        if not contents:
            raise self._nothing_left(row.text or "")
        phrasing, choice = divmod(variant, contents)
        instruction = (TextSegment(self.instructions[phrasing]),) if self.instructions else ()
        return Document(self.token or self.name, (*instruction, *self.segments(row, with_target, choice)), row.id)

    def select(self, rows: list[Any]) -> list[Any]:
        """The rows this task can use."""
        return [row for row in rows if row.domain in self.domains and self.accepts(row)]

    def task_of(self, row: Any) -> Task:
        """The task that ``row`` is for: this one, or a member of a mixture."""
        return self

    @property
    def parts(self) -> Sequence[Task]:
        """The tasks that its documents are of: this one, or the members of a mixture."""
        return [self]

    def wording(self) -> dict[str, Any]:
        """What of the options shapes the text that a model reads, by attribute, as JSON: it learns to be asked so."""
        return {"instructions": list(self.instructions)}

    def use_wording(self, learnt: Mapping[str, Any]) -> None:
        """Take what `wording` gave in training."""
        for key, value in learnt.items():
            setattr(self, key, tuple(value) if isinstance(value, list) else value)

    def use_normaliser(self, normalisers: Callable[[str], Callable[[str], str]]) -> None:
        """Take the normaliser that ``normalisers`` (task name → function) has for this task.

        Raises:
            TaskError: it spells sounds, and the task writes text, which nobody could read or score.
        """
        self.normalise = normalisers(self.name)
        if self.target == "text" and self.normalise is phonemes:
            raise TaskError(
                f"text.normalise=phonemes: task {self.name} writes text, and would write it in phonemes; name the "
                "tasks that read, as text.normalise='{tts: phonemes}'."
            )


def make_task(config: DictConfig) -> Task:
    """The task, or the mixture of tasks, of ``cfg.task``.

    Raises:
        TaskError: options of a task that cannot work.
    """
    try:
        return instantiate(config)
    except InstantiationException as error:
        if isinstance(error.__cause__, TaskError):
            raise error.__cause__ from None
        raise

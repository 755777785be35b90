"""What a task is: which clips it can use, the document it builds, and what it reports.

Tasks know nothing of tensors or ids. A *row* is anything with the fields of a token shard
(`codec.shards.Row`); for an unseen sentence `Request` has the fields that prompts need.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

from lm.documents import Document


@dataclass(frozen=True)
class Request:
    """A clip that does not exist yet: what a prompt is built from."""

    id: str
    text: str = ""
    captions: list[str] = field(default_factory=list)
    speaker: str = ""
    domain: str = "speech"


class Task(ABC):
    """One mapping between text and audio."""

    name: str
    domains: tuple[str, ...]  # of the clips it uses

    @abstractmethod
    def accepts(self, row: Any) -> bool:
        """Whether ``row`` has the fields that this task reads."""

    @abstractmethod
    def document(self, row: Any, with_target: bool = True) -> Document:
        """The document of ``row``; without target its last segment is open: the prompt."""

    @abstractmethod
    def with_condition_of(self, row: Any, other: Any) -> Any:
        """``row`` with the condition of ``other`` and its own target: validation's wrong-condition example."""

    def select(self, rows: list[Any]) -> list[Any]:
        """The rows this task can use."""
        return [row for row in rows if row.domain in self.domains and self.accepts(row)]

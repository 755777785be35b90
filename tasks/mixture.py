"""Several tasks in one model: task=all, task=[tts,asr]."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.base import Task, TaskError
from tasks.document import Document


@dataclass(frozen=True)
class Example:
    """A row in the hands of one task; the same clip can be an example of several."""

    task: Task
    row: Any

    @property
    def id(self) -> str:
        """``task/clip``."""
        return f"{self.task.name}/{self.row.id}"

    def __getattr__(self, name: str) -> Any:
        return getattr(self.row, name)


class Mixture(Task):
    """The documents of all its tasks; how often each comes is its task's ``weight``.

    Args:
        tasks: name → task, in any order.
        name: of the mixture; default: the names, joined.
    """

    def __init__(self, tasks: Mapping[str, Task], name: str | None = None) -> None:
        if not tasks:
            raise TaskError("a mixture needs tasks: task=all, or a list as task=[tts,asr].")
        # The order of a command line must not change the data: [asr,tts] is [tts,asr].
        self.tasks = sorted(tasks.values(), key=lambda task: task.name)
        self.name = name or "+".join(task.name for task in self.tasks)
        super().__init__()
        self.evaluations = tuple(dict.fromkeys(command for task in self.tasks for command in task.evaluations))
        self.domains = tuple(sorted({domain for task in self.tasks for domain in task.domains}))

    def accepts(self, row: Any) -> bool:
        return any(row.domain in task.domains and task.accepts(row) for task in self.tasks)

    def select(self, rows: list[Any]) -> list[Example]:
        """An example per task and row that the task can use."""
        return [Example(task, row) for task in self.tasks for row in task.select(rows)]

    def choices(self, row: Any) -> int:
        return row.task.choices(row.row)

    def variants(self, row: Any) -> int:
        return row.task.variants(row.row)

    def segments(self, row: Any, with_target: bool, choice: int) -> tuple[Any, ...]:
        return row.task.segments(row.row, with_target, choice)

    def document(self, row: Any, with_target: bool = True, variant: int = 0) -> Document:
        return row.task.document(row.row, with_target, variant)

    def with_condition_of(self, row: Any, other: Any) -> Any:
        """Within one task only."""
        return Example(row.task, row.task.with_condition_of(row.row, other.row))

    def task_of(self, row: Any) -> Task:
        return row.task

    @property
    def parts(self) -> Sequence[Task]:
        return self.tasks

    def use_normaliser(self, normalisers: Callable[[str], Callable[[str], str]]) -> None:
        for task in self.tasks:
            task.use_normaliser(normalisers)

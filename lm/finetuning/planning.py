"""How long and at what rate a voice is trained: by how much speech there is. All of it is our choice."""

from __future__ import annotations

from dataclasses import dataclass

EPOCHS = 10
LEAST, MOST = 200, 4000  # steps
RATE = 1.5e-3  # of AdamW: what the models that ship were continued with
LITTLE = 600.0  # s of speech from which on the rate is the whole one
ROWS = 8  # of a step


@dataclass(frozen=True)
class Plan:
    """Settings of a training.

    Attributes:
        steps: of the optimiser.
        rate: peak learning rate of AdamW; muon's is five times that, as in the recipes that ship.
        row_length: ids, the longest document and a multiple of 32.
    """

    steps: int
    rate: float
    row_length: int

    def settings(self, lora: bool) -> list[str]:
        """As settings of lm/train.py; adapters have a rate of their own (configs/tuning/lora.yaml)."""
        found = [
            f"trainer.max_steps={self.steps}", f"trainer.row_length={self.row_length}", f"trainer.batch_rows={ROWS}",
            f"trainer.warmup_steps={min(50, self.steps // 10)}", f"trainer.valid_every={max(1, self.steps // 4)}",
        ]  # fmt: skip
        rates = [f"trainer.lr={self.rate:g}", f"trainer.muon_lr={5 * self.rate:g}"]
        return [*found, "tuning=lora"] if lora else [*found, *rates]


def plan(lengths: list[int], seconds: float, places: int | None, steps: int | None = None) -> Plan:
    """The plan for documents of ``lengths`` ids with ``seconds`` of new speech among them.

    Args:
        places: positions of the model; None: without limit.
        steps: in place of `EPOCHS` of them.
    """
    fitting = [length for length in lengths if places is None or length <= places]
    row_length = max(256, -(-max(fitting, default=1) // 32) * 32)
    row_length = row_length if places is None else min(row_length, places)
    epoch = sum(fitting) / (row_length * ROWS)
    return Plan(
        steps or round(min(max(EPOCHS * epoch, LEAST), MOST)), RATE if seconds >= LITTLE else RATE / 2, row_length
    )

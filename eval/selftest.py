"""Known answers: do the metrics compute what the published definitions say?

    python eval/selftest.py                      # everything that needs no weights and no recordings
    python eval/selftest.py clips=PESQ/audio     # also values on the recordings of github.com/ludlows/PESQ
    python eval/selftest.py slow=false           # without METEOR and FAD∞

Prints a line per answer and ends with status 1 when one is wrong. What a missing package keeps from running is listed
as "not run" and is no pass.
"""

from __future__ import annotations

import training.help  # noqa: F401

import importlib.util
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from eval.harness.audio import CannotScore
from eval.harness.tables import Table
from eval.known_answers import ANSWERS, KnownAnswer, recordings
from training.config import ConfigError, hydra_entry


@dataclass(frozen=True)
class Outcome:
    """What became of one answer; ``state`` is ok, WRONG or not run."""

    answer: KnownAnswer
    state: str
    found: float | None = None
    reason: str = ""


def run(answer: KnownAnswer) -> Outcome:
    """Compute one answer and compare it."""
    absent = [name for name in answer.needs if importlib.util.find_spec(name) is None]
    if absent:
        return Outcome(answer, "not run", reason=f"{', '.join(absent)} is not installed")
    try:
        found = float(answer.compute())
    except CannotScore as error:
        state = "not run" if error.reason.startswith("not computed") else "WRONG"
        return Outcome(answer, state, reason=error.reason)
    # a comparison with NaN is false, so NaN is wrong
    return Outcome(answer, "ok" if abs(found - answer.expected) <= answer.tolerance else "WRONG", found)


def table(outcomes: Sequence[Outcome]) -> str:
    """A line per answer."""
    header = ("group", "what", "expected", "found", "± allowed", "", "source")
    lines = []
    for outcome in outcomes:
        answer = outcome.answer
        found = outcome.reason if outcome.found is None else f"{outcome.found:.8g}"
        lines.append(
            (answer.group, answer.what, f"{answer.expected:.8g}", found, f"{answer.tolerance:g}", outcome.state,
             answer.source)
        )  # fmt: skip
    return Table(header, lines).console()


@hydra_entry("eval_selftest")
def main(cfg: DictConfig) -> None:
    answers = [answer for answer in ANSWERS if cfg.slow or not answer.slow]
    if cfg.clips:
        folder = Path(cfg.clips)
        if not (folder / "speech.wav").is_file():
            raise ConfigError(f"clips: there is no speech.wav in {folder}; give the folder audio of ludlows/PESQ.")
        answers += [answer for answer in recordings(folder) if cfg.slow or not answer.slow]
    outcomes = [run(answer) for answer in answers]
    print(table(outcomes))
    counts = Counter(outcome.state for outcome in outcomes)
    print(f"\n{counts['ok']} right, {counts['WRONG']} wrong, {counts['not run']} not run")
    if counts["WRONG"]:
        sys.exit(1)


if __name__ == "__main__":
    main()

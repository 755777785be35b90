"""Which tokenizer makes the better audio language model? And: evaluations side by side.

    python eval/compare.py                                     # the sweep of configs/comparison/mini.yaml
    python eval/compare.py comparison.tasks=[tts] jobs=2       # see docs/comparison.md
    python eval/compare.py plan=true                           # what it consists of, what is finished

Every row of the comparison is a tokenizer. Its codec is trained where the row says so, the corpus is encoded, the
same recipe trains a language model for each task, and all is scored and put into one table. Killed and started again,
it goes on; several processes share it.

    python eval/compare.py runs=[runs/a/eval-tts,runs/b/eval-tts]
    python eval/compare.py runs=[runs/a/eval-tts,runs/b/eval-tts] rows=[generated] metrics=[wer/ctc-mini] format=latex

With runs=[...]: one line per system and row, and paired differences with 95 % intervals. Two numbers may stand in one
column only if they were made alike: same clips, same judge with the same weights, same normaliser, resampler and
windows. Where that differs the comparison is refused, with what differs; split=true gives every protocol a column of
its own instead. Model, tokenizer and seed are what is compared and may differ; versions of packages are named below the
table. Differences are taken over the clips that both systems have a score for, resampled together, against the first.
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from eval.comparison.page import write_comparison
from eval.comparison.plan import make_plan
from eval.comparison.rows import read_file
from eval.comparison.sweep import Sweep
from eval.comparison.table_rows import collect
from eval.comparison.weights import weights_needed
from eval.harness.intervals import LEAST
from eval.harness.protocols import differing, protocol
from eval.harness.provenance import record_hash
from eval.harness.report import difference, show
from eval.harness.results import name_of, read_results
from eval.harness.tables import Table
from training.checkpoint import write_file
from training.config import ConfigError, hydra_entry
from training.lock import hold, holding


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation wrote: ``results.json`` and the sums of each clip."""

    name: str
    rows: dict[str, dict[str, Any]]
    how: dict[str, Any]
    clips: dict[str, dict[str, dict[str, list[float]]]]


def read_evaluation(folder: Path) -> Evaluation:
    """Read the folder of an evaluation. Raises ConfigError: there are no results."""
    results, clips = read_results(folder)
    return Evaluation(name_of(folder), results["rows"], results.get("how", {}), clips)


def columns(evaluations: Sequence[Evaluation], metrics: Sequence[str], split: bool) -> dict[str, dict[int, str]]:
    """``{column: {number of the evaluation: metric}}``: evaluations of unlike protocol never share a column.

    Raises:
        ConfigError: they would have to, and ``split`` is false.
    """
    found: dict[str, dict[int, str]] = {}
    for metric in metrics:
        groups: dict[str, tuple[dict[str, Any], list[int]]] = {}
        for number, evaluation in enumerate(evaluations):
            cell = next((cells[metric] for cells in evaluation.rows.values() if metric in cells), None)
            if cell is not None:
                record = protocol(evaluation.how, metric, cell)
                groups.setdefault(record_hash(record), (record, []))[1].append(number)
        if len(groups) > 1 and not split:
            (first, a), (second, b) = list(groups.values())[:2]
            what = ", ".join(differing(first, second)[:5])
            raise ConfigError(
                f"{metric} of {evaluations[a[0]].name} and of {evaluations[b[0]].name} were not made alike "
                f"({what} differ): evaluate both in the same way, leave the metric out, or give split=true for "
                "columns of their own."
            )
        for number, (_, members) in enumerate(groups.values()):
            name = metric if len(groups) == 1 else f"{metric} (protocol {number + 1})"
            found[name] = {member: metric for member in members}
    return found


def scores(evaluations: Sequence[Evaluation], layout: Mapping[str, Mapping[int, str]], rows: Sequence[str]) -> Table:
    """A line per system and row, a column per metric."""
    most = max(
        (c["n"] + c["n_failed"] for e in evaluations for cells in e.rows.values() for c in cells.values()), default=0
    )
    body = []
    for number, evaluation in enumerate(evaluations):
        for row, cells in evaluation.rows.items():
            if row not in rows:
                continue
            line = [evaluation.name, row]
            for members in layout.values():
                line.append(show(members[number], cells.get(members[number]), most) if number in members else "")
            body.append(line)
    return Table(["system", "row", *layout], body)


def differences(
    evaluations: Sequence[Evaluation], layout: Mapping[str, Mapping[int, str]], rows: Sequence[str]
) -> list[dict[str, Any]]:
    """Each system minus the first one, per row and column, over the clips that both have a score for; ``value`` is
    None where there is no such clip.
    """
    found = []
    for column, members in layout.items():
        if 0 not in members:
            continue
        for row in rows:
            base = evaluations[0].clips.get(row, {}).get(members[0], {})
            for number in members:
                other = evaluations[number].clips.get(row, {}).get(members[number], {})
                if number == 0 or not (base or other):
                    continue
                common = len(base.keys() & other.keys())
                estimate = difference(members[number], other, base)
                found.append(
                    {
                        "metric": column, "row": row, "of": evaluations[number].name, "minus": evaluations[0].name,
                        "value": estimate and estimate.value, "low": estimate and estimate.low,
                        "high": estimate and estimate.high, "n": common,
                        "n_one_side_only": len({*base, *other}) - common,
                    }
                )  # fmt: skip
    return found


def difference_table(found: Sequence[Mapping[str, Any]]) -> Table:
    """The differences as a table, each with the clips that it is over and those that one side alone has; an interval
    without zero is marked with an asterisk.
    """
    body = []
    for part in found:
        cell = {**part, "n_failed": 0, "failures": []}
        clear = part["low"] is not None and (part["low"] > 0 or part["high"] < 0)
        text = show(str(part["metric"]), cell, part["n"]) + (" *" if clear else "")
        systems = f"{part['of']} − {part['minus']}"
        body.append([part["metric"], part["row"], systems, text, str(part["n"]), str(part["n_one_side_only"])])
    head = ["metric", "row", "systems", "difference [95 %, paired]", "common clips", "clips of one side only"]
    return Table(head, body)


def unscored(
    evaluations: Sequence[Evaluation], layout: Mapping[str, Mapping[int, str]], rows: Sequence[str]
) -> list[str]:
    """A sentence per system and row about the clips that it did not deliver and those that could not be judged."""
    found = []
    for number, evaluation in enumerate(evaluations):
        for row in (row for row in evaluation.rows if row in rows):
            cells = {name: evaluation.rows[row].get(of[number]) for name, of in layout.items() if number in of}
            counts = {
                name: f"{cell.get('undelivered') or 0} not delivered, {cell['n_failed']} failed"
                for name, cell in cells.items()
                if cell is not None and (cell.get("undelivered") or cell["n_failed"])
            }
            alike = {said: [name for name in counts if counts[name] == said] for said in counts.values()}
            found += [f"{evaluation.name}, {row}: {said} ({', '.join(names)})" for said, names in alike.items()]
    return found


def unlike_versions(evaluations: Sequence[Evaluation]) -> list[str]:
    """A sentence per package that the systems did not have in the same version."""
    names = sorted({name for evaluation in evaluations for name in evaluation.how.get("versions", {})})
    found = []
    for name in names:
        seen = [str(evaluation.how.get("versions", {}).get(name)) for evaluation in evaluations]
        if len(set(seen)) > 1:
            found.append(f"{name}: " + ", ".join(f"{e.name} {v}" for e, v in zip(evaluations, seen, strict=True)))
    return found


def compare_tokenizers(cfg: DictConfig) -> None:
    """Run what is missing of the sweep, write and print its table.

    Raises:
        SystemExit: a cell failed.
    """

    c = read_file(cfg, HydraConfig.get().overrides.task)
    out = Path(cfg.out or f"runs/comparison-{c.name}")
    only = list(cfg.only) if cfg.only else None
    plan = make_plan(c, out, only)
    sweep = Sweep(plan, cfg.jobs, say=lambda line: print(line, flush=True))
    for note in plan.notes:
        sweep.say(note)
    if cfg.plan:
        for cell, state in sweep.states(only):
            print(f"{state:<10}{cell.name:<40}{cell.script}")
        print("\n" + weights_needed(plan, c).text(cfg.format))
        return
    sweep.run(only)
    comparison = collect(plan, c, sweep.failed)
    with holding(out, wait=True):  # other processes of the sweep write the same page
        files = write_comparison(comparison, out)
    print("\n" + comparison.table().text(cfg.format))
    for line in (*comparison.fairness, *comparison.legend):
        print(line)
    for others in comparison.published:
        print(f"\n{others.title}\n{others.table.text(cfg.format)}")
    print(f"\n{files[0]}, and {', '.join(path.name for path in files[1:])}", flush=True)
    if sweep.failed:
        raise ConfigError(f"{len(sweep.failed)} cells failed; the same command tries them again.")


@hydra_entry("eval_compare")
def main(cfg: DictConfig) -> None:
    if not cfg.runs:
        compare_tokenizers(cfg)
        return
    if cfg.out:
        hold(cfg.out, "out")
    evaluations = [read_evaluation(Path(folder)) for folder in cfg.runs]
    known_rows = list(dict.fromkeys(row for evaluation in evaluations for row in evaluation.rows))
    known = list(dict.fromkeys(m for e in evaluations for cells in e.rows.values() for m in cells))
    for key, chosen, there in (("rows", cfg.rows, known_rows), ("metrics", cfg.metrics, known)):
        if unknown := [name for name in chosen or () if name not in there]:
            raise ConfigError(f"{key}: there is no '{unknown[0]}'; choose from {', '.join(there)}.")
    rows, metrics = list(cfg.rows or known_rows), list(cfg.metrics or known)
    layout = columns(evaluations, metrics, cfg.split)
    found = differences(evaluations, layout, rows)
    tables = [scores(evaluations, layout, rows), difference_table(found)]
    text = "\n\n".join(table.text(cfg.format) for table in tables if table.body)
    print(text)
    for sentence in unscored(evaluations, layout, rows):
        print(sentence)
    if any(part["n"] < LEAST for part in found):
        print(f"differences over fewer than {LEAST} common clips have no interval and say nothing")
    for sentence in unlike_versions(evaluations):
        print(f"not the same version of {sentence}")
    if cfg.out:
        out = Path(cfg.out)
        for notation, suffix in (("markdown", "md"), ("csv", "csv"), ("latex", "tex")):
            write_file(out / f"scores.{suffix}", tables[0].text(notation) + "\n")
            write_file(out / f"differences.{suffix}", tables[1].text(notation) + "\n")
        record = {"runs": list(cfg.runs), "differences": found}
        write_file(out / "compare.json", json.dumps(record, indent=1) + "\n")
        print(f"\n{out}/scores and differences as .md, .csv and .tex, and compare.json")


if __name__ == "__main__":
    main()

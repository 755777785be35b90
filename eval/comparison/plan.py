"""The cells of a comparison of tokenizers: which commands, on what, in which order (configs/comparison/*.yaml).

::

    corpus ─► codecs/… ─► ROW/tokens-… ─► ROW/lm-TASK ─► ROW/TASK
                     │                        └─► ROW/lm-OTHER, where it begins with this one's model (``after``)
                     └──► ROW/reconstruction, ROW/semantics; ROW/words also needs the tokens

Every cell is a command of this repository with a folder of its own. What a command needs to know of the cells before it
(tokens per second, for the length of a row) is read when it is its turn. eval/comparison/sweep.py runs the cells.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from codec.classical import RECORD, can_run
from eval.comparison.budget import LanguageModel
from eval.comparison.rows import EVALUATIONS, check, check_commands
from eval.harness.provenance import record_hash
from training.config import compose
from training.quoting import quoted

SPEECH_TASKS = ("tts", "asr")
# Cells of a kind further left start first: what others wait for, then what takes long.
KINDS = ("corpus", "codec", "tokens", "lm", "task", "reconstruction", "semantics")


@dataclass
class Cell:
    """One command of the sweep.

    Attributes:
        name: also the folder's, below ``cells/``.
        kind: one of ``KINDS``.
        row: whose cell it is; empty for what rows share.
        script: path in the repository.
        config: the configuration the script reads (configs/<config>.yaml), or None.
        needs: names of the cells that must be finished first.
        arguments: of the command; called when those are finished.
        results: files in the cell's folder that the command leaves.
    """

    name: str
    kind: str
    row: str
    script: str
    config: str | None
    needs: tuple[str, ...]
    arguments: Callable[[], list[str]]
    results: tuple[str, ...]
    launch: tuple[str, ...] = ()


@dataclass
class Plan:
    """All cells in an order in which they can run, and what is the same for all rows."""

    out: Path
    rows: dict[str, dict[str, Any]]
    tasks: list[str]
    after: dict[str, str] = field(default_factory=dict)  # task -> the one whose model of the same row it begins with
    cells: dict[str, Cell] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def folder(self, name: str) -> Path:
        """The folder of a cell."""
        return self.out / "cells" / name

    def chosen(self, only: Sequence[str] | None) -> list[Cell]:
        """The cells of the rows ``only`` (None: of all) and those they need."""
        wanted = [cell for cell in self.cells.values() if only is None or cell.row in only]
        names = {cell.name for cell in wanted}
        while wanted:
            wanted = [self.cells[name] for cell in wanted for name in cell.needs if name not in names]
            names |= {cell.name for cell in wanted}
        found = [cell for cell in self.cells.values() if cell.name in names]
        return sorted(found, key=lambda cell: KINDS.index(cell.kind))


def text(value: Any) -> str:
    """``value`` as the right side of an override: what the command line's grammar could misread is quoted."""
    if value is None:
        return "null"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(text, value)) + "]"
    plain = str(value).lower() if isinstance(value, bool) else str(value)
    if re.fullmatch(r"[\w./:+-]+", plain):
        return plain
    return quoted(plain)


def make_plan(c: DictConfig, out: Path, only: Sequence[str] | None = None) -> Plan:
    """The cells of a comparison.

    Args:
        c: configs/comparison/*.yaml.
        out: folder of the sweep.

    Raises:
        ConfigError: rows, tasks or options that cannot work.
    """
    asked = check(c, only)
    rows = {name: row for name, row in asked.items() if not row.get("classical") or can_run(row["classical"])}
    after = {str(task): str(before) for task, before in c.after.items() if before and task in c.tasks}
    plan = Plan(out, rows, list(c.tasks), after)
    plan.notes += [f"{name} is left out: codec2 is not installed" for name in asked if name not in rows]
    check_commands(c, plan.tasks)
    launch = tuple(c.launch or ())
    base = [*c.data, "data.tokens=null"]  # the tokens that ship are those of one tokenizer

    def add(name: str, kind: str, row: str, script: str, config: str | None, needs: Sequence[str],
            arguments: Callable[[], list[str]], results: Sequence[str]) -> str:  # fmt: skip
        starts = launch if config in ("lm_train", "codec_train") else ()
        plan.cells[name] = Cell(name, kind, row, script, config, tuple(needs), arguments, tuple(results), starts)
        return name

    if after:
        begins = ", ".join(f"{task} after {before}" for task, before in after.items())
        plan.notes.append(
            f"language models that begin with the row's own model of another task: {begins}; the others begin from "
            "scratch"
        )

    # ---- what is trained on --------------------------------------------------------------------------------
    corpus: list[str] = []
    speech = base
    if c.speech_hours and shutil.which("flite"):
        folder = plan.folder("corpus") / "speech"
        hours = float(c.speech_hours)
        corpus = [
            add("corpus", "corpus", "", "scripts/make_corpus.py", None, [], lambda: [
                "--hours", f"{hours:g}", "--what", "speech", "--out", folder.as_posix(),
            ], ["speech/metadata.jsonl"])
        ]  # fmt: skip
        speech = [f"data.root={text(folder.as_posix())}", "data.tokens=null"]
        plan.notes.append(f"speech to train on: {hours:g} h made with flite, which is installed here")
    elif c.speech_hours:
        plan.notes.append(
            f"speech to train on: what {' '.join(base)} holds; comparison.speech_hours={c.speech_hours:g} was not "
            "made, because flite is not installed; with it the language models would hear more speech"
        )

    # ---- codecs that are trained or drawn here ----------------------------------------------------------------
    def codec_cell(row: Mapping[str, Any]) -> str | None:
        if row.get("classical"):
            name = f"codecs/{row['classical']}"
            chosen = compose("eval_reconstruction", list(c.evaluations.get("reconstruction") or []))
            which = [f"{key}={text(list(chosen[key]))}" for key in ("splits", "domains")]
            target = f"out={text((plan.folder(name) / 'clips').as_posix())}"
            arguments = [f"kind={row['classical']}", *base, *which, target]
            return add(name, "codec", "", "codec/classical.py", "codec_classical", [], partial(list, arguments),
                       [f"clips/{RECORD}"])  # fmt: skip
        overrides = list(row.get("train") or row.get("untrained") or [])
        if not overrides:
            return None
        trained = bool(row.get("train"))
        name = f"codecs/{'' if trained else 'untrained-'}{slug(overrides)}"
        if name in plan.cells:
            return name
        run = plan.folder(name) / "run"
        if not trained:
            arguments = [*overrides, f"seed={c.seed}", f"out={text((run / 'final').as_posix())}"]
            return add(name, "codec", "", "codec/untrained.py", "codec_untrained", [], partial(list, arguments),
                       ["run/final/model.safetensors"])  # fmt: skip
        more = [f"corpora=[{text((plan.folder('corpus') / 'speech').as_posix())}]"] if corpus else []

        def training(name: str, settings: Sequence[str], needs: Sequence[str]) -> str:
            target = f"name={text(run_name(plan.folder(name) / 'run'))}"
            arguments = [*base, *more, *c.codec_training, *settings, f"seed={c.seed}", target]
            return add(name, "codec", "", "codec/train.py", "codec_train", needs, partial(list, arguments),
                       ["run/final/model.safetensors", "run/log.jsonl"])  # fmt: skip

        needs, before = list(corpus), []
        if first := list(row.get("stage1") or []):
            stage1 = f"codecs/stage1-{slug(first)}"
            needs.append(stage1 if stage1 in plan.cells else training(stage1, ["stage=1", *first], corpus))
            if "stage=2" in overrides:
                before.append(f"init={text((plan.folder(stage1) / 'run/final').as_posix())}")
        if row.get("prior"):
            prior = f"codecs/prior-{slug(first)}"
            centres = plan.folder(prior) / "centres.safetensors"
            if prior not in plan.cells:
                sizes = compose("codec_train", first).codec.codebook_sizes
                source = f"{{encoder: {text((plan.folder(stage1) / 'run').as_posix())}, layer: 0, count: {sizes[0]}, "
                fit = [*base, *more, f"sources=[{source}domains: [speech,sound,music]}}]", f"seed={c.seed}"]
                fit += [f"out={text(centres.as_posix())}", *c.prior]
                add(prior, "codec", "", "codec/semantic_prior.py", "codec_semantic_prior", [stage1], partial(list, fit),
                    ["centres.safetensors"])  # fmt: skip
            needs.append(prior)
            before.append(f"semantic_centres={text(centres.as_posix())}")
        if before:
            name = f"codecs/{slug([*overrides, *first, str(bool(row.get('prior')))])}"
        return name if name in plan.cells else training(name, [*before, *overrides], needs)

    def encoded(data: list[str], row: str, chosen: list[str], made: list[str]) -> str:
        tokens = f"{row}/tokens-{'speech' if data is not base else 'corpus'}"
        if tokens not in plan.cells:
            record = (plan.folder(tokens) / "tokens.json").as_posix()
            encode = [*chosen, *data, f"record={text(record)}"]
            add(tokens, "tokens", row, "codec/encode.py", "encode",
                [*made, *(corpus if data is not base else [])], partial(list, encode), ["tokens.json"])  # fmt: skip
        return tokens

    # ---- per row: tokens, language models, scores ---------------------------------------------------------------
    shared = [f"cache={text((out / 'cache').as_posix())}"]
    for name, row in plan.rows.items():
        codec = codec_cell(row)
        made = [codec] if codec else []
        chosen = [f"tokenizer={row['tokenizer']}"] if row.get("tokenizer") else []
        if codec and row.get("classical"):
            chosen = [f"resynthesis={text((plan.folder(codec) / 'clips').as_posix())}"]
        elif codec:
            chosen.append(f"tokenizer.path={text((plan.folder(codec) / 'run/final').as_posix())}")
        for key, value in (row.get("options") or {}).items():
            chosen.append(f"tokenizer.{key}={text(value)}")

        def score(kind: str, script: str, config: str, needs: Sequence[str], more: list[str], row_name: str,
                  chosen: list[str], task: str = "", cached: bool = True) -> None:  # fmt: skip
            wanted = c.evaluations.get(task or kind, [])
            if wanted is None:
                return
            cell = f"{row_name}/{task or kind}"
            target = [f"out={text(plan.folder(cell).as_posix())}"]
            if config != "eval_reconstruction":
                target.append(f"seed={c.seed}")
            judges = list(c.judges) if cached else []  # probes are asked no opinion
            arguments = [*chosen, *base, *more, *target, *(shared if cached else []), *judges, *wanted]
            add(cell, kind, row_name, script, config, needs, partial(list, arguments), ["results.json"])

        unscored = set(after.values()) - set(plan.tasks)  # trained for another task's sake
        for task in [*sorted(unscored), *plan.tasks]:
            data = speech if task in SPEECH_TASKS else base
            tokens = encoded(data, name, chosen, made)
            lm, needs, start = f"{name}/lm-{task}", [tokens], []
            if task in after:
                needs.append(f"{name}/lm-{after[task]}")
                start = [f"init={text((plan.folder(needs[-1]) / 'run/final').as_posix())}"]
            train = LanguageModel(c, plan.folder(tokens) / "tokens.json", [
                f"task={task}", *chosen, *data, *start, f"lm.pattern={row.get('pattern') or 'auto'}",
                f"seed={c.seed}", f"name={text(run_name(plan.folder(lm) / 'run'))}", "trainer.save_every=50",
                "trainer.keep=1", *c.lm,
            ])  # fmt: skip
            add(lm, "lm", name, "lm/train.py", "lm_train", needs, train.arguments,
                ["run/final/audio_vocabulary.json", "run/log.jsonl"])  # fmt: skip
            if task in unscored:
                continue
            model = [f"task={task}", f"model={text((plan.folder(lm) / 'run/final').as_posix())}"]
            score("task", *EVALUATIONS[task], [lm], model, name, chosen, task)
            if (wanted := c.evaluations.get("likelihood", [])) is not None:
                cell = f"{name}/likelihood-{task}"
                target = [f"out={text(plan.folder(cell).as_posix())}", f"seed={c.seed}", *shared, *wanted]
                known = partial(on_tokens, [*chosen, *data, *model, *target], plan.folder(tokens) / "tokens.json")
                add(cell, "task", name, "eval/likelihood.py", "eval_likelihood", [lm], known, ["results.json"])
        score("reconstruction", "eval/reconstruction.py", "eval_reconstruction", made, [], name, chosen)
        if row.get("classical"):  # there are no codes to look into
            continue
        score("semantics", "eval/semantics.py", "eval_semantics", made, [], name, chosen, cached=False)
        if wanted := c.evaluations.get("words"):  # a probe of speech recognition, on all the tokens of speech there are
            tokens = encoded(speech, name, chosen, made)
            cell = f"{name}/words"
            target = [f"out={text(plan.folder(cell).as_posix())}", f"seed={c.seed}", "probes=[]", *wanted]
            known = partial(on_tokens, [*chosen, *speech, *target], plan.folder(tokens) / "tokens.json", "ctc_shards")
            add(cell, "semantics", name, "eval/semantics.py", "eval_semantics", [tokens], known, ["results.json"])
    return plan


def on_tokens(overrides: list[str], record: Path, key: str = "tokens") -> list[str]:
    """A command with the token shards that codec/encode.py recorded, under ``key``."""
    folder = json.loads(record.read_text(encoding="utf-8"))["folder"]
    return [*overrides, f"{key}={text(folder)}"]


def slug(overrides: Sequence[str]) -> str:
    """Overrides as a folder's name; two lists that differ never have the same."""
    name = re.sub(r"[^\w.]+", "-", overrides[0]).strip("-")[:40]
    alone = len(overrides) == 1 and re.fullmatch(r"\w+=[\w.]+", overrides[0])
    return name if alone else f"{name}-{record_hash(list(overrides))[:8]}"


def run_name(folder: Path) -> str:
    """What ``name=`` must say so that a training writes to ``folder``: trainings write below runs/."""
    runs = Path("runs").resolve()
    found = folder.resolve()
    return found.relative_to(runs).as_posix() if found.is_relative_to(runs) else found.as_posix()

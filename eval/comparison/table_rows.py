"""Collects the cells of a comparison of tokenizers into one table.

A column per tokenizer, a line per figure: what the tokenizer is, what the language model got, and every score with its
interval and N. Beside them a column for the recordings themselves, and lines for what bounds a score (resynthesis,
another clip's text). Each entry knows the cell that made it. What is equal between rows is read from the configurations
that the language models were trained with, and printed with the table.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig
from safetensors import safe_open

from eval.comparison.budget import flops
from eval.comparison.collect import (
    DOWN,
    EVALUATIONS_OF_FLOW,
    LEGEND,
    NEITHER,
    RECORDINGS,
    UP,
    Comparison,
    Entry,
    Line,
    finish_line,
    mark_control,
)  # fmt: skip
from eval.comparison.plan import SPEECH_TASKS, Plan
from eval.comparison.published import read_published
from eval.comparison.sweep import DONE, read_json
from eval.comparison.wanted import LIKELIHOOD, RECONSTRUCTION, SCORES, SEMANTICS, WORDS
from eval.harness.protocols import differing, protocol
from training.config import ConfigError


class _Collector:
    def __init__(self, plan: Plan, c: DictConfig, failed: Mapping[str, str]) -> None:
        self.plan, self.c, self.failed = plan, c, failed
        self.lines: dict[tuple[str, str], Line] = {}

    def read(self, cell: str, name: str) -> dict[str, Any]:
        """A JSON file of a finished cell; empty without."""
        folder = self.plan.folder(cell)
        return read_json(folder / name) if (folder / DONE).is_file() else {}

    def put(self, section: str, title: str, row: str, entry: Entry, **options: Any) -> Line:
        line = self.lines.setdefault((section, title), Line(section, title, **options))
        line.entries[row] = entry
        return line

    def fact(self, section: str, title: str, row: str, value: float | None, text: str, cell: str, file: str) -> None:
        """A figure without interval."""
        self.put(section, title, row, Entry(text, cell, file, value))

    # ---- the parts of a row ------------------------------------------------------------------------------------
    def tokenizer(self, row: str) -> dict[str, Any]:
        """What it is, from the first cell that encoded with it, or where nothing is trained on tokens, from what its
        reconstruction records.
        """
        sources = [(name, "tokens.json") for name in self.plan.cells if name.startswith(f"{row}/tokens-")]
        for cell, file in (*sources, (f"{row}/reconstruction", "results.json")):
            if found := self.read(cell, file):
                break
        else:
            return {}
        t = found.get("tokenizer") or found["how"]["tokenizer"]
        config = self.plan.rows[row]
        weights = "none" if config.get("classical") else "as published or shipped"
        if config.get("untrained"):
            weights = "random"
        elif config.get("train"):
            stages = self.codec_configs(row)
            steps = " + ".join(f"{stage['trainer']['max_steps']:,}" for stage in stages)
            weights = f"trained here, {steps} steps of {self.audio_per_step(stages[-1]):.0f} s"

        def say(title: str, value: float | None, text: str) -> None:
            self.fact("tokenizer", title, row, value, text, cell, file)

        say("weights", None, weights)
        if t.get("parameters"):
            say("parameters, M", t["parameters"], f"{t['parameters'] / 1e6:.2f}")
        say("bit/s", t["bitrate"], f"{t['bitrate']:g}")
        if config.get("classical"):  # it has no tokens
            return t
        say("frames/s", t["frame_rate"], f"{t['frame_rate']:g}")
        sizes = t["codebook_sizes"]
        same = f"{len(sizes)} × {sizes[0]:,}" if len(set(sizes)) == 1 else " + ".join(map(str, sizes))
        say("levels × codes", None, same)
        say("tokens/s", t["frame_rate"] * t["levels"], f"{t['frame_rate'] * t['levels']:g}")
        say("fingerprint", None, t["fingerprint"][:12])
        if t.get("codes"):
            say("codes of the test clips", None, t["codes"][:12])
        if self.c.same_codes:
            how = t.get("flow")
            count = 0 if how is None or how["solver"] == "regression" else how["steps"]
            say(EVALUATIONS_OF_FLOW, count, str(count) if count else "head alone" if how else "no flow")
        if found.get("encoded_hours"):
            speed = found["encoded_hours"] * 3600 / found["seconds"]
            say("encoding, × real time", speed, f"{speed:.0f}")
        return t

    def codec_configs(self, row: str) -> list[dict[str, Any]]:
        """The configurations that the codec of ``row`` was trained with: one, or those of its two stages."""

        def config(name: str) -> dict[str, Any]:
            return yaml.safe_load((self.plan.folder(name) / "config.yaml").read_text(encoding="utf-8"))

        codec = next(
            n for cell in self.plan.cells.values() if cell.row == row for n in cell.needs if n.startswith("codecs/")
        )
        last = config(codec)
        before = [n for n in self.plan.cells[codec].needs if n.startswith("codecs/stage1-")]
        return [*map(config, before if last["stage"] == 2 else []), last]

    @staticmethod
    def audio_per_step(config: Mapping[str, Any]) -> float:
        trainer = config["trainer"]
        return trainer["batch_size"] * trainer["accumulate"] * trainer["crop_seconds"]

    def language_model(self, row: str, task: str, tokenizer: Mapping[str, Any]) -> None:
        """Its size, its budget, and what its training said last."""
        cell = f"{row}/lm-{task}"
        folder = self.plan.folder(cell)
        if cell not in self.plan.cells or not tokenizer or not (folder / DONE).is_file():
            return
        trained = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        final = "run/final"
        vocabulary = self.read(cell, f"{final}/audio_vocabulary.json")
        model = self.read(cell, f"{final}/config.json")
        trainer = trained["trainer"]
        log = [json.loads(line) for line in (folder / "run/log.jsonl").read_text(encoding="utf-8").splitlines()]
        steps, rows, length = trainer["max_steps"], trainer["batch_rows"], trainer["row_length"]
        table = vocabulary["size"] * model["hidden_size"]
        total = parameters_of(folder / final)
        tables = 1 if model.get("tie_word_embeddings") else 2
        positions = steps * rows * length
        spent = positions * flops(
            total - (tables - 1) * table, model["num_hidden_layers"], model["hidden_size"], length
        )

        def say(title: str, value: float | None, text: str, section: str = "language model") -> None:
            self.fact(section, title, row, value, text, cell, "config.yaml")

        say("pattern", None, f"{vocabulary.get('pattern', 'flat')}, {trained['lm']['variant']}")
        say("vocabulary rows", vocabulary["size"], f"{vocabulary['size']:,}")
        say("parameters of the blocks, M", total - tables * table, f"{(total - tables * table) / 1e6:.2f}")
        say("context, ids", length, f"{length:,}")
        say("context, s of audio", float(self.c.context_seconds), f"{self.c.context_seconds:g}")
        say("optimiser steps", steps, f"{steps:,}")
        say("training FLOPs", spent, f"{spent:.2e}")

        def last(name: str) -> float | None:
            return next((record[name] for record in reversed(log) if record.get(name) is not None), None)

        domain = "music" if "music" in task else "speech" if task in SPEECH_TASKS else "sound"
        tokens = next(need for need in self.plan.cells[cell].needs if "/tokens-" in need)
        there = self.read(tokens, "tokens.json")["totals"].get("train", {}).get(domain, {}).get("hours", 0.0)
        epochs = last("epoch")
        if epochs is not None:
            heard = f"{epochs * there:.2f} = {epochs:.1f} × {there:.2f}"
            say("audio heard, h = epochs × corpus", epochs * there, heard, task)

        def learnt(title: str, name: str, better: int, form: str) -> None:
            value = last(name)
            if value is not None:
                self.put(
                    task, title, row, Entry(f"{value:{form}}", cell, "run/log.jsonl", value), better=better, score=True
                )

        learnt("bit/s that the model needs (valid)", "valid_bits_per_second", NEITHER, ".0f")
        for level in (1, 2, 3):  # what the AR objective and the semantic prior are for
            learnt(f"loss of level {level} (valid), nats", f"valid_loss_{level}", NEITHER, ".3f")
            learnt(f"accuracy of level {level} (valid)", f"valid_accuracy_{level}", NEITHER, ".3f")
        learnt("loss per text token (valid), nats", "valid_loss_text", DOWN, ".3f")
        learnt("loss of a wrong condition − right one (valid), nats", "valid_gap", UP, "+.3f")
        rate = [r["audio_seconds_per_second"] for r in log if "audio_seconds_per_second" in r]
        if rate:
            say("training, s of audio per s", statistics.median(rate), f"{statistics.median(rate):.0f}", task)

    def scores(self, row: str, cell: str, section: str, wanted: Sequence[tuple[str, str, str, int]]) -> None:
        """The metrics ``wanted`` of an evaluation."""
        results = self.read(cell, "results.json")
        if not results:
            return
        clips = self.read(cell, "clips.json")
        for source, start, title, better in wanted:
            if results["how"].get("headline") == "cer":  # words are not set apart: characters are counted
                start, title = start.replace("wer", "cer"), title.replace("WER", "CER")
            if source == "levels":  # the row with the most levels
                names = [r for r in results["rows"] if r.startswith("levels-")]
                source = max(names, key=lambda name: int(name.rpartition("-")[2]))
            for metric, found in results["rows"].get(source, {}).items():
                if not metric.startswith(start) or (start == "stoi" and metric != "stoi"):
                    continue
                rest = metric.removeprefix(start).strip("-/")
                full = f"{title}, {rest}" if rest else title
                rated = start not in ("bitrate/", "real-time-factor")  # what is bought, and what is paid for it
                line = self.put(section, full, row, Entry.of(found, cell), better=better, score=rated, metric=metric)
                line.how[row] = (protocol(results["how"], metric, found), clips.get(source, {}).get(metric, {}))
                ceiling = results["rows"].get("reference", {}).get(metric)
                if ceiling and source in ("generated", "resynthesis"):
                    line.entries.setdefault(RECORDINGS, Entry.of(ceiling, cell))
        speed = results["rows"].get("generated", {}).get("real-time-factor")
        if speed and speed["value"]:
            text = f"{speed['value']:.2f}"
            self.fact(section, "generation, s per s of audio", row, speed["value"], text, cell, "results.json")


def parameters_of(folder: Path) -> int:
    """Parameters of the model in ``folder``, from the headers of its safetensors files."""
    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as tensors:
            total += sum(math.prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118
    return total


def collect(plan: Plan, c: DictConfig, failed: Mapping[str, str]) -> Comparison:
    """The table of all cells that are finished.

    Raises:
        ConfigError: rows of ``same_codes`` have others.
    """
    collector = _Collector(plan, c, failed)
    codes: dict[str, str] = {}
    for row in plan.rows:
        tokenizer = collector.tokenizer(row)
        if c.same_codes and tokenizer:
            codes.setdefault(tokenizer.get("codes") or tokenizer.get("fingerprint") or row, row)
        for task in plan.tasks:
            collector.language_model(row, task, tokenizer)
        collector.scores(row, f"{row}/reconstruction", "reconstruction", RECONSTRUCTION)
        collector.scores(row, f"{row}/semantics", "semantics", SEMANTICS)
        collector.scores(row, f"{row}/words", "words", WORDS)
        for task in plan.tasks:
            collector.scores(row, f"{row}/likelihood-{task}", task, LIKELIHOOD)
            collector.scores(row, f"{row}/{task}", task, SCORES[task])
    if len(codes) > 1:
        raise ConfigError(
            f"comparison.same_codes: {' and '.join(codes.values())} have other codes of the test clips, so that more "
            "than their decoders differs: leave one out, or give same_codes=false."
        )
    sections = ["tokenizer", "reconstruction", "semantics", "words", "language model", *plan.tasks]
    lines = sorted(collector.lines.values(), key=lambda line: sections.index(line.section))
    controls = [name for name, row in plan.rows.items() if row.get("control")]
    for line in lines:
        for row in plan.rows:  # a score that a failed cell should have made
            cell = f"{row}/{line.section}"
            if line.how and row not in line.entries and cell in failed:
                line.entries[row] = Entry("failed", cell, "log.txt")
        finish_line(line)
        if line.score and line.better:
            mark_control(line, controls)
    used = {mark for line in lines for mark in (line.marks, *(e.marks for e in line.entries.values())) if mark}
    legend = [f"{mark} {what}" for mark, what in LEGEND.items() if any(mark in text for text in used)]
    rows = ([RECORDINGS] if any(RECORDINGS in line.entries for line in lines) else []) + list(plan.rows)
    cells = {name: read_json(plan.folder(name) / DONE) or {"cell": name, "failed": failed.get(name, "not run yet")}
             for name in plan.cells}  # fmt: skip
    equal = fairness(plan, c) if plan.tasks else list(plan.notes)
    families = {name: row["family"] for name, row in plan.rows.items() if "family" in row}
    return Comparison(
        str(c.name), rows, controls, lines, equal, legend, plan.notes, cells, read_published(c.published), families
    )


def fairness(plan: Plan, c: DictConfig) -> list[str]:
    """What is equal between the language models of all rows and what is not, read from what they were trained with."""
    budget = "and the same number of steps" if c.match == "seconds" else f"and {float(c.flops):.2e} training FLOPs"
    found = [
        f"matched: {c.context_seconds:g} s of audio of context and {c.batch_rows * c.context_seconds:g} s per step "
        f"in every row (row_length follows from tokens/s), {budget}",
        "training FLOPs = positions × (6·N + 6·layers·width·context), positions = steps × rows × context, N = "
        "parameters of blocks and head",
    ]
    own = ["tokenizer", "name", "trainer.row_length", "lm.pattern"] + ["trainer.max_steps"] * (c.match == "flops")
    own += ["init"] * bool(plan.after)
    different: set[str] = set()
    compared = 0
    for task in plan.tasks:
        files = [plan.folder(f"{row}/lm-{task}") / "config.yaml" for row in plan.rows]
        configs = [yaml.safe_load(file.read_text(encoding="utf-8")) for file in files if file.is_file()]
        compared += len(configs)
        for config in configs[1:]:
            different |= set(differing(configs[0], config))
    unfair = sorted(key for key in different if not key.startswith(tuple(own)))
    shown = [part for part in own if any(key.startswith(part) for key in different)]
    rest = (
        f"NOT EQUAL although they should be: {', '.join(unfair)}" if unfair else "all else is equal, prompts included"
    )
    found.append(
        f"configurations of {compared} language models compared key by key: {', '.join(shown) or 'nothing'} "
        f"differ per row; {rest}"
    )
    return found + plan.notes

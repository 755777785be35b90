"""Compare ways to train the language model: equal data, steps and seeds, one table in Markdown.

    python scripts/ablate_lm.py what=pattern steps=1500      # flat, delay, depth: losses, bits per second, word errors
    python scripts/ablate_lm.py what=init steps=400          # how the new rows of an extended text model begin

Each line of the table is a run of `lm/train.py` in runs/<name>/; the commands are printed. The same command continues
what was interrupted and repeats nothing that is done. The table is printed and written to runs/<name>/table.md.

what=init needs a text model whose rows mean something: a small LLaMA is first trained on the transcripts of the train
split alone (`text_backbone.py`), then extended in every way, and once more a model is trained from scratch beside them.
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from lm.model import ROW_INITS
from text_backbone import train_text_backbone
from training.checkpoint import write_file
from training.config import REPOSITORY, hydra_entry
from training.lock import hold
from training.places import environment
from training.quoting import written
from training.stopping import run_and_pass_on
from training.streams import say

PATTERNS = {
    "flat": ["lm.pattern=flat"],
    "delay": ["lm.pattern=delay"],
    "depth": ["lm.variant=depth"],
}


def variants(cfg: DictConfig, folder: Path) -> dict[str, list[str]]:
    """What each line of the table changes, as keys of lm/train.py."""
    if cfg.what == "pattern":
        depth = [*PATTERNS["depth"], f"trainer.row_length={cfg.depth_row_length}"]
        return {**PATTERNS, "depth": depth}
    backbone = folder / "text-backbone"
    extended = {init: [f"lm.pretrained={backbone}", f"lm.init_rows={init}"] for init in ROW_INITS}
    return {**extended, "from scratch": []}


def tokenizer_keys(cfg: DictConfig) -> list[str]:
    """The audio tokenizer, as keys of other scripts."""

    def leaves(node: DictConfig, path: str) -> list[str]:
        found = []
        for key in map(str, node):
            value, place = node[key], f"{path}.{key}"
            nested = isinstance(value, DictConfig)
            found += leaves(value, place) if nested else [f"{place}={written(value)}"]
        return found

    return leaves(cfg.tokenizer, "tokenizer")


def run(script: str, keys: list[str]) -> None:
    """A script of ours with these keys, in a process of its own."""
    command = [sys.executable, str(REPOSITORY / script), *keys]
    print("$ python " + shlex.join([script, *keys]), flush=True)
    if status := run_and_pass_on(command, environment()):
        say(f"{script} ended with status {status}; the same command of this script goes on from here.")
        raise SystemExit(status)


def once(script: str, keys: list[str], record: Path) -> None:
    """`run`, unless ``record`` says that this very command has finished before."""
    if record.is_file() and json.loads(record.read_text(encoding="utf-8")) == keys:
        return
    run(script, keys)
    write_file(record, json.dumps(keys, indent=1) + "\n")


def train(cfg: DictConfig, folder: Path, variant: str, keys: list[str], seed: int) -> Path:
    """Train one line of the table; returns its run folder."""
    name = f"{folder.name}/{variant.replace(' ', '-')}-{seed}"
    every = max(1, cfg.steps // 4)
    common = [
        "task=tts", f"name={name}", f"seed={seed}", f"device={cfg.device}", f"data.root={cfg.data.root}",
        f"data.name={cfg.data.name or 'null'}", f"data.tokens={cfg.data.tokens or 'null'}", *tokenizer_keys(cfg),
        f"trainer.max_steps={cfg.steps}", f"trainer.valid_every={every}", f"trainer.save_every={every}",
        f"trainer.valid_clips={cfg.valid_clips}", "trainer.keep=1",
    ]  # fmt: skip
    if cfg.threads:
        common.append(f"threads={cfg.threads}")
    once("lm/train.py", [*common, *cfg.train, *keys], Path("runs") / name / "command.json")
    return Path("runs") / name


def score(cfg: DictConfig, run_dir: Path) -> None:
    """Let the model of a run speak and be listened to."""
    out = run_dir / "eval-tts"
    keys = [f"model={run_dir}/final", f"out={out}", f"limit={cfg.score_clips}", "rows=[resynthesis,generated]"]
    keys += ["recognisers=[ctc-mini]", "dnsmos=false", f"data.root={cfg.data.root}"]
    keys += [*tokenizer_keys(cfg), f"device={cfg.device}"]
    once("eval/tts.py", [*keys, *cfg.evaluate], out / "command.json")


def curve(run_dir: Path) -> dict[int, dict[str, Any]]:
    """Validations of a run, by step."""
    lines = (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return {record["step"]: record for record in map(json.loads, lines) if "valid_loss" in record}


def last_line(run_dir: Path) -> dict[str, Any]:
    """The last log line of a run's training."""
    lines = (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if "epoch" in record][-1]


def mean(values: list[float], form: str) -> str:
    """The mean over seeds, with the range where there are several."""
    text = format(statistics.fmean(values), form)
    if len(values) > 1:
        text += f" ({format(min(values), form)}–{format(max(values), form)})"
    return text


def table(cfg: DictConfig, runs: dict[str, list[Path]]) -> str:
    """Markdown."""
    first = curve(next(iter(runs.values()))[0])
    levels = sum(1 for key in first[max(first)] if key.startswith("valid_loss_") and key[-1].isdigit())
    steps = sorted(first) if cfg.what == "init" else []
    head = [cfg.what, *[f"loss at {step}" for step in steps]]
    head += [] if steps else ["loss"]
    head += [f"level {level + 1}" for level in range(levels)] + ["wrong text, level 1", "bits/s", "epochs", "minutes"]
    scored = cfg.what == "pattern" and cfg.score
    head += ["word error rate"] if scored else []
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for variant, folders in runs.items():
        curves = [curve(folder) for folder in folders]
        ends = [by_step[cfg.steps] for by_step in curves]
        cells = [variant]
        cells += [mean([by_step[step]["valid_loss"] for by_step in curves], ".3f") for step in steps or [cfg.steps]]
        cells += [mean([end[f"valid_loss_{level + 1}"] for end in ends], ".3f") for level in range(levels)]
        gaps = [end["valid_gap_1"] for end in ends if "valid_gap_1" in end]  # one valid clip alone has none
        cells.append(mean(gaps, "+.3f") if gaps else "–")
        cells.append(mean([end["valid_bits_per_second"] for end in ends], ".1f"))
        logged = [last_line(folder) for folder in folders]
        cells.append(mean([line["epoch"] for line in logged], ".2f"))
        cells.append(mean([line["seconds"] / 60 for line in logged], ".1f"))
        if scored:
            cells.append("; ".join(word_errors(folder, "generated") for folder in folders))
        lines.append("| " + " | ".join(cells) + " |")
    if scored:
        folder = next(iter(runs.values()))[0]
        lines += ["", f"Word error rate of the resynthesis: {word_errors(folder, 'resynthesis')}."]
    return "\n".join(lines)


def word_errors(run_dir: Path, row: str) -> str:
    """``11.9 % [8.4, 15.6]``."""
    results = json.loads((run_dir / "eval-tts/results.json").read_text(encoding="utf-8"))
    found = results["rows"][row]["wer/ctc-mini"]
    return f"{found['value']:.1%} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]".replace("%", " %")


def ablate(cfg: DictConfig) -> Path:
    """Train, score and compare as ``cfg`` (configs/ablate_lm.yaml) says; returns the file of the table."""
    folder = Path("runs") / (cfg.name or f"ablate-{cfg.what}-{cfg.steps}")
    lines = variants(cfg, folder)
    hold(folder)
    if cfg.what == "init":
        train_text_backbone(cfg, folder / "text-backbone")
    runs: dict[str, list[Path]] = {variant: [] for variant in lines}
    for seed in cfg.seeds:  # seed after seed, so that what is interrupted has whole rounds
        for variant, keys in lines.items():
            runs[variant].append(train(cfg, folder, variant, keys, seed))
    if cfg.what == "pattern" and cfg.score:
        for folders in runs.values():
            for run_dir in folders:
                score(cfg, run_dir)
    text = table(cfg, runs)
    write_file(folder / "table.md", text + "\n")
    print(f"\n{text}\n\n{folder}/table.md", flush=True)
    return folder / "table.md"


@hydra_entry("ablate_lm")
def main(cfg: DictConfig) -> None:
    ablate(cfg)


if __name__ == "__main__":
    main()

"""Semantic probes: how much of what matters do frozen tokens hold, level by level?

    python eval/semantics.py
    python eval/semantics.py tokenizer.path=runs/my-codec/final probes=[instrument] runs=5
    python eval/semantics.py ctc_steps=600                # also a CTC probe of words (eval/probes/words.py)
    python eval/semantics.py probes=[] ctc_steps=3000 ctc_shards=data/mini/tokens    # on hours of tokens, without audio

Rows: levels-1, levels-1-2, … (the tokens' vectors, summed over the levels in use), continuous (what is quantised, in
the same space: what quantising costs), log-mel (a spectrogram's statistics: what needs no codec), duration-and-level
(what should tell nothing: a label that it tells is in how the corpus was made), and shuffled-labels (chance). The probe
is a linear classifier on the mean over time (eval/probes/linear.py). Clips of the train split train it, of the valid
split choose its weight decay, of the test split score it. ``runs`` repeats the training on resampled train clips; the
spread is written as ``deviation_of_runs``.
"""

from __future__ import annotations

import training.help  # noqa: F401

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from codec.corpus import Clip
from codec.interface import AudioTokenizer, HasLatents
from eval.embedders.log_mel import LogMel
from eval.harness.audio import CannotScore
from eval.harness.coding import encode_clips
from eval.harness.processes import gather, share
from eval.harness.provenance import record_hash
from eval.harness.report import Report
from eval.harness.run import Run
from eval.probes.linear import LinearProbe, choose_decay, macro_f1
from eval.probes.words import Spelling, Spelt, choose_spoken, file_spelling, read_tokens, spell
from eval.space.features import duration_and_level, latents, name_of_levels, of_codes
from eval.space.reading import read_waves, say_left_out
from eval.space.recordings import SPLITS, text_of
from training.config import ConfigError, hydra_entry
from training.identity import file_hash
from training.progress import progress

Features = dict[str, NDArray[np.float32]]  # clip id → [frames, d]


@dataclass(frozen=True)
class Labelled:
    """The clips of one probe: ids and labels per split, and the classes in alphabetical order."""

    ids: dict[str, list[str]]
    labels: dict[str, NDArray[np.int64]]
    classes: list[str]
    left_out: dict[str, str]


def label_of(clip: Clip, column: str) -> str | None:
    """The label of a clip, None where it has none or several."""
    return text_of(getattr(clip, column, None) if column in ("speaker", "domain") else clip.extra.get(column))


def label_clips(clips: list[Clip], probe: DictConfig, name: str) -> Labelled:
    """Choose the clips of a probe. Train and valid clips of a ``group`` value that also occurs in test are left out.

    Raises:
        ConfigError: nothing is left to train or test on.
    """
    chosen = [c for c in clips if (probe.domain is None or c.domain == probe.domain) and label_of(c, probe.label)]
    left_out: dict[str, str] = {}
    if probe.group:
        held = {label_of(clip, probe.group) for clip in chosen if clip.split == "test"}
        for clip in chosen:
            if clip.split != "test" and label_of(clip, probe.group) in held:
                left_out[clip.id] = f"its {probe.group} is also in the test split"
    known = {label_of(clip, probe.label) for clip in chosen if clip.split == "train" and clip.id not in left_out}
    for clip in chosen:
        if clip.id not in left_out and label_of(clip, probe.label) not in known:
            left_out[clip.id] = "a label that is not in the train split"
    kept = [clip for clip in chosen if clip.id not in left_out]
    classes = sorted({label for clip in kept if (label := label_of(clip, probe.label)) is not None})
    ids = {split: [clip.id for clip in kept if clip.split == split] for split in SPLITS}
    if len(classes) < 2 or not ids["train"] or not ids["test"]:
        why = f", because {next(iter(left_out.values()))}" if left_out else ""
        raise ConfigError(
            f"probe {name}: {len(classes)} classes, {len(ids['train'])} clips to train on and {len(ids['test'])} to "
            f"test on are left{why}; give another label or group, or leave the probe out."
        )
    index = {label: number for number, label in enumerate(classes)}
    labels = {
        split: np.array(
            [index[str(label_of(clip, probe.label))] for clip in kept if clip.split == split], dtype=np.int64
        )
        for split in SPLITS
    }
    return Labelled(ids, labels, classes, left_out)


def log_mel_features(waves: dict[str, NDArray[np.float32]], rate: int) -> Features:
    """Log-mel statistics of the clips that are long enough."""
    found = {}
    for name, wav in progress(list(waves.items()), desc="log-mel"):
        try:
            found[name] = LogMel().embed(wav, rate)
        except CannotScore:
            continue  # filed as a failure by the probe, which misses the clip
    return found


@dataclass(frozen=True)
class Probed:
    """What the linear probes of one row found: classes of the first run by test clip, accuracy of each run."""

    tested: list[str]
    guesses: NDArray[np.int64]
    right: NDArray[np.float64]
    macro_f1: float
    accuracies: list[float]
    train_clips: int
    decay: float


def probe_clips(features: Features, data: Labelled, runs: int, seed: int, shuffled: bool) -> Probed | None:
    """Train and score the linear probes of one row; None where there are no features."""
    sides = {}
    for split in SPLITS:
        there = [i for i, clip in enumerate(data.ids[split]) if clip in features]
        vectors = [features[data.ids[split][i]].mean(0) for i in there]
        matrix = np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, 1), np.float32)
        sides[split] = (matrix, data.labels[split][there])
    tested = [clip for clip in data.ids["test"] if clip in features]
    if not tested or not len(sides["train"][1]):
        return None
    generator = np.random.default_rng(seed)
    if shuffled:
        sides["train"] = (sides["train"][0], generator.permutation(sides["train"][1]))
    decay = choose_decay(sides["train"], sides["valid"], len(data.classes))
    accuracies, first = [], np.zeros(0, dtype=np.int64)
    for run in range(max(1, runs)):
        x, y = sides["train"]
        if run:  # the first run has each train clip once
            draw = generator.integers(0, len(y), len(y))
            x, y = x[draw], y[draw]
        predicted = LinearProbe(decay).fit(x, y, len(data.classes)).predict(sides["test"][0])
        accuracies.append(float((predicted == sides["test"][1]).mean()))
        first = predicted if run == 0 else first
    truth = sides["test"][1]
    right = (first == truth).astype(float)
    return Probed(tested, first, right, macro_f1(first, truth), accuracies, len(sides["train"][1]), decay)


def file_probe(report: Report, row: str, name: str, found: Probed | None, data: Labelled) -> None:
    """File accuracy and macro F1 of one row."""
    if found is None:
        missing = dict.fromkeys(data.ids["test"], "no features")
        report.mean(row, f"accuracy/{name}", {}, missing or {"all": "no features"})
        return
    missing = {clip: "no features" for clip in data.ids["test"] if clip not in set(found.tested)}
    report.mean(
        row, f"accuracy/{name}", dict(zip(found.tested, found.right.tolist(), strict=True)), missing,
        classes=len(data.classes), chance=1 / len(data.classes), train_clips=found.train_clips, decay=found.decay,
        runs=len(found.accuracies), mean_of_runs=float(np.mean(found.accuracies)),
        deviation_of_runs=float(np.std(found.accuracies, ddof=1)) if len(found.accuracies) > 1 else None,
    )  # fmt: skip
    report.number(row, f"macro-f1/{name}", found.macro_f1, len(found.tested), None, missing)


def probe_words(
    cfg: DictConfig,
    report: Report,
    tokenizer: AudioTokenizer,
    data: Spelling,
    features: dict[str, Features],
    stored: dict[str, NDArray[np.int64]],
) -> list[dict[str, Any]]:
    """Train and file the CTC probes of all rows but the controls without codec, whose vectors are too few to spell by;
    lines of items.jsonl.

    Args:
        stored: codes of token shards; empty: ``features`` hold the clips of the corpus.
    """
    rows = [row for row in features if row not in ("log-mel", "duration-and-level")]
    lines = []
    if data.left_out:
        print(f"ctc: {len(data.left_out)} clips not trained on: {next(iter(data.left_out.values()))}", flush=True)
    found: dict[str, Spelt | None] = {}
    for row in share(rows):
        source, shuffled = features[row], row == "shuffled-labels"
        if stored and row == "continuous":
            source = {}  # shards hold no audio
        elif stored:
            levels = next((n for n in range(1, tokenizer.levels + 1) if name_of_levels(n) == row), tokenizer.levels)
            used = {*data.train, *data.test}
            source = {name: of_codes(tokenizer, part, levels) for name, part in stored.items() if name in used}
        found[row] = spell(source, data, cfg.ctc_steps, cfg.ctc_runs, cfg.seed, shuffled)
    found = gather(found, "CTC probes")
    for row in rows:
        reason = "token shards hold no audio" if stored and row == "continuous" else "no speech with text to train on"
        file_spelling(report, row, found[row], data, cfg.ctc_steps, reason)
        spelt = found[row]
        for tested, text in spelt.transcripts.items() if spelt else ():
            lines.append({"id": tested, "row": row, "probe": "ctc", "text": data.texts[tested], "guess": text})
    return lines


@hydra_entry("eval_semantics")
def main(cfg: DictConfig) -> None:
    run = Run(cfg, probes=list(cfg.probe))
    clips = run.corpus
    run.load_tokenizer()
    tokenizer = run.tokenizer
    data = {name: label_clips(clips, cfg.probe[name], name) for name in cfg.probes}
    wanted = {clip for part in data.values() for ids in part.ids.values() for clip in ids}
    spelling = Spelling()
    stored: dict[str, NDArray[np.int64]] = {}
    if cfg.ctc_steps:
        entries: Any = clips
        if cfg.ctc_shards:
            entries, stored = read_tokens(Path(cfg.ctc_shards), tokenizer)
        spelling = choose_spoken(entries, cfg.ctc_group, cfg.ctc_train_limit, cfg.ctc_test_limit)
        if not cfg.ctc_shards:
            wanted |= {*spelling.train, *spelling.test}
    run.take(tokenizer.name, "eval-semantics")
    run.say(f"{len(wanted)} clips of {cfg.data.root}, {tokenizer.name} {tokenizer.bitrate:.1f} bit/s")

    # ---- features ----------------------------------------------------------------------------------------------
    rate = tokenizer.sample_rate
    waves, problems = read_waves([clip for clip in clips if clip.id in wanted], rate)
    say_left_out(problems)
    codes = encode_clips(tokenizer, waves)
    features: dict[str, Features] = {}
    for levels in range(1, tokenizer.levels + 1):
        features[name_of_levels(levels)] = {name: of_codes(tokenizer, part, levels) for name, part in codes.items()}
    full = list(features)[-1]
    if waves and isinstance(tokenizer, HasLatents):
        features["continuous"] = latents(tokenizer, waves, None)
    features["log-mel"] = log_mel_features(waves, rate)
    features["duration-and-level"] = {name: duration_and_level(wav, rate) for name, wav in waves.items()}

    # ---- probes ------------------------------------------------------------------------------------------------
    report = run.begin(
        [*features, "shuffled-labels"],
        {
            "clips": record_hash([[c.id, c.split, file_hash(c.path)] for c in clips if c.id in waves]),
            "speakers_in_train_and_test": sorted(
                {c.speaker for c in clips if c.split == "train" and c.speaker}
                & {c.speaker for c in clips if c.split == "test" and c.speaker}
            ),
        },
        "torch numpy soxr",
        tokenizer=tokenizer.describe() | ({"shards": cfg.ctc_shards} if cfg.ctc_shards else {}),
        features="vectors of the codes, summed over levels"
        if isinstance(tokenizer, HasLatents)
        else "one column per code",
        pooling="mean over time",
        probe={
            "linear": "logistic regression, L-BFGS, decay chosen on valid",
            "runs": cfg.runs,
            # where the shards lie belongs to the tokenizer: two of them are compared on the same clips
            "ctc": {str(key): cfg[key] for key in cfg if str(key).startswith("ctc_") and key != "ctc_shards"}
            | {"from_shards": bool(cfg.ctc_shards)}
            | {"clips": record_hash([spelling.train, spelling.test, spelling.texts]) if cfg.ctc_steps else None},
            "labels": {name: dict(cfg.probe[name]) for name in cfg.probes},
        },
    )
    items: list[dict[str, Any]] = []
    sources = {**features, "shuffled-labels": features[full]}
    tasks = [(name, row) for name in data for row in sources]
    probed: dict[tuple[str, str], Probed | None] = {}
    for name, row in progress(share(tasks), desc=f"{len(tasks)} linear probes"):
        probed[name, row] = probe_clips(sources[row], data[name], cfg.runs, cfg.seed, row == "shuffled-labels")
    probed = gather(probed, "linear probes")
    for name, part in data.items():
        truth = dict(zip(part.ids["test"], part.labels["test"], strict=True))
        for row in sources:
            found = probed[name, row]
            file_probe(report, row, name, found, part)
            for tested, guess in zip(found.tested, found.guesses, strict=True) if found else ():
                label, guessed = part.classes[truth[tested]], part.classes[guess]
                items.append({"id": tested, "row": row, "probe": name, "label": label, "guess": guessed})
        if "continuous" in features:
            report.difference(f"accuracy/{name}", "continuous", full)
        if part.left_out:
            print(f"{name}: {len(part.left_out)} clips left out: {next(iter(part.left_out.values()))}", flush=True)
    if cfg.ctc_steps:
        items += probe_words(cfg, report, tokenizer, spelling, sources, stored)
    run.finish(items, wrote="results.json and items.jsonl")


if __name__ == "__main__":
    main()

"""The CTC probe for speech recognition: how well can frozen features be spelt out?

Train and test share no text (or no speaker: ``group``), so a probe that knows the sentences by heart gains nothing. The
features come from the clips of a corpus, which also have a continuous upper bound, or from token shards, which hold
more speech and no audio. See eval/semantics.py for the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from codec.corpus import Clip
from codec.interface import AudioTokenizer
from codec.shards import Row, ShardError, iterate_shards, read_index
from eval.harness.report import Report
from eval.metrics.wer import edits
from eval.probes.linear import train_ctc
from tasks.text import scoring_normaliser
from training.config import ConfigError, refusing

LETTERS = set(" 'abcdefghijklmnopqrstuvwxyz")
RATES: dict[str, Literal["character", "word"]] = {"cer": "character", "wer": "word"}
Features = Mapping[str, NDArray[np.float32]]  # clip id → [frames, d]


@dataclass(frozen=True)
class Spelling:
    """Clips to train on and to test on, by id, with their normalised texts."""

    train: list[str] = field(default_factory=list)
    test: list[str] = field(default_factory=list)
    texts: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)  # id → why it is not trained on


@dataclass(frozen=True)
class Spelt:
    """What the probes of one row wrote: ``transcripts`` of the first run, and each of `RATES` of each run."""

    transcripts: dict[str, str]
    rates: dict[str, list[float]]


def choose_spoken(
    clips: Iterable[Clip | Row], group: str | None, train_limit: int = 0, test_limit: int = 0
) -> Spelling:
    """The speech with text of the train and test split.

    Args:
        group: ``text`` or ``speaker``: train clips whose text or speaker is in the test split too are left out; None
            takes the splits as they are.
        train_limit: first so many (0: all), and ``test_limit`` likewise.
    """
    normalise = scoring_normaliser("plain")
    spoken = [(clip, normalise(clip.text)) for clip in clips if clip.domain == "speech" and clip.text]
    spoken = [(clip, text) for clip, text in spoken if text]
    test = [(clip, text) for clip, text in spoken if clip.split == "test"]
    test = test[:test_limit] if test_limit else test
    held = {text if group == "text" else clip.speaker for clip, text in test} if group else set()
    found = Spelling(test=[clip.id for clip, _ in test], texts={clip.id: text for clip, text in spoken})
    for clip, text in spoken:
        if clip.split != "train":
            continue
        if group and (text if group == "text" else clip.speaker) in held:
            found.left_out[clip.id] = f"its {group} is also in the test split"
        elif set(text) - LETTERS:
            found.left_out[clip.id] = "its text has other characters than a to z"
        elif not train_limit or len(found.train) < train_limit:
            found.train.append(clip.id)
    return found


def read_tokens(folder: Path, tokenizer: AudioTokenizer) -> tuple[list[Row], dict[str, NDArray[np.int64]]]:
    """The speech of token shards, and its codes ``[frames, levels]``.

    Raises:
        ConfigError: no shards, or those of another tokenizer.
    """
    with refusing(ShardError, key="ctc_shards"):
        index = read_index(folder)
        if not index.is_of(tokenizer):
            raise ConfigError(f"ctc_shards={folder} was made by {index.name} with other weights than {tokenizer.name}.")
        rows = list(iterate_shards(folder, ["train", "test"], ["speech"]))
    return rows, {row.id: row.codes.astype(np.int64) for row in rows}


def spell(features: Features, data: Spelling, steps: int, runs: int, seed: int, shuffled: bool = False) -> Spelt | None:
    """Train ``runs`` probes (all but the first on resampled clips, each with its own seed) and let them transcribe.

    Args:
        shuffled: train on other clips' texts, which shows what knowing English is worth.

    Returns:
        None where there is nothing to train or test on.
    """
    train = [name for name in data.train if name in features]
    test = [name for name in data.test if name in features]
    if not train or not test:
        return None
    generator = np.random.default_rng(seed)
    texts = [data.texts[name] for name in train]
    if shuffled:
        texts = [texts[i] for i in generator.permutation(len(texts))]
    first: dict[str, str] = {}
    rates: dict[str, list[float]] = {metric: [] for metric in RATES}
    for run in range(max(1, runs)):
        chosen = generator.integers(0, len(train), len(train)) if run else np.arange(len(train))
        probe = train_ctc([features[train[i]] for i in chosen], [texts[i] for i in chosen], steps, seed + run)
        said = dict(zip(test, probe.transcribe([features[name] for name in test]), strict=True))
        first = first or said
        for metric, unit in RATES.items():
            counts = [edits(data.texts[name], said[name], unit) for name in test]
            rates[metric].append(sum(c.errors for c in counts) / sum(c.units for c in counts))
    return Spelt(first, rates)


def file_spelling(report: Report, row: str, found: Spelt | None, data: Spelling, steps: int, reason: str) -> None:
    """File character and word error rates of a row; ``reason`` says why there is nothing to file."""
    if found is None:
        report.rate(row, "cer/ctc-probe", {}, {"all": f"not computed: {reason}"})
        return
    missing = {name: "no features" for name in data.test if name not in found.transcripts}
    for metric, rates in found.rates.items():
        counts = {name: edits(data.texts[name], said, RATES[metric]) for name, said in found.transcripts.items()}
        parts = {name: (float(count.errors), float(count.units)) for name, count in counts.items()}
        report.rate(
            row, f"{metric}/ctc-probe", parts, missing,
            train_clips=len(data.train), steps=steps, runs=len(rates), mean_of_runs=float(np.mean(rates)),
            deviation_of_runs=float(np.std(rates, ddof=1)) if len(rates) > 1 else None,
        )  # fmt: skip

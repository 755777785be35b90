"""Semantic probes: how much of what matters do frozen tokens hold, level by level?

    python eval/semantics.py
    python eval/semantics.py tokenizer.path=runs/my-codec/final probes=[instrument] runs=5
    python eval/semantics.py ctc_steps=600                # also a CTC probe for speech recognition

Rows: levels-1, levels-1-2, … (the tokens' vectors, summed over the levels in use), continuous (the encoder's output
before quantisation: what quantising costs), log-mel (a spectrogram's statistics: what needs no codec), and
shuffled-labels (chance). The probe is a linear classifier on the mean over time; see eval/probes.py. Clips of the
train split train it, of the valid split choose its weight decay, of the test split score it. ``runs`` repeats the
training on resampled train clips; the spread is written as ``deviation_of_runs``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar

from codec.corpus import AudioError, Clip, CorpusError, read_audio, read_corpus
from codec.encode import load_tokenizer
from codec.interface import AudioTokenizer, TokenizerError
from eval.embedders.log_mel import LogMel
from eval.listening import encode_clips
from eval.metrics import CannotScore
from eval.metrics.wer import edits, load_normaliser
from eval.probes import LinearProbe, choose_decay, macro_f1, train_ctc
from eval.provenance import record_hash, sha256, versions
from eval.report import Report
from eval.speaking import pick_device
from training.config import ConfigError, hydra_entry
from training.log import duration
from training.progress import progress

SPLITS = ("train", "valid", "test")
Features = dict[str, NDArray[np.float32]]  # clip id → [frames, d]


@dataclass(frozen=True)
class Labelled:
    """The clips of one probe: ids and labels per split, and the classes in alphabetical order."""

    ids: dict[str, list[str]]
    labels: dict[str, NDArray[np.int64]]
    classes: list[str]
    left_out: dict[str, str]


def label_of(clip: Clip, column: str) -> str | None:
    """The label of a clip; a list with one entry counts as that entry, and one with several as none."""
    value = getattr(clip, column, None) if column in ("speaker", "domain") else clip.extra.get(column)
    if isinstance(value, (list, tuple)):
        value = value[0] if len(value) == 1 else None
    return None if value in (None, "") else str(value)


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


def has_vectors(tokenizer: AudioTokenizer) -> bool:
    """Whether the tokenizer can say which vector stands for a token (ours can)."""
    return hasattr(getattr(tokenizer, "quantizer", None), "lookup")


@torch.inference_mode()
def token_features(tokenizer: AudioTokenizer, codes: NDArray[np.int64], levels: int) -> NDArray[np.float32]:
    """``[frames, d]`` of codes ``[frames, levels]``: the vectors of the first ``levels``, summed; for a tokenizer that
    does not show its vectors, one column per code of each level.
    """
    if has_vectors(tokenizer):
        table: Any = tokenizer
        part = torch.from_numpy(codes[:, :levels].T.copy())[None]
        return table.quantizer.lookup(part.to(getattr(tokenizer, "device", "cpu")))[0].float().cpu().numpy()
    hot = [
        np.eye(size, dtype=np.float32)[codes[:, level]] for level, size in enumerate(tokenizer.codebook_sizes[:levels])
    ]
    return np.concatenate(hot, axis=1)


@torch.inference_mode()
def continuous_features(tokenizer: AudioTokenizer, waves: dict[str, NDArray[np.float32]]) -> Features:
    """The encoder's output before quantisation, ``[frames, d]`` per clip; empty for a tokenizer that hides it."""
    if not hasattr(tokenizer, "encode_latents"):
        return {}
    network: Any = tokenizer
    found = {}
    for name, wav in progress(list(waves.items()), desc="continuous"):
        frames = -(-len(wav) // tokenizer.samples_per_frame)
        padded = torch.zeros(1, frames * tokenizer.samples_per_frame)
        padded[0, : len(wav)] = torch.from_numpy(wav)
        found[name] = network.encode_latents(padded.to(network.device), network.window)[0].float().cpu().numpy()
    return found


def log_mel_features(waves: dict[str, NDArray[np.float32]], rate: int) -> Features:
    """Log-mel statistics of the clips that are long enough."""
    found = {}
    for name, wav in progress(list(waves.items()), desc="log-mel"):
        try:
            found[name] = LogMel().embed(wav, rate)
        except CannotScore:
            continue  # filed as a failure by the probe, which misses the clip
    return found


def probe_row(
    report: Report, row: str, name: str, features: Features, data: Labelled, runs: int, seed: int, shuffled: bool
) -> dict[str, str]:
    """Train and score one linear probe; returns ``{id: predicted class}`` of the test clips."""
    sides = {}
    for split in SPLITS:
        there = [i for i, clip in enumerate(data.ids[split]) if clip in features]
        vectors = [features[data.ids[split][i]].mean(0) for i in there]
        matrix = np.stack(vectors).astype(np.float32) if vectors else np.zeros((0, 1), np.float32)
        sides[split] = (matrix, data.labels[split][there])
    missing = {clip: "no features" for clip in data.ids["test"] if clip not in features}
    tested = [clip for clip in data.ids["test"] if clip in features]
    if not tested or not len(sides["train"][1]):
        report.mean(row, f"accuracy/{name}", {}, missing or {"all": "no features"})
        return {}
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
    right = (first == sides["test"][1]).astype(float)
    report.mean(
        row, f"accuracy/{name}", dict(zip(tested, right.tolist(), strict=True)), missing,
        classes=len(data.classes), chance=1 / len(data.classes), train_clips=len(sides["train"][1]), decay=decay,
        runs=len(accuracies), mean_of_runs=float(np.mean(accuracies)),
        deviation_of_runs=float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
    )  # fmt: skip
    report.number(row, f"macro-f1/{name}", macro_f1(first, sides["test"][1]), len(tested), None, missing)
    return {clip: data.classes[label] for clip, label in zip(tested, first, strict=True)}


def probe_words(
    report: Report, row: str, features: Features, clips: list[Clip], steps: int, seed: int
) -> dict[str, str]:
    """Train and score one CTC probe; returns ``{id: transcript}`` of the test clips."""
    normalise = load_normaliser("plain")
    spoken = [clip for clip in clips if clip.domain == "speech" and clip.text and clip.id in features]
    texts = {clip.id: normalise(clip.text or "") for clip in spoken}
    train = [c for c in spoken if c.split == "train" and not set(texts[c.id]) - set(" 'abcdefghijklmnopqrstuvwxyz")]
    test = [clip for clip in spoken if clip.split == "test" and texts[clip.id]]
    if not train or not test:
        report.rate(row, "cer/ctc-probe", {}, {"all": "not computed: no speech with text in both splits"})
        return {}
    probe = train_ctc([features[clip.id] for clip in train], [texts[clip.id] for clip in train], steps, seed)
    found = dict(zip([c.id for c in test], probe.transcribe([features[c.id] for c in test]), strict=True))
    for metric in ("cer", "wer"):
        parts = {}
        for clip in test:
            counts = edits(texts[clip.id], normalise(found[clip.id]), "character" if metric == "cer" else "word")
            parts[clip.id] = (float(counts.errors), float(counts.units))
        report.rate(row, f"{metric}/ctc-probe", parts, train_clips=len(train), steps=steps)
    return found


@hydra_entry("eval_semantics")
def main(cfg: DictConfig) -> None:
    disable_progress_bar()  # of loading weights, which takes no time here
    started = time.monotonic()
    known = list(cfg.probe)
    if unknown := [name for name in cfg.probes if name not in known]:
        raise ConfigError(f"probes: there is no '{unknown[0]}'; choose from {', '.join(known)}.")
    try:
        clips, rejects = read_corpus(cfg.data.root)
        tokenizer = load_tokenizer(cfg.tokenizer, pick_device(cfg.device))
    except CorpusError as error:
        raise ConfigError(f"data.root: {error}") from error
    except TokenizerError as error:
        raise ConfigError(str(error)) from error
    for reject in rejects:
        print(f"left out: {reject.reason}", flush=True)
    data = {name: label_clips(clips, cfg.probe[name], name) for name in cfg.probes}
    wanted = {clip for part in data.values() for ids in part.ids.values() for clip in ids}
    if cfg.ctc_steps:
        wanted |= {clip.id for clip in clips if clip.domain == "speech" and clip.text}
    out = Path(cfg.out) if cfg.out else Path("runs") / tokenizer.name / "eval-semantics"
    print(
        f"{len(wanted)} clips of {cfg.data.root}, {tokenizer.name} {tokenizer.bitrate:.1f} bit/s, to {out}", flush=True
    )

    # ---- features ----------------------------------------------------------------------------------------------
    waves: dict[str, NDArray[np.float32]] = {}
    for clip in progress([clip for clip in clips if clip.id in wanted], desc="reading"):
        try:
            waves[clip.id] = read_audio(clip.path, tokenizer.sample_rate)
        except AudioError as error:
            print(f"left out: {error}", flush=True)
    codes = encode_clips(tokenizer, waves)
    features: dict[str, Features] = {}
    for levels in range(1, tokenizer.levels + 1):
        row = "levels-1" if levels == 1 else f"levels-1-{levels}"
        features[row] = {name: token_features(tokenizer, part, levels) for name, part in codes.items()}
    full = list(features)[-1]
    if continuous := continuous_features(tokenizer, waves):
        features["continuous"] = continuous
    features["log-mel"] = log_mel_features(waves, tokenizer.sample_rate)

    # ---- probes ------------------------------------------------------------------------------------------------
    how = {
        "corpus": {
            "name": cfg.data.name,
            "clips": record_hash([[c.id, c.split, sha256(c.path)] for c in clips if c.id in waves]),
            "speakers_in_train_and_test": sorted(
                {c.speaker for c in clips if c.split == "train" and c.speaker}
                & {c.speaker for c in clips if c.split == "test" and c.speaker}
            ),
        },
        "tokenizer": tokenizer.describe(),
        "features": "vectors after quantisation, summed over levels"
        if has_vectors(tokenizer)
        else "one column per code",
        "pooling": "mean over time",
        "probe": {
            "linear": "logistic regression, L-BFGS, decay chosen on valid",
            "runs": cfg.runs,
            "ctc_steps": cfg.ctc_steps,
            "labels": {name: dict(cfg.probe[name]) for name in cfg.probes},
        },
        "seed": cfg.seed,
        "versions": versions("torch", "numpy", "soxr"),
    }
    report = Report(how, [*features, "shuffled-labels"])
    items: list[dict[str, Any]] = []
    for name, part in data.items():
        truth = dict(zip(part.ids["test"], part.labels["test"], strict=True))
        for row, found in [*features.items(), ("shuffled-labels", features[full])]:
            guessed = probe_row(report, row, name, found, part, cfg.runs, cfg.seed, row == "shuffled-labels")
            for tested, guess in guessed.items():
                label = part.classes[truth[tested]]
                items.append({"id": tested, "row": row, "probe": name, "label": label, "guess": guess})
        if "continuous" in features:
            report.difference(f"accuracy/{name}", "continuous", full)
        if part.left_out:
            print(f"{name}: {len(part.left_out)} clips left out: {next(iter(part.left_out.values()))}", flush=True)
    if cfg.ctc_steps:
        for row, found in features.items():
            if row != "log-mel":  # two vectors a second cannot spell
                for tested, text in probe_words(report, row, found, clips, cfg.ctc_steps, cfg.seed).items():
                    items.append({"id": tested, "row": row, "probe": "ctc", "guess": text})
    report.write(out, items)
    print("\n" + report.table())
    print(f"\n{out}/results.json and items.jsonl, in {duration(time.monotonic() - started)}", flush=True)


if __name__ == "__main__":
    main()

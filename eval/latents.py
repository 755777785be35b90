"""Look into the space that a tokenizer quantises: what recordings can be told by there, and what quantising costs.

    python scripts/make_corpus.py --what notes --out data/notes
    python eval/latents.py
    python eval/latents.py tokenizer=encodec tokenizer.path=FOLDER data.root=FOLDER labels=[instrument,note] group=sound

One vector per recording, the mean over its steady part. Rows: levels-1, levels-1-2 and requantised (what so many codes
stand for; all of them), continuous (what is quantised), log-mel (what needs no codec), duration-and-level (what should
tell nothing: a leak detector), untrained (the same codec with random weights). Linear probes are trained on train
recordings, chosen on valid and scored on test, and no group is on two sides; each has a control that was trained on
labels dealt out anew between groups, twenty times. Clusters are found on train and scored on test by measures that are
adjusted for chance. The folder also holds points.json and plots/ (PCA, LDA, t-SNE) and, in wavs/, what test recordings
sound like with and without quantising. See docs/sound_space.md.
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from codec.corpus import spread
from codec.network.code_space import axes_in_use
from eval.harness.audio import CannotScore, Wave
from eval.harness.processes import is_main
from eval.harness.report import Report, plain
from eval.harness.run import Run
from eval.harness.scored import ScoredClip, as_stored
from eval.metrics.signal import mel_distance
from eval.space import clusters, features
from eval.space.projections import draw, project
from eval.space.reading import Located, locate, open_space, recordings_of
from eval.space.recordings import SPLITS, Recording
from eval.space.scores import Scores
from training.checkpoint import write_file
from training.config import hydra_entry
from training.progress import progress

MEASURED = 16  # test recordings that are decoded from a few axes
Vectors = NDArray[np.float64]


def representations(located: Located, untrained: Located | None) -> dict[str, Vectors]:
    """``{row: [recordings, d]}``."""
    tokenizer, waves = located.tokenizer, located.waves
    codes = {name: features.codes_of(tokenizer, own) for name, own in located.z.items()}

    def of_levels(levels: int) -> Vectors:
        return located.pooled({name: features.of_codes(tokenizer, own, levels) for name, own in codes.items()})

    found = {features.name_of_levels(levels): of_levels(levels) for levels in range(1, min(tokenizer.levels, 9))}
    found["requantised"] = of_levels(tokenizer.levels)
    found["continuous"] = located.pooled(located.z)
    rate = tokenizer.sample_rate
    found["log-mel"] = located.pooled({name: features.log_mel(wav, rate) for name, wav in waves.items()})
    whole = [features.duration_and_level(waves[recording.id], rate)[0] for recording in located.recordings]
    found["duration-and-level"] = np.stack(whole).astype(np.float64)
    if untrained is not None:
        found["untrained"] = untrained.pooled(untrained.z)
    return found


# ---- what quantising and leaving axes out costs ----------------------------------------------------------------------
@torch.inference_mode()
def file_axes(report: Report, located: Located, seed: int) -> str:
    """Axes in use, and the mel distance of test recordings from the widest 1, 2, 4, … axes; what to say about it."""
    tokenizer, z = located.tokenizer, located.z
    train = [z[recording.id] for recording in located.of("train")]
    frames = torch.from_numpy(np.concatenate(train))
    device = tokenizer.device
    used = axes_in_use(frames, tokenizer.vectors(tokenizer.quantise(frames.to(device))).cpu())
    dim, n = frames.shape[1], len(train)
    report.number("continuous", "axes-in-use", used, n, dimensions=dim)
    mean = frames.mean(0)
    centred = (frames - mean).double()
    axes = torch.linalg.eigh(centred.T @ centred)[1].flip(1).float()  # [d, d], widest first
    test = located.of("test")
    drawn = np.random.default_rng(seed).permutation(len(test))[:MEASURED]
    counts = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k < dim]
    distances: dict[tuple[str, str], dict[str, float]] = {}
    failures: dict[str, str] = {}
    for recording in progress([test[i] for i in sorted(drawn)], desc="axes"):
        own, wav = torch.from_numpy(z[recording.id]), located.waves[recording.id]

        def distance(vectors: torch.Tensor, requantise: bool, wav: Wave = wav) -> float:
            heard = tokenizer.from_latents(vectors, requantise)[0, : len(wav)].cpu().numpy()
            return mel_distance(wav, heard, tokenizer.sample_rate)

        try:
            found = {
                ("continuous", f"mel-distance/{k} axes"): mean + (own - mean) @ axes[:, :k] @ axes[:, :k].T
                for k in counts
            }
            values = {key: distance(vectors, False) for key, vectors in found.items()}
            values |= {
                (row, "mel-distance"): distance(own, row == "requantised") for row in ("continuous", "requantised")
            }
        except CannotScore as error:
            failures[recording.id] = error.reason
            continue
        for key, value in values.items():
            distances.setdefault(key, {})[recording.id] = value
    for (row, metric), parts in sorted(distances.items(), key=lambda pair: (pair[0][0], len(pair[0][1]), pair[0][1])):
        report.mean(row, metric, parts, failures)
    report.difference("mel-distance", "continuous", "requantised")
    return f"{used} of {dim} axes carry a signal more than 3 dB above the quantiser's error"


def listen(located: Located, chosen: Sequence[Recording]) -> dict[str, list[ScoredClip]]:
    """What the recordings sound like: as they are, from their latents, from their codes' vectors."""
    tokenizer = located.tokenizer
    rows: dict[str, list[ScoredClip]] = {"reference": [], "requantised": [], "continuous": []}
    for recording in progress(chosen, desc="listening"):
        wav, own = located.waves[recording.id], torch.from_numpy(located.z[recording.id])
        sounds = {"reference": wav} | {
            row: tokenizer.from_latents(own, row == "requantised")[0, : len(wav)].cpu().numpy()
            for row in ("requantised", "continuous")
        }
        for row, sound in sounds.items():
            item = {"labels": recording.labels, "split": recording.split}
            rows[row].append(ScoredClip(recording.id, row, ", ".join(recording.labels.values()), as_stored(sound),
                                        tokenizer.sample_rate, item))  # fmt: skip
    return rows


def write_points(
    out: Path, rows: Mapping[str, Vectors], recordings: Sequence[Recording], labels: Sequence[str], seed: int, name: str
) -> None:
    """points.json and plots/*.svg of the test recordings: continuous and requantised."""
    if not is_main():
        return
    train = np.array([r.split == "train" for r in recordings])
    shown = [r for r in recordings if r.split == "test"]
    own = [r.labels[labels[0]] for r in recordings if r.split == "train"]
    maps = []
    for row in ("continuous", "requantised"):
        fitted, points = clusters.scaled(rows[row][train], rows[row][[r.split == "test" for r in recordings]])
        for projection in project(fitted, own, points, seed, labels[0]):
            file = f"plots/{row}-{projection.name.lower()}.svg"
            draw(projection, [r.labels[labels[0]] for r in shown], f"{name}, {row}", out / file)
            maps.append({"row": row, "name": projection.name, "caption": projection.caption, "plot": file,
                         "points": projection.points.round(4).tolist()})  # fmt: skip
    ids = [{"id": r.id, "split": r.split, "labels": r.labels} for r in shown]
    text = json.dumps(plain({"labels": list(labels), "recordings": ids, "maps": maps}), allow_nan=False)
    write_file(out / "points.json", text + "\n")


@hydra_entry("eval_latents")
def main(cfg: DictConfig) -> None:
    run = Run(cfg)
    recordings, left_out = recordings_of(cfg)
    if cfg.limit:
        first = {recording.id: recording.labels[cfg.labels[0]] for recording in recordings}
        sides = [[r.clip for r in recordings if r.split == split] for split in SPLITS]
        kept = {clip.id for own in sides for clip in spread(own, cfg.limit, lambda clip: first[clip.id])}
        recordings = [recording for recording in recordings if recording.id in kept]
    if cfg.clusters:
        clusters.check_count(cfg.clusters, sum(recording.split == "train" for recording in recordings))
    tokenizer = open_space(run, "eval-latents", recordings)
    located, untrained = locate(run, tokenizer, recordings, left_out)
    recordings, test = located.recordings, located.of("test")
    rows = representations(located, untrained)
    counts = {split: len(located.of(split)) for split in SPLITS}
    groups = len({recording.group for recording in recordings})

    report = run.begin(
        rows,
        {
            "recordings": located.record(),
            "groups": groups,
            "left_out": left_out,
            **counts,
        },
        "torch numpy soxr scikit-learn",
        task="latents",
        latents={
            "labels": list(cfg.labels), "group": cfg.group, "names": cfg.names, "splits": cfg.splits,
            "pooling": "mean over the steady part (the stamps of the corpus, or the middle half)",
            "probe": "logistic regression, decay chosen on valid; intervals over groups",
            "control": "labels dealt out between groups, 20 times",
        },
    )  # fmt: skip
    drawn = sorted(np.random.default_rng(cfg.seed).permutation(len(test))[: cfg.listen])
    said = file_axes(report, located, cfg.seed)
    scores = Scores(report, recordings, cfg)
    for row, vectors in progress(rows.items(), total=len(rows), desc="probes and clusters"):
        scores.file(row, vectors)
    for label in cfg.labels:
        report.difference(f"accuracy/{label}", "continuous", "requantised")
    write_points(run.out, rows, recordings, list(cfg.labels), cfg.seed, tokenizer.name)
    run.keep(listen(located, [test[i] for i in drawn]), [r.clip for r in test], "domain")
    shown = [m for m in report.metrics() if not m.startswith(("ari", "macro-f1", "ami-shuffled", "accuracy-32"))]
    guesses = "".join(json.dumps(plain(item), allow_nan=False) + "\n" for item in scores.items)
    if is_main():
        write_file(run.out / "guesses.jsonl", guesses)
    how_many = f"{counts['train']} recordings train, {counts['valid']} choose, {counts['test']} are scored, in "
    run.finish(
        shown=shown,
        notes=[said, f"{how_many}{groups} groups; {len(left_out)} left out", *scores.leaks],
        wrote="results.json, items.jsonl, guesses.jsonl, points.json, plots/ and wavs/",
    )


if __name__ == "__main__":
    main()

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
from codec.interface import HasLatents
from codec.model import ALMTokenizer
from codec.network.code_space import axes_in_use
from codec.untrained import untrained_codec
from eval.harness.audio import CannotScore, Wave
from eval.harness.clips import read_clips
from eval.harness.processes import is_main
from eval.harness.provenance import record_hash
from eval.harness.report import Report, plain
from eval.harness.run import Run
from eval.harness.score_cache import EmbeddingCache
from eval.harness.scored import ScoredClip, as_stored
from eval.metrics.signal import mel_distance
from eval.space import clusters, features
from eval.space.projections import draw, project
from eval.space.reading import need_latents, read_waves
from eval.space.recordings import SPLITS, Recording, read_recordings
from eval.space.scores import Scores
from training.checkpoint import write_file
from training.config import ConfigError, hydra_entry
from training.identity import file_hash
from training.progress import progress

MEASURED = 16  # test recordings that are decoded from a few axes
Vectors = NDArray[np.float64]
Frames = Mapping[str, NDArray[np.float32]]


def representations(
    tokenizer: HasLatents,
    z: Frames,
    recordings: Sequence[Recording],
    waves: Mapping[str, Wave],
    untrained: Frames | None,
) -> dict[str, Vectors]:
    """``{row: [recordings, d]}``."""
    rate = tokenizer.sample_rate

    def pool(frames: Frames) -> Vectors:
        return features.pooled(recordings, frames, waves, rate)

    found = {
        "levels-1" if levels == 1 else f"levels-1-{levels}": pool(features.quantised(tokenizer, z, levels))
        for levels in range(1, min(tokenizer.levels, 9))
    }
    found["requantised"] = pool(features.quantised(tokenizer, z, tokenizer.levels))
    found["continuous"] = pool(z)
    found["log-mel"] = pool({name: features.log_mel(waves[name], rate) for name in z})
    whole = [features.duration_and_level(waves[recording.id], rate)[0] for recording in recordings]
    found["duration-and-level"] = np.stack(whole).astype(np.float64)
    if untrained is not None:
        found["untrained"] = pool(untrained)
    return found


# ---- what quantising and leaving axes out costs ----------------------------------------------------------------------
@torch.inference_mode()
def file_axes(
    report: Report,
    tokenizer: HasLatents,
    z: Frames,
    recordings: Sequence[Recording],
    waves: Mapping[str, Wave],
    seed: int,
) -> str:
    """Axes in use, and the mel distance of test recordings from the widest 1, 2, 4, … axes; what to say about it."""
    train = [z[r.id] for r in recordings if r.split == "train"]
    frames = torch.from_numpy(np.concatenate(train))
    device = tokenizer.device
    used = axes_in_use(frames, tokenizer.vectors(tokenizer.quantise(frames.to(device))).cpu())
    dim, n = frames.shape[1], len(train)
    report.number("continuous", "axes-in-use", used, n, dimensions=dim)
    mean = frames.mean(0)
    centred = (frames - mean).double()
    axes = torch.linalg.eigh(centred.T @ centred)[1].flip(1).float()  # [d, d], widest first
    test = [r for r in recordings if r.split == "test"]
    drawn = np.random.default_rng(seed).permutation(len(test))[:MEASURED]
    counts = [k for k in (1, 2, 4, 8, 16, 32, 64, 128, 256) if k < dim]
    distances: dict[tuple[str, str], dict[str, float]] = {}
    failures: dict[str, str] = {}
    for recording in progress([test[i] for i in sorted(drawn)], desc="axes"):
        own, wav = torch.from_numpy(z[recording.id]), waves[recording.id]

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


def listen(
    tokenizer: HasLatents, z: Frames, chosen: Sequence[Recording], waves: Mapping[str, Wave]
) -> dict[str, list[ScoredClip]]:
    """What the recordings sound like: as they are, from their latents, from their codes' vectors."""
    rows: dict[str, list[ScoredClip]] = {"reference": [], "requantised": [], "continuous": []}
    for recording in progress(chosen, desc="listening"):
        wav = waves[recording.id]
        own = torch.from_numpy(z[recording.id])
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
    if not cfg.labels:
        raise ConfigError("labels is empty: name at least one column to tell recordings apart by.")
    clips = read_clips(cfg.data.root)
    recordings, left_out = read_recordings(
        clips, list(cfg.labels), cfg.group, cfg.names, cfg.splits == "group", cfg.seed
    )
    if cfg.limit:
        first = {recording.id: recording.labels[cfg.labels[0]] for recording in recordings}
        sides = [[r.clip for r in recordings if r.split == split] for split in SPLITS]
        kept = {clip.id for own in sides for clip in spread(own, cfg.limit, lambda clip: first[clip.id])}
        recordings = [recording for recording in recordings if recording.id in kept]
    if cfg.clusters:
        clusters.check_count(cfg.clusters, sum(recording.split == "train" for recording in recordings))
    run.load_tokenizer()
    tokenizer = need_latents(run.tokenizer)
    run.take(tokenizer.name, "eval-latents")
    run.say(f"{len(recordings)} recordings of {cfg.data.root}, {tokenizer.name} {tokenizer.bitrate:.1f} bit/s")
    waves, problems = read_waves(recordings, tokenizer.sample_rate)
    left_out |= problems
    for name, why in list(left_out.items())[:3]:
        print(f"left out: {name}: {why}{f' ({len(left_out)} in all)' if len(left_out) > 3 else ''}", flush=True)
    recordings = [recording for recording in recordings if recording.id in waves]

    z = features.latents(tokenizer, waves, EmbeddingCache(run.cache, "latents", tokenizer.fingerprint))
    untrained = None
    if isinstance(tokenizer, ALMTokenizer):
        codec = untrained_codec(tokenizer.config, cfg.seed).to(run.device)
        untrained = features.latents(codec, waves, EmbeddingCache(run.cache, "latents", codec.fingerprint))
    rows = representations(tokenizer, z, recordings, waves, untrained)

    report = run.begin(
        rows,
        {
            "recordings": record_hash([[r.id, r.split, r.group, r.labels, file_hash(r.clip.path)] for r in recordings]),
            "groups": len({r.group for r in recordings}),
            "left_out": left_out,
            **{split: sum(r.split == split for r in recordings) for split in SPLITS},
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
    test = [recording for recording in recordings if recording.split == "test"]
    drawn = sorted(np.random.default_rng(cfg.seed).permutation(len(test))[: cfg.listen])
    said = file_axes(report, tokenizer, z, recordings, waves, cfg.seed)
    scores = Scores(report, recordings, cfg)
    for row, vectors in progress(rows.items(), total=len(rows), desc="probes and clusters"):
        scores.file(row, vectors)
    for label in cfg.labels:
        report.difference(f"accuracy/{label}", "continuous", "requantised")
    write_points(run.out, rows, recordings, list(cfg.labels), cfg.seed, tokenizer.name)
    run.keep(listen(tokenizer, z, [test[i] for i in drawn], waves), [r.clip for r in test], "domain")
    shown = [m for m in report.metrics() if not m.startswith(("ari", "macro-f1", "ami-shuffled", "accuracy-32"))]
    guesses = "".join(json.dumps(plain(item), allow_nan=False) + "\n" for item in scores.items)
    if is_main():
        write_file(run.out / "guesses.jsonl", guesses)
    counts = {split: sum(r.split == split for r in recordings) for split in SPLITS}
    how_many = f"{counts['train']} recordings train, {counts['valid']} choose, {counts['test']} are scored, in "
    run.finish(
        shown=shown,
        notes=[said, f"{how_many}{len({r.group for r in recordings})} groups; {len(left_out)} left out", *scores.leaks],
        wrote="results.json, items.jsonl, guesses.jsonl, points.json, plots/ and wavs/",
    )


if __name__ == "__main__":
    main()

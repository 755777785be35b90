"""Walk through the space that a tokenizer quantises, and move sounds in it.

    python eval/sound_space.py
    python eval/sound_space.py walks='[[flute C5, flute E5, flute G5], [guitar A3, trumpet A4]]'
    python eval/sound_space.py transfer=[voice.wav] to=[trumpet,strings] amount=[0,0.5,1,1.5]

Rows: continuous (vectors as they are), requantised (the nearest codes: what a language model can express), untrained
(walks through the same codec with random weights), cross-fade (of the two recordings: what a walk must beat), reference
(what is moved), unmoved (a = 0, requantised), random (as far in a random direction), other-class (towards a third
class), target (a real recording of the target at that pitch, through the codec: the ceiling). Scores are means over
random walks and transfers of test recordings, of which none is in the fit; of these some are written to be heard, drawn
by seed, beside the named ones, and grid.json holds a transfer from each class to each other one. See
docs/sound_space.md.
"""

from __future__ import annotations

import training.help  # noqa: F401

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import DictConfig

from codec.corpus import AudioError, read_audio, spread
from codec.interface import HasLatents
from eval.harness.audio import Wave
from eval.harness.clips import read_clips
from eval.harness.processes import gather, share
from eval.harness.run import Run
from eval.harness.scored import as_stored, write_clip
from eval.space import features, moves, walks
from eval.space.grid import write_grid
from eval.space.heard import Heard
from eval.space.reading import locate, open_space, read_waves, recordings_of, say_left_out
from eval.space.recordings import Recording
from eval.space.sounds import Sounds, Space
from training.config import ConfigError, hydra_entry
from training.identity import file_hash
from training.progress import progress

ROWS = "reference continuous requantised untrained cross-fade unmoved random other-class target".split()
SPEECH_CLIPS = 48  # train clips whose mean is where speech lies


@dataclass(frozen=True)
class Job:
    """How the sounds of a walk with so many way-points, or of a transfer between a ``pair`` of classes, are made."""

    make: Callable[[], Sounds]
    points: int = 0
    pair: tuple[str, str] | None = None


# ---- the program -----------------------------------------------------------------------------------------------------
def speech_means(run: Run, tokenizer: HasLatents, root: str | None) -> list[NDArray[np.float64]]:
    """``[d]`` of each of some train clips of speech."""
    if root is None:
        return []
    clips = spread([c for c in read_clips(root) if c.domain == "speech" and c.split == "train"], SPEECH_CLIPS)
    waves, problems = read_waves(clips, tokenizer.sample_rate)
    say_left_out(problems)
    z = features.latents(tokenizer, waves, run.cache)
    return [own.mean(0).astype(np.float64) for own in z.values()]


def plan(space: Space, untrained: Space | None, cfg: DictConfig, files: Mapping[str, Wave]) -> dict[str, Job]:
    """``{kind/name: job}``: named walks and transfers, then random ones, the transfers from each class to each other.

    Raises:
        ConfigError: a walk or a target that there is not.
    """
    test = space.located.of("test")
    jobs: dict[str, Job] = {}
    for points in cfg.walks:
        if isinstance(points, str) or len(points) < 2:
            raise ConfigError(f"walks: {points} is no walk: list two way-points or more.")
        found = [walks.find(str(point), list(cfg.labels), test) for point in points]
        name = f"walk/{' → '.join(map(str, points))}"
        jobs[name] = Job(partial(space.walk, found, cfg.mode, untrained), len(found))
    known = sorted({r.labels[space.label] for r in test})
    if unknown := [name for name in cfg.to if name not in known]:
        raise ConfigError(f"to: there is no {space.label} '{unknown[0]}'; choose from {', '.join(known)}.")

    def transfer(
        sound: Heard, z: NDArray[np.float32], held: Recording | None, label: str | None, target: str, k: int
    ) -> Sounds:
        generator = np.random.default_rng([cfg.seed, k])
        return space.transfer(sound, z, held, label, target, cfg.source, list(cfg.amount), generator)

    for name, wav in files.items():
        z = space.tokenizer.to_latents(torch.from_numpy(wav)[None]).cpu().numpy()
        label = moves.SPEECH if moves.SPEECH in space.fit.classes else None
        for target in cfg.to:
            jobs[f"transfer/{Path(name).stem} → {target}"] = Job(
                partial(transfer, Heard(wav, space.rate), z, None, label, target, 0)
            )
    generator = np.random.default_rng(cfg.seed)
    for k in range(cfg.random_walks):
        a, b = (test[int(n)] for n in generator.choice(len(test), 2, replace=False))
        name = f"random-walk/{k:02d} {' '.join(a.labels.values())} → {' '.join(b.labels.values())}"
        jobs[name] = Job(partial(space.walk, [[a], [b]], cfg.mode, untrained), 2)
    pairs = list(permutations(known, 2))
    if cfg.transfers and not pairs:
        raise ConfigError(f"transfers: all test recordings have the {space.label} {known[0]}; give transfers=0.")
    turns = generator.permutation(len(pairs))
    for k in range(cfg.transfers):
        own, target = pairs[turns[k % len(pairs)]]
        held = generator.choice(np.array([r for r in test if r.labels[space.label] == own], dtype=object))
        name = f"random-transfer/{k:02d} {' '.join(held.labels.values())} → {target}"
        make = partial(transfer, space.heard[held.id], space.located.z[held.id], held, own, target, k + 1)
        jobs[name] = Job(make, pair=(own, target))
    return jobs


def file_scores(run: Run, sounds: Mapping[str, Sounds]) -> None:
    """Means over the random walks and transfers, by row; amounts but 1 are metrics of their row."""
    values: dict[tuple[str, str], dict[str, Any]] = {}  # (row, metric) → walk or transfer → score
    lacking: dict[tuple[str, str], dict[str, Any]] = {}  # … → why there is none
    for name, own in sounds.items():
        kind, _, rest = name.partition("/")
        if not kind.startswith("random"):
            continue
        for row, (_, scores, failures) in own.items():
            base, _, amount = row.partition(" ")
            for found, into in ((scores, values), (failures, lacking)):
                for metric, value in found.items():
                    full = f"{kind.removeprefix('random-')}-{metric}" + (f"@{amount[2:]}" if amount else "")
                    into.setdefault((base, full), {})[rest] = value
    for row, metric in sorted({*values, *lacking}, key=lambda pair: ("@" in pair[1], pair[1])):
        run.report.mean(row, metric, values.get((row, metric), {}), lacking.get((row, metric)))
    for metric in ("transfer-posterior-target", "transfer-pitch-cents", "walk-pitch-between", "walk-path-ratio"):
        run.report.difference(metric, "continuous", "requantised")
    for metric in ("walk-pitch-between", "walk-path-ratio", "walk-posterior-rank"):
        run.report.difference(metric, "requantised", "cross-fade")
    for other in ("unmoved", "random", "other-class"):
        run.report.difference("transfer-posterior-target", "requantised", other)


@hydra_entry("eval_sound_space")
def main(cfg: DictConfig) -> None:
    run = Run(cfg)
    recordings, left_out = recordings_of(cfg)
    labels, tokenizer = list(cfg.labels), open_space(run, "eval-sound_space", recordings)
    try:
        files = {str(path): read_audio(Path(path), tokenizer.sample_rate) for path in cfg.transfer}
    except AudioError as error:
        raise ConfigError(f"transfer: {error}") from error
    located, untrained = locate(run, tokenizer, recordings, left_out)
    speech = speech_means(run, tokenizer, cfg.speech if files else None)
    space = Space(located, speech, labels[0])
    jobs = plan(space, Space(untrained, [], labels[0]) if untrained is not None else None, cfg, files)
    made = gather(
        {n: jobs[n].make() for n in progress(share(list(jobs)), desc="walks and transfers")}, "walks and transfers"
    )
    sounds = {name: made[name] for name in jobs}

    known = space.known()
    run.begin(
        ROWS,
        {
            "recordings": located.record(),
            "domains": ["walk", "transfer"],
            "left_out": left_out, "files": {name: file_hash(Path(name)) for name in files},
        },
        "torch numpy scipy soxr scikit-learn",
        task="sound_space",
        sound_space={
            "mode": cfg.mode, "source": cfg.source, "labels": labels, "random_walks": cfg.random_walks,
            "transfers": cfg.transfers, "hold": walks.HOLD, "move": walks.MOVE, "speech": len(speech),
            "left out of each fit": "the group of what is moved, and all of its class and pitch",
            "class probe": "logistic regression on log-mel shapes of train recordings",
            "class probe right on test recordings": known,
        },
    )  # fmt: skip
    file_scores(run, sounds)
    random = [name for name in sounds if name.startswith("random")]
    drawn = {random[i] for i in np.random.default_rng(cfg.seed).permutation(len(random))[: cfg.shown]}
    items = []
    for number, (name, rows) in enumerate(sounds.items()):
        kind, _, rest = name.partition("/")
        if kind.startswith("random") and name not in drawn:
            continue
        text = rest.split(" ", 1)[1] if kind.startswith("random") else rest  # without its number
        points = jobs[name].points
        holds = walks.walk(points, tokenizer.frame_rate).holds(tokenizer.frame_rate) if points else []
        for row, (wav, scores, failures) in rows.items():
            file = write_clip(run.out, f"wavs/{row}/{number:03d}.wav", as_stored(wav), tokenizer.sample_rate)
            items.append(
                {
                    "id": f"{kind} {rest}",
                    "text": text,
                    "domain": kind.removeprefix("random-"),
                    "row": row,
                    "kind": kind,
                    "audio": file,
                    "seconds": round(len(wav) / tokenizer.sample_rate, 3),
                    "holds": holds,
                    "failures": failures,
                    **scores,
                }
            )
    cells: dict[tuple[str, str], tuple[str, Sounds]] = {}
    for name, job in jobs.items():
        if job.pair is not None:
            cells.setdefault(job.pair, (name.split(" ", 1)[1], sounds[name]))
    write_grid(run.out, tokenizer.sample_rate, labels[0], list(cfg.amount), cells)
    unsure = f"the class probe is right on {100 * known:.0f} % of the test recordings"
    shown = [m for m in run.report.metrics() if "@" not in m]
    run.finish(items, shown=shown, notes=[unsure], wrote="results.json, items.jsonl, grid.json and wavs/")


if __name__ == "__main__":
    main()

"""What is said in recordings that come without text, how good they sound, and how high the voice is.

    python eval/label.py data.root=recordings weights.whisper=openai/whisper-base.en
    python eval/label.py data.root=recordings recogniser=pocketsphinx dnsmos=false

Writes labels.jsonl, a line per clip that can be read: ``id``; ``text``, where the corpus has none and a recogniser is
named; ``dnsmos`` (P.808, from 1 to 5); ``pitch``, the median in Hz, where enough of the clip has one. What is known for
the same audio is not computed again, so that a killed run goes on.
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from eval.harness.audio import CannotScore, Wave
from eval.harness.clips import read_reference
from eval.harness.run import Run
from eval.harness.score_cache import ScoreCache
from eval.harness.scored import ScoredClip, split_usable
from eval.judges.judging import known_scores, one_by_one, open_recogniser, score_clips, together, transcribe
from eval.judges.recognisers.interface import Recogniser, RecogniserError
from eval.metrics.mos import DNSMOS
from eval.space.heard import pitch_track
from training.checkpoint import write_file
from training.config import hydra_entry, refusing

NAME, KEYS = "labels.jsonl", ("text", "dnsmos", "pitch")
AT_ONCE = 256  # clips in memory
VOICED = 30  # frames of 10 ms that must have a pitch
LOW, HIGH = 65.0, 500.0  # Hz: of speaking voices


def median_pitch(wav: Wave, rate: int) -> float:
    """Hz. Raises CannotScore where less than 0.3 s have a pitch."""
    frequency, voiced = pitch_track(wav, rate)
    spoken = frequency[voiced & (frequency > LOW) & (frequency < HIGH)]
    if len(spoken) < VOICED:
        raise CannotScore("no pitch")
    return float(np.median(spoken))


def who_hears(run: Run) -> Recogniser | None:
    """Who hears what is said; None where nobody is named. Raises ConfigError."""
    name = "whisper" if run.cfg.weights.whisper else run.cfg.recogniser
    with refusing(RecogniserError):
        return open_recogniser(run, name) if name else None


def open_mos(run: Run) -> DNSMOS | None:
    """Who says how good clips sound; None where nobody is asked, or nobody can, which is said."""
    try:
        return DNSMOS(run.cfg.processes) if run.cfg.dnsmos else None
    except CannotScore as error:
        print(f"dnsmos: {error}", flush=True)
        return None


def hear(judge: Recogniser, known: ScoreCache, clips: Sequence[ScoredClip]) -> None:
    """Set ``item["text"]``, empty where nobody speaks, of the clips that come without a text."""
    unwritten = [clip for clip in clips if not clip.text]
    transcribe(judge, unwritten, known)
    for clip in unwritten:
        if reason := clip.item.get("judge_failures", {}).get(judge.name):
            print(f"{clip.id}: {judge.name}: {reason}", flush=True)
        else:
            clip.item["text"] = clip.item["hypotheses"][judge.name]


def rate(mos: DNSMOS, known: ScoreCache, clips: Sequence[ScoredClip]) -> None:
    """Set ``item["dnsmos"]`` of the clips that can be scored."""
    found, _ = score_clips(known, together(mos.score), clips, 16)
    for clip in clips:
        clip.item["dnsmos"] = found[clip.id]["p808"] if clip.id in found else None


def line_of(clip: ScoredClip) -> dict[str, Any]:
    """The clip's line of labels.jsonl."""
    return {"id": clip.id, **{key: clip.item[key] for key in KEYS if clip.item.get(key) is not None}}


@hydra_entry("eval_label")
def main(cfg: DictConfig) -> None:
    run = Run(cfg)
    clips = run.corpus
    run.take(Path(run.root).name, "labels")
    run.say(f"{len(clips)} clips of {run.root}")
    lines: list[dict[str, Any]] = []
    pitches = one_by_one(lambda clip: median_pitch(clip.usable(), clip.rate))
    pitched = known_scores("pitch", {"from": LOW, "to": HIGH, "frames": VOICED}, run.cache)
    steps: list[Callable[[list[ScoredClip]], object]] = [partial(score_clips, pitched, pitches)]
    with ExitStack() as stack:
        if not all(clip.text for clip in clips) and (judge := who_hears(run)):
            stack.enter_context(judge)
            steps.append(partial(hear, judge, known_scores(judge.name, judge.how(), run.cache)))
        if mos := open_mos(run):
            stack.enter_context(mos)
            steps.append(partial(rate, mos, known_scores("dnsmos", mos.how(), run.cache)))
        for start in range(0, len(clips), AT_ONCE):
            usable, failures = split_usable(read_reference(clips[start : start + AT_ONCE]))
            for name, reason in failures.items():
                print(f"{name}: {reason}", flush=True)
            for step in steps:
                step(usable)
            lines += map(line_of, usable)
    write_file(run.out / NAME, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    counts = ", ".join(f"{key} of {sum(key in line for line in lines)}" for key in KEYS)
    print(f"{run.out}/{NAME}: {len(lines)} clips; {counts}")


if __name__ == "__main__":
    main()

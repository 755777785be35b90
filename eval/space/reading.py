"""What the programs of the space begin with: recordings, a tokenizer that shows its space, and where they lie in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig

from codec.corpus import AudioError, Clip, read_audio
from codec.interface import HasLatents
from codec.model import ALMTokenizer
from codec.untrained import untrained_codec
from eval.harness.audio import Wave
from eval.harness.clips import read_clips
from eval.harness.provenance import record_hash
from eval.harness.run import Run
from eval.space.features import Frames, latents, steady_frames
from eval.space.recordings import Recording, read_recordings
from training.config import ConfigError
from training.identity import file_hash
from training.progress import progress


@dataclass(frozen=True)
class Located:
    """Recordings, their samples at the tokenizer's rate, and where they lie in its space, ``z [frames, d]`` each."""

    tokenizer: HasLatents
    recordings: list[Recording]
    waves: dict[str, Wave]
    z: dict[str, Frames]

    def of(self, split: str) -> list[Recording]:
        return [recording for recording in self.recordings if recording.split == split]

    def pooled(self, frames: Mapping[str, Frames]) -> NDArray[np.float64]:
        """``[recordings, d]``: the mean of ``frames`` over each one's steady part."""
        rows = []
        for recording in self.recordings:
            own, samples = frames[recording.id], len(self.waves[recording.id])
            rows.append(own[steady_frames(recording, len(own), samples, self.tokenizer.sample_rate)].mean(0))
        return np.stack(rows).astype(np.float64)

    def record(self) -> str:
        """SHA-256 (hex) of the recordings, their files, splits, groups and labels."""
        return record_hash([[r.id, r.split, r.group, r.labels, file_hash(r.clip.path)] for r in self.recordings])


def recordings_of(cfg: DictConfig) -> tuple[list[Recording], dict[str, str]]:
    """The recordings of the corpus, and ``{id: why}`` of the clips that are none. Raises ConfigError."""
    clips = read_clips(cfg.data.root)
    return read_recordings(clips, list(cfg.labels), cfg.group, cfg.names, cfg.splits == "group", cfg.seed)


def open_space(run: Run, what: str, recordings: Sequence[Recording]) -> HasLatents:
    """The tokenizer, which must show its space; from here on the results' folder is ours. Raises ConfigError."""
    run.load_tokenizer()
    tokenizer: Any = run.tokenizer
    if not isinstance(tokenizer, HasLatents):
        raise ConfigError(
            f"tokenizer {tokenizer.name} does not show what it quantises: take almtokenizer, encodec, dac or mimi, or "
            "derive yours from HasLatents (docs/tokenizers.md)."
        )
    run.take(tokenizer.name, what)
    run.say(f"{len(recordings)} recordings of {run.root}, {tokenizer.name} {tokenizer.bitrate:.1f} bit/s")
    return tokenizer


def read_waves(clips: Sequence[Clip], rate: int) -> tuple[dict[str, Wave], dict[str, str]]:
    """Each clip at ``rate`` Hz, and ``{id: why}`` of those that cannot be read.

    Raises:
        ConfigError: none of them can.
    """
    waves, problems = {}, {}
    for clip in progress(clips, desc="reading"):
        try:
            waves[clip.id] = read_audio(clip.path, rate)
        except AudioError as error:
            problems[clip.id] = str(error)
    if problems and not waves:
        raise ConfigError(f"none of the {len(clips)} clips can be read, the first because: {[*problems.values()][0]}")
    return waves, problems


def say_left_out(left_out: Mapping[str, str]) -> None:
    """Three of ``{id: why}``, and how many there are."""
    for name, why in list(left_out.items())[:3]:
        print(f"left out: {name}: {why}{f' ({len(left_out)} in all)' if len(left_out) > 3 else ''}", flush=True)


def locate(
    run: Run, tokenizer: HasLatents, recordings: Sequence[Recording], left_out: dict[str, str]
) -> tuple[Located, Located | None]:
    """Where ``recordings`` lie, and where in the same codec with random weights, if it is one of ours.

    Args:
        left_out: takes those that cannot be read; what is in it is said.
    """
    waves, problems = read_waves([recording.clip for recording in recordings], tokenizer.sample_rate)
    left_out |= problems
    say_left_out(left_out)
    there = [recording for recording in recordings if recording.id in waves]
    untrained = None
    located = Located(tokenizer, there, waves, latents(tokenizer, waves, run.cache))
    if isinstance(tokenizer, ALMTokenizer):
        codec = untrained_codec(tokenizer.config, run.cfg.seed).to(run.device)
        untrained = Located(codec, there, waves, latents(codec, waves, run.cache))
    return located, untrained

"""The clips of a corpus that an evaluation runs on, as rows of what is judged."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from codec.audio.folder import walk
from codec.corpus import (
    AudioError,
    Clip,
    CorpusError,
    audio_info,
    left_out,
    read_audio,
    read_usable_corpus,
    spread,
)
from eval.harness.audio import Wave, resample
from eval.harness.failures import CannotScore
from eval.harness.provenance import record_hash, sha256
from eval.harness.scored import ScoredClip, as_stored
from training.config import ConfigError
from training.identity import file_names
from training.progress import progress


def read_clips(root: str) -> list[Clip]:
    """The clips of a corpus; says which it left out.

    Raises:
        ConfigError: no corpus.
    """
    try:
        clips, rejects = read_usable_corpus(root)
    except CorpusError as error:
        raise ConfigError(f"data.root: {error}") from error
    if rejects:
        print(left_out(root, rejects), flush=True)
    return clips


def choose_clips(root: str, split: str, limit: int, accepts: Callable[[Clip], bool], what: str) -> list[Clip]:
    """``limit`` (0: all) clips of ``split`` that ``accepts`` takes (`codec.corpus.spread`), in the order of the corpus.

    Args:
        what: they are, for the message where there are none.

    Raises:
        ConfigError: no corpus, or no such clips.
    """
    chosen = [clip for clip in read_clips(root) if clip.split == split and accepts(clip)]
    if not chosen:
        raise ConfigError(f"{root} has no {what} in its {split} split.")
    return spread(chosen, limit)


def read_reference(clips: Sequence[Clip]) -> list[ScoredClip]:
    """The row ``reference``: each clip at its own rate; without audio and with the reason where it cannot be read."""
    row = []
    for clip in progress(clips, desc="reading"):
        scored = ScoredClip(clip.id, "reference", clip.text or "", None, 0)
        try:
            scored.rate = audio_info(clip.path).sample_rate
            scored.wav = as_stored(read_audio(clip.path, scored.rate))
        except AudioError as error:
            scored.item["error"] = str(error)
        row.append(scored)
    refuse_unreadable(row)
    return row


def refuse_unreadable(row: Sequence[ScoredClip]) -> None:
    """Refuse to go on where no clip has audio.

    Raises:
        ConfigError: with the first one's reason.
    """
    if row and all("error" in clip.item for clip in row):
        why = row[0].item["error"]
        raise ConfigError(f"none of the {len(row)} clips can be read, the first because: {why}")


def read_generated(folder: Path, clips: Sequence[Clip]) -> tuple[list[ScoredClip], dict[str, Any]]:
    """The row ``generated`` from a folder with ``<id>.wav`` (or flac, ogg, mp3 …) of any system, and its record.

    A clip without a file is a clip without audio, with that as its reason; one with two files is a failure, of which
    nothing can be said of the system.

    Raises:
        ConfigError: no folder, or no file with the name of any clip.
    """
    found = find_generated(folder, [clip.id for clip in clips])
    files = {name: paths[0] for name, paths in found.items() if len(paths) == 1}
    row = []
    for clip in progress(clips, desc="reading generated"):
        scored = ScoredClip(clip.id, "generated", clip.text or "", None, 0)
        try:
            if clip.id in found and clip.id not in files:
                scored.source = False
                several = " and ".join(path.relative_to(folder).as_posix() for path in found[clip.id])
                raise AudioError(f"{folder}: {several} are both named after {clip.id}: keep one of them")
            if clip.id not in files:
                raise AudioError(f"{folder} has no file for {clip.id}")
            scored.rate = audio_info(files[clip.id]).sample_rate
            scored.wav = as_stored(read_audio(files[clip.id], scored.rate))
        except AudioError as error:
            scored.item["error"] = str(error)
        row.append(scored)
    refuse_unreadable(row)
    read = [[clip.id, sha256(files[clip.id])] for clip in clips if clip.id in files]
    return row, {"audio_of": folder.as_posix(), "files": len(read), "sha256": record_hash(read)}


def find_generated(folder: Path, ids: Sequence[str]) -> dict[str, list[Path]]:
    """The audio files below ``folder`` of each id that has any; says how many files are no id's.

    Raises:
        ConfigError: as `read_generated`.
    """
    if not folder.is_dir():
        raise ConfigError(f"generated={folder}: there is no such folder.")
    tree = walk(folder)
    by_name: dict[str, list[Path]] = {}
    by_form: dict[str, list[Path]] = {}  # accents composed: a Mac may have taken them apart
    for path in tree.files:
        name = path.relative_to(folder).with_suffix("").as_posix()
        by_name.setdefault(name, []).append(path)
        by_form.setdefault(unicodedata.normalize("NFC", name), []).append(path)
    files: dict[str, list[Path]] = {}
    for identity, written in file_names(ids, ".wav").items():  # as our own evaluations name them
        named = by_name.get(identity) or by_name.get(written.removesuffix(".wav"))
        if named := named or by_form.get(unicodedata.normalize("NFC", identity)):
            files[identity] = named
    if not files:
        raise ConfigError(f"generated={folder} has no audio file named after a clip, such as {ids[0]}.wav.")
    if others := len(tree.files) + len(tree.problems) - len({path for named in files.values() for path in named}):
        print(f"{others} files of {folder} are named after none of the {len(ids)} clips", flush=True)
    return files


def derangement(size: int, seed: int) -> list[int]:
    """A permutation of 0 … size − 1 without fixed points: a random cycle.

    Raises:
        ConfigError: fewer than two.
    """
    if size < 2:
        raise ConfigError("a shuffled row needs at least two clips: raise limit or leave the row out.")
    cycle = np.random.default_rng(seed).permutation(size)
    other = [0] * size
    for place, index in enumerate(cycle):
        other[int(index)] = int(cycle[(place + 1) % size])
    return other


def silence_like(clips: Sequence[ScoredClip]) -> list[ScoredClip]:
    """The row ``silence``: zeros as long as each clip."""
    return [
        ScoredClip(
            clip.id, "silence", clip.text, None if clip.wav is None else np.zeros_like(clip.wav), clip.rate,
            source=clip.wav is not None,
        )
        for clip in clips
    ]  # fmt: skip


def heard_at(clips: Sequence[ScoredClip], rate: int) -> dict[str, Wave]:
    """``{id: samples at rate}`` of the clips that can be used."""
    found: dict[str, NDArray[np.float32]] = {}
    for clip in clips:
        try:
            found[clip.id] = resample(clip.usable(), clip.rate, rate)
        except CannotScore as error:
            clip.item.setdefault("error", error.reason)
    return found

"""The clips of a corpus that an evaluation runs on, as rows of what is judged."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
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
)
from codec.interface import AudioTokenizer
from eval.harness.audio import CannotScore, Wave, check_wave, resample
from eval.harness.coding import resynthesise
from eval.harness.provenance import record_hash
from eval.harness.scored import ScoredClip, as_stored
from training.config import ConfigError, refusing
from training.identity import file_hash, file_names
from training.progress import progress

Row = list[ScoredClip]


def read_clips(root: str) -> list[Clip]:
    """The clips of a corpus; says which it left out.

    Raises:
        ConfigError: no corpus.
    """
    with refusing(CorpusError, key="data.root"):
        clips, rejects = read_usable_corpus(root)
    if rejects:
        print(left_out(root, rejects), flush=True)
    return clips


def audio_record(clips: Iterable[Clip]) -> str:
    """SHA-256 (hex) of the files of ``clips``, as a result records them."""
    return record_hash([file_hash(clip.path) for clip in clips if clip.path.is_file()])


def text_of(clip: Clip) -> str:
    """What is said in a clip."""
    return clip.text or ""


def _read_row(row: str, clips: Sequence[Clip], open_clip: Callable[[Clip], Path], text: Callable[[Clip], str]) -> Row:
    """The clips with the audio of the files that ``open_clip`` names, each at its own rate; without audio and with the
    reason where it cannot be read.
    """
    found = []
    for clip in progress(clips, desc=f"reading {row}"):
        scored = ScoredClip(clip.id, row, text(clip), None, 0)
        try:
            path = open_clip(clip)
            scored.rate = audio_info(path).sample_rate
            scored.wav = as_stored(read_audio(path, scored.rate))
        except AudioError as error:
            scored.item["error"] = str(error)
        found.append(scored)
    refuse_unreadable(found)
    return found


def read_reference(clips: Sequence[Clip], text: Callable[[Clip], str] = text_of) -> Row:
    """The row ``reference``: each clip at its own rate; without audio and with the reason where it cannot be read.

    Args:
        text: what each clip should say.
    """
    return _read_row("reference", clips, lambda clip: clip.path, text)


def refuse_unreadable(row: Sequence[ScoredClip]) -> None:
    """Refuse to go on where no clip has audio.

    Raises:
        ConfigError: with the first one's reason.
    """
    if row and all("error" in clip.item for clip in row):
        why = row[0].item["error"]
        raise ConfigError(f"none of the {len(row)} clips can be read, the first because: {why}")


def read_generated(
    folder: Path, clips: Sequence[Clip], text: Callable[[Clip], str] = text_of, row: str = "generated"
) -> tuple[Row, dict[str, Any]]:
    """The row ``row`` from a folder with ``<id>.wav`` (or flac, ogg, mp3 …) of any system, and its record; the setting
    that names the folder is called like the row.

    A clip without a file is a clip without audio, with that as its reason; one with two files is a failure, of which
    nothing can be said of the system.

    Raises:
        ConfigError: no folder, or no file with the name of any clip.
    """
    found = find_generated(folder, [clip.id for clip in clips], row)

    def the_file(clip: Clip) -> Path:
        paths = found.get(clip.id, [])
        if len(paths) > 1:
            several = " and ".join(path.relative_to(folder).as_posix() for path in paths)
            raise AudioError(f"{folder}: {several} are both named after {clip.id}: keep one of them")
        if not paths:
            raise AudioError(f"{folder} has no file for {clip.id}")
        return paths[0]

    made = _read_row(row, clips, the_file, text)
    for scored in made:
        scored.source = len(found.get(scored.id, [])) < 2
    read = [[clip.id, file_hash(found[clip.id][0])] for clip in clips if len(found.get(clip.id, [])) == 1]
    return made, {"audio_of": folder.as_posix(), "files": len(read), "sha256": record_hash(read)}


def find_generated(folder: Path, ids: Sequence[str], row: str = "generated") -> dict[str, list[Path]]:
    """The audio files below ``folder`` of each id that has any; says how many files are no id's.

    Raises:
        ConfigError: as `read_generated`.
    """
    if not folder.is_dir():
        raise ConfigError(f"{row}={folder}: there is no such folder.")
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
        raise ConfigError(f"{row}={folder} has no audio file named after a clip, such as {ids[0]}.wav.")
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
    other = np.empty_like(cycle)
    other[cycle] = np.roll(cycle, -1)
    return other.tolist()


def row_like(row: str, clips: Sequence[ScoredClip], waves: Mapping[str, Wave], rate: int) -> Row:
    """A row of what became of ``clips``: ``waves [samples]`` at ``rate`` (0: each clip's own), without a source where
    there is none.
    """
    made = []
    for clip in clips:
        there = clip.id in waves
        item = {} if there else {key: clip.item[key] for key in ("error",) if key in clip.item}
        wav = as_stored(waves[clip.id]) if there else None
        made.append(ScoredClip(clip.id, row, clip.text, wav, rate or clip.rate, item, source=there))
    return made


def resynthesis_of(clips: Sequence[ScoredClip], tokenizer: AudioTokenizer) -> Row:
    """The row ``resynthesis``: the recordings through the codec."""
    outputs = resynthesise(tokenizer, heard_at(clips, tokenizer.sample_rate))
    return row_like("resynthesis", clips, {name: wav for name, (wav, _) in outputs.items()}, tokenizer.sample_rate)


def silence_like(clips: Sequence[ScoredClip]) -> Row:
    """The row ``silence``: zeros as long as each clip."""
    zeros = {clip.id: np.zeros_like(clip.wav) for clip in clips if clip.wav is not None}
    return row_like("silence", clips, zeros, 0)


def shuffled(clips: Sequence[ScoredClip], seed: int, key: str) -> Row:
    """The row ``generated-shuffled``: each clip with what another of the row ``generated`` became.

    Args:
        key: of the item, that names the other clip.
    """
    others = [clips[i] for i in derangement(len(clips), seed)]
    return [
        ScoredClip(
            clip.id, "generated-shuffled", clip.text, other.wav, other.rate, {**other.item, key: other.id},
            source=other.source,
        )
        for clip, other in zip(clips, others, strict=True)
    ]  # fmt: skip


def heard_at(clips: Sequence[ScoredClip], rate: int) -> dict[str, Wave]:
    """``{id: samples at rate}`` of the clips that can be used."""
    found: dict[str, NDArray[np.float32]] = {}
    for clip in clips:
        try:
            wave = resample(clip.usable(), clip.rate, rate)
            check_wave(wave, rate)
            found[clip.id] = wave
        except CannotScore as error:
            clip.item.setdefault("error", error.reason)
    return found

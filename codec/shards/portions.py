"""Portions of a corpus: the clips of one shard file, planned and encoded.

What a portion holds depends on the clips alone, and a shard carries the key of its portion: so it is known of
every shard file, whoever wrote it and when, whether it is what the corpus needs.
"""

import hashlib
import json
import os
import random
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from codec.corpus import AudioError, Clip, CorpusError, Reject, audio_info, read_audio_and_hash, read_usable_corpus
from codec.interface import AudioTokenizer
from codec.shards import Row, TokenizerInfo, shard_name, write_shard

BYTES_PER_SHARD = 1 << 29  # a portion of long recordings ends here: a killed run repeats at most one portion
PORTION_KEY = b"portion"  # of a shard's notes: hash of the clips it was made from
REJECTS_KEY = b"rejected"  # of a shard's notes: the clips of its portion that could not be read


@dataclass
class Portion:
    """The clips that become one shard file."""

    number: int
    clips: list[Clip]
    key: str


@dataclass
class Scan:
    """A corpus as it is found: what is to be encoded, and a key that changes with anything of it."""

    clips: list[Clip]
    rejects: list[Reject]
    descriptions: list[str]  # one line per clip
    sizes: list[int]  # bytes of each clip's file
    key: str


def scan_corpus(root: str | Path, splits: Iterable[str] | None = None) -> Scan:
    """Read the corpus' metadata and its files' sizes and times; all splits by default.

    Raises:
        CorpusError: no such corpus, no clip in it, none of the splits, or a file went away meanwhile.
    """
    clips, rejects = read_usable_corpus(root)
    if splits is not None:
        wanted, present = set(splits), {clip.split for clip in clips}
        if not wanted & present:
            raise CorpusError(f"{root} has no split {sorted(wanted)}; it has {sorted(present)}")
        clips = [clip for clip in clips if clip.split in wanted]
    try:
        stats = [clip.path.stat() for clip in clips]
    except OSError as error:
        raise CorpusError(
            f"{root} changed while it was read ({error.strerror}: {error.filename}): run it again"
        ) from None
    descriptions = [describe(clip, stat, Path(root)) for clip, stat in zip(clips, stats, strict=True)]
    key = digest([*descriptions, json.dumps([asdict(reject) for reject in rejects])])
    return Scan(clips, rejects, descriptions, [stat.st_size for stat in stats], key)


def describe(clip: Clip, stat: os.stat_result, root: Path) -> str:
    """One line that changes when the clip's file or anything that its row will hold changes."""
    fields = [
        clip.id,
        os.path.relpath(clip.path, root),
        stat.st_size,
        stat.st_mtime_ns,
        clip.text,
        clip.captions,
    ]
    return json.dumps([*fields, clip.speaker, clip.domain, clip.split, clip.licence])


def digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def cut_into_portions(scan: Scan, clips_per_shard: int) -> Iterator[Portion]:
    """Cuts the clips into portions of bounded count and bytes, in order."""
    start, number, size = 0, 0, 0
    for end, clip_size in enumerate(scan.sizes, start=1):
        size += clip_size
        if end - start == clips_per_shard or size >= BYTES_PER_SHARD or end == len(scan.clips):
            yield Portion(number, scan.clips[start:end], digest(scan.descriptions[start:end]))
            start, number, size = end, number + 1, 0


@dataclass
class _Work:
    """One batch on its way to the model, or the end of a portion (no clips)."""

    portion: Portion
    clips: list[Clip] = field(default_factory=list)
    seconds: float = 0.0
    reads: list[Future] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def encode_portions(
    portions: list[Portion],
    folder: Path,
    tokenizer: AudioTokenizer,
    info: TokenizerInfo,
    batch_seconds: float,
    workers: int,
) -> Iterator[str]:
    """Encodes the portions and writes their shards; yields the id of each clip that is done with.

    Memory holds the batches being read ahead (2 x batch_seconds, or one long clip) and one portion's codes.
    """
    with ThreadPoolExecutor(workers) as pool:
        upcoming = _batches(portions, pool, batch_seconds)
        ahead: deque[_Work] = deque()
        rows: dict[str, Row] = {}
        rejects: list[Reject] = []
        try:
            while True:
                while not ahead or sum(work.seconds for work in ahead) < 2 * batch_seconds:
                    work = next(upcoming, None)
                    if work is None:
                        break
                    work.reads = [pool.submit(read_audio_and_hash, c.path, info.sample_rate) for c in work.clips]
                    ahead.append(work)
                if not ahead:
                    return
                work = ahead.popleft()
                rejects += work.rejects
                yield from (reject.id or "" for reject in work.rejects)
                if work.clips:
                    for outcome in _encode_batch(work, tokenizer):
                        if isinstance(outcome, Row):
                            rows[outcome.id] = outcome
                        else:
                            rejects.append(outcome)
                        yield outcome.id or ""
                    continue
                # In the order of the corpus, whatever the order of the batches was.
                ordered = [rows[clip.id] for clip in work.portion.clips if clip.id in rows]
                place = {clip.id: number for number, clip in enumerate(work.portion.clips)}
                rejects.sort(key=lambda reject: place[reject.id or ""])
                notes = {
                    PORTION_KEY: work.portion.key.encode(),
                    REJECTS_KEY: json.dumps([asdict(reject) for reject in rejects]).encode(),
                }
                write_shard(folder / shard_name(work.portion.number), ordered, info, notes)
                rows, rejects = {}, []
        finally:
            pool.shutdown(cancel_futures=True)


def _batches(portions: list[Portion], pool: ThreadPoolExecutor, batch_seconds: float) -> Iterator[_Work]:
    """Batches of clips of similar length; the batches of a portion come in a shuffled but fixed order."""
    for portion in portions:
        end = _Work(portion)
        timed: list[tuple[float, Clip]] = []
        for clip, seconds in zip(portion.clips, pool.map(_seconds, portion.clips), strict=True):
            if isinstance(seconds, Reject):
                end.rejects.append(seconds)
            else:
                timed.append((seconds, clip))
        timed.sort(key=lambda entry: (-entry[0], entry[1].id))
        batches = []
        while timed:
            count = max(1, int(batch_seconds / timed[0][0]))
            batch, timed = timed[:count], timed[count:]
            batches.append(_Work(portion, [clip for _, clip in batch], sum(seconds for seconds, _ in batch)))
        # By length, the time left that is shown would be far too long first and too short later.
        random.Random(portion.number).shuffle(batches)
        yield from batches
        yield end


def _seconds(clip: Clip) -> float | Reject:
    try:
        return audio_info(clip.path).seconds
    except AudioError as error:
        return Reject(clip.id, str(clip.path), str(error))


def _encode_batch(work: _Work, tokenizer: AudioTokenizer) -> Iterator[Row | Reject]:
    read: list[tuple[Clip, np.ndarray, str]] = []
    for clip, future in zip(work.clips, work.reads, strict=True):
        try:
            wav, sha256 = future.result()
        except AudioError as error:
            yield Reject(clip.id, str(clip.path), str(error))
        else:
            read.append((clip, wav, sha256))
    work.reads = []
    if not read:
        return
    lengths = torch.tensor([len(wav) for _, wav, _ in read])
    batch = torch.zeros(len(read), int(lengths.max()))  # [batch, samples]
    for number, (_, wav, _) in enumerate(read):
        batch[number, : len(wav)] = torch.from_numpy(wav)
    try:
        clips_codes = _encode(tokenizer, batch, lengths)
    except Exception as error:
        error.add_note(f"while encoding {', '.join(repr(clip.id) for clip, _, _ in read[:8])} ({len(read)} clips)")
        raise
    for number, (clip, wav, sha256) in enumerate(read):
        yield Row(
            id=clip.id,
            codes=clips_codes[number].cpu().numpy().astype(np.int32),  # [frames, levels]; checked when written
            duration=len(wav) / tokenizer.sample_rate,
            text=clip.text,
            captions=clip.captions,
            speaker=clip.speaker,
            domain=clip.domain,
            split=clip.split,
            sha256=sha256,
            licence=clip.licence,
        )


def _encode(tokenizer: AudioTokenizer, batch: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """Codes ``[frames, levels]`` of each clip; a batch that does not fit into the GPU's memory is halved.

    The codes are the same, as a tokenizer's do not depend on the batch. A single clip that does not fit is an error.
    """
    device = tokenizer.device
    try:
        codes = tokenizer.encode(batch.to(device), lengths.to(device))
        return [codes.clip(number) for number in range(len(batch))]
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    half = len(batch) // 2
    print(f"out of memory with {len(batch)} clips of {batch.shape[1]} samples: trying {half} at a time", flush=True)
    parts = [(batch[:half], lengths[:half]), (batch[half:], lengths[half:])]
    return [codes for part, own in parts for codes in _encode(tokenizer, part[:, : int(own.max())].contiguous(), own)]

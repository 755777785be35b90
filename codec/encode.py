"""Turns a corpus into token shards: audio files -> AudioTokenizer -> parquet (codec/shards.py).

    python codec/encode.py                                  # data=mini tokenizer=almtokenizer
    accelerate launch codec/encode.py data=mini out=tokens  # every process takes its share of the shards

The clips are cut, in the corpus' order, into portions; one portion becomes one shard file. What a portion
holds depends on the corpus alone, so a killed run that is started again, on any number of processes, ends
with the same files as an undisturbed one: finished shards are kept, the others are made.
"""

import hashlib
import json
import os
import random
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.corpus import (
    AudioError,
    Clip,
    CorpusError,
    Reject,
    audio_info,
    read_audio_and_hash,
    read_corpus,
)
from codec.interface import AudioTokenizer
from codec.shards import (
    INDEX_NAME,
    ROWS_PER_SHARD,
    Index,
    Row,
    ShardError,
    TokenizerInfo,
    check_shard,
    read_index,
    shard_name,
    write_atomically,
    write_index,
    write_shard,
)
from training.config import hydra_entry
from training.log import duration
from training.progress import progress

REJECTED_NAME = "rejected.jsonl"
DUPLICATES_NAME = "duplicates.jsonl"
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
class EncodeSummary:
    """What an encoding left in `folder`; `encoded` counts the clips of this call, the rest was there."""

    folder: Path
    index: Index
    rejected: list[Reject] = field(default_factory=list)
    duplicates: list[list[str]] = field(default_factory=list)  # ids whose audio is the same
    current: bool = False  # True: nothing was to do
    encoded: int = 0
    encoded_hours: float = 0.0
    seconds: float = 0.0

    def table(self) -> str:
        """The summary as plain text: clips and hours per split and domain, rejects, duplicates."""
        lines = [f"{'split':<12}{'domain':<12}{'clips':>9}{'hours':>10}{'frames':>12}"]
        for split, domains in sorted(self.index.totals.items()):
            for domain, total in sorted(domains.items()):
                lines.append(
                    f"{split:<12}{domain:<12}{total['clips']:>9}{total['hours']:>10.3f}{total['frames']:>12}"
                )
        totals = [total for domains in self.index.totals.values() for total in domains.values()]
        lines.append(
            f"{'all':<24}{sum(t['clips'] for t in totals):>9}{sum(t['hours'] for t in totals):>10.3f}"
            f"{sum(t['frames'] for t in totals):>12}"
        )
        if self.rejected:
            lines.append(f"rejected: {len(self.rejected)} (reasons in {self.folder / REJECTED_NAME})")
        if self.duplicates:
            again = sum(len(ids) - 1 for ids in self.duplicates)
            lines.append(
                f"duplicates: {again} clips repeat the audio of another and are kept "
                f"(ids in {self.folder / DUPLICATES_NAME})"
            )
        return "\n".join(lines)


def token_folder(corpus_name: str, tokenizer: AudioTokenizer, splits: Iterable[str] | None = None) -> Path:
    """Where the tokens of a corpus are cached: a folder per tokenizer, fingerprint and choice of splits."""
    parts = [tokenizer.name.replace("/", "-"), tokenizer.fingerprint[:12], *sorted(splits or [])]
    return Path("runs") / "tokens" / corpus_name / "-".join(parts)


def encode_corpus(
    corpus_root: str | Path,
    tokenizer: AudioTokenizer,
    out_folder: str | Path,
    *,
    splits: Iterable[str] | None = None,
    batch_seconds: float = 120.0,
    workers: int | None = None,
    clips_per_shard: int = ROWS_PER_SHARD,
    resume: bool = True,
) -> EncodeSummary:
    """Encodes the corpus folder `corpus_root` into token shards in `out_folder`; under accelerate call it in
    every process.

    Args:
        splits: the splits to encode; all by default.
        batch_seconds: audio per batch, padding included; a longer clip is a batch of its own.
        workers: threads that read and resample ahead of the model; by default one per core, at most 8.
        clips_per_shard: clips per shard file, which is what a killed run repeats at most per process.
        resume: keep finished shards of an earlier run; False encodes everything again.

    Raises:
        CorpusError: no such corpus, none of the splits, or no clip of it can be read.
        ShardError: `out_folder` holds the tokens of another tokenizer.
    """
    started = time.monotonic()
    state = PartialState()
    folder = Path(out_folder)
    info = TokenizerInfo.of(tokenizer)
    clips, rejects = read_corpus(corpus_root)
    if splits is not None:
        wanted, present = set(splits), {clip.split for clip in clips}
        if not wanted & present:
            raise CorpusError(f"{corpus_root} has no split {sorted(wanted)}; it has {sorted(present)}")
        clips = [clip for clip in clips if clip.split in wanted]
    descriptions = [_describe(clip, Path(corpus_root)) for clip in clips]
    corpus_key = _digest([*descriptions, json.dumps([asdict(reject) for reject in rejects])])
    summary = _current(folder, info, corpus_key) if resume else None
    if summary:
        return summary

    portions = list(_portions(clips, descriptions, clips_per_shard))
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        _clear_stale(folder, info, portions if resume else [])
    state.wait_for_everyone()
    missing = [portion for portion in portions if not (folder / shard_name(portion.number)).exists()]
    # Nobody may finish a shard before everybody has seen the same list of missing ones.
    state.wait_for_everyone()
    mine = missing[state.process_index :: state.num_processes]
    done = _encode_portions(
        mine, folder, tokenizer, info, batch_seconds, workers or min(8, os.cpu_count() or 1)
    )
    if state.is_main_process:
        done = progress(done, total=sum(len(portion.clips) for portion in mine), desc="encode")
    for _ in done:
        pass
    state.wait_for_everyone()
    if state.is_main_process:
        _finish(folder, info, corpus_key, portions, rejects)
    state.wait_for_everyone()
    summary = _current(folder, info, corpus_key)
    assert summary is not None, f"{folder} was finished a moment ago and is not current"
    if not summary.index.rows:
        first = summary.rejected[0].reason
        raise CorpusError(f"no clip of {corpus_root} can be used, the first because: {first}")
    shards = {shard_name(portion.number) for portion in missing}
    start = 0
    for name, count in summary.index.shards:
        if name in shards:
            summary.encoded += count
            frames = sum(row.n_frames for row in summary.index.rows[start : start + count])
            summary.encoded_hours += frames / info.frame_rate / 3600
        start += count
    summary.current = False
    summary.seconds = time.monotonic() - started
    return summary


def _describe(clip: Clip, root: Path) -> str:
    """One line that changes when the clip's file or anything that its row will hold changes."""
    stat = clip.path.stat()
    fields = [
        clip.id,
        os.path.relpath(clip.path, root),
        stat.st_size,
        stat.st_mtime_ns,
        clip.text,
        clip.captions,
    ]
    return json.dumps([*fields, clip.speaker, clip.domain, clip.split, clip.licence])


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _portions(clips: list[Clip], descriptions: list[str], clips_per_shard: int) -> Iterator[Portion]:
    """Cuts the clips into portions of bounded count and bytes, in order."""
    start, number, size = 0, 0, 0
    for end, clip in enumerate(clips, start=1):
        size += clip.path.stat().st_size
        if end - start == clips_per_shard or size >= BYTES_PER_SHARD or end == len(clips):
            yield Portion(number, clips[start:end], _digest(descriptions[start:end]))
            start, number, size = end, number + 1, 0


def _current(folder: Path, info: TokenizerInfo, corpus_key: str) -> EncodeSummary | None:
    """The summary of a finished encoding of the same corpus by the same tokenizer, if `folder` holds one."""
    if not (folder / INDEX_NAME).exists():
        return None
    index = read_index(folder)
    if index.tokenizer != info:
        raise ShardError(
            f"{folder} holds tokens of {index.name} {index.fingerprint[:12]}, not of {info.name} "
            f"{info.fingerprint[:12]}; choose another folder with out="
        )
    if index.corpus != corpus_key:
        return None
    rejected = [Reject(**fields) for fields in _read_lines(folder / REJECTED_NAME)]
    duplicates = [fields["ids"] for fields in _read_lines(folder / DUPLICATES_NAME)]
    return EncodeSummary(folder, index, rejected, duplicates, current=True)


def _clear_stale(folder: Path, info: TokenizerInfo, portions: list[Portion]) -> None:
    """Removes the index and every shard that does not fit the plan; the folder is then unfinished."""
    keys = {shard_name(portion.number): portion.key for portion in portions}
    stale = []
    for path in sorted(folder.glob("shard-*.parquet")):
        notes = check_shard(path, info)  # refuses another tokenizer's shards before anything is removed
        if PORTION_KEY not in notes:
            raise ShardError(f"{path} was not made by codec/encode.py; choose another folder with out=")
        if notes[PORTION_KEY].decode() != keys.get(path.name):
            stale.append(path)
    (folder / INDEX_NAME).unlink(missing_ok=True)
    for path in [*stale, *folder.glob(".*.tmp")]:
        path.unlink()


@dataclass
class _Work:
    """One batch on its way to the model, or the end of a portion (no clips)."""

    portion: Portion
    clips: list[Clip] = field(default_factory=list)
    seconds: float = 0.0
    reads: list[Future] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


def _encode_portions(
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
                    work.reads = [
                        pool.submit(read_audio_and_hash, c.path, info.sample_rate) for c in work.clips
                    ]
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
    device = getattr(tokenizer, "device", "cpu")
    try:
        codes = tokenizer.encode(batch.to(device), lengths.to(device))
    except Exception as error:
        error.add_note(
            f"while encoding {', '.join(repr(clip.id) for clip, _, _ in read[:8])} ({len(read)} clips)"
        )
        raise
    for number, (clip, wav, sha256) in enumerate(read):
        yield Row(
            id=clip.id,
            codes=codes.clip(number).cpu().numpy().astype(np.int32),  # [frames, levels]; checked when written
            duration=len(wav) / tokenizer.sample_rate,
            text=clip.text,
            captions=clip.captions,
            speaker=clip.speaker,
            domain=clip.domain,
            split=clip.split,
            sha256=sha256,
            licence=clip.licence,
        )


def _finish(
    folder: Path, info: TokenizerInfo, corpus_key: str, portions: list[Portion], rejects: list[Reject]
) -> None:
    """Writes the lists of rejects and duplicates, and the index last: from then on the folder is finished."""
    rejects = list(rejects)
    same: dict[str, list[str]] = {}
    for portion in portions:
        path = folder / shard_name(portion.number)
        notes = check_shard(path, info)
        rejects += [Reject(**fields) for fields in json.loads(notes[REJECTS_KEY])]
        table = pq.read_table(path, columns=["id", "sha256"])
        for identity, sha256 in zip(table["id"].to_pylist(), table["sha256"].to_pylist(), strict=True):
            same.setdefault(sha256, []).append(identity)
    _write_lines(folder / REJECTED_NAME, [asdict(reject) for reject in rejects])
    duplicates = [{"sha256": sha256, "ids": ids} for sha256, ids in same.items() if len(ids) > 1]
    _write_lines(folder / DUPLICATES_NAME, duplicates)
    write_index(folder, info, corpus_key)


def _write_lines(path: Path, items: list[dict]) -> None:
    text = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items)

    def write(temporary: Path) -> None:
        temporary.write_text(text, encoding="utf-8")

    write_atomically(path, write)


def _read_lines(path: Path) -> list[dict]:
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )


@hydra_entry("encode")
def main(cfg: DictConfig) -> None:
    state = PartialState()
    tokenizer = instantiate(cfg.tokenizer, device=state.device)
    out = Path(cfg.out) if cfg.out else token_folder(cfg.data.name, tokenizer, cfg.splits)
    if state.is_main_process:
        print(
            f"encode {cfg.data.root} with {tokenizer.name} {tokenizer.fingerprint[:12]} -> {out}", flush=True
        )
    summary = encode_corpus(
        cfg.data.root,
        tokenizer,
        out,
        splits=cfg.splits,
        batch_seconds=cfg.batch_seconds,
        workers=cfg.workers,
        clips_per_shard=cfg.clips_per_shard,
        resume=cfg.resume,
    )
    if not state.is_main_process:
        return
    print(summary.table())
    if summary.current:
        print("The tokens are current; nothing was to do.")
    else:
        speed = summary.encoded_hours * 3600 / max(summary.seconds, 1e-9)
        print(f"Encoded {summary.encoded} clips in {duration(summary.seconds)} ({speed:.1f} x real time).")


if __name__ == "__main__":
    main()

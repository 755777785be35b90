"""Turns a corpus into token shards: audio files -> AudioTokenizer -> parquet (codec/shards/__init__.py).

    python codec/encode.py                                  # data=mini tokenizer=almtokenizer
    accelerate launch --multi_gpu --num_processes 4 codec/encode.py data=mini out=tokens  # a share of the shards each

The clips are cut, in the corpus' order, into portions; one portion becomes one shard file. What a portion
holds depends on the corpus alone, so a killed run that is started again, on any number of processes, ends
with the same files as an undisturbed one: finished shards are kept, the others are made.
"""

import training.help  # noqa: F401

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from accelerate import PartialState
from omegaconf import DictConfig

from codec.corpus import CorpusError, Reject, corpus_folder
from codec.interface import AudioTokenizer
from codec.load import load_tokenizer
from codec.shards import (
    INDEX_NAME,
    ROWS_PER_SHARD,
    Index,
    ShardError,
    TokenizerInfo,
    check_shard,
    read_columns,
    read_index,
    shard_name,
    write_index,
    writing,
)
from codec.shards.portions import (
    PORTION_KEY,
    REJECTS_KEY,
    Portion,
    Scan,
    cut_into_portions,
    encode_portions,
    scan_corpus,
)
from codec.shards.remote import file_system, is_remote, publish
from codec.shards.token_source import OWNER, check_owner, note_owner, token_folder
from training.checkpoint import write_file
from training.config import hydra_entry, refusing
from training.launch import LONGEST_WAIT, check_processes, decide, leave_at_exit, on_cpu
from training.lock import hold, release
from training.log import duration
from training.progress import progress

REJECTED_NAME = "rejected.jsonl"
DUPLICATES_NAME = "duplicates.jsonl"


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
                lines.append(f"{split:<12}{domain:<12}{total['clips']:>9}{total['hours']:>10.3f}{total['frames']:>12}")
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
        CorpusError: no such corpus, none of the splits, no clip of it can be read, or it changed meanwhile.
        ShardError: `out_folder` holds the tokens of another tokenizer or corpus, or cannot be written.
    """
    started = time.monotonic()
    state = PartialState(cpu=on_cpu())
    folder = Path(out_folder)
    info = TokenizerInfo.of(tokenizer)
    scan = scan_corpus(corpus_root, splits)
    if decide(lambda: scan.key) != scan.key:
        raise CorpusError(f"{corpus_root} changed while the processes read it; give the command again")
    summary = decide(lambda: _current(folder, info, scan.key)) if resume else None
    if summary:
        return _with_rows(summary, corpus_root)

    portions = list(cut_into_portions(scan, clips_per_shard))

    def prepare() -> list[int] | None:
        """The portions to encode; None where another program has just finished them."""
        with writing(folder):
            hold(folder, "out", wait=True)
        if resume and _current(folder, info, scan.key):
            return None
        check_owner(folder, corpus_root)
        fitting = _fitting(folder, info, portions)
        if not fitting and any(folder.glob("shard-*.parquet")) and not (folder / OWNER).exists():
            raise ShardError(
                f"{folder} has shards of a corpus that it does not name, and none fits {corpus_root}: give another out "
                "or data.name, or remove that folder"
            )
        with writing(folder):
            note_owner(folder, corpus_root)
            _clear_stale(folder, fitting if resume else set())
        return [portion.number for portion in portions if not resume or shard_name(portion.number) not in fitting]

    def finish() -> None:
        if scan_corpus(corpus_root, splits).key != scan.key:
            raise CorpusError(
                f"{corpus_root} changed while it was encoded: run the command again, which encodes what changed"
            )
        with writing(folder):
            _finish(folder, info, scan, portions)

    try:
        missing = decide(prepare)
        if missing is not None:
            mine = [portions[number] for number in missing[state.process_index :: state.num_processes]]
            done = encode_portions(mine, folder, tokenizer, info, batch_seconds, workers or min(8, os.cpu_count() or 1))
            if state.is_main_process:
                done = progress(done, total=sum(len(portion.clips) for portion in mine), desc="encode")
            for _ in done:
                pass
            state.wait_for_everyone()
            decide(finish)
    finally:
        release(folder)
    summary = decide(lambda: _current(folder, info, scan.key))
    assert summary is not None, f"{folder} was finished a moment ago and is not current"
    _with_rows(summary, corpus_root)
    if missing is None:
        return summary
    shards = {shard_name(number) for number in missing}
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


def _with_rows(summary: EncodeSummary, corpus_root: str | Path) -> EncodeSummary:
    if not summary.index.rows:
        first = summary.rejected[0].reason
        raise CorpusError(f"no clip of {corpus_root} can be used, the first because: {first}")
    return summary


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
    try:
        rejected = [Reject(**fields) for fields in _read_lines(folder / REJECTED_NAME)]
        duplicates = [fields["ids"] for fields in _read_lines(folder / DUPLICATES_NAME)]
    except (ValueError, TypeError, KeyError):  # damaged: both are written again from what the shards say
        return None
    return EncodeSummary(folder, index, rejected, duplicates, current=True)


def _fitting(folder: Path, info: TokenizerInfo, portions: list[Portion]) -> set[str]:
    """The names of the shards in `folder` that are portions of this corpus; refuses other tokenizers' shards."""
    keys = {shard_name(portion.number): portion.key for portion in portions}
    fitting = set()
    for path in sorted(folder.glob("shard-*.parquet")):
        notes = check_shard(path, info)
        if PORTION_KEY not in notes:
            raise ShardError(f"{path} was not made by codec/encode.py; choose another folder with out=")
        if notes[PORTION_KEY].decode() == keys.get(path.name):
            fitting.add(path.name)
    return fitting


def _clear_stale(folder: Path, fitting: set[str]) -> None:
    """Removes the index and every shard that does not fit the plan; the folder is then unfinished."""
    (folder / INDEX_NAME).unlink(missing_ok=True)
    for path in [*folder.glob("shard-*.parquet"), *folder.glob(".shard-*.tmp")]:
        if path.name not in fitting:
            path.unlink()


def _finish(folder: Path, info: TokenizerInfo, scan: Scan, portions: list[Portion]) -> None:
    """Writes the lists of rejects and duplicates, and the index last: from then on the folder is finished."""
    rejects = list(scan.rejects)
    same: dict[str, list[str]] = {}
    for portion in portions:
        path = folder / shard_name(portion.number)
        notes = check_shard(path, info)
        rejects += [Reject(**fields) for fields in json.loads(notes[REJECTS_KEY])]
        for row in read_columns(path, ["id", "sha256"]):
            same.setdefault(row["sha256"], []).append(row["id"])
    _write_lines(folder / REJECTED_NAME, [asdict(reject) for reject in rejects])
    duplicates = [{"sha256": sha256, "ids": ids} for sha256, ids in same.items() if len(ids) > 1]
    _write_lines(folder / DUPLICATES_NAME, duplicates)
    write_index(folder, info, scan.key)


def _write_lines(path: Path, items: list[dict]) -> None:
    write_file(path, "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items))


def _read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def write_record(path: Path, folder: Path, tokenizer: AudioTokenizer, summary: EncodeSummary) -> None:
    """Write what was encoded as JSON, for programs that go on from there."""
    parameters = sum(p.numel() for p in tokenizer.parameters()) if isinstance(tokenizer, torch.nn.Module) else None
    record = {
        "folder": folder.as_posix(),
        "tokenizer": tokenizer.describe() | {"parameters": parameters},
        "totals": summary.index.totals,
        "rejected": len(summary.rejected),
        "encoded_hours": summary.encoded_hours,
        "seconds": summary.seconds,
    }
    write_file(path, json.dumps(record, indent=1) + "\n")


@hydra_entry("encode")
def main(cfg: DictConfig) -> None:
    state = PartialState(cpu=on_cpu(), timeout=LONGEST_WAIT)
    if cfg.record:
        decide(lambda: hold(cfg.record, "record", is_file=True))
    check_processes(state.num_processes)
    leave_at_exit()
    tokenizer = load_tokenizer(cfg.tokenizer, state.device)
    remote = cfg.out if cfg.out and is_remote(cfg.out) else None
    if remote:
        with refusing(ShardError):
            file_system(remote)  # before hours of work
    local = cfg.out and not remote
    with refusing(CorpusError):
        corpus_folder(cfg.data.root)
        out = Path(cfg.out) if local else token_folder(cfg.data.root, tokenizer, cfg.splits, cfg.data.name)
    if state.is_main_process:
        print(f"encode {cfg.data.root} with {tokenizer.name} {tokenizer.fingerprint[:12]} -> {out}", flush=True)
    with refusing(CorpusError, ShardError):
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
    if cfg.record:
        with refusing(ShardError), writing(cfg.record):
            write_record(Path(cfg.record), out, tokenizer, summary)
    print(summary.table())
    if summary.current:
        print("The tokens are current; nothing was to do.")
    else:
        speed = summary.encoded_hours * 3600 / max(summary.seconds, 1e-9)
        print(f"Encoded {summary.encoded} clips in {duration(summary.seconds)} ({speed:.1f} x real time).")
    if remote:
        with refusing(ShardError):
            sent, kept = publish(out, remote)
        print(f"{remote}: {sent} files sent, {kept} were there.")


if __name__ == "__main__":
    main()

"""Token shards beyond the local disk: copies a finished folder to any fsspec address, s3://…, gs://…, hf://….

The encoding works on a local folder, where a killed run finds its shards again; the copy comes after. The index goes
last: a folder with an index is whole. A copy that was interrupted goes on: what lies there already is not sent again.
Whose copy it is, a second index says until then.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import fsspec

from codec.shards import INDEX_NAME, Index, ShardError, parse_index

UNFINISHED = ".index.json"  # beside the files of a copy that is not whole yet
SHARD = re.compile(r"shard-\d+\.parquet")
BLOCK = 1 << 20  # bytes that are compared at a time


def is_remote(address: str) -> bool:
    """Whether ``address`` names another file system (``protocol://…``)."""
    return "://" in address


def file_system(address: str) -> tuple[Any, str]:
    """The file system of ``address`` and the path in it.

    Raises:
        ShardError: a protocol that is unknown or not installed.
    """
    try:
        return fsspec.core.url_to_fs(address)
    except (ValueError, ImportError) as error:
        raise ShardError(f"out={address} cannot be used ({error})") from None


def publish(folder: Path, address: str) -> tuple[int, int]:
    """Copy the files of the finished shard folder ``folder`` to ``address``; removes shards that are not in it.

    A file is kept there where the index is the same and its size is, else where its bytes are.

    Returns:
        files sent and files that were there.

    Raises:
        ShardError: the address holds the tokens of another tokenizer or of other clips, whole or not, or cannot be
            written.
    """
    system, target = file_system(address)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    index = folder / INDEX_NAME
    sent = kept = 0
    try:
        system.makedirs(target, exist_ok=True)
        entries = [entry for entry in system.ls(target, detail=True) if entry["type"] == "file"]
        there = {Path(entry["name"]).name: entry["size"] for entry in entries}
        old = next((name for name in (UNFINISHED, INDEX_NAME) if name in there), None)
        told, new = system.cat_file(f"{target}/{old}") if old else b"", index.read_bytes()
        same_index = old == INDEX_NAME and told == new
        if not same_index:
            if not new.startswith(told):  # else it is ours, perhaps cut short
                _check_replaceable(parse_index(told, f"{address}/{old}"), parse_index(new, str(index)), address)
            system.pipe_file(f"{target}/{UNFINISHED}", new)
            there[UNFINISHED] = len(new)
            if there.pop(INDEX_NAME, None) is not None:
                system.rm_file(f"{target}/{INDEX_NAME}")
        for path in [*(path for path in files if path != index), index]:
            known = there.get(path.name) == path.stat().st_size
            if known and (same_index or _same_bytes(path, system, f"{target}/{path.name}")):
                kept += 1
                continue
            system.put_file(str(path), f"{target}/{path.name}")
            sent += 1
        for name in set(there) - {path.name for path in files}:
            if name == UNFINISHED or SHARD.fullmatch(name):
                system.rm_file(f"{target}/{name}")
    except ShardError:
        raise
    except Exception as error:  # each file system has errors of its own
        raise ShardError(
            f"{address}: {type(error).__name__} after {sent} files were sent and {kept} were there ({error}); the same "
            "command goes on from there"
        ) from error
    return sent, kept


def _check_replaceable(old: Index, new: Index, address: str) -> None:
    """Refuse to replace what is not an earlier state of the same tokens."""
    if old.tokenizer != new.tokenizer:
        raise ShardError(
            f"{address} holds tokens of {old.name} {old.fingerprint[:12]}, not of {new.name} {new.fingerprint[:12]}; "
            "choose another address with out="
        )
    if old.rows and not {row.id for row in old.rows} & {row.id for row in new.rows}:
        raise ShardError(f"{address} holds the tokens of another corpus, no clip is the same; choose another with out=")


def _same_bytes(path: Path, system: Any, remote: str) -> bool:
    with path.open("rb") as ours, system.open(remote, "rb") as theirs:
        while block := ours.read(BLOCK):
            if theirs.read(len(block)) != block:
                return False
    return True

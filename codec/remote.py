"""Token shards beyond the local disk: copies a finished folder to any fsspec address, s3://…, gs://…, hf://….

The encoding works on a local folder, where a killed run finds its shards again; the copy comes after. The index goes
last: a folder with an index is whole. Where the same index is there already, only files of another size are sent.
"""

from __future__ import annotations

from pathlib import Path

import fsspec

from codec.shards import INDEX_NAME


def is_remote(address: str) -> bool:
    """Whether ``address`` names another file system (``protocol://…``)."""
    return "://" in address


def publish(folder: Path, address: str) -> tuple[int, int]:
    """Copy the files of the finished shard folder ``folder`` to ``address``; removes shards that are not in it.

    Returns:
        files sent and files that were there.
    """
    system, target = fsspec.core.url_to_fs(address)
    system.makedirs(target, exist_ok=True)
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    there = {Path(entry["name"]).name: entry["size"] for entry in system.ls(target, detail=True)}
    index = folder / INDEX_NAME
    if INDEX_NAME in there and system.cat_file(f"{target}/{INDEX_NAME}") == index.read_bytes():
        same_index = True
    else:
        same_index = False
        if INDEX_NAME in there:
            system.rm_file(f"{target}/{INDEX_NAME}")
    sent = kept = 0
    for path in [*(path for path in files if path != index), index]:
        known = there.get(path.name) == path.stat().st_size
        # another index may mean other shards of the same size
        if known and same_index:
            kept += 1
            continue
        system.put_file(str(path), f"{target}/{path.name}")
        sent += 1
    for name in set(there) - {path.name for path in files}:
        if name.startswith("shard-"):
            system.rm_file(f"{target}/{name}")
    return sent, kept

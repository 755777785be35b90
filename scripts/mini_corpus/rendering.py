"""Makes the audio of synthesised clips (sounds, music) from their metadata rows, several at a time."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from mini_corpus import instruments, layout, machines, music, nature, sounds, synthesis
from mini_corpus.layout import FOLDERS, Row, check_stamp, read_metadata, replace_rows, write_flac, write_stamp

RECIPES = {"sound": sounds, "music": music}
SOURCES = {"sound": (sounds, nature, machines, synthesis), "music": (music, instruments, synthesis)}


def recipe_hash(domain: str) -> str:
    """Hash of the code that makes a domain's audio: when it changes (not its layout), clips are made anew."""
    sources = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in SOURCES[domain]]
    trees = "".join(ast.dump(ast.parse(source)) for source in sources)
    return hashlib.sha256(trees.encode()).hexdigest()[:12]


def render_to_file(row: Row, domain: str, seed: int, folder: Path) -> None:
    """Synthesise one clip and write it as FLAC."""
    write_flac(folder / row["file_name"], RECIPES[domain].render(row, seed), synthesis.SAMPLE_RATE)


def outstanding(domain: str, seed: int, folder: Path, times: int = 1) -> list[Row]:
    """Rows whose audio is not there or was made by other code; CorpusError if with another seed or ``times``."""
    check_stamp(folder, domain, {"seed": seed, "times": times})
    rows = list(RECIPES[domain].plan(seed, times))
    if layout.read_stamp(folder, domain).get("recipe") != recipe_hash(domain):
        return rows
    return [row for row in rows if not (folder / row["file_name"]).exists()]


def build_clips(rows: list[Row], domain: str, seed: int, folder: Path, jobs: int, times: int = 1) -> Iterator[str]:
    """Make the audio of ``rows``, bring the folder's metadata up to date; yields each id when it is done."""
    layout.remove_leftovers(folder, domain)
    recipe = recipe_hash(domain)
    if layout.read_stamp(folder, domain).get("recipe") != recipe:
        for path in (folder / FOLDERS[domain]).glob("*.flac"):  # so that a killed build does not pass for current
            path.unlink()
        write_stamp(folder, domain, {"seed": seed, "times": times, "recipe": recipe})
    make = partial(render_to_file, domain=domain, seed=seed, folder=folder)
    if jobs == 1:
        for row in rows:
            make(row)
            yield row["id"]
    else:
        with ProcessPoolExecutor(jobs) as pool:
            ids = {pool.submit(make, row): row["id"] for row in rows}
            for future in as_completed(ids):
                future.result()
                yield ids[future]
    if not rows_are_current(domain, seed, folder, times):
        replace_rows(folder, domain, RECIPES[domain].plan(seed, times))


def rows_are_current(domain: str, seed: int, folder: Path, times: int = 1) -> bool:
    """Whether the folder's metadata lists exactly the planned clips of a domain."""
    planned = list(RECIPES[domain].plan(seed, times))
    return [row for row in read_metadata(folder) if row["domain"] == domain] == planned

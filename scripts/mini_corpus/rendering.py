"""Makes the audio of synthesised clips (sounds, music, notes) from their metadata rows, several at a time."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path

from mini_corpus import instruments, layout, machines, music, nature, notes, sounds, synthesis
from mini_corpus.layout import FOLDERS, Row, check_stamp, part_of, read_metadata, replace_rows, write_flac, write_stamp

RECIPES = {"sound": sounds, "music": music, "notes": notes}
SOURCES = {
    "sound": (sounds, nature, machines, synthesis),
    "music": (music, instruments, synthesis),
    "notes": (notes, instruments, synthesis),
}


def recipe_hash(part: str) -> str:
    """Hash of the code that makes a part's audio: when it changes (not its layout), clips are made anew."""
    sources = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in SOURCES[part]]
    trees = "".join(ast.dump(ast.parse(source)) for source in sources)
    return hashlib.sha256(trees.encode()).hexdigest()[:12]


def render_to_file(row: Row, part: str, seed: int, folder: Path) -> None:
    """Synthesise one clip and write it as FLAC."""
    write_flac(folder / row["file_name"], RECIPES[part].render(row, seed), synthesis.SAMPLE_RATE)


def outstanding(part: str, seed: int, folder: Path, times: int = 1) -> list[Row]:
    """Rows whose audio is not there or was made by other code; CorpusError if with another seed or ``times``."""
    check_stamp(folder, part, {"seed": seed, "times": times})
    rows = list(RECIPES[part].plan(seed, times))
    if layout.read_stamp(folder, part).get("recipe") != recipe_hash(part):
        return rows
    return [row for row in rows if not (folder / row["file_name"]).exists()]


def build_clips(rows: list[Row], part: str, seed: int, folder: Path, jobs: int, times: int = 1) -> Iterator[str]:
    """Make the audio of ``rows``, bring the folder's metadata up to date; yields each id when it is done."""
    layout.remove_leftovers(folder, part)
    recipe = recipe_hash(part)
    if layout.read_stamp(folder, part).get("recipe") != recipe:
        for path in (folder / FOLDERS[part]).glob("*.flac"):  # so that a killed build does not pass for current
            path.unlink()
        write_stamp(folder, part, {"seed": seed, "times": times, "recipe": recipe})
    make = partial(render_to_file, part=part, seed=seed, folder=folder)
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
    if not rows_are_current(part, seed, folder, times):
        replace_rows(folder, part, RECIPES[part].plan(seed, times))


def rows_are_current(part: str, seed: int, folder: Path, times: int = 1) -> bool:
    """Whether the folder's metadata lists exactly the planned clips of a part."""
    planned = list(RECIPES[part].plan(seed, times))
    return [row for row in read_metadata(folder) if part_of(row) == part] == planned

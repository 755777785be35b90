"""Make a corpus folder of a published data set; the audio stays where it is.

    python scripts/prepare.py librispeech --root /data/LibriSpeech --out corpora/librispeech
    python codec/encode.py data.root=corpora/librispeech data.name=librispeech

Writes metadata.jsonl (docs/data.md) with official splits, speakers, all captions, licences and the source, compares
the number of clips with the published one, and lists clips without audio in missing.jsonl. It can be repeated.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

from preparation.recipe import PreparationError, Recipe, prepare

NAMES = sorted(path.stem for path in (Path(__file__).parent / "preparation").glob("[a-z]*.py") if path.stem != "recipe")


def recipe(name: str) -> Recipe:
    """The recipe of the file scripts/preparation/<name>.py."""
    return importlib.import_module(f"preparation.{name}").RECIPE


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 could not be prepared (one sentence on stderr)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=NAMES, help="data set")
    parser.add_argument("--root", type=Path, required=True, help="folder of the data set as it is published")
    parser.add_argument("--out", type=Path, required=True, help="folder for metadata.jsonl")
    options = parser.parse_args(arguments)
    try:
        summary = prepare(recipe(options.name), options.root, options.out)
    except PreparationError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    for line in summary.lines:
        print(line)
    print(f"{summary.out / 'metadata.jsonl'}: {'written' if summary.changed else 'is current'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

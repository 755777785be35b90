"""Make a corpus folder of a published data set; the audio stays where it is.

    python scripts/prepare.py librispeech --root /data/LibriSpeech --out corpora/librispeech
    python scripts/prepare.py huggingface --root OWNER/NAME --out corpora/name text=sentence speaker=client_id
    python codec/encode.py data.root=corpora/librispeech data.name=librispeech

Writes metadata.jsonl (docs/data.md) with official splits, speakers, all captions, licences and the source, compares
the number of clips with the published one, and lists clips without audio in missing.jsonl. It can be repeated.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import importlib
import sys
from pathlib import Path

from preparation.recipe import PreparationError, Recipe, prepare
from training.config import ending_plainly
from training.lock import holding
from training.streams import say

NAMES = sorted(path.stem for path in (Path(__file__).parent / "preparation").glob("[a-z]*.py") if path.stem != "recipe")
KEYS_HELP = "columns audio, text, caption, speaker, id; domain, licence, source, config, revision, splits, split.NAME"


def recipe(name: str) -> Recipe:
    """The recipe of the file scripts/preparation/<name>.py; huggingface makes its own for each data set."""
    return importlib.import_module(f"preparation.{name}").RECIPE


def recipe_for(name: str, root: Path, out: Path, keys: list[str]) -> Recipe:
    """The recipe called ``name`` for the data set at ``root``.

    Raises:
        PreparationError: keys that it does not take, or no such data set.
    """
    if name == "huggingface":
        return importlib.import_module("preparation.huggingface").recipe(root, out, keys)
    if keys:
        raise PreparationError(f"{name} takes no keys such as {keys[0]}: its layout says what is what")
    return recipe(name)


@ending_plainly()
def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 could not be prepared (one sentence on stderr)."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", choices=NAMES, help="data set")
    parser.add_argument(
        "--root", type=Path, required=True, help="folder of the data set as it is published, or an id of the Hub"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for metadata.jsonl")
    parser.add_argument("keys", nargs="*", metavar="KEY=VALUE", help="for huggingface: " + KEYS_HELP)
    options = parser.parse_intermixed_args(arguments)
    try:
        with holding(options.out, "--out"):
            made = recipe_for(options.name, options.root, options.out, options.keys)
            summary = prepare(made, options.root, options.out)
    except PreparationError as error:
        say(f"prepare.py: {error}")
        return 1
    for line in summary.lines:
        print(line)
    print(f"{summary.out / 'metadata.jsonl'}: {'written' if summary.changed else 'is current'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

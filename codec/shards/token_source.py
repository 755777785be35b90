"""Which tokens belong to a corpus: shards that lie inside it, and what was encoded from its audio.

``data.root`` names the corpus, and nothing is read in its stead. Its tokens are

* ``<root>/tokens``, shards that ship with it (``data.tokens=auto``; null leaves them out);
* the cache of its own audio, ``runs/tokens/<name>/<tokenizer>-<fingerprint>``. The name is ``data.name``, or
  follows from the folder; a cache remembers whose it is and is never filled from another corpus.

``data.tokens=FOLDER`` names shards to be read *instead* of a corpus.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

from omegaconf import DictConfig

from codec.corpus import CorpusError, holds_audio, read_corpus
from codec.interface import AudioTokenizer
from codec.shards import INDEX_NAME, ShardError, read_index
from codec.shards.portions import scan_corpus
from training.checkpoint import write_file
from training.places import beside_code

OWNER = ".corpus.json"  # in a folder of shards: the corpus that it was encoded from; stays on this machine
SHIPPED = "tokens"  # folder inside a corpus
LONGEST_NAME = 200  # bytes; file systems take 255


def corpus_name(root: str | Path, name: str | None = None) -> str:
    """``name``, or the path of ``root`` from the working directory, as one that no other folder has.

    Raises:
        CorpusError: a name that leads out of the folder of all caches.
    """
    if name:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise CorpusError(f"data.name={name} leads out of runs/tokens: give a plain name, or out=FOLDER")
        return name
    path, here = Path(root).resolve(), Path.cwd()
    found = "-".join((path.relative_to(here) if path.is_relative_to(here) else path).parts).strip("/-") or "here"
    if len(os.fsencode(found)) > LONGEST_NAME:
        digest = hashlib.sha256(os.fsencode(found)).hexdigest()[:12]
        found = f"{os.fsencode(found)[-LONGEST_NAME + 13 :].decode(errors='ignore')}-{digest}"
    return found


def token_folder(
    root: str | Path, tokenizer: AudioTokenizer, splits: Iterable[str] | None = None, name: str | None = None
) -> Path:
    """Where the tokens of a corpus are cached: a folder per tokenizer, fingerprint and choice of splits."""
    parts = [tokenizer.name.replace("/", "-"), tokenizer.fingerprint[:12], *sorted(splits or [])]
    return Path("runs") / "tokens" / corpus_name(root, name) / "-".join(parts)


def check_owner(folder: Path, root: str | Path) -> None:
    """Refuse to fill a folder of shards from another corpus than the one it was encoded from.

    Raises:
        ShardError: they are another corpus'.
    """
    owner, ours = folder / OWNER, _place(folder, root)
    if not owner.is_file():
        return
    try:
        found = json.loads(owner.read_text(encoding="utf-8"))
        same = found["root"] == ours["root"] or found.get("from_here") == ours["from_here"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ShardError(f"{owner} is damaged ({error!r}); remove {folder} and encode again") from None
    if not same:
        raise ShardError(
            f"{folder} holds the tokens of {found['root']}, not of {ours['root']}: give this corpus another data.name "
            "or out, or remove that folder"
        )


def check_current(folder: Path, root: str | Path) -> None:
    """Refuse a cache that was not made from the corpus ``root`` as it is now.

    Raises:
        CorpusError: no such corpus.
        ShardError: no cache, another corpus', or the corpus has changed.
    """
    key = scan_corpus(root).key
    check_owner(folder, root)
    if read_index(folder).corpus != key:
        raise ShardError(f"{folder} was made before {root} changed: run codec/encode.py again")


def note_owner(folder: Path, root: str | Path) -> None:
    """Write down which corpus the shards of ``folder`` come from."""
    write_file(folder / OWNER, json.dumps(_place(folder, root)) + "\n")


def _place(folder: Path, root: str | Path) -> dict[str, str]:
    """Where a corpus is: by itself, and from the folder of its tokens, for where both are moved together."""
    corpus = Path(root).resolve()
    return {"root": str(corpus), "from_here": os.path.relpath(corpus, folder.resolve())}


def named_shards(data: DictConfig) -> Path | None:
    """The shards to read instead of a corpus (``data.tokens=FOLDER``), or None.

    Raises:
        ShardError: there are none.
    """
    if data.tokens in (None, "auto"):
        return None
    folder = Path(data.tokens)
    if not (folder / INDEX_NAME).is_file():
        missing = f"no {INDEX_NAME} is in it" if folder.is_dir() else "no such folder"
        raise ShardError(
            f"data.tokens={data.tokens}: {missing}; give a folder of token shards, or auto or null for the tokens of "
            "data.root."
        )
    return folder


def shipped_shards(data: DictConfig) -> Path | None:
    """The folder of shards that lie inside the corpus, unless ``data.tokens`` is null; None where there are none."""
    folder = beside_code(data.root) / SHIPPED
    return folder if data.tokens == "auto" and (folder / INDEX_NAME).is_file() else None


def check_corpus(data: DictConfig) -> bool:
    """Whether there is audio in the corpus ``data.root``; where there is none, it must hold shards.

    Raises:
        CorpusError: no such folder, or neither.
    """
    audio, shipped = holds_audio(data.root), shipped_shards(data)
    if audio and (shipped is None or read_corpus(data.root)[0]):
        return True
    if shipped is None:
        raise CorpusError(
            f"data.root={data.root} has no audio, no metadata and no token shards ({SHIPPED}/{INDEX_NAME}): name the "
            "folder of a corpus, or build one with `python scripts/make_corpus.py`."
        )
    return False

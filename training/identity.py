"""What the id of a clip may be, which file in a folder is named by it, what of a text may be shown; a file's hash.

    fault = fault_of_id("../../victim")                 # "it leads out of its folder"; None where an id is fine
    names = file_names(["a/b", "A/B"], ".wav")          # {"a/b": "a/b-….wav", "A/B": "A/B-….wav"}
    path = path_inside(folder, names["a/b"])            # every writer of files that ids name goes through here
    found, refused = without_faults({"a": path})        # of files that were found, and a sentence for each other one
    file_hash(path), folder_hash(folder)                # SHA-256 of what they hold

Ids come from files that anybody may have written: they are checked where corpora and shards are read.
"""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

CREDENTIALS = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^/\s@]*@", re.IGNORECASE)  # user and password of a URL
LONGEST_ID = 1024  # bytes
LONGEST_NAME = 240  # bytes of a file or folder: file systems take 255, a file that is being written has a longer one
JOINERS = "\u200c\u200d"
LONGEST_PATH = 900  # bytes of a path that ids name, within an id's length with the folders above it


def printable(text: str) -> str:
    """``text`` on one line, for messages: what cannot be printed or is no Unicode is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def first_line(error: Exception) -> str:
    """What an error of a library says, as a part of a sentence; the kind of error where it says nothing."""
    return printable((str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(" .:"))


def without_credentials(value: Any) -> Any:
    """A text, or a record with all its texts, with ``https://host/x`` for ``https://user:password@host/x``: whatever
    may be published passes here.
    """
    if isinstance(value, str):
        return CREDENTIALS.sub(r"\1", value)
    if isinstance(value, Mapping):
        return {without_credentials(key): without_credentials(entry) for key, entry in value.items()}
    return [without_credentials(entry) for entry in value] if isinstance(value, (list, tuple)) else value


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: no half of a surrogate pair, no byte of another encoding."""
    return not any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)


def fault_of_name(name: str) -> str | None:
    """Why ``name`` (an id, a speaker, a domain, a split, a licence) is not what one sees of it, or None where it is.

    Of the invisible characters those that join letters or keep them apart are part of words (Persian, Hindi).
    """
    for character in name:
        if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") and character not in JOINERS:
            return "it has control characters, invisible ones or half a character"
    return None


def fault_of_id(identity: str) -> str | None:
    """Why ``identity`` cannot name a file below a folder, or None where it can; it may have folders (``a/b``)."""
    if fault := fault_of_name(identity):
        return fault
    if len(identity.encode()) > LONGEST_ID:
        return f"it is longer than {LONGEST_ID} bytes"
    if PurePosixPath(identity).is_absolute() or PureWindowsPath(identity).drive:
        return "it is a path of its own"
    parts = identity.replace("\\", "/").split("/")
    if ".." in parts:
        return "it leads out of its folder"
    if not all(part.strip(". ") for part in parts):
        return "it has a part without a name"
    return None


def without_faults(files: Mapping[str, Path]) -> tuple[dict[str, Path], list[str]]:
    """Those of ``files`` whose key can name a file below a folder, and for each of the others why it cannot."""
    faults = {name: fault for name in files if (fault := fault_of_id(name))}
    refused = [printable(f"{files[name]}: its name cannot be used: {fault}") for name, fault in faults.items()]
    return {name: path for name, path in files.items() if name not in faults}, refused


def path_inside(folder: Path, name: str) -> Path:
    """``folder/name``.

    Raises:
        ValueError: it would lie elsewhere, or is no name of a file.
    """
    if fault := fault_of_id(name):
        raise ValueError(f"{folder}: no file of the name {name[:80]!r} is written: {fault}")
    return folder / name


def file_names(ids: Iterable[str], suffix: str) -> dict[str, str]:
    """For each id the relative path of its file: ``<id><suffix>``, and no two ids share one.

    Where the file system would not take that name for its length, or where some file system takes the names of two ids
    for one (letters that differ in case or in how accents are composed; a file and a folder), it ends in a hash.

    Raises:
        ValueError: an id that is none.
    """
    names = {identity: identity + suffix for identity in ids if path_inside(Path(), identity)}
    files = Counter(map(_folded, names.values()))
    folders = {str(parent) for name in names.values() for parent in PurePosixPath(_folded(name)).parents}
    for identity, name in names.items():
        is_long = len(name.encode()) > LONGEST_PATH or any(
            len(part.encode()) > LONGEST_NAME for part in name.split("/")
        )
        if is_long or files[_folded(name)] > 1 or _folded(name) in folders:
            names[identity] = _hashed(identity, suffix)
    if len(set(map(_folded, names.values()))) < len(names):
        raise ValueError("two clips would share a file: rename those whose ids end in a hash")
    return names


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _hashed(identity: str, suffix: str) -> str:
    """``<folders>/<beginning of the name>-<hash of the id><suffix>``, each part short enough."""
    digest = hashlib.sha256(identity.encode()).hexdigest()[:16]
    *folders, name = [part.encode()[: LONGEST_NAME - 55].decode(errors="ignore") for part in identity.split("/")]
    made = f"{name}-{digest}{suffix}"
    within = "/".join([*folders, made])
    return within if len(within.encode()) <= LONGEST_PATH else made


def file_hash(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_hash(folder: Path, names: Iterable[str] | None = None) -> str:
    """SHA-256 (hex) over names and contents of the files in a folder (all of them, or ``names``)."""
    files = (
        sorted(p for p in folder.rglob("*") if p.is_file()) if names is None else [folder / n for n in sorted(names)]
    )
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.relative_to(folder).as_posix()}\n{file_hash(path)}\n".encode())
    return digest.hexdigest()

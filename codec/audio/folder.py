"""Finds the audio files below a folder: none twice, and none passed over in silence.

    tree = walk("my_corpus")
    tree.files                                  # paths of audio files, sorted
    tree.problems                               # [(path, why it cannot be read)]: dead links, archives, names not UTF-8
    files, refused = find_audio("my_corpus")    # {"sub/a": Path("my_corpus/sub/a.wav")}, and a sentence per problem

Links to files and folders are followed. A folder that is reached twice, as in a loop of links, is read once, and the
link to it is a problem.
"""

import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from codec.audio.files import AUDIO_SUFFIXES, OTHER_AUDIO_SUFFIXES
from training.identity import is_unicode, printable, without_faults


@dataclass
class AudioTree:
    """What lies below a folder; `folders` begins with the folder itself."""

    folders: list[Path] = field(default_factory=list)
    files: list[Path] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def looks_like_audio(path: Path) -> bool:
    """Whether the suffix is that of audio, also of audio that soundfile does not read."""
    return path.suffix.lower() in AUDIO_SUFFIXES | OTHER_AUDIO_SUFFIXES


ARCHIVES = frozenset(".zip .tar .tgz .tbz .tbz2 .txz .tzst .7z .rar".split())
COMPRESSED = frozenset(".gz .bz2 .xz .zst".split())


def may_hold_audio(path: Path) -> bool:
    """Whether the name is that of an archive, or of one compressed file of audio."""
    inner = Path(path.stem)
    packed = path.suffix.lower() in COMPRESSED and (inner.suffix.lower() == ".tar" or looks_like_audio(inner))
    return packed or path.suffix.lower() in ARCHIVES


def walk(root: str | Path) -> AudioTree:
    """The folders and audio files below `root`, sorted; what cannot be read is a problem and stops nothing."""
    found = AudioTree()
    folders: list[Path] = [Path(root)]
    links: list[Path] = []
    visited: set[tuple[int, int]] = set()
    while folders or links:
        # Links come last: a folder that lies below the root keeps its own name.
        linked = not folders
        if linked:
            links.sort(reverse=True)
        folder = links.pop() if linked else folders.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in visited:
                if linked:
                    found.problems.append((folder, "it is a link to a folder that is read already"))
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                inside = list(entries)
        except OSError as error:
            found.problems.append((folder, f"the folder cannot be read ({error.strerror})"))
            continue
        found.folders.append(folder)
        for entry in inside:
            path = folder / entry.name
            try:
                is_folder = entry.is_dir()
                is_file = not is_folder and entry.is_file()
            except OSError:  # links in a circle
                is_folder = is_file = False
            if is_folder:
                (links if entry.is_symlink() else folders).append(path)
            elif is_file and looks_like_audio(path):
                if is_unicode(os.path.relpath(path, root)):
                    found.files.append(path)
                else:
                    found.problems.append((path, "its name is not UTF-8: rename it"))
            elif is_file and may_hold_audio(path):
                found.problems.append((path, "what is in an archive is not read: unpack it"))
            elif entry.is_symlink() and (looks_like_audio(path) or not path.suffix):
                found.problems.append((path, "it is a link that leads nowhere"))
            elif looks_like_audio(path):
                found.problems.append((path, "it is neither a file nor a folder"))
    found.folders.sort()
    found.files.sort()
    found.problems.sort()
    return found


def find_audio(source: str | Path) -> tuple[dict[str, Path], list[str]]:
    """The audio of a file or folder, by its path relative to that folder without suffix; and why some cannot be read.

    Where two files differ in the suffix only, both keep it in their name. Raises FileNotFoundError.
    """
    source = Path(source)
    if source.is_file():
        return without_faults({source.stem: source})
    if not source.is_dir():
        raise FileNotFoundError(f"{source} does not exist")
    tree = walk(source)
    files = {path.relative_to(source).as_posix(): path for path in tree.files}
    stems = Counter(Path(name).with_suffix("").as_posix() for name in files)
    named: dict[str, Path] = {}
    for name, path in files.items():
        stem = Path(name).with_suffix("").as_posix()
        named[stem if stems[stem] == 1 and stem not in files else name] = path
    found, refused = without_faults(named)
    refused = [printable(f"{path}: {problem}") for path, problem in tree.problems] + refused
    if not found and not refused:
        raise FileNotFoundError(f"{source} holds no audio files")
    return found, refused


def given_paths(given: str | Iterable[str] | None) -> list[str]:
    """The paths of a key that holds one, several or none; ``-`` stands for those on standard input, one a line."""
    found: list[str] = []
    for path in [given] if isinstance(given, str) else given or ():
        # bytes, as the system has them: a name that is not UTF-8 is for who opens the file to refuse
        found += map(os.fsdecode, sys.stdin.buffer.read().splitlines()) if path == "-" else [path]
    return [path for path in found if path.strip()]

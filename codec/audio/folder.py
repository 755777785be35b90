"""Finds the audio files below a folder: none twice, and none passed over in silence.

    tree = walk("my_corpus")
    tree.files                                  # paths of audio files, sorted
    tree.problems                               # [(path, why it cannot be read)]: dead links, archives, names not UTF-8

Links to files and folders are followed. A folder that is reached twice, as in a loop of links, is read once, and the
link to it is a problem.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from codec.audio.files import AUDIO_SUFFIXES, OTHER_AUDIO_SUFFIXES
from training.identity import is_unicode


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

"""What to decode of an audio file: all of it, or a view that is put together from pieces of it.

    with part.open() as file: ...        # soundfile.SoundFile

Most files are one part. A chained Ogg or a joined MP3 is several behind one another, and where a header leaves the
length open or is wrong, a view has another header before the file's own sound.
"""

from __future__ import annotations

import bisect
import io
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import soundfile

from training.identity import printable

MOST_BLOCKS = 10_000  # chunks, tags or blocks of metadata that are looked at: an honest file has a few
SCAN_BYTES = 1 << 20  # a file is searched in pieces of this size
TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")  # what may lie behind the sound


class AudioError(ValueError):
    """One audio file cannot be used; the message says why in one sentence, on one line whatever the file is called."""

    def __str__(self) -> str:
        return printable(super().__str__())


class View(io.RawIOBase):
    """A file made of bytes and of ranges of another file, for reading."""

    def __init__(self, path: Path, pieces: list[bytes | range]) -> None:
        self.file = path.open("rb")
        self.pieces = pieces
        self.starts = [0, *itertools.accumulate(map(len, pieces))]
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.starts[-1]}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        number = bisect.bisect_right(self.starts, self.position) - 1  # the last of those that begin here: not empty
        if number >= len(self.pieces):
            return 0
        piece = self.pieces[number]
        start = self.position - self.starts[number]
        count = min(len(buffer), len(piece) - start)
        if isinstance(piece, range):
            found = read_at(self.file, piece[start], count)
        else:
            found = piece[start : start + count]
        buffer[: len(found)] = found
        self.position += len(found)
        return len(found)

    def close(self) -> None:
        self.file.close()
        super().close()


@dataclass
class Part:
    """What to decode of a file: all of it (``pieces`` None), or a :class:`View` of bytes and ranges.

    ``least`` is the number of samples per channel that must come of it, where that was counted.
    """

    path: Path
    pieces: list[bytes | range] | None = None
    least: int = 0

    @classmethod
    def patched(cls, path: Path, end: int, patches: dict[int, bytes]) -> Part:
        """The first ``end`` bytes of a file, with these bytes over its own."""
        pieces: list[bytes | range] = []
        at = 0
        for start, content in sorted(patches.items()):
            pieces += [range(at, start), content]
            at = start + len(content)
        return cls(path, [*pieces, range(at, end)])

    @contextmanager
    def open(self) -> Iterator[soundfile.SoundFile]:
        """The audio, as soundfile reads it.

        Raises:
            AudioError: it is not audio.
        """
        source = self.path if self.pieces is None else io.BufferedReader(View(self.path, self.pieces), 1 << 16)
        try:
            file = soundfile.SoundFile(source)
        except (soundfile.SoundFileError, TypeError) as error:
            # soundfile takes a .raw suffix for headerless audio and asks for its rate with a TypeError.
            raise unreadable(self.path, reason(error)) from error
        try:
            if file.frames < self.least:
                raise AudioError(
                    f"{self.path} holds {self.least} samples of which soundfile sees {file.frames}: store it as FLAC"
                )
            yield file
        finally:
            file.close()
            if not isinstance(source, Path):
                source.close()


def unreadable(path: Path, why: str) -> AudioError:
    """The refusal of a file that soundfile does not open."""
    return AudioError(
        f"{path} is not audio that soundfile can read ({why}); convert it to WAV or FLAC if it is sound "
        "(ffmpeg -i OLD NEW.flac)"
    )


# What libsndfile says where it does not know better
GIVEN_UP = {
    "SF_INFO struct incomplete": "its header makes no sense",
    "not a regular file": "no sound was found in it",
}


def reason(error: Exception) -> str:
    """What an error of soundfile says, in one line."""
    said = " ".join(getattr(error, "error_string", str(error)).split()).rstrip(".")
    return next((why for words, why in GIVEN_UP.items() if words in said), said)


def truncated(path: Path, promised: float, held: float) -> AudioError:
    """The refusal of a file whose header promises so many seconds, of which only some are there."""
    return AudioError(
        f"{path} is truncated: its header promises {promised:.3f} s, {held:.3f} s are there, "
        f"{promised - held:.3f} s are missing"
    )


def read_at(file: BinaryIO, position: int, count: int) -> bytes:
    """Up to ``count`` bytes from ``position`` on."""
    file.seek(position)
    return file.read(max(count, 0))


def all_zero(file: BinaryIO, start: int, end: int) -> bool:
    """Whether nothing but zeros lies between two bytes of a file."""
    pieces = (read_at(file, at, min(SCAN_BYTES, end - at)) for at in range(start, end, SCAN_BYTES))
    return not any(piece.strip(b"\0") for piece in pieces)


def after_id3(file: BinaryIO, position: int) -> int:
    """Where what follows the ID3v2 tags at ``position`` begins."""
    for _ in range(MOST_BLOCKS):
        head = read_at(file, position, 10)
        if head[:3] != b"ID3" or len(head) < 10:
            break
        size = (head[6] & 127) << 21 | (head[7] & 127) << 14 | (head[8] & 127) << 7 | head[9] & 127
        position += 10 + size + (10 if head[5] & 0x10 else 0)  # the flag: a footer as long as the head
    return position

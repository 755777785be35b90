"""How much sound an Ogg file holds (RFC 3533): its pages are walked.

Vorbis and Opus are read by libsndfile, FLAC is taken out of the pages for it. A stream begins and ends with pages that
say so, and its pages are numbered: what was cut or lost shows. A chained file has several streams behind one another,
and each is a part.
"""

from pathlib import Path
from typing import BinaryIO

from codec.audio.part import TAGS, AudioError, Part, all_zero, read_at, unreadable

CODINGS = {
    b"\x01vorbis": "Vorbis",
    b"OpusHead": "Opus",
    b"\x7fFLAC": "FLAC",
    b"Speex": "Speex",
    b"\x80theora": "Theora video",
    b"fishead": "a skeleton of several streams",
}
READ = ("Vorbis", "Opus", "FLAC")


class _Link:
    """One of the streams behind one another: where it begins, its pages' bodies where it is FLAC, its last position."""

    def __init__(self, start: int, coding: str) -> None:
        self.start, self.end, self.coding = start, start, coding
        self.numbers: dict[bytes, int] = {}  # of the last page, by stream
        self.bodies: list[range] = []
        self.granule = 0
        self.is_closed = False


def ogg_parts(file: BinaryIO, path: Path, start: int, size: int) -> list[Part]:
    """A part per stream.

    Raises:
        AudioError: the file was cut, pages are missing, or it is neither Vorbis, Opus nor FLAC.
    """
    links: list[_Link] = []
    position, begins = start, False  # whether the page before began a stream: some begin together
    while position < size:
        head = read_at(file, position, 27 + 255)
        if head[:4] != b"OggS":
            if links and (head.startswith(TAGS) or all_zero(file, position, size)):
                break
            raise AudioError(f"{path} is damaged: no Ogg page begins at byte {position}")
        body = position + 27 + head[26] if len(head) >= 27 else size + 1
        end = body + sum(head[27 : 27 + head[26]]) if body <= size else body
        if end > size:
            raise AudioError(f"{path} is truncated: its last Ogg page ends {end - size} bytes too early")
        if head[5] & 2 and not begins:
            _check_closed(path, links)
            packet = read_at(file, body, 16)
            names = (name for mark, name in CODINGS.items() if packet.startswith(mark))
            links.append(_Link(position, next(names, "an unknown coding")))
        if not links:
            raise AudioError(f"{path} is damaged: its first Ogg page begins no stream")
        begins = bool(head[5] & 2)
        link = links[-1]
        serial, number = head[14:18], int.from_bytes(head[18:22], "little")
        if number != link.numbers.get(serial, number - 1) + 1:
            raise AudioError(f"{path} is damaged: Ogg pages are missing before page {number}")
        link.numbers[serial] = number
        link.is_closed = bool(head[5] & 4)
        link.end = position = end
        if link.coding == "FLAC" and end > body:
            link.bodies.append(range(body, end))
            link.granule = max(link.granule, int.from_bytes(head[6:14], "little", signed=True))
    _check_closed(path, links)
    other = next((link.coding for link in links if link.coding not in READ), None)
    if other:
        raise unreadable(path, f"it is {other} in Ogg")
    return [_flac(file, path, link) if link.coding == "FLAC" else _part(path, link, len(links)) for link in links]


def _check_closed(path: Path, links: list[_Link]) -> None:
    if links and not links[-1].is_closed:
        raise AudioError(f"{path} is truncated: its last Ogg page does not end the stream")


def _part(path: Path, link: _Link, count: int) -> Part:
    return Part(path) if count == 1 and link.start == 0 else Part(path, [range(link.start, link.end)])


def _flac(file: BinaryIO, path: Path, link: _Link) -> Part:
    """The FLAC stream inside the pages: 9 bytes of the mapping, then a FLAC file; its last page says its length."""
    first = bytearray(read_at(file, link.bodies[0].start + 9, len(link.bodies[0]) - 9))
    if first[:4] != b"fLaC" or len(first) < 42:
        raise AudioError(f"{path} is damaged: its FLAC header is not whole")
    field = int.from_bytes(first[21:26], "big") >> 36 << 36 | link.granule & (1 << 36) - 1
    first[21:26] = field.to_bytes(5, "big")
    return Part(path, [bytes(first), *link.bodies[1:]])

"""How much sound a compressed file holds: FLAC, MPEG audio (MP3, MP2, MP1).

Their frames say how many samples they stand for, so they are counted where a header says nothing, guesses
or lies: FLAC of unknown length, MP3 without a Xing or Info frame. Several streams behind one another (joined MP3
and FLAC) are all found. What was cut off, or holds more than its header says, is refused.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from codec.audio.part import MOST_BLOCKS, SCAN_BYTES, AudioError, Part, read_at, truncated, unreadable

# ---------------------------------------------------------------- FLAC (RFC 9639)

FLAC_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")  # the mark, and the head of STREAMINFO (0x80: nothing else)
WIDEST = 1 << 22  # bytes at the end that are searched for frames: they are shorter


def flac_parts(file: BinaryIO, path: Path, start: int, size: int) -> list[Part]:
    """A part per FLAC stream. Its header's length is corrected where the frames hold more, or it says nothing.

    Raises:
        AudioError: the frames hold less than the header says.
    """
    starts = []
    for position in range(start, size, SCAN_BYTES):
        piece = read_at(file, position, SCAN_BYTES + 7)
        starts += [position + found.start() for found in FLAC_START.finditer(piece)]
    if not starts:
        raise AudioError(f"{path} is truncated: its header ends before any samples begin")
    ends = [*starts[1:], size]
    parts = [_flac_part(file, path, begin, end) for begin, end in zip(starts, ends, strict=True)]
    is_plain = len(parts) == 1 and parts[0].pieces and isinstance(parts[0].pieces[0], range)
    return [Part(path)] if is_plain else parts


def _flac_part(file: BinaryIO, path: Path, start: int, end: int) -> Part:
    info = read_at(file, start, 42)  # mark 4, block head 4, STREAMINFO 34
    if len(info) < 42:
        raise AudioError(f"{path} is truncated: its header ends before any samples begin")
    rate = int.from_bytes(info[18:21], "big") >> 4
    promised = int.from_bytes(info[21:26], "big") & (1 << 36) - 1
    counted = _flac_samples(file, path, start, end, int.from_bytes(info[10:12], "big"), promised)
    if rate == 0 or counted is None and promised:
        return Part(path, [range(start, end)])  # the decoder has the last word
    if counted is None:
        raise AudioError(f"{path} is damaged: its header leaves the length open and no FLAC frame was found")
    if counted < promised:
        raise truncated(path, promised / rate, counted / rate)
    if counted == promised:
        return Part(path, [range(start, end)])
    field = int.from_bytes(info[21:26], "big") >> 36 << 36 | counted
    return Part(path, [info[:21] + field.to_bytes(5, "big") + info[26:], range(start + 42, end)], counted)


def _flac_samples(file: BinaryIO, path: Path, start: int, end: int, block: int, promised: int) -> int | None:
    """Samples before the end of the last frame, by the numbers that frames carry; None: no frame was found.

    `block` is STREAMINFO's largest block. A frame counts where it goes on from another, or agrees with `promised`:
    four bytes that look like a frame's head are found in coded sound too.
    """
    first = start + 4
    last_block = False
    for _ in range(MOST_BLOCKS):  # over the metadata
        if last_block or first + 4 > end:
            break
        head = read_at(file, first, 4)
        last_block = bool(head[0] & 0x80)
        first += 4 + int.from_bytes(head[1:], "big")
    if not last_block or first >= end:
        raise AudioError(f"{path} is truncated: its header ends before any samples begin")
    sync = read_at(file, first, 2)  # the same at the head of every frame
    width = 1 << 15
    while True:
        begin = max(first, end - width)
        piece = read_at(file, begin, end - begin)
        ends: dict[int, int] = {}  # first sample of a frame -> the sample after its last
        at = piece.rfind(sync)
        while at >= 0:
            frame = _flac_frame(piece[at : at + 17], block)
            if frame:
                number, after = frame[0], sum(frame)
                if after == promised:
                    return after
                if after in ends or begin + at == first:
                    return ends.get(after, after)
                ends[number] = after
            at = piece.rfind(sync, 0, at)
        if begin == first or width >= WIDEST:
            return None
        width *= 8


def _flac_frame(head: bytes, block: int) -> tuple[int, int] | None:
    """First sample and number of samples of the frame that these bytes begin, if they do."""
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xFE != 0xF8 or head[3] & 1 or head[3] >> 4 > 10:
        return None
    size_code, rate_code = head[2] >> 4, head[2] & 15
    if size_code == 0 or rate_code == 15:
        return None
    # The number is coded as UTF-8 codes a letter, in up to seven bytes.
    length = 8 - (head[4] ^ 0xFF).bit_length()
    number = head[4] if length == 0 else head[4] & (0x7F >> length)
    if length == 1 or length == 8:
        return None
    at = 5
    for _ in range(length - 1):
        if at >= len(head) or head[at] & 0xC0 != 0x80:
            return None
        number = number << 6 | head[at] & 0x3F
        at += 1
    extra = {6: 1, 7: 2}.get(size_code, 0)
    count = int.from_bytes(head[at : at + extra], "big") + 1 if extra else 0
    if not extra:
        count = 192 if size_code == 1 else 576 << size_code - 2 if size_code < 6 else 256 << size_code - 8
    at += extra + {12: 1, 13: 2, 14: 2}.get(rate_code, 0)
    if at >= len(head) or _crc8(head[:at]) != head[at]:
        return None
    return (number if head[1] & 1 else number * block), count


def _crc8(content: bytes) -> int:
    value = 0
    for byte in content:
        value ^= byte
        for _ in range(8):
            value = (value << 1 ^ 0x107) if value & 0x80 else value << 1
    return value


# ---------------------------------------------------------------- MPEG audio (ISO 11172-3, 13818-3)

# kbit/s by layer and index, MPEG 1 and (2, 2.5)
BITRATES = {
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (2, 3): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
DECODER_DELAY = 529  # samples that mpg123 leaves out where an Info frame is: nothing but its own delay
RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz, by the version's bits


class MpegFrame:
    """What the four bytes at the head of a frame say; `size` is 0 where they are none."""

    __slots__ = ("kind", "mono", "rate", "samples", "size", "version")

    def __init__(self, head: bytes) -> None:
        self.size = 0
        if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
            return
        version, layer, index = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 4
        if version == 1 or layer == 4 or index in (0, 15) or head[2] >> 2 & 3 == 3:
            return
        self.version, self.mono = version, head[3] >> 6 == 3
        self.rate = RATES[version][head[2] >> 2 & 3]
        bits = BITRATES[1 if version == 3 else 2, layer][index] * 1000
        padding = head[2] >> 1 & 1
        if layer == 1:
            self.samples, self.size = 384, (12 * bits // self.rate + padding) * 4
        else:
            self.samples = 1152 if layer == 2 or version == 3 else 576
            self.size = self.samples // 8 * bits // self.rate + padding
        self.kind = (version, layer, self.rate, self.mono)  # what may not change within a stream

    @property
    def tag_at(self) -> int:
        """Where a Xing or Info tag stands in a frame of layer III: behind the side information."""
        return 4 + ((17 if self.mono else 32) if self.version == 3 else (9 if self.mono else 17))


_FRAMES: dict[bytes, MpegFrame] = {}  # by the head's first three bytes and channels: a file has a few of them


def _frame(head: bytes) -> MpegFrame:
    frame = _FRAMES.get(head)
    if frame is None:
        if len(_FRAMES) > 4096:
            _FRAMES.clear()
        frame = _FRAMES[head] = MpegFrame(head)
    return frame


def mpeg_parts(file: BinaryIO, path: Path, start: int, size: int) -> list[Part]:
    """A part per stream of an MPEG audio file whose frames begin at `start` or later.

    Each Xing or Info frame begins a stream; one without is counted frame by frame and gets an Info frame with the
    count, as libsndfile would guess its length. Raises AudioError where a stream is shorter than its Xing frame says
    or ends inside a frame.
    """
    parts: list[_Mpeg] = []
    for position, frame, content in _mpeg_frames(file, path, start, size):
        tag = _xing(frame, content)
        if not parts or tag is not None:
            parts.append(_Mpeg(position, frame, content[:4], tag))
            if position == start and tag and tag[1] and start + tag[1] in (size, size - 128):
                return [Part(path)]  # all there is, or all but an ID3v1 tag
            if tag is not None:
                continue
        part = parts[-1]
        if part.frames == 0:
            part.first = position
        if frame.kind != part.frame.kind:
            raise AudioError(f"{path} changes its rate or channels at byte {position}: split it there")
        if position + frame.size > size:
            part.is_cut = True
        else:
            part.add(position, frame)
    if not any(part.frames for part in parts):
        raise unreadable(path, "it holds no whole MPEG frame")
    found = [part.as_part(path) for part in parts if part.frames]
    is_plain = len(found) == 1 and len(found[0].pieces or ()) == 1 and parts[0].start == start
    return [Part(path, least=found[0].least)] if is_plain else found


class _Mpeg:
    """A stream within an MPEG audio file while its frames are counted; `frames` leaves the Xing frame out."""

    def __init__(self, start: int, frame: MpegFrame, head: bytes, tag: tuple[int, int] | None) -> None:
        self.start, self.frame, self.head, self.tag = start, frame, head, tag
        self.first = start
        self.end = start + frame.size if tag is not None else start
        self.between: list[int] = []  # where bytes that are no frame begin and end, in turns
        self.frames, self.is_cut = 0, False

    def add(self, position: int, frame: MpegFrame) -> None:
        """Count a whole frame."""
        if position != self.end:
            self.between += (self.end, position)
        self.frames, self.end = self.frames + 1, position + frame.size

    def sound(self, start: int) -> list[bytes | range]:
        """Where the frames from ``start`` on lie: of what is none the decoder would print line after line."""
        edges = [start, *(edge for edge in self.between if edge > start), self.end]
        return [range(*edges[at : at + 2]) for at in range(0, len(edges), 2)]

    def as_part(self, path: Path) -> Part:
        promised = self.tag[0] if self.tag else 0
        seconds = self.frame.samples / self.frame.rate
        if self.frames + 1 < promised or (self.frames < promised and self.is_cut):
            raise truncated(path, promised * seconds, self.frames * seconds)
        if self.frames == promised:
            return Part(path, self.sound(self.start))
        if self.is_cut:
            raise AudioError(f"{path} is truncated: it ends inside a frame, after {self.frames * seconds:.3f} s")
        samples = self.frames * self.frame.samples
        if self.frame.kind[1] != 3:
            return Part(path, self.sound(self.start), samples)
        return Part(path, [self._info(), *self.sound(self.first)], samples - DECODER_DELAY)

    def _info(self) -> bytes:
        """An Info frame that counts `frames` and their bytes."""
        head = bytearray(self.head)
        head[1] |= 1  # no checksum
        while MpegFrame(bytes(head)).size < self.frame.tag_at + 16:
            head[2] += 16  # the next bit rate
        frame = MpegFrame(bytes(head))
        total = frame.size + self.end - self.first
        tag = b"Info" + (3).to_bytes(4, "big") + self.frames.to_bytes(4, "big") + total.to_bytes(4, "big")
        return (bytes(head).ljust(frame.tag_at, b"\0") + tag).ljust(frame.size, b"\0")


def _xing(frame: MpegFrame, content: bytes) -> tuple[int, int] | None:
    """Frames and bytes that a Xing, Info or VBRI frame promises, 0 where it does not say; None: an ordinary frame."""
    if content[36:40] == b"VBRI":
        return 0, 0
    tag = content[frame.tag_at : frame.tag_at + 16]
    if tag[:4] not in (b"Xing", b"Info"):
        return None
    has_frames, has_bytes = tag[7] & 1, tag[7] & 2
    frames = int.from_bytes(tag[8:12], "big") if has_frames else 0
    at = 12 if has_frames else 8
    return frames, int.from_bytes(tag[at : at + 4], "big") if has_bytes else 0


def _mpeg_frames(file: BinaryIO, path: Path, position: int, size: int) -> Iterator[tuple[int, MpegFrame, bytes]]:
    """Position, head and first bytes of each frame; tags between frames and bytes that are none are passed over."""
    base, piece = position, b""
    while position + 4 <= size:
        at = position - base
        if at + 64 > len(piece) and base + len(piece) < size:
            base, piece, at = position, read_at(file, position, SCAN_BYTES), 0
        frame = _frame(piece[at : at + 4])
        if frame.size:
            yield position, frame, piece[at : at + 64]
            position += frame.size
        else:
            position = _next_frame(file, position, size)


def _next_frame(file: BinaryIO, position: int, size: int) -> int:
    """Where two frames of one kind follow one another from `position` on, or `size`."""
    while position < size:
        piece = read_at(file, position, SCAN_BYTES)
        at = piece.find(b"\xff")
        while 0 <= at:
            frame = _frame(piece[at : at + 4])
            if frame.size:
                following = MpegFrame(read_at(file, position + at + frame.size, 4))
                if following.size and following.kind == frame.kind:
                    return position + at
            at = piece.find(b"\xff", at + 1)
        position += max(len(piece) - 3, 1)
    return size

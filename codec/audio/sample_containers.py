"""How much sound a file of plain samples holds: WAV (RIFF, RIFX, RF64), AIFF, W64, CAF, AU, NIST SPHERE, VOC.

libsndfile shortens a file that ends early, and stops where the header says, without a word. So the sizes in the
headers are compared with the file here. One policy for all: a size that was left open (a pipe, a recorder that died)
is read to the file's end; one that promises more than there is, or less, is refused.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Literal

import soundfile

from codec.audio.part import MOST_BLOCKS, TAGS, AudioError, Part, all_zero, read_at, truncated

HEADER_SLACK = 44  # bytes that a size may be too large by: some writers count their header among the samples
W64_TAIL = bytes.fromhex("f3acd3118cd100c04f8edb8a")  # last bytes of the names of W64 chunks
FILES = (b"RIFF", b"RIFX", b"RF64", b"FORM", b"riff", b"caff")  # no chunks: another file behind this one


@dataclass(frozen=True)
class Layout:
    """How a container lays out its chunks: a name, a size, the content."""

    first: int  # byte at which the chunks begin
    order: Literal["little", "big"]
    name: int = 4  # bytes of a name
    size: int = 4  # bytes of a size
    counts_head: bool = False  # whether the size counts name and size too
    align: int = 2  # chunks begin at multiples of this
    data: bytes = b"data"  # the chunk with the samples
    before: int = 0  # bytes in it before the samples
    total: int = 4  # where the file's own size stands, in a field like a chunk's; 0: nowhere


LAYOUTS = {
    "RIFF": Layout(12, "little"),
    "RF64": Layout(12, "little"),
    "RIFX": Layout(12, "big"),
    "AIFF": Layout(12, "big", data=b"SSND", before=8),
    "W64": Layout(40, "little", 16, 8, True, 8, b"data" + W64_TAIL, total=16),
    "CAF": Layout(8, "big", size=8, align=1, before=4, total=0),
}


def container(head: bytes) -> str | None:
    """The container that the first 40 bytes of a file belong to, if it is one of these."""
    if head[:4] in (b"RIFF", b"RF64", b"RIFX") and head[8:12] == b"WAVE":
        return head[:4].decode()
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "AIFF"
    if head[:4] == b"riff" and head[24:28] == b"wave":
        return "W64"
    names = {b"caff": "CAF", b".snd": "AU", b"dns.": "AU", b"NIST": "NIST", b"Crea": "VOC"}
    return names.get(head[:4])


def sample_part(file: BinaryIO, path: Path, size: int, kind: str) -> Part:
    """What to decode of a file of `size` bytes in the container `kind`.

    Raises AudioError when the header promises another length than the file has.
    """
    if kind == "AU":
        return _au(file, path, size)
    if kind == "NIST":
        return _nist(file, path, size)
    if kind == "VOC":
        return _voc(file, path, size)
    return _chunked(file, path, size, kind)


def _is_open(promised: int) -> bool:
    """Whether a size says that its writer did not know it: ffmpeg has 0xFFFFFFFF, sox 0x7FFFF024, arecord 2^31."""
    return 0x7FFFF000 <= promised <= 0x80000000 or 0xFFFFF000 <= promised <= 0xFFFFFFFF or promised >= 1 << 62


def _chunked(file: BinaryIO, path: Path, size: int, kind: str) -> Part:
    layout = LAYOUTS[kind]
    long_size = sizes_at = count_at = None
    body = promised = 0
    for name, content, length in _chunks(file, size, layout, layout.first):
        if name == b"ds64":  # RF64 keeps the real size here
            sizes_at, long_size = content, int.from_bytes(read_at(file, content + 8, 8), "little")
        elif name == b"COMM":
            count_at = content + 2  # AIFF counts its samples once more
        elif name == layout.data:
            body, promised = content, length
            break
    if not body:
        raise AudioError(f"{path} is truncated: its {kind} header ends before any samples begin")
    held = size - body
    if kind == "RF64" and long_size:
        promised = long_size if long_size < 1 << 62 else 0
    elif promised > held and _is_open(promised):
        promised = 0
    after = body + promised
    if promised <= layout.before:
        if held <= layout.before or _rest(file, size, layout, after) == 0:
            return Part(path)  # no samples at all
        return _closed(file, path, size, kind, body, sizes_at, count_at)
    if promised > held + HEADER_SLACK:
        raise _too_short(path, promised - layout.before, held - layout.before)
    _check_rest(file, path, size, layout, after, promised - layout.before)
    if count_at:
        _check_aiff_count(file, path, count_at, min(promised, held) - layout.before)
    return Part(path)


def _chunks(file: BinaryIO, size: int, layout: Layout, position: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, first byte of the content and promised size of each chunk from `position` on."""
    head = layout.name + layout.size
    for _ in range(MOST_BLOCKS):
        if position + head > size:
            break
        field = read_at(file, position, head)
        promised = int.from_bytes(field[layout.name :], layout.order) - (head if layout.counts_head else 0)
        yield field[: layout.name], position + head, max(promised, 0)
        position += head + max(promised, 0)
        position += -position % layout.align


def _rest(file: BinaryIO, size: int, layout: Layout, position: int) -> int:
    """The number of bytes from `position` on that no chunk describes; padding with zeros and tags do not count."""
    for name, body, promised in _chunks(file, size, layout, position + -position % layout.align):
        is_name = all(32 <= letter < 127 for letter in name[:4]) and name[:4] not in FILES
        if not is_name or body + promised > size + layout.align:
            break
        position = body + promised
    tag = read_at(file, position, 12).startswith(TAGS)
    return 0 if tag or size - position < 8 or all_zero(file, position, size) else size - position


def _check_rest(file: BinaryIO, path: Path, size: int, layout: Layout, after: int, promised: int) -> None:
    # Writers forget the byte that makes an odd size even: then the next chunk begins one earlier.
    rest = min(_rest(file, size, layout, after), _rest(file, size, replace(layout, align=1), after))
    if rest:
        raise AudioError(
            f"{path} holds more than its header says: {rest} bytes that belong to no chunk follow the {promised} bytes "
            "of samples; write its header anew, if they are samples, or cut them off"
        )


def _too_short(path: Path, promised: int, held: int) -> AudioError:
    """The refusal of a file with `held` of `promised` bytes of samples: in seconds, by what libsndfile makes of it."""
    try:
        seconds = soundfile.info(path).duration
    except soundfile.SoundFileError:
        seconds = 0.0
    if held > 0 and seconds > 0 and promised < 1 << 62:
        return truncated(path, promised * seconds / held, seconds)
    return AudioError(f"{path} is truncated: its header promises {promised} bytes of samples, {max(held, 0)} are there")


def _closed(
    file: BinaryIO, path: Path, size: int, kind: str, body: int, sizes_at: int | None, count_at: int | None
) -> Part:
    """A file whose sizes were left open, with those that it has."""
    layout = LAYOUTS[kind]
    patches: dict[int, bytes] = {}

    def write(position: int, value: int, count: int = layout.size) -> None:
        if value >= 1 << 8 * count:
            raise AudioError(f"{path} is too long for the size that its header leaves open: store it as RF64 or FLAC")
        patches[position] = value.to_bytes(count, layout.order)

    if sizes_at:  # RF64
        write(sizes_at, size - 8, 8)
        write(sizes_at + 8, size - body, 8)
    else:
        extra = layout.name + layout.size if layout.counts_head else 0
        write(body - layout.size, size - body + extra)
        if layout.total:
            write(layout.total, size if layout.counts_head else size - 8)
    if count_at:
        write(count_at, (size - body - layout.before) // _aiff_width(file, count_at), 4)
    return Part.patched(path, size, patches)


def _aiff_width(file: BinaryIO, count_at: int) -> int:
    """Bytes of one sample of all channels; the header has channels (2 bytes), number of samples (4), bits (2)."""
    field = read_at(file, count_at - 2, 8)
    return max(int.from_bytes(field[:2], "big") * -(-int.from_bytes(field[6:], "big") // 8), 1)


def _check_aiff_count(file: BinaryIO, path: Path, count_at: int, held: int) -> None:
    coding = read_at(file, count_at + 16, 4)
    if read_at(file, 8, 4) == b"AIFC" and coding not in (b"NONE", b"sowt", b"twos", b"fl32", b"FL32"):
        return  # compressed: the count says nothing about bytes
    count, there = int.from_bytes(read_at(file, count_at, 4), "big"), held // _aiff_width(file, count_at)
    if count != there:
        raise AudioError(f"{path} contradicts itself: its header counts {count} samples, {there} are there")


def _refuse_more(file: BinaryIO, path: Path, body: int, promised: int, size: int) -> None:
    """Refuse a file with more behind the ``promised`` bytes of samples from ``body`` on than padding."""
    if body + promised < size and not all_zero(file, body + promised, size):
        raise AudioError(
            f"{path} holds more than its header says: {promised} bytes of samples, {size - body} are there"
        )


def _au(file: BinaryIO, path: Path, size: int) -> Part:
    head = read_at(file, 0, 24)
    order: Literal["little", "big"] = "big" if head[:4] == b".snd" else "little"
    body, promised = int.from_bytes(head[4:8], order), int.from_bytes(head[8:12], order)
    if promised == 0 and body < size:
        return Part.patched(path, size, {8: b"\xff\xff\xff\xff"})
    if promised > size - body and _is_open(promised):
        return Part(path)
    if promised > size - body + HEADER_SLACK:
        raise _too_short(path, promised, size - body)
    _refuse_more(file, path, body, promised, size)
    return Part(path)


def _nist(file: BinaryIO, path: Path, size: int) -> Part:
    head = read_at(file, 0, 4096).decode("latin-1")
    fields = {cells[0]: cells[2] for line in head.split("\n") if len(cells := line.split(maxsplit=2)) == 3}
    numbers = [fields.get(key, "") for key in ("sample_count", "channel_count", "sample_n_bytes")]
    lines = head.split("\n", 2)
    if len(lines) < 3 or not lines[1].strip().isdecimal() or not all(number.strip().isdecimal() for number in numbers):
        raise AudioError(f"{path} has a NIST header without the number of its samples, channels or bytes")
    count, channels, width = map(int, numbers)
    body = int(lines[1])
    promised = count * channels * width
    if promised > size - body:
        raise _too_short(path, promised, size - body)
    _refuse_more(file, path, body, promised, size)
    return Part(path)


def _voc(file: BinaryIO, path: Path, size: int) -> Part:
    position = int.from_bytes(read_at(file, 20, 2), "little")
    sounds = 0
    for _ in range(MOST_BLOCKS):
        head = read_at(file, position, 4)
        if not head or head[0] == 0 or head[0] > 9 or len(head) < 4:  # the end, or no block
            break
        promised = int.from_bytes(head[1:], "little")
        if position + 4 + promised > size:
            raise _too_short(path, promised, size - position - 4)
        sounds += head[0] in (1, 2, 9)
        position += 4 + promised
    if sounds > 1:
        raise AudioError(
            f"{path} has {sounds} blocks of samples, of which only the first would be read: store it as WAV"
        )
    if not all_zero(file, position, size):
        raise AudioError(f"{path} holds more than its blocks say: {size - position} bytes follow the last one")
    return Part(path)

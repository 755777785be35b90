"""How much sound an audio file really holds: what its container says is checked against what lies there.

libsndfile takes the length in a header for truth: it shortens a file that was cut without a word, drops what lies
behind the stated end, and reads the first of several streams alone. So the container is walked first (headers only, no
audio is decoded), and :func:`parts_of` says what to decode: the file as it is, a repaired view of it, or one view per
stream.

    for part in parts_of(path):
        with part.open() as file: ...        # soundfile.SoundFile of a length that holds

==========================  =======================================================================================
WAV, RF64, W64, AIFF, CAF   sizes open (all ones, or 0 with sound behind) or up to 44 bytes too large: read to the end;
AU, NIST                    a larger promise: truncated; bytes behind the stated end that are no chunks: refused
FLAC                        the last frame's own number tells the length; what the header says of it is corrected
Ogg (Vorbis, Opus)          the last page must close its stream, else truncated; each chained stream is read
Ogg with FLAC               taken out of its pages, which libsndfile cannot
MP3, MP2                    frames are counted; a missing or shorter Xing header is replaced, a longer one: truncated
==========================  =======================================================================================
"""

from __future__ import annotations

import io
import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import soundfile

# Writers that cannot seek back (a pipe) leave sizes open: ffmpeg writes 0xFFFFFFFF, sox 0x7FFFF024.
OPEN_SIZE = 0x7FFFF000
HEADER_SLACK = 44  # bytes: some writers count their header among the samples


class AudioError(ValueError):
    """One audio file cannot be used; the message says why in one sentence."""


class View(io.RawIOBase):
    """A file made of bytes and of ranges ``(start, stop)`` of another file, for reading."""

    def __init__(self, path: Path, pieces: list[bytes | tuple[int, int]]) -> None:
        self.file = path.open("rb")
        self.pieces = [piece if isinstance(piece, bytes) else range(*piece) for piece in pieces]
        self.size = sum(map(len, self.pieces))
        self.position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = max(0, base + offset)
        return self.position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        start = self.position
        for piece in self.pieces:
            if start < len(piece):
                count = min(len(buffer), len(piece) - start)
                if isinstance(piece, range):
                    self.file.seek(piece[start])
                    found = self.file.read(count)
                else:
                    found = piece[start : start + count]
                buffer[: len(found)] = found
                self.position += len(found)
                return len(found)
            start -= len(piece)
        return 0

    def close(self) -> None:
        self.file.close()
        super().close()


@dataclass
class Part:
    """What to decode of a file: all of it (``pieces`` None), or a :class:`View`."""

    path: Path
    pieces: list[bytes | tuple[int, int]] | None = None

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
            reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
            raise AudioError(
                f"{self.path} is not audio that soundfile can read ({reason}); convert it to WAV or FLAC if it is sound"
            ) from error
        try:
            yield file
        finally:
            file.close()
            if not isinstance(source, Path):
                source.close()


def parts_of(path: Path) -> list[Part]:
    """What to decode of the file, in order.

    Raises:
        AudioError: it is missing, empty or not whole.
    """
    if not path.is_file():
        raise AudioError(f"{path} does not exist")
    if path.stat().st_size == 0:
        raise AudioError(f"{path} is an empty file (0 bytes)")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        start = after_id3(data, 0)
        head = data[start : start + 16]
        if head[:4] in (b"RIFF", b"RIFX", b"RF64") and head[8:12] == b"WAVE":
            return _chunked(path, data, "big" if head[:4] == b"RIFX" else "little", 12, b"data")
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            return _chunked(path, data, "big", 12, b"SSND")
        if head[:4] == b"riff" and data[24:28] == b"wave":
            return _w64(path, data)
        if head[:4] == b"caff":
            return _caf(path, data)
        if head[:4] == b".snd":
            offset, promised = struct.unpack(">II", data[4:12])
            return _check_size(path, data, offset, promised, None)
        if head[:7] == b"NIST_1A":
            return _nist(path, data)
        if head[:4] == b"fLaC":
            return _flac(path, data, start)
        if head[:4] == b"OggS":
            return _ogg(path, data)
        if head[:1] == b"\xff" or start or path.suffix.lower() in (".mp3", ".mp2"):
            return _mpeg(path, data, start)
    return [Part(path)]


def after_id3(data: mmap.mmap, start: int) -> int:
    """Where what follows the ID3v2 tags at ``start`` begins."""
    while data[start : start + 3] == b"ID3" and len(data) >= start + 10:
        size = 0
        for byte in data[start + 6 : start + 10]:
            size = size << 7 | byte & 0x7F
        start += 10 + size + (10 if data[start + 5] & 0x10 else 0)
    return start


def truncated(path: Path, promised: int, held: int, unit: str = "") -> AudioError:
    """The refusal of a file that was cut, in ``unit``; without one, of bytes of samples, which are told in seconds."""
    if not unit:
        try:
            with soundfile.SoundFile(path) as file:  # which takes the length for what is there
                second = held * file.samplerate / max(1, file.frames)  # bytes of one
            told = [f"{count / second:.3f} s" for count in (promised, held, promised - held)]
        except (soundfile.SoundFileError, ZeroDivisionError):
            told = [f"{count} bytes" for count in (promised, held, promised - held)]
    else:
        told = [f"{promised} {unit}", str(held), str(promised - held)]
    return AudioError(f"{path} is truncated: its header promises {told[0]}, {told[1]} are there, {told[2]} are missing")


# ---- sizes in front of samples ---------------------------------------------------------------------------------


def _check_size(
    path: Path, data: mmap.mmap, start: int, promised: int, size_field: tuple[int, str] | None
) -> list[Part]:
    """Samples from byte ``start`` on, of which the header promises so many bytes.

    Args:
        size_field: where the 32-bit size stands, and its byte order, if it can be corrected.
    """
    held = len(data) - start
    if held <= 0:
        raise AudioError(f"{path} is truncated: its header ends before any samples begin")
    if promised >= OPEN_SIZE:
        return [Part(path)]
    if promised > held + HEADER_SLACK:
        raise truncated(path, promised, held)
    if promised == 0 and size_field is not None:
        where, order = size_field
        size = min(held, 0xFFFFFFFF).to_bytes(4, "big" if order == "big" else "little")
        return [Part(path, [data[:where] + size + data[where + 4 : start], (start, len(data))])]
    return [Part(path)]


def _chunks_follow(data: mmap.mmap, position: int, order: str) -> bool:
    """Whether chunks (four letters, 32-bit size) fill the file from ``position`` on, but for a tag at its end."""
    while position + 8 <= len(data):
        name = data[position : position + 4]
        if name[:3] in (b"TAG", b"ID3") or not data[position:].strip(b"\0"):
            return True
        size = int.from_bytes(data[position + 4 : position + 8], "big" if order == "big" else "little")
        if not all(32 <= byte < 127 for byte in name) or position + 8 + size > len(data) + 1:
            return False
        position += 8 + size + size % 2
    return True  # fewer bytes than a chunk has: padding


def _chunked(path: Path, data: mmap.mmap, order: str, position: int, wanted: bytes) -> list[Part]:
    """WAV (RIFF, RIFX, RF64) and AIFF: the chunk ``wanted`` holds the samples."""
    long_size: int | None = None  # RF64 keeps the real size in its ds64 chunk
    byte_order = "big" if order == "big" else "little"
    while position + 8 <= len(data):
        name, promised = data[position : position + 4], data[position + 4 : position + 8]
        size = int.from_bytes(promised, byte_order)  # type: ignore[arg-type]
        start = position + 8
        if name == b"ds64":
            long_size = int.from_bytes(data[start + 8 : start + 16], "little")
        elif name == wanted:
            if size == 0xFFFFFFFF and long_size:
                size = long_size
            end = start + size + size % 2
            if 0 < size < OPEN_SIZE and end + 8 <= len(data) and not _chunks_follow(data, end, order):
                raise AudioError(
                    f"{path} contradicts itself: its header promises {size} bytes of samples, and {len(data) - end} "
                    "bytes follow that are no chunks; if they are sound, write the file anew (ffmpeg or sox)"
                )
            # a chunk of 0 bytes with chunks behind it is an empty file; with anything else, a header never finished
            if size == 0 and (len(data) == start or _chunks_follow(data, start, order)):
                return [Part(path)]
            return _check_size(path, data, start, size, (position + 4, order))
        position = start + size + size % 2  # chunks start at even bytes
    raise AudioError(f"{path} is truncated: its header ends before any samples begin")


def _w64(path: Path, data: mmap.mmap) -> list[Part]:
    """Sony Wave64: chunks of a 16-byte name and a 64-bit size that counts the header's 24 bytes."""
    position = 40
    while position + 24 <= len(data):
        size = int.from_bytes(data[position + 16 : position + 24], "little")
        if data[position : position + 4] == b"data":
            return _check_size(path, data, position + 24, max(0, size - 24), None)
        position += max(24, size + -size % 8)
    raise AudioError(f"{path} is truncated: its header ends before any samples begin")


def _caf(path: Path, data: mmap.mmap) -> list[Part]:
    """Apple's CAF: chunks of a 4-byte name and a 64-bit size; −1: to the end of the file."""
    position = 8
    while position + 12 <= len(data):
        size = int.from_bytes(data[position + 4 : position + 12], "big", signed=True)
        if data[position : position + 4] == b"data":
            return _check_size(path, data, position + 12, OPEN_SIZE if size < 0 else size, None)
        position += 12 + max(0, size)
    raise AudioError(f"{path} is truncated: its header ends before any samples begin")


def _nist(path: Path, data: mmap.mmap) -> list[Part]:
    """NIST Sphere: text lines ``name -i number`` in a header whose length stands in its second line."""
    text = data[:4096].decode("latin-1").splitlines()
    fields = {line.split()[0]: line.split()[-1] for line in text if len(line.split()) >= 3}
    try:
        start = int(text[1])
        promised = int(fields["sample_count"]) * int(fields["channel_count"]) * int(fields["sample_n_bytes"])
    except (KeyError, ValueError, IndexError):
        return [Part(path)]
    if fields.get("sample_coding", "pcm") in ("pcm", "ulaw", "alaw"):
        return _check_size(path, data, start, promised, None)
    return [Part(path)]  # compressed: only decoding tells


# ---- FLAC ------------------------------------------------------------------------------------------------------


def _crc_table(polynomial: int, bits: int) -> list[int]:
    """Table of a CRC that takes the highest bit first."""
    table, top, mask = [], 1 << bits - 1, (1 << bits) - 1
    for value in range(256):
        crc = value << bits - 8
        for _ in range(8):
            crc = (crc << 1 ^ polynomial if crc & top else crc << 1) & mask
        table.append(crc)
    return table


CRC8, CRC16 = _crc_table(0x07, 8), _crc_table(0x8005, 16)
BLOCK_SIZES = {1: 192, **{n: 576 << n - 2 for n in range(2, 6)}, **{n: 256 << n - 8 for n in range(8, 16)}}
LONGEST_FRAME = 1 << 21  # bytes: 8 channels × 65,535 samples × 32 bits


def _flac_frame(data: bytes, block: int) -> tuple[int, int] | None:
    """First sample and length of the FLAC frame whose header ``data`` begins with; None if it does not.

    Args:
        block: samples per frame of a stream whose frames are numbered.
    """
    if len(data) < 16 or data[0] != 0xFF or data[1] & 0xFE != 0xF8 or data[3] & 1 or data[3] >> 4 > 10:
        return None
    ones = 8 - (data[4] ^ 0xFF).bit_length()  # of the number, coded as UTF-8 codes characters
    size_code, at = data[2] >> 4, 4 + max(1, ones)
    if size_code == 0 or data[2] & 0x0F == 0x0F or ones in (1, 8) or any(b & 0xC0 != 0x80 for b in data[5:at]):
        return None
    number = data[4] & 0x7F >> ones
    for byte in data[5:at]:
        number = number << 6 | byte & 0x3F
    more = {6: 1, 7: 2}.get(size_code, 0)
    length = int.from_bytes(data[at : at + more], "big") + 1 if more else BLOCK_SIZES[size_code]
    at += more + {12: 1, 13: 2, 14: 2}.get(data[2] & 0x0F, 0)
    crc = 0
    for byte in data[:at]:
        crc = CRC8[crc ^ byte]
    if at >= len(data) or crc != data[at]:
        return None
    return (number if data[1] & 1 else number * block), length


def _is_whole_frame(frame: bytes) -> bool:
    """Whether the last two bytes of a FLAC frame are its checksum."""
    crc = 0
    for byte in frame:
        crc = crc << 8 & 0xFFFF ^ CRC16[crc >> 8 ^ byte]
    return crc == 0


def _flac(path: Path, data: mmap.mmap, start: int) -> list[Part]:
    """The last frame says which samples it holds; STREAMINFO's total is corrected where it says another number."""
    info = start + 8  # behind "fLaC" and the header of STREAMINFO, which comes first
    position = start + 4  # of the metadata blocks
    last = False
    while not last and position + 4 <= len(data):
        last = bool(data[position] & 0x80)
        position += 4 + int.from_bytes(data[position + 1 : position + 4], "big")
    if not last or position >= len(data):
        raise AudioError(f"{path} is truncated: its header ends before any samples begin")
    block = int.from_bytes(data[info : info + 2], "big")
    stated = int.from_bytes(data[info + 13 : info + 18], "big") & (1 << 36) - 1
    end = len(data) - 128 if data[-128:-125] == b"TAG" else len(data)
    at, held = end, 0
    while (at := data.rfind(b"\xff", max(position, end - LONGEST_FRAME), at)) >= 0:
        found = _flac_frame(data[at : at + 16].ljust(16, b"\0"), block)
        if found is None:
            continue
        if sum(found) == stated:  # whether the frame is whole, decoding tells
            return [Part(path)]
        if _is_whole_frame(data[at:end]):
            field = int.from_bytes(data[info + 13 : info + 18], "big") >> 36 << 36 | sum(found)
            header = data[start : info + 13] + field.to_bytes(5, "big") + data[info + 18 : position]
            if sum(found) < stated:
                raise truncated(path, stated, sum(found), "samples")
            return [Part(path, [header, (position, len(data))])]
        held = held or found[0]
    if stated:
        raise truncated(path, stated, held, "samples")
    raise AudioError(f"{path} is truncated: its last frame is not whole")


# ---- Ogg -------------------------------------------------------------------------------------------------------


def _ogg(path: Path, data: mmap.mmap) -> list[Part]:
    """Each chained stream is a part; the last page of a stream must close it and be whole."""
    begins: list[int] = []  # of the streams
    position, ended, open_streams = 0, True, 0
    while position < len(data):
        if data[position : position + 4] != b"OggS":
            if not data[position:].strip(b"\0"):
                break
            raise AudioError(f"{path} is damaged: no Ogg page begins at byte {position}")
        segments = data[position + 26] if position + 27 <= len(data) else 0
        body = position + 27 + segments
        end = body + sum(data[position + 27 : body]) if body <= len(data) else len(data) + 1
        if end > len(data):
            raise AudioError(f"{path} is truncated: its last Ogg page ends {end - len(data)} bytes too early")
        kind = data[position + 5]
        if kind & 2:  # begins a stream
            if not open_streams:
                begins.append(position)
            open_streams += 1
        if kind & 4:  # ends it
            open_streams -= 1
        ended = open_streams <= 0
        position = end
    if not ended:
        raise AudioError(f"{path} is truncated: its last Ogg page does not end the stream")
    ranges = list(zip(begins, [*begins[1:], position], strict=True))
    parts = []
    for start, stop in ranges:
        if data[start + 28 : start + 33] == b"\x7fFLAC":
            parts += [Part(path, [_flac_of_ogg(data, start, stop)])]
        else:
            parts.append(Part(path, None if len(ranges) == 1 else [(start, stop)]))
    return parts


def _flac_of_ogg(data: mmap.mmap, start: int, stop: int) -> bytes:
    """The FLAC stream inside the pages ``start`` … ``stop``; its total of samples is the last page's position."""
    stream, position, granule = bytearray(), start, 0
    while position < stop:
        segments = data[position + 26]
        body = position + 27 + segments
        size = sum(data[position + 27 : body])
        granule = max(granule, int.from_bytes(data[position + 6 : position + 14], "little", signed=True))
        stream += data[body : body + size]
        position = body + size
    del stream[:9]  # the mapping's own header; "fLaC" follows
    field = int.from_bytes(stream[21:26], "big") >> 36 << 36 | granule
    stream[21:26] = field.to_bytes(5, "big")
    return bytes(stream)


# ---- MPEG layers II and III --------------------------------------------------------------------------------------

_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz, by version
_LAYER_3 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)  # kbit/s
_LAYER_2 = (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384)
_LOW = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)  # lower sample rates


def _mpeg_frame(header: int) -> int:
    """Bytes of the frame with this 32-bit header; 0 if it is none, or of a form without a length."""
    version, layer = header >> 19 & 3, header >> 17 & 3
    rate, speed = header >> 12 & 15, header >> 10 & 3
    if header >> 21 != 0x7FF or version == 1 or layer not in (1, 2) or rate in (0, 15) or speed == 3:
        return 0
    kilobits = (_LAYER_2 if layer == 2 else _LAYER_3)[rate] if version == 3 else _LOW[rate]
    eighth = 72 if layer == 1 and version != 3 else 144  # samples of a frame / 8
    return eighth * 1000 * kilobits // _RATES[version][speed] + (header >> 9 & 1)


def _xing_place(header: int) -> int:
    """Where in a layer III frame the Xing header begins: behind the side information."""
    mono = header >> 6 & 3 == 3
    return 4 + ((17 if mono else 32) if header >> 19 & 3 == 3 else (9 if mono else 17))


def _xing_frame(header: int, frames: int, size: int) -> bytes:
    """A frame without sound that tells how many ``frames`` of ``size`` bytes together follow."""
    plain = header & ~(15 << 12) & ~(1 << 9) | 1 << 16  # without padding and checksum
    place = _xing_place(header)
    rate = next(rate for rate in range(1, 15) if _mpeg_frame(plain | rate << 12) >= place + 16)
    frame = bytearray(_mpeg_frame(plain | rate << 12))
    frame[:4] = (plain | rate << 12).to_bytes(4, "big")
    frame[place : place + 16] = b"Info" + struct.pack(">III", 3, frames, size + len(frame))
    return bytes(frame)


def _mpeg(path: Path, data: mmap.mmap, start: int) -> list[Part]:
    """Frames are counted from one to the next; tags between and behind them are passed over."""
    lengths: dict[bytes, int] = {}
    position, first, frames, missing = start, -1, 0, 0
    while position + 4 <= len(data):
        head = data[position : position + 4]
        size = lengths.get(head)
        if size is None:
            size = lengths[head] = _mpeg_frame(int.from_bytes(head, "big"))
        if size:
            if position + size > len(data):
                missing = position + size - len(data)
                break
            first = position if first < 0 else first
            frames, position = frames + 1, position + size
        elif head[:3] == b"TAG":
            position += 128
        elif head[:3] == b"ID3":
            position = after_id3(data, position)
        elif data[position : position + 8] == b"APETAGEX":
            position += 32 + int.from_bytes(data[position + 12 : position + 16], "little")
        else:  # whatever it is: go on at the next frame that another one follows
            position = data.find(b"\xff", position + 1)
            while position >= 0 and not _followed(data, position):
                position = data.find(b"\xff", position + 1)
            if position < 0:
                break
    if frames < 2:
        return [Part(path)]  # nothing of MPEG: soundfile says what it thinks of it
    if missing > 0:
        raise AudioError(f"{path} is truncated: {missing} bytes of its last MPEG frame are missing")
    header = int.from_bytes(data[first : first + 4], "big")
    if header >> 17 & 3 != 1:
        return [Part(path)]  # layer II has no such header and one bit rate
    place = first + _xing_place(header)
    tagged = data[place : place + 4] in (b"Xing", b"Info")
    stated = int.from_bytes(data[place + 8 : place + 12], "big") if tagged and data[place + 7] & 1 else None
    if stated is not None and stated in (frames - 1, frames):
        return [Part(path)]
    if stated is not None and stated > frames:
        raise truncated(path, stated, frames - 1, "MPEG frames")
    begin = first + (_mpeg_frame(header) if tagged else 0)
    return [Part(path, [_xing_frame(header, frames - tagged, len(data) - begin), (begin, len(data))])]


def _followed(data: mmap.mmap, position: int) -> bool:
    """Whether an MPEG frame begins at ``position`` and another one, or the end of the file, follows it."""
    size = _mpeg_frame(int.from_bytes(data[position : position + 4], "big"))
    after = position + size
    return bool(size) and (after >= len(data) or _mpeg_frame(int.from_bytes(data[after : after + 4], "big")) > 0)

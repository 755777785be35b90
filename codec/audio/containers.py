"""How much sound an audio file really holds: what its container says is checked against what lies there.

libsndfile takes the length in a header for truth: it shortens a file that was cut without a word, drops what lies
behind the stated end, and reads the first of several streams alone. So the container is walked first (no audio is
decoded), and :func:`parts_of` says what to decode.

    for part in parts_of(path):
        with part.open() as file: ...        # soundfile.SoundFile of a length that holds

Containers of plain samples are walked in `codec.audio.sample_containers`, compressed ones in
`codec.audio.bitstreams`; docs/data.md has the policy of each.
"""

from pathlib import Path
from typing import BinaryIO

import soundfile

from codec.audio.bitstreams import MpegFrame, flac_parts, mpeg_parts
from codec.audio.ogg import ogg_parts
from codec.audio.part import AudioError, Part, after_id3, read_at, reason, unreadable
from codec.audio.sample_containers import container, sample_part
from training.identity import is_unicode

__all__ = ["AudioError", "Part", "parts_of"]

# What files are that libsndfile does not open, by bytes at their beginning.
STRANGERS = {
    (4, b"ftyp"): "MPEG-4: AAC or ALAC",
    (0, b"wvpk"): "WavPack",
    (0, b"MAC "): "Monkey's Audio",
    (0, b"\x30\x26\xb2\x75"): "Windows Media Audio",
    (0, b"\x1a\x45\xdf\xa3"): "Matroska or WebM",
    (0, b"#!AMR"): "AMR",
    (0, b"\xff\xf1"): "AAC",
    (0, b"\xff\xf9"): "AAC",
    (0, b"MThd"): "MIDI",
    (0, b"DSD "): "DSD",
}


def parts_of(path: Path) -> list[Part]:
    """What to decode of the file, in order.

    Raises:
        AudioError: it is missing, empty, no audio or not whole, or its name is not UTF-8, which soundfile needs.
    """
    if not is_unicode(str(path)):
        raise AudioError(f"{path}: its name is not UTF-8: rename it")
    if not path.is_file():
        raise AudioError(
            f"{path} is no file (a folder, a pipe or a device)" if path.exists() else f"{path} does not exist"
        )
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise AudioError(f"{path} is an empty file (0 bytes)")
            return _parts(file, path, size)
    except OSError as error:
        raise AudioError(f"{path} cannot be read ({error.strerror})") from error


def _parts(file: BinaryIO, path: Path, size: int) -> list[Part]:
    start = after_id3(file, 0)
    head = read_at(file, start, 40)
    kind = container(head)
    if kind and start == 0:
        return [sample_part(file, path, size, kind)]
    if head[:4] == b"fLaC":
        return flac_parts(file, path, start, size)
    if head[:4] == b"OggS":
        return ogg_parts(file, path, start, size)
    if MpegFrame(head[:4]).size:
        return mpeg_parts(file, path, start, size)
    stranger = next((name for (at, mark), name in STRANGERS.items() if head[at:].startswith(mark)), None)
    if stranger:
        raise unreadable(path, f"it is {stranger}")
    if head[:1] == b"\xff" and head[1:2] >= b"\xe0":  # like a frame, which may follow
        return mpeg_parts(file, path, start, size)
    try:
        with soundfile.SoundFile(path) as opened:
            found = opened.format
    except (soundfile.SoundFileError, TypeError) as error:
        raise unreadable(path, reason(error)) from error
    if found == "MP3":  # bytes that are no sound before the first frame
        return mpeg_parts(file, path, start, size)
    raise AudioError(f"{path} is a {found} file, whose length cannot be checked: store it as WAV or FLAC")

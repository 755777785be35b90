"""Everything that lies in a file is read, or the file is refused with the true reason: each container, whole, cut and
with a header that lies.

The inputs are made here: soundfile writes them, and bytes are changed where real writers go wrong.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_tones import noise

from codec.audio.bitstreams import MpegFrame
from codec.audio.files import AudioError, audio_info, read_audio

RATE = 16_000
FORMATS = {  # format, subtype, byte order where it is not the usual one
    "wav": ("WAV", "PCM_16"),
    "wav-u8": ("WAV", "PCM_U8"),
    "wav-24": ("WAV", "PCM_24"),
    "wav-float": ("WAV", "FLOAT"),
    "wav-ulaw": ("WAV", "ULAW"),
    "rifx": ("WAV", "PCM_16", "BIG"),
    "rf64": ("RF64", "PCM_16"),
    "w64": ("W64", "PCM_16"),
    "wav-adpcm": ("WAV", "MS_ADPCM"),
    "aiff": ("AIFF", "PCM_16"),
    "aiff-24": ("AIFF", "PCM_24"),
    "aifc": ("AIFF", "ULAW"),
    "au": ("AU", "PCM_16"),
    "au-little": ("AU", "PCM_16", "LITTLE"),
    "caf": ("CAF", "PCM_16"),
    "caf-alac": ("CAF", "ALAC_16"),
    "sph": ("NIST", "PCM_16"),
    "voc": ("VOC", "PCM_16"),
    "flac": ("FLAC", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def encoded(wave: np.ndarray, kind: str, rate: int = RATE) -> bytes:
    form, subtype, *order = FORMATS[kind]
    buffer = io.BytesIO()
    buffer.name = f"a.{form.lower()}"
    soundfile.write(buffer, wave, rate, subtype, *order or [None], format=form)
    return buffer.getvalue()


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.95, 1.0])
def test_a_whole_file_is_read_and_a_cut_one_refused(tmp_path: Path, name: str, kept: float) -> None:
    data = encoded(noise(), name)
    path = tmp_path / "a"
    path.write_bytes(data[: int(len(data) * kept)])
    if kept == 1.0:
        assert len(read_audio(path, RATE)) == pytest.approx(3 * RATE, abs=0.1 * RATE)
        assert audio_info(path).frames == len(read_audio(path, RATE))
    else:
        with pytest.raises(AudioError, match="truncated|damaged"):
            read_audio(path, RATE)


def put(at: int, value: int, size: int = 4, order: str = "little") -> Callable[[bytes], bytes]:
    """Writes a number over the bytes from ``at`` on."""
    return lambda data: data[:at] + value.to_bytes(size, order) + data[at + size :]  # type: ignore[arg-type]


def total(samples: int) -> Callable[[bytes], bytes]:
    """Sets FLAC's total of samples."""
    return lambda data: data[:21] + bytes([data[21] & 0xF0]) + samples.to_bytes(4, "big") + data[26:]


def put_size(kind: str, value: int) -> Callable[[bytes], bytes]:
    """Writes what the header of a container says of the bytes of its samples."""
    mark, behind, size, order = SIZES[kind]
    return lambda data: put(data.index(mark) + behind, value, size, order)(data)


SIZES = {  # what stands before the size, how many bytes before it, its bytes
    "wav": (b"data", 4, 4, "little"),
    "rifx": (b"data", 4, 4, "big"),
    "rf64": (b"ds64", 16, 8, "little"),
    "w64": (b"data", 16, 8, "little"),
    "aiff": (b"SSND", 4, 4, "big"),
    "au": (b".snd", 8, 4, "big"),
    "au-little": (b"dns.", 8, 4, "little"),
    "caf": (b"data", 4, 8, "big"),
}


def without_xing(data: bytes) -> bytes:
    """An MP3 without its first frame, which holds no sound but the number of frames."""
    return data[MpegFrame(data[:4]).size :]


def without_page(data: bytes) -> bytes:
    """An Ogg file without the page before the last one."""
    pages = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    return data[: pages[-2]] + data[pages[-1] :]


def chunk(name: bytes, body: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data + name + len(body).to_bytes(4, "little") + body


def tagged(data: bytes) -> bytes:
    return data + b"TAG" + bytes(125)


def twice(data: bytes) -> bytes:
    return data + data


NO_FRAME = b"\xff\xfb\0\0"  # the head of a frame without a bit rate

READ_WHOLE = {
    "WAV without a size (a recorder that died)": ("wav", put(40, 0)),
    "WAV from a pipe, ffmpeg": ("wav", put(40, 0xFFFFFFFF)),
    "WAV from a pipe, sox": ("wav", put(40, 0x7FFFF024)),
    "WAV that counts its header among the samples": ("wav", lambda data: put(40, len(data) - 8)(data)),
    "WAV with a chunk behind the samples": ("wav", chunk(b"LIST", b"INFOISFT\x06\0\0\0Lavf59")),
    "WAV with padding behind the samples": ("wav", lambda data: data + bytes(3)),
    "FLAC of unknown length": ("flac", total(0)),
    "FLAC that says too little": ("flac", total(1000)),
    "FLAC with a tag behind it": ("flac", tagged),
    "Ogg files behind one another": ("ogg", twice),
    "Opus files behind one another": ("opus", twice),
    "MP3 without the number of its frames": ("mp3", without_xing),
    "MP3 with a tag behind it": ("mp3", tagged),
    "MP3 files behind one another": ("mp3", twice),
    "FLAC files behind one another": ("flac", twice),
    "Ogg with a tag behind it": ("ogg", tagged),
    "WAV of odd size without its padding": (
        "wav-u8",
        lambda data: put(40, len(data) - 45)(data)[:-1] + b"LIST\4\0\0\0INFO",
    ),
    **{f"{kind} whose size is 0": (kind, put_size(kind, 0)) for kind in SIZES},
    **{f"{kind} whose size is all ones": (kind, put_size(kind, (1 << 8 * SIZES[kind][2]) - 1)) for kind in SIZES},
    "MP3 behind what is like frames": ("mp3", lambda data: 2000 * NO_FRAME + data),
    "MP3 with what is like frames in it": (
        "mp3",
        lambda data: data[: MpegFrame(data[:4]).size] + 2000 * NO_FRAME + without_xing(data),
    ),
    "MP3 with a tag before it": ("mp3", lambda data: b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + data),
}


@pytest.mark.slow
@pytest.mark.parametrize("stereo", [False, True], ids=["mono", "stereo 48 kHz"])
@pytest.mark.parametrize("name", READ_WHOLE)
def test_what_a_header_does_not_say_is_read_all_the_same(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], name: str, stereo: bool
) -> None:
    kind, change = READ_WHOLE[name]
    rate, channels = (48_000, 2) if stereo else (RATE, 1)
    wave = noise(3.0, rate, channels)
    data = encoded(wave, kind, rate)
    path, plain = tmp_path / "a", tmp_path / "plain"
    plain.write_bytes(data)
    path.write_bytes(change(data))
    times = 2 if "behind one another" in name else 1
    found = read_audio(path, rate)
    assert len(found) == pytest.approx(times * 3 * rate, abs=0.1 * times * rate)
    assert audio_info(path).frames == len(found)
    if kind != "mp3":  # whose decoder's delay is cut off where its header tells it
        np.testing.assert_array_equal(found, np.tile(read_audio(plain, rate), times)[: len(found)])
    elif times == 2:
        assert len(found) == 2 * len(read_audio(plain, rate))
    assert capfd.readouterr().err.count("\n") < 3, "the decoder tells what it passes over, four bytes a time"


REFUSED = {
    "WAV with bytes behind it that are no chunks": (
        "wav",
        put(40, 8000),
        "more than its header says: 88000 bytes",
    ),
    "WAV that promises more": ("wav", put(40, 2 * 3 * RATE + 100), "truncated"),
    "FLAC that promises more": ("flac", total(3 * RATE + 1), r"truncated: its header promises 3\.000 s"),
    "FLAC of unknown length that was cut": ("flac", lambda d: total(0)(d)[:-700], "truncated|damaged"),
    "Ogg without its last page": ("ogg", lambda d: d[: d.rindex(b"OggS")], "does not end the stream"),
    "Ogg chain whose second file was cut": ("ogg", lambda d: d + d[:-300], "truncated"),
    "Ogg with garbage between pages": ("ogg", lambda d: d + b"garbage" * 9, "no Ogg page begins"),
    "MP3 without the number of its frames that was cut": ("mp3", lambda d: without_xing(d)[:-40], "truncated"),
    **{f"{kind} that promises less": (kind, put_size(kind, 16_000), "more than its header says") for kind in SIZES},
    **{f"{kind} that promises more": (kind, put_size(kind, 100_000), "truncated") for kind in SIZES},
    **{f"{kind} behind another": (kind, twice, "more than its header says") for kind in [*SIZES, "sph"]},
    "AIFF that counts fewer samples": (
        "aiff",
        lambda d: put(d.index(b"COMM") + 10, 9, 4, "big")(d),
        "counts 9",
    ),
    "SPHERE that promises less": ("sph", lambda d: d.replace(b"-i 48000", b"-i 08000"), "more than its header says"),
    "SPHERE without a count": (
        "sph",
        lambda d: d.replace(b"sample_c", b"simple_c"),
        "without the number",
    ),
    "VOC that promises less": ("voc", put(27, 16_000, 3), "more than its blocks say"),
    "VOC that promises more": ("voc", put(27, 200_000, 3), "truncated"),
    "Ogg that lacks a page": ("ogg", without_page, "Ogg pages are missing"),
    "MP3 that lacks frames": ("mp3", lambda d: d[:3000] + d[3700:], "truncated"),
    "no samples": ("wav", lambda d: put(40, 0)(d)[:44], "no audio|before any samples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trusted_is_refused_with_the_reason(tmp_path: Path, name: str) -> None:
    kind, change, reason = REFUSED[name]
    path = tmp_path / "a"
    path.write_bytes(change(encoded(noise(), kind)))
    with pytest.raises(AudioError, match=reason) as refused:
        read_audio(path, RATE)
    assert str(refused.value).startswith(str(path)) and "\n" not in str(refused.value)


def test_ogg_with_flac_is_taken_out_of_its_pages(tmp_path: Path) -> None:
    """Packets of a FLAC file, each in a page of its own, as the mapping says (xiph.org/flac/ogg_mapping.html)."""
    wave = noise(1.0)
    flac = encoded(wave, "flac")
    position, blocks, last = 4, [], False
    while not last:
        last, size = bool(flac[position] & 0x80), 4 + int.from_bytes(flac[position + 1 : position + 4], "big")
        blocks.append(flac[position : position + size])
        position += size
    packets = [b"\x7fFLAC\x01\0" + (len(blocks) - 1).to_bytes(2, "big") + b"fLaC" + blocks[0], *blocks[1:]]
    rest = flac[position:]
    packets += [rest[i : i + 60_000] for i in range(0, len(rest), 60_000)]
    pages = b""
    for number, packet in enumerate(packets):
        kind = (2 if number == 0 else 0) | (4 if number == len(packets) - 1 else 0)
        lacing = bytes([255] * (len(packet) // 255) + [len(packet) % 255])
        granule = len(wave) if kind & 4 else 0
        head = b"OggS\0" + bytes([kind]) + granule.to_bytes(8, "little") + bytes(4) + number.to_bytes(4, "little")
        pages += head + bytes(4) + bytes([len(lacing)]) + lacing + packet
    (tmp_path / "a.oga").write_bytes(pages)
    (tmp_path / "a.flac").write_bytes(flac)
    np.testing.assert_array_equal(read_audio(tmp_path / "a.oga", RATE), read_audio(tmp_path / "a.flac", RATE))

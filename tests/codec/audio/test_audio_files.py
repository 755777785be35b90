"""Reading audio files: formats, rates, content hashes, limits, samples that are no sound, changing and hostile files.

What containers say of their length is in test_containers.py.
"""

import os
import socket
import time
import tracemalloc
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from tiny_tones import noise, tone

from codec.audio import files as audio_files
from codec.audio.files import (
    AUDIO_SUFFIXES,
    OTHER_AUDIO_SUFFIXES,
    AudioError,
    audio_info,
    length_at,
    read_audio,
    read_audio_and_hash,
    read_pieces,
    read_span,
)


@pytest.mark.parametrize(
    ("name", "subtype", "error"),
    [
        ("a.wav", "PCM_U8", 1e-2),
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "PCM_32", 1e-6),
        ("a.wav", "FLOAT", 1e-7),
        ("a.wav", "DOUBLE", 1e-7),
        ("a.flac", "PCM_16", 1e-4),
        ("a.flac", "PCM_24", 1e-6),
        ("a.ogg", "VORBIS", 0.05),
        ("a.mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_formats_and_bit_depths(tmp_path: Path, name: str, subtype: str, error: float) -> None:
    soundfile.write(tmp_path / name, tone(), 16_000, subtype=subtype)
    wav = read_audio(tmp_path / name, 16_000)
    assert wav.dtype == np.float32 and wav.shape == (8_000,)
    middle = slice(2_000, 6_000)  # lossy formats ring at the ends
    assert np.abs(wav[middle] - tone()[middle]).max() < error
    info = audio_info(tmp_path / name)
    assert (info.frames, info.sample_rate, info.channels, info.seconds) == (8_000, 16_000, 1, 0.5)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000])
def test_resampling_in_blocks_equals_soxr_in_one_go(tmp_path: Path, rate: int) -> None:
    stereo = np.random.default_rng(0).uniform(-0.5, 0.5, (rate * 8 + 123, 2)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", stereo, rate, subtype="FLOAT")
    expected = soxr.resample(stereo.mean(axis=1), rate, 24_000, quality="HQ")
    wav = read_audio(tmp_path / "a.wav", 24_000)
    assert wav.shape == expected.shape
    np.testing.assert_allclose(wav, expected, atol=1e-6)


def test_hash_is_of_the_content(tmp_path: Path) -> None:
    samples = (tone() * 32_000).astype(np.int16)
    soundfile.write(tmp_path / "a.wav", samples, 16_000)
    soundfile.write(tmp_path / "a.flac", samples, 16_000)
    soundfile.write(tmp_path / "b.wav", samples[::-1], 16_000)
    hashes = [read_audio_and_hash(tmp_path / name, 24_000)[1] for name in ("a.wav", "a.flac", "b.wav")]
    assert hashes[0] == hashes[1] != hashes[2]


def check_refused(path: Path, reason: str) -> None:
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(path, 16_000)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_audio_is_refused_with_the_reason(tmp_path: Path) -> None:
    check_refused(tmp_path / "gone.wav", "does not exist")

    (tmp_path / "empty.wav").touch()
    check_refused(tmp_path / "empty.wav", r"empty file \(0 bytes\)")

    soundfile.write(tmp_path / "none.wav", np.zeros(0, np.float32), 16_000)
    check_refused(tmp_path / "none.wav", "no audio")

    (tmp_path / "text.wav").write_text("This is a text file and not audio.\n" * 20)
    check_refused(tmp_path / "text.wav", "not audio that soundfile can read")


@pytest.mark.parametrize("samples", [1, 159, 160])
def test_next_to_nothing_is_no_clip(tmp_path: Path, samples: int) -> None:
    soundfile.write(tmp_path / "a.wav", np.ones(samples, np.float32), 16_000)
    for read in READERS:
        with pytest.raises(AudioError, match="too short: .* at least 10 ms") if samples < 160 else nullcontext():
            read(tmp_path / "a.wav")


@pytest.mark.parametrize("rate", [4_000, 96_000, 384_000])
def test_unusual_rates_and_channels_are_read(tmp_path: Path, rate: int) -> None:
    soundfile.write(tmp_path / "a.wav", noise(0.5, rate, 6), rate)  # 5.1
    assert len(read_audio(tmp_path / "a.wav", 16_000)) == pytest.approx(0.5 * 16_000, abs=2)


def test_integers_in_a_float_file_are_refused_and_overshoots_are_not(tmp_path: Path) -> None:
    wave = noise(0.5)[:, 0]
    soundfile.write(tmp_path / "hot.wav", 15 * wave, 16_000, subtype="FLOAT")
    assert np.abs(read_audio(tmp_path / "hot.wav", 16_000)).max() > 3
    soundfile.write(tmp_path / "integers.wav", 32768 * wave, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="far beyond full scale .* divide them by 32768"):
        read_audio(tmp_path / "integers.wav", 16_000)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_none_is_found_with_its_time(tmp_path: Path, value: float) -> None:
    wave = noise(20.0)
    wave[18 * 16_000] = value
    soundfile.write(tmp_path / "a.wav", wave, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match=r"NaN or infinite \(the first at 18.000 s\)"):
        read_audio(tmp_path / "a.wav", 24_000)


def put(path: Path, at: int, value: int, size: int = 4) -> None:
    """Writes a number into a file."""
    data = bytearray(path.read_bytes())
    data[at : at + size] = value.to_bytes(size, "little")
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3", "chained.ogg", "gsm.wav"])
@pytest.mark.parametrize("rate", [44_100, 24_000, 16_000])
def test_a_span_is_that_part_of_the_whole(tmp_path: Path, name: str, rate: int) -> None:
    how = {"channels": 1, "subtype": "GSM610"} if name == "gsm.wav" else {"channels": 2, "subtype": None}
    wave = noise(15.0, rate, how.pop("channels"))
    soundfile.write(tmp_path / "a.ogg" if name == "chained.ogg" else tmp_path / name, wave, rate, **how)
    if name == "chained.ogg":
        (tmp_path / name).write_bytes((tmp_path / "a.ogg").read_bytes() * 2)
    whole = read_audio(tmp_path / name, 24_000)
    assert length_at(tmp_path / name, 24_000) == len(whole)
    for start, count in ((0, 1_000), (1, 24_000), (200_011, 30_003), (len(whole) - 777, 777)):
        span = read_span(tmp_path / name, 24_000, start, count)
        assert span.dtype == np.float32 and span.shape == (count,)
        np.testing.assert_allclose(span, whole[start : start + count], atol=1e-5)


def test_a_span_says_what_is_wrong_with_it_and_sees_a_file_that_changed(tmp_path: Path) -> None:
    path, wav = tmp_path / "a.wav", noise(2.0)
    wav[20_000] = np.nan
    soundfile.write(path, wav, 16_000, subtype="FLOAT")
    assert len(read_span(path, 16_000, 0, 16_000)) == 16_000
    with pytest.raises(AudioError, match=r"NaN or infinite \(the first at 1.250 s\)"):
        read_span(path, 16_000, 16_000, 16_000)
    soundfile.write(path, tone(0.5), 16_000)
    assert length_at(path, 16_000) == 8_000
    path.write_bytes(b"RIFF and no more")
    for read in (lambda: length_at(path, 16_000), lambda: read_span(path, 16_000, 0, 1)):
        with pytest.raises(AudioError):
            read()


READERS = [audio_info, lambda path: read_audio(path, 16_000), lambda path: list(read_pieces(path, 8_000))]
LIMITS = {  # what is written into the header of a WAV (place, value, size), the reason, what allows it
    "1 Hz": ((24, 1, 4), "rate is 1 Hz; at least 1000 Hz", ("ALMKIT_MIN_RATE", "1")),
    "999 Hz": ((24, 999, 4), "rate is 999 Hz; at least 1000 Hz", ("ALMKIT_MIN_RATE", "500")),
    "1 MHz": ((24, 1_000_000, 4), "rate is 1000000 Hz; at most 768000 Hz", ("ALMKIT_MAX_RATE", "1e6")),
    "65 channels": ((22, 65, 2), "has 65 channels; at most 64", ("ALMKIT_MAX_CHANNELS", "100")),
}


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("read", READERS)
def test_what_a_header_asks_for_is_limited_by_a_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, read: Callable
) -> None:
    header, reason, (variable, value) = LIMITS[name]
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(650 if "1 Hz" in name else 13_000, np.float32), 16_000, subtype="PCM_16")
    put(path, *header)
    with pytest.raises(AudioError, match=f"{reason} .*or set {variable}$"):
        read(path)
    monkeypatch.setenv(variable, value)
    read(path)
    for none in ("many", "nan", "0", "-1", " "):
        monkeypatch.setenv(variable, none)
        with pytest.raises(AudioError, match=f"{variable}={none} must be a number above 0"):
            read(path)


def test_a_rate_of_zero_is_refused(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    put(tmp_path / "a.wav", 24, 0)
    check_refused(tmp_path / "a.wav", r"rate is 0 Hz|not audio that soundfile can read \(its header makes no sense\)")


@pytest.mark.parametrize("name", ["a.flac", "a.wav", "a.ogg", "a.mp3"])
def test_a_small_file_of_many_hours_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ALMKIT_MAX_HOURS", str(2 / 3600))
    monkeypatch.setattr(audio_files, "_blocks", lambda *_: pytest.fail("decoded"))
    path = tmp_path / name
    soundfile.write(path, np.zeros(3 * 16_000, np.float32), 16_000)
    for read in (audio_info, lambda path: read_audio(path, 16_000)):
        with pytest.raises(AudioError, match="long or longer; at most .* h are read: cut it, or set ALMKIT_MAX_HOURS"):
            read(path)


def test_streams_behind_one_another_are_limited_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALMKIT_MAX_HOURS", str(4 / 3600))
    path = tmp_path / "a.ogg"
    soundfile.write(path, tone(3.0), 16_000)
    assert audio_info(path).seconds == 3
    path.write_bytes(2 * path.read_bytes())
    check_refused(path, "at most .* h are read")


@pytest.mark.slow
@pytest.mark.parametrize("rate", [16_000, 24_000])
@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
def test_what_is_read_stands_in_memory_once(tmp_path: Path, name: str, rate: int) -> None:
    soundfile.write(tmp_path / name, noise(240.0), 16_000)
    read_audio(tmp_path / name, rate)  # what is loaded once
    tracemalloc.start()
    wav = read_audio(tmp_path / name, rate)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert wav.nbytes < most < 1.3 * wav.nbytes


def test_many_channels_do_not_make_large_blocks(tmp_path: Path) -> None:
    """Each piece that stands in memory is bounded in samples, not in samples per channel."""
    soundfile.write(tmp_path / "a.wav", np.zeros((200_000, 60), np.int16), 16_000)
    pieces = [len(piece) for piece in read_pieces(tmp_path / "a.wav", 16_000)]
    assert sum(pieces) == 200_000 and max(pieces) * 60 <= 1 << 21


def grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(bytes(1000))


def shrink(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def write_over(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(bytes(1000))
    os.utime(path, ns=(0, 0))  # the clock of a file system may be too coarse for a test


CHANGES = {"grows": grow, "shrinks": shrink, "is written over": write_over, "is gone": Path.unlink}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.mp3"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, name: str, change: str) -> None:
    path = tmp_path / name
    soundfile.write(path, noise(40.0), 16_000)
    pieces = read_pieces(path, 16_000)
    next(pieces)
    CHANGES[change](path)
    with pytest.raises(AudioError, match=f"{name} changed while it was read"):
        list(pieces)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    (tmp_path / "link.wav").symlink_to(tmp_path / "nowhere.wav")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.relpath(tmp_path / "socket.wav"))
        for name in ("pipe.wav", "folder.wav", "socket.wav"):
            check_refused(tmp_path / name, "is no file")
    check_refused(tmp_path / "link.wav", "does not exist")
    check_refused(Path("/dev/zero"), "is no file")


STRANGERS = {
    "a.m4a": (b"\0\0\0\x20ftypM4A \0\0\2\0isomiso2M4A mp42", "MPEG-4"),
    "a.webm": (b"\x1a\x45\xdf\xa3" + bytes(40), "Matroska"),
    "a.wma": (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(40), "Windows Media"),
    "a.aac": (b"\xff\xf1\x50\x80\x2e\x7f\xfc" + bytes(40), "AAC"),
    "a.amr": (b"#!AMR\n" + bytes(40), "AMR"),
    "a.raw": (bytes(4000), "soundfile"),
    "speex.ogg": (b"OggS\0\2" + bytes(20) + b"\1\x08Speex   ", "truncated|Speex in Ogg"),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_audio_that_is_not_read_is_named(tmp_path: Path, name: str) -> None:
    content, reason = STRANGERS[name]
    (tmp_path / name).write_bytes(content)
    check_refused(tmp_path / name, reason)


@pytest.mark.parametrize("kind", ["PAF", "IRCAM", "SVX", "AVR"])
def test_a_container_whose_length_cannot_be_checked_is_refused(tmp_path: Path, kind: str) -> None:
    soundfile.write(tmp_path / "a", tone(), 16_000, format=kind, subtype="PCM_16")
    check_refused(tmp_path / "a", f"{kind} file, whose length cannot be checked")


def test_suffixes_are_lower_case_and_either_read_or_not() -> None:
    assert not AUDIO_SUFFIXES & OTHER_AUDIO_SUFFIXES
    for suffix in AUDIO_SUFFIXES | OTHER_AUDIO_SUFFIXES:
        assert suffix == suffix.lower() and suffix.startswith(".")


BEGINNINGS = {
    "RIFF": b"RIFF\0\0\0\0WAVE",
    "RF64": b"RF64\0\0\0\0WAVE",
    "AIFF": b"FORM\0\0\0\0AIFF",
    "W64": b"riff" + bytes(20) + b"wave" + bytes(12),
    "CAF": b"caff\0\1\0\0",
    "AU": b".snd",
    "NIST": b"NIST_1A\n   1024\n",
    "VOC": b"Creative Voice File\x1a\x1a\0\x0a\1\x29\x11",
    "FLAC": b"fLaC\0\0\0\x22",
    "Ogg": b"OggS\0\2",
    "MP3": b"\xff\xfb\x90\x64",
    "ID3": b"ID3\4\0\0\0\0\0\0",
}
FILLINGS = {
    "random": lambda: np.random.default_rng(0).bytes(60_000),
    "zeros": lambda: bytes(2_000_000),
    "ones": lambda: b"\xff" * 200_000,
    "empty chunks": lambda: b"LIST\0\0\0\0" * 250_000,
    "empty tags": lambda: b"ID3\4\0\0\0\0\0\0" * 200_000,
    "empty pages": lambda: (b"OggS" + bytes(23)) * 10_000,
    "heads of frames": lambda: b"\xff\xfb\x90" * 60_000,
}


@pytest.mark.parametrize("filling", FILLINGS)
@pytest.mark.parametrize("beginning", BEGINNINGS)
def test_hostile_content_is_refused_in_a_moment(tmp_path: Path, beginning: str, filling: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(BEGINNINGS[beginning] + FILLINGS[filling]())
    started = time.process_time()
    try:
        audio_info(path)
        read_audio(path, 16_000)
    except AudioError as error:
        assert str(path) in str(error) and "\n" not in str(error)
    assert time.process_time() - started < 5  # of this process, whatever else the machine does


FUZZED = {"a.wav": "PCM_16", "a.aiff": "PCM_16", "a.w64": "PCM_16", "a.caf": "PCM_16", "a.au": "PCM_16", "a.flac": None}
FUZZED |= {"a.rf64": "PCM_16", "a.ogg": None, "a.mp3": None}


@pytest.mark.parametrize("name", FUZZED)
def test_damaged_bytes_end_in_samples_or_a_refusal(tmp_path: Path, name: str) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / name
    soundfile.write(path, noise(0.3), 16_000, subtype=FUZZED[name])
    whole = path.read_bytes()
    for turn in range(60):
        data = bytearray(whole)
        reach = 100 if turn % 2 else len(data)  # half of the changes in the header
        for at in random.integers(0, min(reach, len(data)), 1 + turn % 4):
            data[at] = random.integers(256)
        if turn % 3 == 0:
            del data[random.integers(len(data)) :]
        path.write_bytes(data)
        try:
            info, wav = audio_info(path), read_audio(path, 16_000)
        except AudioError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert abs(len(wav) - info.seconds * 16_000) <= 1 and np.isfinite(wav).all()

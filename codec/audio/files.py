"""Reads audio files: length and rate, samples at any rate, whole or in pieces; writes them.

    wav = read_audio("a.flac", sample_rate=24_000)     # float32 [samples], mono
    write_audio(Path("b.wav"), wav, 24_000)            # 16 bit, whole or not at all

What cannot be read whole raises :class:`AudioError` with its reason in one sentence (containers.py checks
the lengths).
"""

import hashlib
import io
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from codec.audio.containers import parts_of
from codec.audio.part import AudioError, Part, reason, truncated
from training.checkpoint import write_atomically

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioError",
    "AudioInfo",
    "OTHER_AUDIO_SUFFIXES",
    "audio_info",
    "length_at",
    "read_audio",
    "read_audio_and_hash",
    "read_pieces",
    "read_span",
    "write_audio",
]

# What is read …
AUDIO_SUFFIXES = frozenset(
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .mp1 .mpga .aif .aiff .aifc .au .snd .caf .sph .nist "
    ".voc".split()
)
# … and what is audio and is not read: these files are rejected by name, not passed over.
OTHER_AUDIO_SUFFIXES = frozenset(
    ".m4a .m4b .mp4 .aac .wma .webm .weba .mka .amr .3gp .ape .wv .ac3 .dts .dsf .dff .tta .mpc .ra .spx .raw .pcm "
    ".gsm .shn .mid .midi .sd2 .paf .pvf .svx .ircam .avr .sds .wve .g722 .g723 .g726 .g729 .al .ul .alaw .ulaw .vox "
    ".adpcm .sln .dss .m4p .m4r .aax .mp+ .mpp .ofr .tak .oma .at3 .eac3 .ec3 .mlp .thd .mogg .opu .f4a .asf .8svx "
    ".mov .mkv .avi .flv .wmv .mpg .mpeg .ogv .3g2 .ts .mts .vob .rm".split()
)
# Samples per read: a 20-minute file never stands in memory at its own rate and channels.
BLOCK_SAMPLES = 1 << 21
BLOCK_FRAMES = 1 << 18
LAST_PAGE = 10  # s: no page of an Ogg file holds more
SPAN_MARGIN = 0.05  # s on either side of a span: longer than the resampler's filter
# Float samples may overshoot full scale; beyond this (24 dB) they are integers that were never scaled.
LOUDEST = 16.0
# A file that holds less is no clip: the shortest frames of tokenizers are 10 ms.
SHORTEST = 0.01


@dataclass(frozen=True)
class Limits:
    """What a file may ask for: a header of a few bytes can promise terabytes."""

    hours: float = 6
    min_rate: float = 1_000  # Hz
    max_rate: float = 768_000  # Hz
    channels: float = 64

    @classmethod
    def from_environment(cls) -> "Limits":
        """The limits, each as its environment variable says, if that is set.

        Raises:
            AudioError: one of them is no number above 0.
        """
        limits = {}
        for name, variable in LIMIT_VARIABLES.items():
            try:
                limits[name] = float(os.environ.get(variable) or getattr(cls, name))
            except ValueError:
                limits[name] = math.nan
            if not limits[name] > 0:  # beside nan, which nothing is beyond
                raise AudioError(f"{variable}={os.environ[variable]} must be a number above 0")
        return cls(**limits)

    def check(self, path: Path, seconds: float, rate: int, channels: int) -> None:
        """Refuse a file, or a part of one, that is beyond a limit, with the variable that sets it."""
        if rate < self.min_rate:
            told, name = f"says its rate is {rate} Hz; at least {self.min_rate:g} Hz are read", "min_rate"
        elif rate > self.max_rate:
            told, name = f"says its rate is {rate} Hz; at most {self.max_rate:g} Hz are read", "max_rate"
        elif channels > self.channels:
            told, name = f"says it has {channels} channels; at most {self.channels:g} are read", "channels"
        elif seconds > self.hours * 3600:
            told, name = f"is {seconds / 3600:.1f} h long or longer; at most {self.hours:g} h are read: cut it", "hours"
        else:
            return
        raise AudioError(f"{path} {told}, or set {LIMIT_VARIABLES[name]}")


LIMIT_VARIABLES = {
    "hours": "ALMKIT_MAX_HOURS",
    "min_rate": "ALMKIT_MIN_RATE",
    "max_rate": "ALMKIT_MAX_RATE",
    "channels": "ALMKIT_MAX_CHANNELS",
}


@dataclass
class AudioInfo:
    """What an audio file holds. `frames` counts samples per channel at the file's own rate."""

    frames: int
    sample_rate: int
    channels: int
    seekable: bool = True

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def audio_info(path: str | Path) -> AudioInfo:
    """Length, rate and channels of an audio file, without decoding it (milliseconds).

    Of several streams behind one another, the first one's rate and channels. Raises AudioError for what the container
    already shows: missing, empty, truncated, beyond the limits or not audio.
    """
    return _info_of(Path(path), parts_of(Path(path)))


def _info_of(path: Path, parts: list[Part]) -> AudioInfo:
    limits = Limits.from_environment()
    frames, first = 0.0, None
    for part in parts:
        with part.open() as file:
            first = first or AudioInfo(0, file.samplerate, file.channels, file.seekable())
            limits.check(path, 0, file.samplerate, file.channels)
            frames += file.frames * first.sample_rate / file.samplerate
            limits.check(path, frames / first.sample_rate, file.samplerate, file.channels)
    _check_length(path, round(frames), frames / first.sample_rate if first else 0.0)
    assert first is not None
    first.frames = round(frames)
    return first


def read_audio(path: str | Path, sample_rate: int) -> np.ndarray:
    """The samples of an audio file at `sample_rate` Hz (soxr, high quality), float32, full scale at 1.

    Any bit depth and format in docs/data.md. Returns [samples], the mean of the channels. Raises AudioError
    with one sentence when the file is missing, empty, truncated, not audio, beyond the limits, changed meanwhile, or
    holds samples that are NaN, infinite or far beyond full scale.
    """
    return read_audio_and_hash(path, sample_rate)[0]


def read_audio_and_hash(path: str | Path, sample_rate: int) -> tuple[np.ndarray, str]:
    """As `read_audio`, with the SHA-256 (hex) of the audio's content.

    The hash covers rate, channels and decoded samples, not the file's bytes, so the same recording stored as
    WAV and as FLAC is found to be the same.
    """
    digest = hashlib.sha256()
    wav: np.ndarray | None = None  # filled piece by piece: it may be large
    samples = 0
    for piece, expected in _pieces(Path(path), sample_rate, digest):
        if wav is None:
            wav = np.empty(expected, np.float32)
        if len(wav) < max(expected, samples + len(piece)):
            wav.resize(max(expected, samples + len(piece)), refcheck=False)
        wav[samples : samples + len(piece)] = piece
        samples += len(piece)
    assert wav is not None, f"{path} gave no samples and no reason"
    return wav[:samples], digest.hexdigest()


def read_pieces(path: str | Path, sample_rate: int) -> Iterator[np.ndarray]:
    """As `read_audio`, piece by piece (some seconds each): a recording of hours never stands in memory."""
    for piece, _ in _pieces(Path(path), sample_rate):
        if len(piece):
            yield piece


@lru_cache(maxsize=1 << 14)
def _layout(path: Path, state: tuple[int, int, int] | None) -> tuple[list[Part], AudioInfo]:
    """What to decode of the file, and its length, rate and channels, for as long as it stays what it is."""
    parts = parts_of(path)
    return parts, _info_of(path, parts)


def length_at(path: Path, sample_rate: int) -> int:
    """How many samples `read_audio` gives at ``sample_rate`` Hz; of several streams behind one another, about."""
    info = _layout(path, _state(path))[1]
    return (2 * info.frames * sample_rate + info.sample_rate) // (2 * info.sample_rate)


def read_span(path: Path, sample_rate: int, start: int, count: int) -> np.ndarray:
    """``count`` samples from ``start`` on of what `read_audio` gives, without decoding the rest (milliseconds).

    What is wrong with the file elsewhere is not seen. Of several streams behind one another, and of a coding in which
    no place can be found (GSM in WAV), all is decoded.
    """
    parts, info = _layout(path, _state(path))
    if len(parts) > 1 or not info.seekable:
        return read_audio(path, sample_rate)[start : start + count]
    common = math.gcd(info.sample_rate, sample_rate)
    here, there = info.sample_rate // common, sample_rate // common  # samples of a common period at both rates
    around = int(SPAN_MARGIN * sample_rate)
    first = max(0, start - around) // there  # the period that is decoded first: there, both rates have a sample
    begin, end = first * here, min(info.frames, -(-(start + count + around) * here // there))
    if info.sample_rate == sample_rate:
        begin, end = start, start + count
    with parts[0].open() as file:
        # libsndfile misses a place inside the last page of an Ogg file: it is reached from before that page
        early = min(begin, max(0, info.frames - LAST_PAGE * info.sample_rate)) if file.format == "OGG" else begin
        block = _decoded(file, path, end - early, early)[begin - early :]
    if len(block) < end - begin:
        raise truncated(path, info.seconds, (begin + len(block)) / info.sample_rate)
    _check_samples(path, block, begin / info.sample_rate, info.sample_rate)
    wav = block.mean(axis=1)
    if info.sample_rate == sample_rate:
        return wav
    return soxr.resample(wav, info.sample_rate, sample_rate, "HQ")[start - first * there :][:count]


def _pieces(path: Path, sample_rate: int, digest: "hashlib._Hash | None" = None) -> Iterator[tuple[np.ndarray, int]]:
    """Resampled pieces [samples] of a file, each with the samples that its stream will end with, about.

    The first piece of a stream is empty: who wants room for all of it, takes it before the decoder takes its own.

    `digest` takes in the file's rate, channels and samples.
    """
    before = _state(path)
    try:
        yield from _resampled(path, sample_rate, digest)
    except AudioError as error:
        if before and _state(path) != before:
            raise AudioError(f"{path} changed while it was read") from error
        raise
    if _state(path) != before:
        raise AudioError(f"{path} changed while it was read")


def _state(path: Path) -> tuple[int, int, int] | None:
    """What of a file changes when somebody writes to it or replaces it; None: it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _resampled(path: Path, sample_rate: int, digest: "hashlib._Hash | None") -> Iterator[tuple[np.ndarray, int]]:
    limits = Limits.from_environment()
    frames = samples = 0
    seconds = 0.0
    for part in parts_of(path):
        with part.open() as file:
            limits.check(path, seconds + file.frames / max(file.samplerate, 1), file.samplerate, file.channels)
            expected = samples - (-file.frames * sample_rate // file.samplerate)
            if digest:
                digest.update(f"{file.samplerate} {file.channels}\n".encode())
            stream = None
            if file.samplerate != sample_rate:
                stream = soxr.ResampleStream(file.samplerate, sample_rate, 1, dtype="float32", quality="HQ")
            yield np.empty(0, np.float32), expected
            held = 0
            for block in _blocks(file, path):  # [frames, channels]
                _check_samples(path, block, seconds + held / file.samplerate, file.samplerate)
                if digest:
                    digest.update(block.data)
                held += len(block)
                piece = block.mean(axis=1)
                piece = stream.resample_chunk(piece) if stream else piece
                samples += len(piece)
                yield piece, expected
            if held < file.frames:
                raise truncated(path, file.frames / file.samplerate, held / file.samplerate)
            if stream and held:
                piece = stream.resample_chunk(np.zeros(0, np.float32), last=True)
                samples += len(piece)
                yield piece, expected
            frames += held
            seconds += held / file.samplerate
    _check_length(path, frames, seconds)


def _check_length(path: Path, frames: int, seconds: float) -> None:
    """Refuse a file that holds next to nothing."""
    if frames == 0:
        raise AudioError(f"{path} holds no audio (0 samples)")
    if seconds < SHORTEST:
        raise AudioError(f"{path} is too short: {frames} samples, {1000 * seconds:.2g} ms; at least 10 ms are read")


def _check_samples(path: Path, block: np.ndarray, second: float, rate: int) -> None:
    """Refuse samples that are no sound: `block` [frames, channels], which begins at `second`."""
    peak = max(float(block.max()), -float(block.min()))
    if peak <= LOUDEST:  # false for NaN too
        return
    if np.isfinite(peak):
        raise AudioError(
            f"{path} holds samples up to {peak:g}, far beyond full scale (1.0): they look like integers in a float "
            "file; divide them by 32768 (or what their full scale was) and write it anew"
        )
    bad = int(np.argmin(np.isfinite(block).all(axis=1)))
    raise AudioError(f"{path} holds samples that are NaN or infinite (the first at {second + bad / rate:.3f} s)")


def _decoded(file: soundfile.SoundFile, path: Path, count: int, start: int | None = None) -> np.ndarray:
    """Up to ``count`` samples, float32 [frames, channels], from ``start`` or from where the file stands."""
    try:
        if start is not None:
            file.seek(start)
        return file.read(count, dtype="float32", always_2d=True)
    except soundfile.SoundFileError as error:
        raise AudioError(f"{path} is damaged and cannot be decoded to its end ({reason(error)})") from error


def _blocks(file: soundfile.SoundFile, path: Path) -> Iterator[np.ndarray]:
    """Blocks of samples, float32 [frames, channels], until the file ends."""
    count = min(BLOCK_FRAMES, max(1, BLOCK_SAMPLES // file.channels))
    while len(block := _decoded(file, path, count)):
        yield block


class _Disk(io.FileIO):
    """A file that remembers why the system took no more of it: libsndfile would not say."""

    refused: OSError | None = None

    def write(self, data: Any) -> int:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[super().write(rest) :]
        except OSError as error:
            self.refused = error
        return len(data) - len(rest)


def write_audio(path: Path, wav: np.ndarray | Iterable[np.ndarray], rate: int, **how: str) -> None:
    """Write ``wav [samples]``, float in −1…1 or int16, as the suffix of ``path`` says: WAV and FLAC of 16 bit.

    They cannot hold more than full scale; clipping is what a player would do too.

    Args:
        wav: the samples, or pieces of them behind one another: what is too long to stand in memory.
        how: ``subtype`` and other options of soundfile.

    Raises:
        OSError: the disk is full or refuses; what was at ``path`` is there as before, as where a piece cannot be made.
    """
    pieces = [wav] if isinstance(wav, np.ndarray) else wav

    def write(temporary: Path) -> None:
        with _Disk(temporary, "w+") as disk:
            try:
                with soundfile.SoundFile(disk, "w", rate, 1, **{"format": path.suffix[1:].upper(), **how}) as file:
                    for piece in pieces:
                        file.write(piece if piece.dtype == np.int16 else np.clip(piece, -1, 1))
            except (soundfile.SoundFileError, AssertionError):  # of soundfile, that less was written
                if disk.refused is None:
                    raise
            if disk.refused is not None:
                raise disk.refused

    write_atomically(path, write)

"""Reads audio files: length and rate, samples at any rate, whole or in pieces.

    wav = read_audio("a.flac", sample_rate=24_000)     # float32 [samples], mono

What cannot be read whole raises :class:`AudioError` with its reason in one sentence (containers.py checks the lengths).
"""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from codec.containers import AudioError, parts_of

__all__ = [
    "AUDIO_SUFFIXES",
    "AudioError",
    "AudioInfo",
    "OTHER_AUDIO_SUFFIXES",
    "audio_info",
    "read_audio",
    "read_audio_and_hash",
    "read_pieces",
]

# What soundfile reads …
AUDIO_SUFFIXES = frozenset(
    ".wav .wave .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .caf .sph .nist .voc".split()
)
# … and what is audio and it does not read: these files are rejected by name, not passed over.
OTHER_AUDIO_SUFFIXES = frozenset(".m4a .aac .wma .webm .mka .amr .ape .wv .ac3 .dsf".split())
# Frames per read: a 20-minute file never stands in memory at its own rate and channels.
BLOCK_FRAMES = 1 << 18
UNKNOWN_FRAMES = 1 << 62  # libsndfile reports 2^63 - 1 where nothing says how long the file is
# What a file may ask for: a header of a few bytes can promise terabytes. ALMKIT_MAX_HOURS=24 allows more.
MAX_SECONDS = 3600.0 * float(os.environ.get("ALMKIT_MAX_HOURS", "6"))
RATES = (1_000, 768_000)  # Hz
MAX_CHANNELS = 64
# Float samples may overshoot full scale; beyond this (24 dB) they are integers that were never scaled.
LOUDEST = 16.0


@dataclass
class AudioInfo:
    """What an audio file holds. `frames` counts samples per channel at the file's own rate."""

    frames: int
    sample_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def audio_info(path: str | Path) -> AudioInfo:
    """Length, rate and channels of an audio file, without decoding it (milliseconds).

    Raises AudioError for what the container already shows: missing, empty, truncated, beyond the limits or not audio.
    """
    path = Path(path)
    first: AudioInfo | None = None
    for part in parts_of(path):
        with part.open() as file:
            _check_limits(path, file)
            frames = file.frames
            if frames >= UNKNOWN_FRAMES:  # only decoding tells
                frames = sum(len(block) for block in _blocks(file, path))
            if first is None:
                first = AudioInfo(0, file.samplerate, file.channels)
            first.frames += round(frames * first.sample_rate / file.samplerate)
    if first is None or first.frames == 0:
        raise AudioError(f"{path} holds no audio (0 samples)")
    if first.seconds > MAX_SECONDS:
        raise _too_long(path, first.seconds)
    return first


def read_audio(path: str | Path, sample_rate: int, mono: bool = True) -> np.ndarray:
    """The samples of an audio file at `sample_rate` Hz (soxr, high quality), float32 in [-1, 1].

    Any rate, bit depth and format that libsndfile reads. Returns [samples], the mean of the channels; with
    `mono=False` [channels, samples]. Raises AudioError with one sentence when the file is missing, empty,
    truncated, not audio, or holds NaN or infinite samples.
    """
    return read_audio_and_hash(path, sample_rate, mono)[0]


def read_audio_and_hash(path: str | Path, sample_rate: int, mono: bool = True) -> tuple[np.ndarray, str]:
    """As `read_audio`, with the SHA-256 (hex) of the audio's content.

    The hash covers rate, channels and decoded samples, not the file's bytes, so the same recording stored as
    WAV and as FLAC is found to be the same.
    """
    digest = hashlib.sha256()
    wav = np.concatenate(list(_pieces(Path(path), sample_rate, mono, digest)))
    return (wav[:, 0] if mono else np.ascontiguousarray(wav.T)), digest.hexdigest()


def read_pieces(path: str | Path, sample_rate: int) -> Iterator[np.ndarray]:
    """As `read_audio`, mono, piece by piece (some seconds each): a recording of hours never stands in memory."""
    for piece in _pieces(Path(path), sample_rate, True, hashlib.sha256()):
        yield piece[:, 0]


def _pieces(path: Path, sample_rate: int, mono: bool, digest: "hashlib._Hash") -> Iterator[np.ndarray]:
    """Resampled pieces [samples, channels] of a file; `digest` takes in its rate, channels and samples."""
    frames = samples = 0
    seconds = 0.0
    for part in parts_of(path):
        with part.open() as file:
            _check_limits(path, file)
            channels = 1 if mono else file.channels
            digest.update(f"{file.samplerate} {file.channels}\n".encode())
            stream = None
            if file.samplerate != sample_rate:
                stream = soxr.ResampleStream(file.samplerate, sample_rate, channels, dtype="float32", quality="HQ")
            held = 0
            for block in _blocks(file, path):  # [frames, channels]
                _check_samples(path, block, seconds + held / file.samplerate, file.samplerate)
                digest.update(block.tobytes())
                held += len(block)
                if seconds + held / file.samplerate > MAX_SECONDS:
                    raise _too_long(path, seconds + held / file.samplerate)
                piece = block.mean(axis=1, keepdims=True) if mono else block
                piece = stream.resample_chunk(piece) if stream else piece
                samples += len(piece)
                yield piece
            if file.frames < UNKNOWN_FRAMES and held < file.frames:
                promised, found = file.frames / file.samplerate, held / file.samplerate
                raise AudioError(
                    f"{path} is truncated: its header promises {promised:.3f} s, {found:.3f} s are there, "
                    f"{promised - found:.3f} s are missing"
                )
            if stream and held:
                piece = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
                samples += len(piece)
                yield piece
            frames += held
            seconds += held / file.samplerate
    if frames == 0:
        raise AudioError(f"{path} holds no audio (0 samples)")
    if samples == 0:
        raise AudioError(f"{path} is too short: {frames} samples leave none at {sample_rate} Hz")


def _check_limits(path: Path, file: soundfile.SoundFile) -> None:
    if not RATES[0] <= file.samplerate <= RATES[1]:
        raise AudioError(f"{path} says its rate is {file.samplerate} Hz; {RATES[0]} to {RATES[1]} Hz are read")
    if file.channels > MAX_CHANNELS:
        raise AudioError(f"{path} says it has {file.channels} channels; at most {MAX_CHANNELS} are read")
    if file.frames < UNKNOWN_FRAMES and file.frames / file.samplerate > MAX_SECONDS:
        raise _too_long(path, file.frames / file.samplerate)


def _too_long(path: Path, seconds: float) -> AudioError:
    return AudioError(
        f"{path} is {seconds / 3600:.1f} h long or longer; at most {MAX_SECONDS / 3600:g} h are read: cut it, or set "
        "ALMKIT_MAX_HOURS"
    )


def _check_samples(path: Path, block: np.ndarray, second: float, rate: int) -> None:
    """Refuse samples that are no sound: `block` [frames, channels], which begins at `second`."""
    peak = float(np.abs(block).max(initial=0.0))
    if peak <= LOUDEST:
        return
    if np.isfinite(peak):
        raise AudioError(
            f"{path} holds samples up to {peak:g}, far beyond full scale (1.0): they look like integers in a float "
            "file; divide them by 32768 (or what their full scale was) and write it anew"
        )
    bad = int(np.argmin(np.isfinite(block).all(axis=1)))
    raise AudioError(f"{path} holds samples that are NaN or infinite (the first at {second + bad / rate:.3f} s)")


def _blocks(file: soundfile.SoundFile, path: Path) -> Iterator[np.ndarray]:
    """Blocks of samples, float32 [frames, channels], until the file ends."""
    while True:
        try:
            block = file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
            raise AudioError(f"{path} is damaged and cannot be decoded to its end ({reason})") from error
        if len(block) == 0:
            return
        yield block

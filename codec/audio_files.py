"""Reads audio files: length and rate from the header, samples at any rate, whole or in pieces.

    wav = read_audio("a.flac", sample_rate=24_000)     # float32 [samples], mono

What cannot be read whole raises :class:`AudioError` with its reason in one sentence.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

AUDIO_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".w64"})
# Frames per read: a 20-minute file never stands in memory at its own rate and channels.
BLOCK_FRAMES = 1 << 18
# A writer that cannot seek back (a pipe) leaves the size open: ffmpeg writes 0xFFFFFFFF, sox 0x7FFFF024.
OPEN_WAV_SIZE = 0x7FFFF000
UNKNOWN_FRAMES = 1 << 62  # libsndfile reports 2^63 - 1 where the header does not say how long the file is


class AudioError(ValueError):
    """One audio file cannot be used; the message says why in one sentence."""


@dataclass
class AudioInfo:
    """What the header of an audio file says. `frames` counts samples per channel at the file's own rate."""

    frames: int
    sample_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        return self.frames / self.sample_rate


def audio_info(path: str | Path) -> AudioInfo:
    """Length, rate and channels of an audio file from its header, without decoding it (milliseconds).

    Raises AudioError for what the header already shows: missing, empty, truncated or not audio at all.
    """
    path = Path(path)
    with _open(path) as file:
        frames = file.frames
        if frames >= UNKNOWN_FRAMES:  # a streamed FLAC: only decoding tells
            frames = sum(len(block) for block in _blocks(file, path))
        if frames == 0:
            raise AudioError(f"{path} holds no audio (0 samples)")
        return AudioInfo(frames, file.samplerate, file.channels)


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
    with _open(path) as file:
        channels = 1 if mono else file.channels
        digest.update(f"{file.samplerate} {file.channels}\n".encode())
        stream = None
        if file.samplerate != sample_rate:
            stream = soxr.ResampleStream(file.samplerate, sample_rate, channels, dtype="float32", quality="HQ")
        frames = samples = 0
        for block in _blocks(file, path):  # [frames, channels]
            finite = np.isfinite(block)
            if not finite.all():
                bad = int(np.argmin(finite.all(axis=1)))
                second = (frames + bad) / file.samplerate
                raise AudioError(f"{path} holds samples that are NaN or infinite (the first at {second:.3f} s)")
            digest.update(block.tobytes())
            frames += len(block)
            piece = block.mean(axis=1, keepdims=True) if mono else block
            piece = stream.resample_chunk(piece) if stream else piece
            samples += len(piece)
            yield piece
        if frames == 0:
            raise AudioError(f"{path} holds no audio (0 samples)")
        if file.frames < UNKNOWN_FRAMES and frames < file.frames:
            raise _truncated(path, file.frames / file.samplerate, frames / file.samplerate)
        if stream:
            piece = stream.resample_chunk(np.zeros((0, channels), np.float32), last=True)
            samples += len(piece)
            yield piece
    if samples == 0:
        raise AudioError(f"{path} is too short: {frames} samples leave none at {sample_rate} Hz")


def _open(path: Path) -> soundfile.SoundFile:
    if not path.is_file():
        raise AudioError(f"{path} does not exist")
    size = path.stat().st_size
    if size == 0:
        raise AudioError(f"{path} is an empty file (0 bytes)")
    _check_wav_length(path, size)
    try:
        return soundfile.SoundFile(path)
    except (soundfile.SoundFileError, TypeError) as error:
        # soundfile takes a .raw suffix for headerless audio and asks for its rate with a TypeError.
        reason = getattr(error, "error_string", str(error)).strip().rstrip(".")
        raise AudioError(f"{path} is not audio that soundfile can read ({reason})") from error


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


def _truncated(path: Path, promised: float, held: float) -> AudioError:
    missing = promised - held
    return AudioError(
        f"{path} is truncated: its header promises {promised:.3f} s, "
        f"{held:.3f} s are there, {missing:.3f} s are missing"
    )


def _check_wav_length(path: Path, size: int) -> None:
    """Raises AudioError when a WAV header promises more samples than the file holds.

    libsndfile shortens such a file without a word, so the chunks of RIFF and RF64 files are walked here.
    """
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] not in (b"RIFF", b"RF64") or head[8:] != b"WAVE":
            return
        bytes_per_second = 0
        long_size: int | None = None  # RF64 keeps the real size in its ds64 chunk
        position = 12
        while position + 8 <= size:
            file.seek(position)
            name, promised = file.read(4), int.from_bytes(file.read(4), "little")
            position += 8
            if name == b"ds64":
                long_size = int.from_bytes(file.read(16)[8:16], "little")
            elif name == b"fmt ":
                bytes_per_second = int.from_bytes(file.read(12)[8:12], "little")
            elif name == b"data":
                promised = long_size if head[:4] == b"RF64" and long_size else promised
                is_open = long_size is None and promised >= OPEN_WAV_SIZE
                if promised > size - position and not is_open:
                    rate = max(bytes_per_second, 1)
                    raise _truncated(path, promised / rate, (size - position) / rate)
                return
            position += promised + promised % 2  # chunks start at even bytes
        raise AudioError(f"{path} is truncated: the WAV header ends before any samples begin")

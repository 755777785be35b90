"""Clips through a codec that is no neural network, as WAV files: the control that any machine can make.

    python codec/classical.py kind=opus                                 # data/mini's test speech, to runs/opus
    python eval/reconstruction.py resynthesis=runs/opus                 # scored like a tokenizer

Opus is coded by the library that reads audio everywhere here, at 6 kbit/s, below which it does not go. Codec2, for
radios, is coded by its own programs (Debian's package codec2). `codec.json` beside the clips says what the codec is and
how many bits it took: those of the coded frames, without the headers of a container.
"""

from __future__ import annotations

import training.help  # noqa: F401

import io
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray
from omegaconf import DictConfig

from codec.audio.files import write_audio
from codec.corpus import AudioError, Clip, CorpusError, audio_info, left_out, read_audio, read_usable_corpus
from training.checkpoint import write_file
from training.config import ConfigError, hydra_entry, refusing
from training.identity import file_names, path_inside
from training.lock import hold
from training.progress import progress

RECORD = "codec.json"
OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)  # Hz
OPUS_BITS = 6_000  # per second, which libsndfile takes for the strongest compression
CODEC2_RATE = 8_000  # Hz
CODEC2_BITS = {"700C": 700, "1200": 1200}  # per second, by the name of the mode
CODECS = ("opus", *(f"codec2-{mode}" for mode in CODEC2_BITS))
Wave = NDArray[np.float32]


def packets(ogg: bytes) -> list[int]:
    """Bytes of each packet of an Ogg stream, in order (RFC 3533: pages with a table of segments of at most 255)."""
    found, place, size = [], 0, 0
    while place < len(ogg):
        if ogg[place : place + 4] != b"OggS":
            raise ValueError("not an Ogg stream")
        count = ogg[place + 26]
        table = ogg[place + 27 : place + 27 + count]
        for segment in table:
            size += segment
            if segment < 255:
                found.append(size)
                size = 0
        place += 27 + count + sum(table)
    return found


def opus(wav: Wave, rate: int) -> tuple[Wave, int, int]:
    """``wav [samples]`` at ``rate`` Hz through Opus: what is heard, its rate, and the bits of its frames."""
    coded_rate = next((possible for possible in OPUS_RATES if possible >= rate), OPUS_RATES[-1])
    stream = io.BytesIO()
    heard = soxr.resample(wav, rate, coded_rate, quality="HQ") if rate != coded_rate else wav
    soundfile.write(stream, heard, coded_rate, format="OGG", subtype="OPUS", compression_level=1.0)
    bits = 8 * sum(packets(stream.getvalue())[2:])  # without the two headers
    stream.seek(0)
    out, _ = soundfile.read(stream, dtype="float32")
    return out, coded_rate, bits


def codec2(wav: Wave, rate: int, mode: str) -> tuple[Wave, int, int]:
    """``wav [samples]`` through Codec2, as `opus`.

    Raises:
        ConfigError: its programs are not installed, or fail.
    """
    heard = soxr.resample(wav, rate, CODEC2_RATE, quality="HQ") if rate != CODEC2_RATE else wav
    raw = np.round(np.clip(heard, -1, 1) * 32767).astype("<i2")
    with tempfile.TemporaryDirectory(prefix="codec2-") as folder:
        place = Path(folder)
        (place / "in.raw").write_bytes(np.pad(raw, (0, CODEC2_RATE // 2)).tobytes())  # or its last frame is lost
        for command in (["c2enc", mode, "in.raw", "coded.bit"], ["c2dec", mode, "coded.bit", "out.raw"]):
            try:
                subprocess.run(command, cwd=place, check=True, capture_output=True)
            except FileNotFoundError:
                raise ConfigError(f"kind=codec2-{mode} needs {command[0]}: install codec2, or leave it out.") from None
            except subprocess.CalledProcessError as error:
                said = error.stderr.decode(errors="replace").strip().splitlines()
                raise ConfigError(f"kind=codec2-{mode}: {command[0]} failed: {said[-1] if said else error}") from None
        out = np.frombuffer((place / "out.raw").read_bytes(), "<i2")[: len(raw)]
    bits = round(CODEC2_BITS[mode] * len(raw) / CODEC2_RATE)
    return (np.pad(out, (0, len(raw) - len(out))) / 32768).astype(np.float32), CODEC2_RATE, bits


def through(name: str, wav: Wave, rate: int) -> tuple[Wave, int, int]:
    """``wav`` through the codec called ``name``, as `opus`."""
    return opus(wav, rate) if name == "opus" else codec2(wav, rate, name.removeprefix("codec2-"))


def can_run(name: str) -> bool:
    """Whether what the codec needs is installed."""
    return name == "opus" or all(map(shutil.which, ("c2enc", "c2dec")))


def code(name: str, clips: list[Clip], out: Path) -> dict[str, object]:
    """Write the clips and codec.json into ``out``; returns what it says."""
    files = file_names([clip.id for clip in clips], ".wav")
    bits, seconds, failed = 0, 0.0, {}
    for clip in progress(clips, desc=name):
        try:
            rate = audio_info(clip.path).sample_rate
            wav = read_audio(clip.path, rate)
        except AudioError as error:
            failed[clip.id] = str(error)
            continue
        heard, coded_rate, used = through(name, wav, rate)
        bits, seconds = bits + used, seconds + len(wav) / rate
        write_audio(path_inside(out, files[clip.id]), heard, coded_rate)
    for identity, why in failed.items():
        print(f"{identity}: {why}", flush=True)
    if not seconds:
        raise ConfigError(f"none of the {len(clips)} clips can be read; {next(iter(failed.values()))}")
    nominal = OPUS_BITS if name == "opus" else CODEC2_BITS[name.removeprefix("codec2-")]
    record: dict[str, object] = {
        "name": name, "bitrate": nominal, "bits": bits, "seconds": round(seconds, 3), "clips": len(clips) - len(failed),
        "libsndfile": soundfile.__libsndfile_version__,
    }  # fmt: skip
    write_file(out / RECORD, json.dumps(record, indent=1) + "\n")
    return record


@hydra_entry("codec_classical")
def main(cfg: DictConfig) -> None:
    with refusing(CorpusError):
        clips, rejects = read_usable_corpus(cfg.data.root)
    if rejects:
        print(left_out(cfg.data.root, rejects), flush=True)
    chosen = [clip for clip in clips if clip.split in cfg.splits and clip.domain in cfg.domains]
    if not chosen:
        raise ConfigError(f"{cfg.data.root} has no clips with splits={list(cfg.splits)}, domains={list(cfg.domains)}.")
    out = Path(cfg.out or f"runs/{cfg.kind}")
    hold(out, "out", reads=[cfg.data.root])
    record = code(cfg.kind, chosen, out)
    print(f"{out}: {record['clips']} clips, {record['bits'] / record['seconds']:.0f} bit/s of coded frames")  # type: ignore[operator]


if __name__ == "__main__":
    main()

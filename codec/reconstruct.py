"""Sends audio through a tokenizer and back, to hear what it keeps, or one of both ways; prints bit rate and speed.

    python codec/reconstruct.py song.mp3 again.wav
    python codec/reconstruct.py data/mini/speech runs/reconstruct --window 8 --levels 2
    python codec/reconstruct.py data/mini/speech runs/mimi --tokenizer mimi levels=8
    python codec/reconstruct.py input=data/mini/speech out=runs/reconstruct window=10

    python codec/reconstruct.py song.mp3 codes --way encode        # codes/song.safetensors
    python codec/reconstruct.py codes again --way decode           # again/song.flac

`--tokenizer` takes a folder that codec/train.py wrote or one of the names below. Each file becomes a mono file at the
tokenizer's sample rate with exactly the source's length, under the same relative path in the folder `out`, or as the
file that `out` names. Files of more than a minute pass through ALMTokenizer in pieces: memory does not grow with them.
What cannot be read is listed, and the command ends with status 1.
"""

import training.help  # noqa: F401

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from codec.audio.answer import AUDIO_FORMATS, names_a_file, wave_of
from codec.audio.files import write_audio
from codec.audio.folder import find_audio, given_paths
from codec.corpus import AudioError, audio_info, read_pieces
from codec.encoded import SUFFIX, Encoded, find_all, find_codes
from codec.files import Codec
from codec.interface import AudioTokenizer, TokenizerError
from codec.load import load_tokenizer
from codec.model import ALMTokenizer
from training.config import ConfigError, group_options, hydra_entry, refusing
from training.identity import file_names, path_inside
from training.launch import pick_device
from training.lock import hold
from training.progress import progress
from training.quoting import literal
from training.streams import told_aside


@dataclass
class Reconstruction:
    """One file that went through the tokenizer; times in seconds of wall clock."""

    source: Path
    output: Path
    seconds: float  # of audio
    frames: int
    encode_time: float
    decode_time: float


def reconstruct_long(source: Path, target: Path, tokenizer: ALMTokenizer) -> Reconstruction:
    """A file of any length through both streams, piece by piece, into `target`. Raises AudioError."""
    done = Reconstruction(source, target, 0.0, 0, 0.0, 0.0)

    def sound() -> Iterator[np.ndarray]:
        encoder = decoder = None
        samples = written = 0
        pieces = read_pieces(source, tokenizer.sample_rate)
        following: np.ndarray | None = next(pieces)
        while (piece := following) is not None:
            following = next(pieces, None)
            samples += len(piece)
            wav = torch.from_numpy(np.ascontiguousarray(piece))[None]
            started = time.perf_counter()
            codes, encoder = tokenizer.encode_stream(wav, encoder, last=following is None)
            encoded = time.perf_counter()
            heard, decoder = tokenizer.decode_stream(codes, decoder, last=following is None)
            output = heard[0].float().cpu().numpy()[: samples - written]
            done.encode_time += encoded - started
            done.decode_time += time.perf_counter() - encoded
            done.frames, done.seconds = done.frames + codes.shape[2], samples / tokenizer.sample_rate
            written += len(output)
            yield output

    write_audio(target, sound(), tokenizer.sample_rate)
    return done


def suffixes_of(way: str) -> tuple[str, ...]:
    """What may be written: files of codes, or of audio."""
    return (SUFFIX,) if way == "encode" else AUDIO_FORMATS


def convert(path: Path, target: Path, codec: Codec, way: str, described: dict[str, Any]) -> Reconstruction:
    """One file through the codec, or one of both ways; the times are those of the network alone.

    Args:
        described: what the tokenizer says of itself, of which its fingerprint takes time.

    Raises AudioError, TokenizerError.
    """
    tokenizer = codec.tokenizer
    if isinstance(tokenizer, ALMTokenizer) and way == "both" and audio_info(path).seconds > tokenizer.one_pass_seconds:
        return reconstruct_long(path, target, tokenizer)
    encode_time = decode_time = 0.0
    if way == "decode":
        encoded = Encoded.load(path)
    else:
        wave = wave_of(path, codec.sample_rate)
        started = time.perf_counter()
        encoded = Encoded(codec.codes_of(wave), len(wave), described)
        encode_time = time.perf_counter() - started
    if way == "encode":
        encoded.save(target)
    else:
        try:
            encoded.check(described["fingerprint"])
            started = time.perf_counter()
            sound = codec.wave_of(encoded.codes, encoded.samples)
        except (TokenizerError, ValueError) as error:
            raise TokenizerError(f"{path}: {error}") from None
        decode_time = time.perf_counter() - started
        write_audio(target, sound, codec.sample_rate)
    return Reconstruction(path, target, encoded.seconds, len(encoded.codes), encode_time, decode_time)


def reconstruct_files(
    source: str | Path | Sequence[str | Path],
    out: str | Path,
    tokenizer: AudioTokenizer,
    audio_format: str = "flac",
    way: str = "both",
) -> tuple[list[Reconstruction], list[str]]:
    """Converts a file, all below a folder, or several of them; returns what was written and why the rest was not.

    `out` is a folder, or for one file also a file of one of `suffixes_of`.

    Args:
        way: ``encode`` or ``decode``: one of both.

    Raises FileNotFoundError when there is nothing to convert and ValueError when a source file would be overwritten.
    """
    out, codec = Path(out), Codec(tokenizer)
    sources = [source] if isinstance(source, str | Path) else source
    out_is_file = names_a_file(out, suffixes_of(way))
    if out_is_file and (len(sources) != 1 or Path(sources[0]).is_dir()):
        raise ValueError(f"out={out} is a file, {', '.join(map(str, sources))} a folder or several; name a folder")
    done: list[Reconstruction] = []
    found, refused = find_all(sources, find_codes if way == "decode" else find_audio)
    names = file_names(found, SUFFIX if way == "encode" else f".{audio_format}")
    targets = {name: out if out_is_file else path_inside(out, names[name]) for name in found}
    read = {(status.st_dev, status.st_ino) for status in map(os.stat, found.values())}
    described = tokenizer.describe()
    for target in targets.values():
        if target.exists() and ((status := target.stat()).st_dev, status.st_ino) in read:
            raise ValueError(f"{target} is the source itself; choose another folder with out=")
    for name, path in progress(found.items(), len(found), desc="files") if len(found) > 1 else found.items():
        try:
            done.append(convert(path, targets[name], codec, way, described))
        except (AudioError, TokenizerError) as error:
            refused.append(str(error))
    return done, refused


def table(done: list[Reconstruction], tokenizer: AudioTokenizer) -> str:
    """Per file: seconds, frames, bit/s, real-time factors (time taken / seconds) of encode and decode.

    The bit rate is what the codes of that file take: a short clip is rounded up to whole frames.
    """
    bits_per_frame = tokenizer.bitrate / tokenizer.frame_rate
    head = f"{'seconds':>9}{'frames':>8}{'bit/s':>9}{'RTF enc':>9}{'RTF dec':>9}  file"

    def line(seconds: float, frames: int, encode_time: float, decode_time: float, name: object) -> str:
        rates = (frames * bits_per_frame / seconds, encode_time / seconds, decode_time / seconds)
        return f"{seconds:>9.2f}{frames:>8}{rates[0]:>9.1f}{rates[1]:>9.3f}{rates[2]:>9.3f}  {name}"

    lines = [line(r.seconds, r.frames, r.encode_time, r.decode_time, r.output) for r in done]
    total = line(
        sum(r.seconds for r in done),
        sum(r.frames for r in done),
        sum(r.encode_time for r in done),
        sum(r.decode_time for r in done),
        f"all ({len(done)} files)",
    )
    return "\n".join([head, *lines, total])


def as_overrides(arguments: list[str]) -> list[str]:
    """``IN OUT --tokenizer T --window 8 --levels 2`` as overrides; what is one already, and Hydra's own flags, stay.

    Raises:
        ConfigError: a third path, or an option without its value.
    """
    found: list[str] = []
    paths = iter(("input", "out"))
    rest = iter(arguments)
    for argument in rest:
        option, equals, value = argument.partition("=")
        if option in ("--tokenizer", "--window", "--levels", "--device", "--format", "--way"):
            value = value if equals else next(rest, "")
            if not value:
                raise ConfigError(f"{option} wants a value.")
            key = option.removeprefix("--")
            if key == "tokenizer" and value not in group_options("tokenizer"):
                key, value = "tokenizer.path", literal(value)
            found.append(f"{key}={value}")
        elif argument.startswith("-") or (equals and option.replace(".", "").lstrip("+~").isidentifier()):
            found.append(argument)
            if argument in ("--cfg", "-c", "--package", "-p", "--info", "-i"):  # Hydra's, with a value of their own
                found += islice(rest, 1)
        elif (key := next(paths, "")) and argument:
            found.append(f"{key}={literal(argument)}")
        else:
            raise ConfigError(f"'{argument}' is one path too many: IN and OUT, then options (see --help).")
    return found


@hydra_entry("reconstruct")
def main(cfg: DictConfig) -> None:
    if not (sources := given_paths(cfg.input)):
        raise ConfigError("say which audio: python codec/reconstruct.py FILE_OR_FOLDER OUT")
    is_file = names_a_file(cfg.out, suffixes_of(cfg.way))
    if not is_file and names_a_file(cfg.out, (SUFFIX, *AUDIO_FORMATS)):
        raise ConfigError(f"out={cfg.out}: way={cfg.way} writes {' or '.join(suffixes_of(cfg.way))}, or into a folder.")
    hold(cfg.out, "out", is_file=is_file, reads=() if is_file else sources)
    with told_aside(cfg.json):
        tokenizer = load_tokenizer(cfg.tokenizer, pick_device(cfg.device), window=cfg.window, levels=cfg.levels)
        with refusing(FileNotFoundError, ValueError):
            done, refused = reconstruct_files(sources, cfg.out, tokenizer, cfg.format, cfg.way)
        print(
            f"{tokenizer.name} {tokenizer.fingerprint[:12]}: {tokenizer.sample_rate} Hz, "
            f"{tokenizer.frame_rate:g} frames/s, {tokenizer.levels} levels, {tokenizer.bitrate:.1f} bit/s nominal"
        )
        if done:
            print(table(done, tokenizer))
        for reason in refused:
            print(f"rejected: {reason}")
    if cfg.json:
        lines = [*map(asdict, done), *({"error": reason} for reason in refused)]
        print("\n".join(json.dumps(line, default=str) for line in lines))
    if not done:
        raise ConfigError(f"none of the {len(refused)} files of {cfg.input} can be read: the reasons are above.")
    if refused:
        raise SystemExit(1)


if __name__ == "__main__":
    sys.argv[1:] = as_overrides(sys.argv[1:])
    main()

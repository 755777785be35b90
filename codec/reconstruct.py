"""Sends audio through a tokenizer and back, to hear what it keeps; prints its bit rate and speed.

    python codec/reconstruct.py song.mp3 again.wav
    python codec/reconstruct.py data/mini/speech runs/reconstruct --window 8 --levels 2
    python codec/reconstruct.py data/mini/speech runs/mimi --tokenizer mimi levels=8
    python codec/reconstruct.py input=data/mini/speech out=runs/reconstruct window=10

`--tokenizer` takes a folder that codec/train.py wrote or one of the names below. Each file becomes a mono file at the
tokenizer's sample rate with exactly the source's length, under the same relative path in the folder `out`, or as the
file that `out` names. Files of more than a minute pass through ALMTokenizer in pieces: memory does not grow with them.
"""

import training.help  # noqa: F401

import os
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import torch
from omegaconf import DictConfig

from codec.audio.files import write_audio
from codec.audio.folder import walk
from codec.corpus import AudioError, audio_info, read_audio, read_pieces
from codec.interface import AudioTokenizer, Codes
from codec.load import load_tokenizer
from codec.model import ALMTokenizer
from training.config import ConfigError, group_options, hydra_entry
from training.identity import fault_of_id, file_names, path_inside, printable
from training.launch import pick_device
from training.lock import hold
from training.typed import literal

FORMATS = ("flac", "wav")


@dataclass
class Reconstruction:
    """One file that went through the tokenizer; times in seconds of wall clock."""

    source: Path
    output: Path
    seconds: float  # of audio
    frames: int
    encode_time: float
    decode_time: float


def find_audio(source: str | Path) -> tuple[dict[str, Path], list[str]]:
    """The audio of a file or folder, by its path relative to that folder without suffix; and why some cannot be read.

    Where two files differ in the suffix only, both keep it in their name. Raises FileNotFoundError.
    """
    source = Path(source)
    if source.is_file():
        return {source.stem: source}, []
    if not source.is_dir():
        raise FileNotFoundError(f"{source} does not exist")
    tree = walk(source)
    files = {path.relative_to(source).as_posix(): path for path in tree.files}
    stems = Counter(Path(name).with_suffix("").as_posix() for name in files)
    found, refused = {}, [f"{path}: {problem}" for path, problem in tree.problems]
    for name, path in files.items():
        stem = Path(name).with_suffix("").as_posix()
        if fault := fault_of_id(name):
            refused.append(f"{path}: its name cannot be used: {fault}")
        else:
            found[stem if stems[stem] == 1 and stem not in files else name] = path
    if not found and not refused:
        raise FileNotFoundError(f"{source} holds no audio files")
    return found, [printable(reason) for reason in refused]


def reconstruct(wav: np.ndarray, tokenizer: AudioTokenizer) -> tuple[np.ndarray, Codes, float, float]:
    """`wav` (float32 [samples] at the tokenizer's rate) through encode and decode.

    Returns the output [samples], the codes [1, levels, frames], and the seconds that each of the two took.
    """
    device = getattr(tokenizer, "device", "cpu")
    batch = torch.from_numpy(wav).to(device)[None]
    started = time.perf_counter()
    codes = tokenizer.encode(batch)
    codes = Codes(codes.codes.cpu(), codes.lengths.cpu(), codes.samples)  # waits for a GPU
    encoded = time.perf_counter()
    on_device = Codes(codes.codes.to(device), codes.lengths.to(device), codes.samples)
    output = tokenizer.decode(on_device)[0].float().cpu().numpy()
    decoded = time.perf_counter()
    return output, codes, encoded - started, decoded - encoded


def reconstruct_long(source: Path, target: Path, tokenizer: ALMTokenizer) -> Reconstruction:
    """A file of any length through both streams, piece by piece, straight into `target`.

    Raises AudioError; `target` is then removed.
    """
    encoder = decoder = None
    samples = frames = written = 0
    encode_time = decode_time = 0.0
    pieces = read_pieces(source, tokenizer.sample_rate)
    try:
        piece: np.ndarray | None = next(pieces)
        with soundfile.SoundFile(target, "w", tokenizer.sample_rate, 1, subtype="PCM_16") as file:
            while piece is not None:
                following = next(pieces, None)
                samples += len(piece)
                wav = torch.from_numpy(np.ascontiguousarray(piece))[None]
                started = time.perf_counter()
                codes, encoder = tokenizer.encode_stream(wav, encoder, last=following is None)
                encoded = time.perf_counter()
                sound, decoder = tokenizer.decode_stream(codes, decoder, last=following is None)
                output = sound[0].float().cpu().numpy()[: samples - written]
                encode_time += encoded - started
                decode_time += time.perf_counter() - encoded
                file.write(np.clip(output, -1, 1))
                frames, written, piece = frames + codes.shape[2], written + len(output), following
    except AudioError:
        target.unlink(missing_ok=True)
        raise
    return Reconstruction(source, target, samples / tokenizer.sample_rate, frames, encode_time, decode_time)


def names_a_file(out: str | Path) -> bool:
    """Whether `out` names the one file to write, and not a folder."""
    return Path(out).suffix.lower().removeprefix(".") in FORMATS and not Path(out).is_dir()


def reconstruct_files(
    source: str | Path, out: str | Path, tokenizer: AudioTokenizer, audio_format: str = "flac"
) -> tuple[list[Reconstruction], list[str]]:
    """Reconstructs a file or all audio below a folder; returns what was written and why the rest was not.

    `out` is a folder, or for one file also a file of one of FORMATS.

    Raises FileNotFoundError when there is no audio and ValueError when a source file would be overwritten.
    """
    out = Path(out)
    out_is_file = names_a_file(out)
    if out_is_file and Path(source).is_dir():
        raise ValueError(f"out={out} is a file, {source} a folder; name a folder")
    done: list[Reconstruction] = []
    found, refused = find_audio(source)
    names = file_names(found, f".{audio_format}")
    targets = {name: out if out_is_file else path_inside(out, names[name]) for name in found}
    sources = [path.stat() for path in found.values()]
    for target in targets.values():
        if target.exists() and any(os.path.samestat(target.stat(), status) for status in sources):
            raise ValueError(f"{target} is the source itself; choose another folder with out=")
    for name, path in found.items():
        target = targets[name]
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            if isinstance(tokenizer, ALMTokenizer) and audio_info(path).seconds > tokenizer.one_pass_seconds:
                done.append(reconstruct_long(path, target, tokenizer))
                continue
            wav = read_audio(path, tokenizer.sample_rate)
        except AudioError as error:
            refused.append(str(error))
            continue
        output, codes, encode_time, decode_time = reconstruct(wav, tokenizer)
        write_audio(target, output, tokenizer.sample_rate)
        seconds = len(wav) / tokenizer.sample_rate
        done.append(Reconstruction(path, target, seconds, int(codes.lengths[0]), encode_time, decode_time))
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
        if option in ("--tokenizer", "--window", "--levels", "--device", "--format"):
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
    if not cfg.input:
        raise ConfigError("say which audio: python codec/reconstruct.py FILE_OR_FOLDER OUT")
    is_file = names_a_file(cfg.out)
    hold(cfg.out, "out", replaced=is_file, is_file=is_file)
    tokenizer = load_tokenizer(cfg.tokenizer, pick_device(cfg.device), window=cfg.window, levels=cfg.levels)
    try:
        done, refused = reconstruct_files(cfg.input, cfg.out, tokenizer, cfg.format)
    except (FileNotFoundError, ValueError) as error:
        raise ConfigError(str(error)) from error
    print(
        f"{tokenizer.name} {tokenizer.fingerprint[:12]}: {tokenizer.sample_rate} Hz, "
        f"{tokenizer.frame_rate:g} frames/s, {tokenizer.levels} levels, {tokenizer.bitrate:.1f} bit/s nominal"
    )
    if done:
        print(table(done, tokenizer))
    for reason in refused:
        print(f"rejected: {reason}")
    if not done:
        raise ConfigError(f"none of the {len(refused)} files of {cfg.input} can be read: the reasons are above.")


if __name__ == "__main__":
    sys.argv[1:] = as_overrides(sys.argv[1:])
    main()

"""Texts to audio files with a trained language model.

    python lm/generate.py text="peter carried the purple ladder" speaker=slt
    python lm/generate.py file=sentences.txt best_of=4 model=runs/lm-tts/final
    python lm/generate.py text="the guitar is beautiful" --stream

Writes NNNN.wav and items.jsonl: one line per text with its seed, its length, whether the model ended it, and the scores
of all candidates. A text gets the same audio alone and among others, for its seed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, ListConfig, OmegaConf

from codec.encode import load_tokenizer
from codec.interface import AudioTokenizer, Codes, TokenizerError
from lm.decoding import Engine
from lm.documents import render
from lm.generate import Generation, best_of, generate
from lm.model import ModelError, load_lm
from lm.run_state import newest_model, normalisation_of
from lm.sampling import Sampling
from lm.streaming import StreamDecoder
from lm.vocabulary import VocabularyError
from tasks.base import Request, Task
from tasks.normalisation import normalisers
from training.config import ConfigError, check_ranges, hydra_entry, refusing
from training.launch import pick_device


def texts_of(cfg: DictConfig) -> list[str]:
    """The texts of ``text`` or ``file``.

    Raises:
        ConfigError: neither or both, nothing in them, or what is no Unicode text.
    """
    if (cfg.text is None) == (cfg.file is None):
        raise ConfigError('give text="..." or file=FILE with one text per line.')
    if cfg.file is not None:
        lines = lines_of(Path(cfg.file))
    else:
        lines = list(cfg.text) if isinstance(cfg.text, ListConfig) else [cfg.text]
    texts = [line.strip() for line in lines if line and line.strip()]
    if not texts:
        raise ConfigError("there is no text to generate audio for.")
    for text in texts:
        if any(0xD800 <= ord(letter) <= 0xDFFF for letter in text):  # bytes of a command line that are not UTF-8
            raise ConfigError(f"text={ascii(text)} is not UTF-8: write it in UTF-8, or give file=FILE that is.")
    return texts


def lines_of(path: Path) -> list[str]:
    """The lines of a text file in UTF-8; a byte-order mark is no part of the first.

    Raises:
        ConfigError: there is no such file, or it is in another encoding.
    """
    if not path.is_file():
        raise ConfigError(f"file={path} does not exist.")
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ConfigError(f"file={path}: line {line} is not UTF-8: save the file as UTF-8.") from None


def sampling_of(cfg: DictConfig, task: Task) -> Sampling:
    """``sampling``, with the task's own values where it says null."""
    options: dict[str, Any] = {}
    for key, value in OmegaConf.to_container(cfg.sampling, resolve=True).items():  # type: ignore[union-attr]
        chosen = task.decoding.get(str(key)) if value is None else value
        if chosen is not None:
            options[str(key)] = tuple(chosen) if isinstance(chosen, list) else chosen
    with refusing(ValueError):
        return Sampling(**options)


def limits_of(texts: Sequence[str], length: DictConfig, frame_rate: float) -> tuple[list[int], list[int]]:
    """(least, most) frames per text, from its number of characters."""
    most = [min(length.max_seconds, 1 + length.most_per_character * len(text)) for text in texts]
    least = [min(length.least_per_character * len(text), limit) for text, limit in zip(texts, most, strict=True)]
    frames = [max(1, int(limit * frame_rate)) for limit in most]
    return [max(1, min(int(low * frame_rate), high)) for low, high in zip(least, frames, strict=True)], frames


def write_wav(path: Path, wave: np.ndarray, rate: int) -> None:
    """16-bit PCM."""
    soundfile.write(path, np.clip(wave, -1, 1), rate, subtype="PCM_16")


def decode(tokenizer: AudioTokenizer, clips: Sequence[Generation], device: str) -> list[np.ndarray]:
    """Waveforms ``[samples]``, one clip at a time: as long as each is, and whatever the others are."""
    waves = []
    for clip in clips:
        codes = Codes.from_clips([torch.from_numpy(clip.codes)])
        wave = tokenizer.decode(Codes(codes.codes.to(device), codes.lengths.to(device)))[0]
        waves.append(wave.float().cpu().numpy())
    return waves


def stream(
    tokenizer: AudioTokenizer, cfg: DictConfig, path: Path, run: Callable[[Callable[..., None]], Generation]
) -> tuple[Generation, float]:
    """Write ``path`` piece by piece while ``run(on_frames)`` generates; the clip and seconds to its first audio."""
    decoder = StreamDecoder(tokenizer, cfg.stream_frames, cfg.stream_context, cfg.stream_ahead)
    first: list[float] = []
    start = time.perf_counter()
    with soundfile.SoundFile(path, "w", tokenizer.sample_rate, 1, subtype="PCM_16") as file:

        def give(pieces: Any) -> None:
            for piece in pieces:
                if not first:
                    first.append(time.perf_counter() - start)
                file.write(np.clip(piece, -1, 1))
                file.flush()

        clip = run(lambda _, codes: give(decoder.feed(codes)))
        give(decoder.finish())
    return clip, first[0]


def speak(cfg: DictConfig) -> Path:
    """Generate as ``cfg`` (configs/lm_generate.yaml) says; returns the folder of the audio."""
    device = pick_device(cfg.device)
    lowest = {"batch_size": 1, "best_of": 1, "stream_frames": 1, "stream_context": 0, "stream_ahead": 0, "seed": 0}
    lowest |= {f"length.{key}": 0 for key in cfg.length}
    check_ranges(cfg, lowest)
    texts = texts_of(cfg)
    if cfg.scorer != "log_probability":
        raise ConfigError(f"scorer={cfg.scorer} is unknown; choose log_probability.")
    if cfg.stream and cfg.best_of != 1:
        raise ConfigError("stream=true needs best_of=1: what has been played cannot be taken back.")
    task = instantiate(cfg.task)
    if task.target != "audio":
        raise ConfigError(f"task={task.name} writes text: generate audio with tts, text_to_sound or text_to_music.")
    try:
        engine = Engine.of(cfg.generation, device)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    folder = Path(cfg.model) if cfg.model else newest_model(task.name)
    model, vocabulary, text_tokenizer = load_lm(folder, device)
    tokenizer = load_tokenizer(cfg.tokenizer, device)
    vocabulary.check_tokenizer(tokenizer.describe(), f"tokenizer {tokenizer.name}")
    task.use_normaliser(normalisers(normalisation_of(folder)))
    requests = [
        Request(id=f"{i:04d}", text=text, captions=[text], speaker=cfg.speaker, domain=task.domains[0])
        for i, text in enumerate(texts)
    ]
    prompts = [render(task.document(r, with_target=False), vocabulary, text_tokenizer).ids for r in requests]
    least, most = limits_of(texts, cfg.length, tokenizer.frame_rate)
    sampling = sampling_of(cfg, task)
    seeds = [cfg.seed + i for i in range(len(texts))]
    out = Path(cfg.out)
    out.mkdir(parents=True, exist_ok=True)
    items = []
    start = time.perf_counter()
    if cfg.stream:
        for i, request in enumerate(requests):

            def run(on_frames: Callable[..., None], i: int = i) -> Generation:
                own = ([prompts[i]], [most[i]], [least[i]], sampling, [seeds[i]])
                return generate(model, vocabulary, *own, on_frames=on_frames, engine=engine)[0]

            began = time.perf_counter()
            clip, first = stream(tokenizer, cfg, out / f"{request.id}.wav", run)
            seconds, audio = time.perf_counter() - began, clip.n_frames / tokenizer.frame_rate
            print(
                f"{request.id}: first audio after {first:.2f} s, {audio:.2f} s of audio in {seconds:.2f} s "
                f"(real-time factor {seconds / audio:.2f})",
                flush=True,
            )
            items.append({**item_of(request, clip), "first_audio_seconds": first, "generation_seconds": seconds})
    else:
        found = best_of(
            model, vocabulary, prompts, cfg.best_of, most, least, sampling, seeds, None, cfg.batch_size, engine
        )
        waves = decode(tokenizer, [best for best, _ in found], device)
        for request, (best, candidates), wave in zip(requests, found, waves, strict=True):
            write_wav(out / f"{request.id}.wav", wave, tokenizer.sample_rate)
            items.append(
                {
                    **item_of(request, best),
                    "best_of": cfg.best_of,
                    "scorer": cfg.scorer,
                    "candidates": [{"seed": c.seed, "score": c.log_probability} for c in candidates],
                }
            )
    (out / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    audio = sum(item["frames"] for item in items) / tokenizer.frame_rate
    cut = sum(not item["ended"] for item in items)
    print(
        f"{out}: {len(items)} clips, {audio:.1f} s of audio in {time.perf_counter() - start:.1f} s by {folder}"
        + (f"; {cut} reached their limit without an end" if cut else ""),
        flush=True,
    )
    return out


def item_of(request: Request, clip: Generation) -> dict[str, Any]:
    """What items.jsonl says about a clip."""
    return {
        "id": request.id,
        "text": request.text,
        "speaker": request.speaker,
        "audio": f"{request.id}.wav",
        "seed": clip.seed,
        "frames": clip.n_frames,
        "ended": clip.ended,
        "legal": clip.legal,
        "log_probability": clip.log_probability,
    }


@hydra_entry("lm_generate")
def main(cfg: DictConfig) -> None:
    try:
        speak(cfg)
    except (ModelError, TokenizerError, VocabularyError) as error:
        raise ConfigError(str(error)) from None

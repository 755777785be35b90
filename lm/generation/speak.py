"""Rows that ask for audio or text, through a model and its tokenizer: items, and audio files, whole or in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from omegaconf import DictConfig, OmegaConf

from codec.audio.files import write_audio
from codec.interface import AudioTokenizer, Codes
from codec.load import load_tokenizer
from lm.generation.decoding import Engine
from lm.generation.frames import Generation, best_of, generate
from lm.generation.sampling import Sampling
from lm.generation.streaming import StreamDecoder
from lm.generation.writing import write
from lm.model import load_lm
from lm.run_state import normalisation_of
from lm.sequences.documents import render
from tasks.base import Task
from tasks.text import normalisers
from training.config import ConfigError, refusing


def sampling_of(cfg: DictConfig, task: Task) -> Sampling:
    """``sampling``, with the task's own values where it says null."""
    options: dict[str, Any] = {}
    for key, value in OmegaConf.to_container(cfg.sampling, resolve=True).items():  # type: ignore[union-attr]
        chosen = task.decoding.get(str(key)) if value is None else value
        if chosen is not None:
            options[str(key)] = tuple(chosen) if isinstance(chosen, list) else chosen
    with refusing(ValueError):
        return Sampling(**options)


def use_lengths(length: DictConfig, task: Task) -> None:
    """Put ``length`` over the task's own limits; null leaves them.

    Raises:
        ConfigError: a limit that does not apply to the task, or a least above the most.
    """
    for key, value in ((str(key), value) for key, value in length.items()):
        if value is None:
            continue
        if key not in task.decoding:
            raise ConfigError(f"length.{key}: the length of task={task.name} does not follow from that; leave it out.")
        task.decoding[key] = value
    least, most = (task.decoding.get(f"{end}_per_character") for end in ("least", "most"))
    if least is not None and most is not None and least > most:
        raise ConfigError(f"length.least_per_character={least} is above most_per_character={most}: lower it.")


def limits_of(task: Task, rows: Sequence[Any], frame_rate: float) -> tuple[list[int], list[int]]:
    """(least, most) frames of the audio that each row asks for: the task's seconds, at least one frame."""
    seconds = [task.seconds(row) for row in rows]
    most = [max(1, int(high * frame_rate)) for _, high in seconds]
    return [max(1, min(int(low * frame_rate), high)) for (low, _), high in zip(seconds, most, strict=True)], most


def decode(tokenizer: AudioTokenizer, clips: Sequence[np.ndarray], device: str) -> list[np.ndarray]:
    """Waveforms ``[samples]`` of codes ``[frames, levels]``, one clip at a time: as long as each is, and whatever the
    others are.
    """
    waves = []
    for clip in clips:
        codes = Codes.from_clips([torch.from_numpy(clip)])
        wave = tokenizer.decode(Codes(codes.codes.to(device), codes.lengths.to(device)))[0]
        waves.append(wave.float().cpu().numpy())
    return waves


class Generator:
    """A model, its tokenizer and the options of the command; gives items of rows, and their audio files.

    Args:
        out: folder of the audio.
        folder: of the language model.
    """

    def __init__(self, cfg: DictConfig, task: Task, out: Path, folder: Path, device: str) -> None:
        try:
            self.engine = Engine.of(cfg.generation, device)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        self.cfg, self.task, self.out, self.device = cfg, task, out, device
        self.sampling = sampling_of(cfg, task)
        self.model, self.vocabulary, self.text_tokenizer = load_lm(folder, device)
        with refusing(ValueError):
            self.sampling.check_levels(self.vocabulary.levels)
        self.tokenizer = load_tokenizer(cfg.tokenizer, device)
        self.vocabulary.check_tokenizer(self.tokenizer.describe(), f"tokenizer {self.tokenizer.name}")
        task.use_normaliser(normalisers(normalisation_of(folder)))
        self.places = getattr(self.model.config, "max_position_embeddings", None)

    def prompt(self, row: Any) -> np.ndarray:
        """The ids that ask for ``row``.

        Raises:
            ConfigError: they fill the model's positions.
        """
        ids = render(self.task.document(row, with_target=False), self.vocabulary, self.text_tokenizer).ids
        if self.places is not None and len(ids) + 2 * self.vocabulary.levels > self.places:
            raise ConfigError(
                f"what is given makes {len(ids)} ids, and the model has {self.places} positions: shorten it."
            )
        return ids

    def speak(self, rows: Sequence[Any], first: int) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
        """Items and codes ``[frames, levels]`` of rows that ask for audio, and NNNN.wav of each; the first number is
        ``first``. A recording that is continued is part of its file.
        """
        cfg, rate = self.cfg, self.tokenizer.frame_rate
        prompts = [self.prompt(row) for row in rows]
        least, most = limits_of(self.task, rows, rate)
        if self.places is not None:  # what the model has no positions for cannot be said
            rooms = [(self.places - len(prompt)) // self.vocabulary.levels - 1 for prompt in prompts]
            most = [max(1, min(pair)) for pair in zip(most, rooms, strict=True)]
            least = [min(pair) for pair in zip(least, most, strict=True)]
        sampling = self.sampling
        seeds = [cfg.seed + first + i for i in range(len(rows))]
        names = [f"{first + i:04d}" for i in range(len(rows))]
        before = [beginning_of(row, self.task) for row in rows]
        items, codes = [], []
        if cfg.stream:
            for i, name in enumerate(names):

                def run(on_frames: Callable[..., None], i: int = i) -> Generation:
                    own = ([prompts[i]], [most[i]], [least[i]], sampling, [seeds[i]])
                    return generate(self.model, self.vocabulary, *own, on_frames=on_frames, engine=self.engine)[0]

                began = time.perf_counter()
                clip, wait = stream(self.tokenizer, cfg, self.out / f"{name}.wav", run, before[i])
                seconds, audio = time.perf_counter() - began, clip.n_frames / rate
                print(
                    f"{name}: first audio after {wait:.2f} s, {audio:.2f} s of audio in {seconds:.2f} s "
                    f"(real-time factor {seconds / audio:.2f})",
                    flush=True,
                )
                items.append({**item_of(clip), "first_audio_seconds": wait, "generation_seconds": seconds})
                codes.append(clip.codes)
        else:
            found = best_of(
                self.model, self.vocabulary, prompts, cfg.best_of, most, least, sampling, seeds, cfg.batch_size,
                self.engine,
            )  # fmt: skip
            codes = [best.codes for best, _ in found]
            whole = [np.concatenate([*start, part]) for start, part in zip(before, codes, strict=True)]
            for name, wave in zip(names, decode(self.tokenizer, whole, self.device), strict=True):
                write_audio(self.out / f"{name}.wav", wave, self.tokenizer.sample_rate)
            for best, candidates in found:
                scores = [{"seed": c.seed, "score": c.log_probability} for c in candidates]
                items.append(
                    {**item_of(best), "best_of": cfg.best_of, "scorer": "log_probability", "candidates": scores}
                )
        heads = [{"id": name, "audio": f"{name}.wav"} for name in names]
        return [head | item for head, item in zip(heads, items, strict=True)], codes

    def write(self, rows: Sequence[Any]) -> list[dict[str, Any]]:
        """Items of rows that ask for text."""
        texts = write(
            self.model, self.vocabulary, self.text_tokenizer, [self.prompt(row) for row in rows],
            int(self.task.decoding["max_tokens"]), self.cfg.batch_size, engine=self.engine,
        )  # fmt: skip
        return [
            {"id": f"{i:04d}", "written": text.text, "ended": text.ended, "log_probability": text.log_probability}
            for i, text in enumerate(texts)
        ]


def beginning_of(row: Any, task: Task) -> list[np.ndarray]:
    """The codes that the audio of ``row`` goes on with, so that both make one file: those of a continuation."""
    return [row.codes] if task.needs == ("audio",) else []


def stream(
    tokenizer: AudioTokenizer,
    cfg: DictConfig,
    path: Path,
    run: Callable[[Callable[..., None]], Generation],
    before: Sequence[np.ndarray] = (),
) -> tuple[Generation, float]:
    """Write ``path`` piece by piece while ``run(on_frames)`` generates; the clip and seconds to its first audio.

    Args:
        before: codes whose audio the clip goes on with.
    """
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

        for codes in before:
            give(decoder.feed(codes))
        clip = run(lambda _, codes: give(decoder.feed(codes)))
        give(decoder.finish())
    return clip, first[0]


def item_of(clip: Generation) -> dict[str, Any]:
    """What items.jsonl says about how a clip was generated."""
    return {
        "seed": clip.seed,
        "frames": clip.n_frames,
        "ended": clip.ended,
        "legal": clip.legal,
        "log_probability": clip.log_probability,
    }

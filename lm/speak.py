"""The generation command: any task of a trained language model, from texts and recordings to audio files or texts.

    python lm/generate.py text="peter carried the purple ladder" speaker=slt
    python lm/generate.py file=sentences.txt best_of=4 model=runs/lm-tts/final
    python lm/generate.py text="the guitar is beautiful" --stream
    python lm/generate.py task=text_to_sound text="a dog barks twice"
    python lm/generate.py task=voice_prompted_tts audio=voice.wav audio_text="what is said in it" text="something else"
    python lm/generate.py task=continuation audio=[a.wav,b.flac]
    python lm/generate.py task=interleaved text=[the first sentence,the second one]    # one after the other, one voice
    python lm/generate.py task=asr audio=speech.wav

Writes NNNN.wav (of texts that are written: nothing) and items.jsonl: one line per item with its seed, its length,
whether the model ended it, and the scores of all candidates. An item is the same alone and among others, for its seed;
the sentences of ``interleaved`` are said in their order and lie joined in whole.wav. What a task needs and how long its
audio may be is the task's own (tasks/, configs/task/).
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
from omegaconf import DictConfig, OmegaConf

from codec.audio_files import write_audio
from codec.encode import load_tokenizer
from codec.interface import AudioTokenizer, Codes, TokenizerError
from lm.asking import check_inputs, hear, listed, texts_of, told
from lm.decoding import Engine
from lm.documents import render
from lm.generate import Generation, best_of, generate
from lm.model import ModelError, load_lm
from lm.options import make_task
from lm.run_state import newest_model, normalisation_of
from lm.sampling import Sampling
from lm.streaming import StreamDecoder
from lm.vocabulary import VocabularyError
from lm.writing import write
from tasks.base import Request, Task, TaskError
from tasks.interleaved import Interleaved
from tasks.mixture import Mixture
from tasks.normalisation import normalisers
from training.checkpoint import write_file
from training.config import SEED, ConfigError, check_ranges, hydra_entry, refusing
from training.launch import pick_device
from training.lock import hold


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
        ConfigError: a limit that does not apply to the task.
    """
    for key, value in ((str(key), value) for key, value in length.items()):
        if value is None:
            continue
        if key not in task.decoding:
            raise ConfigError(f"length.{key}: the length of task={task.name} does not follow from that; leave it out.")
        task.decoding[key] = value


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
                self.model, self.vocabulary, prompts, cfg.best_of, most, least, sampling, seeds, None, cfg.batch_size,
                self.engine,
            )  # fmt: skip
            codes = [best.codes for best, _ in found]
            whole = [np.concatenate([*start, part]) for start, part in zip(before, codes, strict=True)]
            for name, wave in zip(names, decode(self.tokenizer, whole, self.device), strict=True):
                write_audio(self.out / f"{name}.wav", wave, self.tokenizer.sample_rate)
            for best, candidates in found:
                scores = [{"seed": c.seed, "score": c.log_probability} for c in candidates]
                items.append({**item_of(best), "best_of": cfg.best_of, "scorer": cfg.scorer, "candidates": scores})
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


def check_options(cfg: DictConfig, task: Task) -> None:
    """Refuse numbers and inputs that cannot work, before anything is loaded."""
    lowest = {"batch_size": 1, "best_of": 1, "stream_frames": 1, "stream_context": 0, "stream_ahead": 0}
    check_ranges(cfg, {**lowest, "seed": SEED})
    check_ranges(cfg, {f"length.{key}": 0 for key in cfg.length}, optional=[f"length.{key}" for key in cfg.length])
    if cfg.scorer != "log_probability":
        raise ConfigError(f"scorer={cfg.scorer} is unknown; choose log_probability.")
    if cfg.stream and cfg.best_of != 1:
        raise ConfigError("stream=true needs best_of=1: what has been played cannot be taken back.")
    if cfg.domain is not None and cfg.domain not in task.domains:
        raise ConfigError(f"domain={cfg.domain}: task={task.name} is for {', '.join(task.domains)}.")
    use_lengths(cfg.length, task)


def speak(cfg: DictConfig) -> Path:
    """Generate as ``cfg`` (configs/lm_generate.yaml) says; returns the folder of the results."""
    device = pick_device(cfg.device)
    with refusing(TaskError):
        task = make_task(cfg.task)
    if isinstance(task, Mixture):
        raise ConfigError(f"task={task.name} is several tasks: choose one of {', '.join(t.name for t in task.tasks)}.")
    check_options(cfg, task)
    texts = texts_of(cfg)
    given = {"text": texts, "audio": listed(cfg.audio), "audio_text": told("audio_text", cfg.audio_text)}
    check_inputs(task, given)
    folder = Path(cfg.model) if cfg.model else newest_model(task.name)
    out = Path(cfg.out)
    hold(out, "out")
    generator = Generator(cfg, task, out, folder, device)
    heard = hear(given["audio"], given["audio_text"], generator.tokenizer, device)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    items: list[dict[str, Any]] = []
    if isinstance(task, Interleaved):  # each sentence is said after those before it
        said: list[np.ndarray] = []
        for i, text in enumerate(texts):
            new, codes = generator.speak([task.asked(str(i), text, heard)], i)
            items += [item | {"text": text, "heard": given["audio"]} for item in new]
            said += codes
            heard = [*heard, Request(str(i), text, codes=codes[0])]
        whole = decode(generator.tokenizer, [np.concatenate(said)], device)[0]
        write_audio(out / "whole.wav", whole, generator.tokenizer.sample_rate)
    else:
        count = len(texts) or len(heard)
        texts = texts or [""] * count
        voices = heard if len(heard) == count else heard * count
        speaker = cfg.speaker if task.name == "tts" else ""
        rows = [
            task.asked(f"{i:04d}", text, voices[i : i + 1], speaker, cfg.domain or "") for i, text in enumerate(texts)
        ]
        items = generator.write(rows) if task.target == "text" else generator.speak(rows, 0)[0]
        for i, item in enumerate(items):
            item |= {"text": texts[i]} if "text" in task.takes else {}
            item |= {"speaker": speaker} if speaker else {}
            item |= {"heard": [voices[i].id]} if voices else {}
    if task.target == "text":
        for item in items:
            print(f"{item['heard'][0]}: {item['written']}", flush=True)
    write_file(out / "items.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    cut = sum(not item["ended"] for item in items)
    audio = sum(item.get("frames", 0) for item in items) / generator.tokenizer.frame_rate
    made = f"{len(items)} texts" if task.target == "text" else f"{len(items)} clips, {audio:.1f} s of audio"
    print(
        f"{out}: {made} in {time.perf_counter() - start:.1f} s by {folder}"
        + (f"; {cut} reached their limit without an end" if cut else ""),
        flush=True,
    )
    return out


@hydra_entry("lm_generate")
def main(cfg: DictConfig) -> None:
    try:
        speak(cfg)
    except (ModelError, TokenizerError, VocabularyError) as error:
        raise ConfigError(str(error)) from None

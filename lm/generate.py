"""The generation command: any task of a trained language model, from texts and recordings to audio files or texts.

    python lm/generate.py text="peter carried the purple ladder" speaker=slt
    python lm/generate.py file=sentences.txt best_of=4 model=runs/lm-tts/final
    python lm/generate.py text="the guitar is beautiful" --stream
    python lm/generate.py task=text_to_sound text="a dog barks twice"
    python lm/generate.py task=voice_prompted_tts audio=voice.wav audio_text="what is said in it" text="something else"
    python lm/generate.py task=continuation audio=[a.wav,b.flac]
    python lm/generate.py task=interleaved 'text=[the first sentence,the second one]'  # one voice for all
    python lm/generate.py task=asr audio=speech.wav
    python lm/generate.py task=asr audio=[a.wav,folder] json=true out=null > texts.jsonl

Writes NNNN.wav (of texts that are written: nothing) and items.jsonl: one line per item with its seed, its length,
whether the model ended it, and the scores of all candidates. An item is the same alone and among others, for its seed;
the sentences of ``interleaved`` are said in their order and lie joined in whole.wav. A recording that cannot be read or
is too long does not stop those beside it: its line says why, and the command ends with status 1. What a task needs and
how long its audio may be is the task's own (tasks/, configs/task/).
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from omegaconf import DictConfig

from codec.audio.answer import AUDIO_FORMATS, names_a_file
from codec.audio.files import AudioError, write_audio
from codec.audio.folder import find_audio, given_paths
from codec.interface import TokenizerError
from codec.load import load_tokenizer
from lm.audio_model import AudioModel
from lm.generation.asking import Prompt, check_inputs, listed, sampling_of, texts_of, told, use_lengths
from lm.generation.batch import Generation
from lm.generation.decoding import Engine, batches
from lm.generation.frames import Steps
from lm.generation.streaming import StreamDecoder
from lm.model import ModelError
from lm.run_state import model_folder
from lm.sequences.text_tokenizer import TextTokenizerError
from lm.sequences.vocabulary import VocabularyError
from tasks.base import Request, Task, TaskError, make_task
from tasks.interleaved import Interleaved
from tasks.mixture import Mixture
from training.checkpoint import write_file
from training.config import ConfigError, hydra_entry, refusing
from training.launch import pick_device
from training.lock import hold
from training.progress import progress
from training.streams import say, told_aside

Item = dict[str, Any]  # a line of items.jsonl


def check_options(cfg: DictConfig, task: Task) -> None:
    """Refuse options that cannot work, before anything is loaded."""
    if isinstance(task, Mixture):
        raise ConfigError(f"task={task.name} is several tasks: choose one of {', '.join(t.name for t in task.tasks)}.")
    if cfg.stream and cfg.best_of != 1:
        raise ConfigError("stream=true needs best_of=1: what has been played cannot be taken back.")
    if cfg.speaker not in (None, "auto") and task.name != "tts":
        raise ConfigError(f"speaker={cfg.speaker}: task={task.name} takes no voice by name: leave it out, or task=tts.")
    if cfg.domain is not None and cfg.domain not in task.domains:
        raise ConfigError(f"domain={cfg.domain}: task={task.name} is for {', '.join(task.domains)}.")
    use_lengths(cfg.length, task)


class Answers:
    """What a model makes of rows of a task under the options of the command, and its files in ``out``."""

    def __init__(self, cfg: DictConfig, task: Task, model: AudioModel, out: Path) -> None:
        with refusing(ValueError):
            self.engine = Engine.of(cfg.generation, model.device)
            model.adopt(task)
            self.sampling = sampling_of(cfg, task)
            self.sampling.check_levels(model.vocabulary.levels)
        self.cfg, self.task, self.model, self.out = cfg, task, model, out
        model.load()

    def to(self, rows: dict[int, Any]) -> dict[int, tuple[Item, np.ndarray]]:
        """Number → its item, and codes ``[frames, levels]`` of its audio (of a text: none); and NNNN.wav of each.

        A row of which nothing can be asked, or that fills the model's positions, gives an item with the reason.
        """
        if note := self.model.note_on(self.task, list(rows.values())):
            print(note, flush=True)
        none = np.zeros((0, self.model.vocabulary.levels), np.int64)
        prompts: dict[int, Prompt] = {}
        found: dict[int, tuple[Item, np.ndarray]] = {}
        for number, row in rows.items():
            try:
                (prompt,) = self.model.prompts(self.task, [row], in_all=self.cfg.length.max_seconds)
                self.model.check_room([prompt])
                prompts[number] = prompt
            except (ModelError, TaskError) as error:
                found[number] = {"error": str(error)}, none
        names, size = list(prompts), 1 if self.cfg.stream else self.cfg.batch_size
        opening = "text" if self.task.target == "text" else "audio"
        ids = [prompt.ids for prompt in prompts.values()]
        parts = list(batches(ids, self.model.vocabulary.control_id(f"<{opening}>"), opening, size))
        for part in progress(parts, desc=self.task.name) if len(parts) > 1 else parts:
            chosen = [names[place] for place in part]
            of_part = [prompts[number] for number in chosen]
            if self.task.target == "text":
                for number, text in zip(chosen, self.model.write(of_part, size, self.engine), strict=True):
                    item = {"written": text.text, "ended": text.ended, "log_probability": text.log_probability}
                    found[number] = item, none
            elif self.cfg.stream:
                found[chosen[0]] = self._streamed(chosen[0], rows[chosen[0]], of_part[0])
            else:
                found |= zip(chosen, self._whole(chosen, [rows[number] for number in chosen], of_part), strict=True)
        return {number: ({"id": f"{number:04d}"} | item, codes) for number, (item, codes) in sorted(found.items())}

    def file(self, number: int) -> Path:
        """Where the audio of an item is written."""
        return self.out if names_a_file(self.out, AUDIO_FORMATS) else self.out / f"{number:04d}.wav"

    def _said(self, number: int, clip: Generation) -> Item:
        """What items.jsonl says about a clip."""
        return {
            "audio": self.file(number).name,
            "seed": clip.seed,
            "frames": clip.n_frames,
            "ended": clip.ended,
            "legal": clip.legal,
            "log_probability": clip.log_probability,
        }

    def _before(self, row: Any) -> np.ndarray:
        """The codes that the audio of ``row`` goes on with, so that both make one file: those of a continuation."""
        return row.codes if self.task.needs == ("audio",) else np.zeros((0, self.model.vocabulary.levels), np.int64)

    def _whole(self, numbers: list[int], rows: list[Any], prompts: list[Prompt]) -> list[tuple[Item, np.ndarray]]:
        """Items and codes of a batch, whose audio is decoded when it is there."""
        cfg, seeds = self.cfg, [self.cfg.seed + number for number in numbers]
        how = {"batch_size": cfg.batch_size, "engine": self.engine}
        drawn = self.model.generate(prompts, self.sampling, seeds, cfg.best_of, **how)
        waves = self.model.decode(
            [np.concatenate([self._before(row), best.codes]) for row, (best, _) in zip(rows, drawn, strict=True)]
        )
        found = []
        for number, wave, (best, candidates) in zip(numbers, waves, drawn, strict=True):
            write_audio(self.file(number), wave, self.model.tokenizer.sample_rate)
            scores = [{"seed": clip.seed, "score": clip.log_probability} for clip in candidates]
            item = {"best_of": cfg.best_of, "scorer": "log_probability", "candidates": scores}
            found.append((self._said(number, best) | item, best.codes))
        return found

    def _streamed(self, number: int, row: Any, prompt: Prompt) -> tuple[Item, np.ndarray]:
        """Item and codes of one clip, whose file grows while it is generated."""
        cfg, model, times = self.cfg, self.model, []
        decoder = StreamDecoder(model.tokenizer, cfg.stream_frames, cfg.stream_context, cfg.stream_ahead)
        seed, start = cfg.seed + number, time.perf_counter()
        pieces = Steps(model.stream_codes(prompt, self.sampling, seed, decoder, self._before(row), self.engine))
        rate = model.tokenizer.sample_rate
        with soundfile.SoundFile(self.file(number), "w", rate, 1, subtype="PCM_16") as file:
            for piece in pieces:
                times.append(time.perf_counter() - start)
                file.write(np.clip(piece, -1, 1))
                file.flush()
        clip, seconds = pieces.result, time.perf_counter() - start
        audio = clip.n_frames / model.tokenizer.frame_rate
        print(
            f"{number:04d}: first audio after {times[0]:.2f} s, {audio:.2f} s of audio in {seconds:.2f} s "
            f"(real-time factor {seconds / audio:.2f})",
            flush=True,
        )
        return self._said(number, clip) | {"first_audio_seconds": times[0], "generation_seconds": seconds}, clip.codes


def one_after_the_other(answers: Answers, texts: list[str], heard: list[Request]) -> list[Item]:
    """Items of ``interleaved``: each sentence is said after those before it; whole.wav joins them."""
    items: list[Item] = []
    said: list[np.ndarray] = []
    for number, text in enumerate(texts):
        item, codes = answers.to({number: answers.task.asked(str(number), text, heard)})[number]
        if "error" in item:
            raise ConfigError(item["error"])
        items.append(item | {"text": text})
        said.append(codes)
        heard = [*heard, Request(str(number), text, codes=codes)]
    whole = answers.model.decode([np.concatenate(said)])[0]
    write_audio(answers.out / "whole.wav", whole, answers.model.tokenizer.sample_rate)
    return items


def recordings(given: list[str]) -> tuple[list[str], list[str]]:
    """The files of audio that are given, those of folders too, and why some cannot be read."""
    files, refused = [], []
    for path in given_paths(given):
        if not Path(path).is_dir():
            files.append(path)
            continue
        with refusing(FileNotFoundError):
            found, reasons = find_audio(path)
        files += map(str, found.values())
        refused += reasons
    return files, refused


def hear_all(
    model: AudioModel, files: list[str], texts: list[str], strict: bool
) -> tuple[dict[int, Request], dict[int, Item]]:
    """Number → recording, and number → item of those that cannot be read. Raises AudioError where ``strict``."""
    heard, unheard = {}, {}
    for i, (file, text) in enumerate(zip(files, texts or [""] * len(files), strict=True)):
        try:
            heard[i] = model.hear(file, text)
        except AudioError as error:
            if strict:
                raise AudioError(f"audio: {error}") from None
            unheard[i] = {"id": f"{i:04d}", "error": f"audio: {error}"}
    return heard, unheard


def made_of(
    answers: Answers,
    texts: list[str],
    files: list[str],
    heard: dict[int, Request],
    unheard: dict[int, Item],
    speaker: str | None,
) -> list[Item]:
    """An item per text, or per recording where no text is given."""
    task, alone = answers.task, answers.task.needs == ("audio",)
    if isinstance(task, Interleaved):
        return [item | {"heard": files} for item in one_after_the_other(answers, texts, list(heard.values()))]
    if len(heard) == 1 and not alone:  # one voice for all texts
        heard = dict.fromkeys(range(len(texts)), heard[0])
    rows = {
        i: task.asked(
            f"{i:04d}", texts[i] if texts else "", [heard[i]] if heard else [], speaker or "", answers.cfg.domain or ""
        )
        for i in (heard if alone else range(len(texts)))
    }
    made = unheard | {number: item for number, (item, _) in answers.to(rows).items()}
    items = [made[number] for number in sorted(made)]
    for i, item in enumerate(items):
        item |= {"text": texts[i]} if "text" in task.takes else {}
        item |= {"speaker": speaker} if speaker else {}
        item |= {"heard": [files[i if len(files) > 1 else 0]]} if files else {}
    return items


def speak(cfg: DictConfig) -> list[Item]:
    """Generate as ``cfg`` (configs/lm_generate.yaml) says; returns the lines of items.jsonl."""
    with (
        refusing(AudioError, ModelError, TaskError, TextTokenizerError, TokenizerError, VocabularyError),
        told_aside(cfg.json),
    ):
        items = _speak(cfg)
    if cfg.json:
        print("".join(json.dumps(item) + "\n" for item in items), end="", flush=True)
    return items


def _speak(cfg: DictConfig) -> list[Item]:
    device, task = pick_device(cfg.device), make_task(cfg.task)
    check_options(cfg, task)
    texts, words = texts_of(cfg), told("audio_text", cfg.audio_text)
    files, refused = recordings(listed(cfg.audio))
    if refused and not files:
        raise ConfigError(f"audio: none of the {len(refused)} recordings can be read, the first because: {refused[0]}")
    check_inputs(task, {"text": texts, "audio": files, "audio_text": words})
    if cfg.out is None and task.target == "audio":
        raise ConfigError("out=null: the audio needs a folder, or a file NAME.wav.")
    out = Path(cfg.out) if cfg.out is not None else None
    is_file = out is not None and names_a_file(out, AUDIO_FORMATS)
    if is_file and (isinstance(task, Interleaved) or task.target == "text" or len(texts or files) > 1):
        raise ConfigError(f"out={out} is a file of one clip, and more or something else is to be made: name a folder.")
    if out is not None:
        heard_there = [file for file in files if out.exists() and out.samefile(file if is_file else Path(file).parent)]
        if heard_there and task.target == "audio":
            raise ConfigError(f"out={out}: {heard_there[0]}, which is read, could be written over: name another place.")
        folders = [path for path in listed(cfg.audio) if task.target == "audio" and not is_file]
        hold(out, "out", is_file=is_file, reads=folders)
        (out.parent if is_file else out).mkdir(parents=True, exist_ok=True)
    folder = model_folder(cfg.model, task.name)
    model = AudioModel(folder, load_tokenizer(cfg.tokenizer, device), device)
    model.check_task(task.name)
    speaker = cfg.speaker if task.name == "tts" else None
    speaker = model.default_speaker if speaker == "auto" else speaker
    model.check_speaker(speaker)
    answers = Answers(cfg, task, model, out or Path())
    heard, unheard = hear_all(model, files, words, strict=task.needs != ("audio",))
    start = time.perf_counter()
    items = made_of(answers, texts, files, heard, unheard, speaker)
    items += [{"id": f"{len(items) + i:04d}", "error": reason} for i, reason in enumerate(refused)]
    failed = [item for item in items if "error" in item]
    if len(failed) == len(items):
        raise ConfigError(failed[0]["error"])
    for item in items:
        if "error" in item or task.target == "text":
            print(f"{item.get('heard', [item['id']])[0]}: {item.get('error') or item['written']}", flush=True)
    if out is not None and not is_file:
        write_file(out / "items.jsonl", "".join(json.dumps(item) + "\n" for item in items))
    cut = sum(not item.get("ended", True) for item in items)
    audio = sum(item.get("frames", 0) for item in items) / model.tokenizer.frame_rate
    count = len(items) - len(failed)
    done = f"{count} texts" if task.target == "text" else f"{count} clips, {audio:.1f} s of audio"
    tell = print if out is not None else say  # standard output has the texts alone, for whoever reads them
    tell(
        (f"{out}: " if out else "")
        + f"{done} in {time.perf_counter() - start:.1f} s by {folder}"
        + (f"; {cut} reached their limit without an end" if cut else "")
        + (f"; {len(failed)} of {len(items)} could not be made, for the reasons above" if failed else "")
    )
    return items


@hydra_entry("lm_generate")
def main(cfg: DictConfig) -> None:
    if any("error" in item for item in speak(cfg)):
        raise SystemExit(1)


if __name__ == "__main__":
    sys.argv = [sys.argv[0], *("stream=true" if option == "--stream" else option for option in sys.argv[1:])]
    main()

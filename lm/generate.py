"""The generation command: any task of a trained language model, from texts and recordings to audio files or texts.

    python lm/generate.py text="peter carried the purple ladder" speaker=slt
    python lm/generate.py file=sentences.txt best_of=4 model=runs/lm-tts/final
    python lm/generate.py text="the guitar is beautiful" --stream
    python lm/generate.py task=text_to_sound text="a dog barks twice"
    python lm/generate.py task=voice_prompted_tts audio=voice.wav audio_text="what is said in it" text="something else"
    python lm/generate.py task=continuation audio=[a.wav,b.flac]
    python lm/generate.py task=interleaved 'text=[the first sentence,the second one]'  # one voice for all
    python lm/generate.py task=asr audio=speech.wav

Writes NNNN.wav (of texts that are written: nothing) and items.jsonl: one line per item with its seed, its length,
whether the model ended it, and the scores of all candidates. An item is the same alone and among others, for its seed;
the sentences of ``interleaved`` are said in their order and lie joined in whole.wav. What a task needs and how long its
audio may be is the task's own (tasks/, configs/task/).
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from codec.audio.files import write_audio
from codec.interface import TokenizerError
from lm.generation.asking import check_inputs, check_speaker, hear, listed, texts_of, told
from lm.generation.speak import Generator, decode, use_lengths
from lm.model import ModelError
from lm.run_state import newest_model
from lm.sequences.vocabulary import VocabularyError
from tasks.base import Request, Task, TaskError, make_task
from tasks.interleaved import Interleaved
from tasks.mixture import Mixture
from training.checkpoint import write_file
from training.config import ConfigError, hydra_entry, refusing
from training.launch import pick_device
from training.lock import hold


def check_options(cfg: DictConfig, task: Task) -> None:
    """Refuse options that cannot work, before anything is loaded."""
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
    speaker = cfg.speaker if task.name == "tts" else None
    check_speaker(speaker, folder)
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
        rows = [
            task.asked(f"{i:04d}", text, voices[i : i + 1], speaker or "", cfg.domain or "")
            for i, text in enumerate(texts)
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


if __name__ == "__main__":
    sys.argv = [sys.argv[0], *("stream=true" if option == "--stream" else option for option in sys.argv[1:])]
    main()

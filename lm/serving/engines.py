"""What every other engine that serves a model needs from us: prompts as ids, and clips of ids as audio files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from codec.audio.files import write_audio
from codec.load import load
from lm.generation.asking import check_speaker
from lm.generation.legality import Legality
from lm.generation.speak import decode
from lm.run_state import normalisation_of
from lm.sequences.documents import render
from lm.sequences.text_tokenizer import load_text_tokenizer
from lm.sequences.vocabulary import AudioVocabulary
from tasks.base import Request
from tasks.text import normalisers
from tasks.tts import TTS
from training.lock import hold


def speak(
    options: argparse.Namespace, generate: Callable[[AudioVocabulary, list[list[int]], int], list[list[int]]]
) -> None:
    """Write what ``generate`` (vocabulary, prompts, most frames → ids of the clips) says to ``options.text``."""
    hold(options.out, "--out")
    tokenizer = load(options.tokenizer)
    vocabulary, prompts = speech_prompts(options.model, options.text, options.speaker)
    vocabulary.check_tokenizer(tokenizer.describe(), f"tokenizer {tokenizer.name}")
    clips = generate(vocabulary, prompts, int(options.max_seconds * tokenizer.frame_rate))
    lengths = write_clips(vocabulary, clips, tokenizer, options.out)
    print(f"{options.out}: {len(lengths)} clips, {sum(lengths) / tokenizer.frame_rate:.1f} s of audio")


def speech_prompts(folder: Path, texts: list[str], speaker: str) -> tuple[AudioVocabulary, list[list[int]]]:
    """The layout of the model in ``folder`` and the ids of the prompts, as training rendered them."""
    check_speaker(speaker, folder)
    vocabulary, task = AudioVocabulary.load(folder), TTS()
    task.use_normaliser(normalisers(normalisation_of(folder)))
    tokenizer = load_text_tokenizer(folder)
    requests = [Request(id=str(i), text=text, speaker=speaker) for i, text in enumerate(texts)]
    return vocabulary, [
        render(task.document(request, with_target=False), vocabulary, tokenizer).ids.tolist() for request in requests
    ]


def write_clips(vocabulary: AudioVocabulary, clips: list[list[int]], tokenizer: Any, out: Path) -> list[int]:
    """Ids of whole clips to NNNN.wav; frames of each."""
    frames = []
    for number, ids in enumerate(clips):
        codes = np.array(Legality(vocabulary).codes(ids)).reshape(-1, vocabulary.levels)
        write_audio(out / f"{number:04d}.wav", decode(tokenizer, [codes], "cpu")[0], tokenizer.sample_rate)
        frames.append(len(codes))
    return frames

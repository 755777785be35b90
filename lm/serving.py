"""What every other engine that serves a model needs from us: prompts as ids, and clips of ids as audio files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from codec.interface import Codes
from lm.documents import render
from lm.legality import Legality
from lm.run_state import normalisation_of
from lm.speak import write_wav
from lm.text_tokenizer import load_text_tokenizer
from lm.vocabulary import AudioVocabulary
from tasks.base import Request
from tasks.normalisation import normalisers
from tasks.tts import TTS


def speech_prompts(folder: Path, texts: list[str], speaker: str) -> tuple[AudioVocabulary, list[list[int]]]:
    """The layout of the model in ``folder`` and the ids of the prompts, as training rendered them."""
    vocabulary, task = AudioVocabulary.load(folder), TTS()
    task.use_normaliser(normalisers(normalisation_of(folder)))
    tokenizer = load_text_tokenizer(folder)
    requests = [Request(id=str(i), text=text, speaker=speaker) for i, text in enumerate(texts)]
    return vocabulary, [
        render(task.document(request, with_target=False), vocabulary, tokenizer).ids.tolist() for request in requests
    ]


def write_clips(vocabulary: AudioVocabulary, clips: list[list[int]], tokenizer: Any, out: Path) -> list[int]:
    """Ids of whole clips to NNNN.wav; frames of each."""
    out.mkdir(parents=True, exist_ok=True)
    frames = []
    for number, ids in enumerate(clips):
        codes = torch.tensor(Legality(vocabulary).codes(ids)).view(-1, vocabulary.levels)
        wave = tokenizer.decode(Codes.from_clips([codes]))[0]
        write_wav(out / f"{number:04d}.wav", wave.float().cpu().numpy(), tokenizer.sample_rate)
        frames.append(len(codes))
    return frames

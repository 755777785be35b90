"""What every other engine that serves a model needs from us: prompts as ids, and clips of ids as audio files."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import islice

import numpy as np

from codec.audio.files import write_audio
from codec.interface import TokenizerError
from codec.load import load
from lm.audio_model import AudioModel
from lm.model import ModelError
from lm.sequences.text_tokenizer import TextTokenizerError
from lm.sequences.vocabulary import AudioVocabulary, VocabularyError
from tasks.base import Request, TaskError
from tasks.tts import TTS
from training.config import refusing
from training.lock import hold


def speak(
    options: argparse.Namespace, generate: Callable[[AudioVocabulary, list[list[int]], list[int]], list[list[int]]]
) -> None:
    """Write what ``generate`` (vocabulary, prompts, most frames of each → the clips' ids) says to ``options.text``."""
    hold(options.out, "--out")
    with refusing(ModelError, TextTokenizerError, TokenizerError, VocabularyError):
        model = AudioModel(options.model, load(options.tokenizer))
        model.check_speaker(options.speaker)
    rows = [Request(id=str(i), text=text, speaker=options.speaker) for i, text in enumerate(options.text)]
    with refusing(ModelError, TaskError):
        prompts = model.prompts(TTS(), rows, options.max_seconds)
        model.check_room(prompts)
    parts = [part for prompt in prompts for part in prompt.parts]
    made = map(model.codes, generate(model.vocabulary, [part.ids.tolist() for part in parts], [p.most for p in parts]))
    clips = [np.concatenate(list(islice(made, len(prompt.parts))))[: prompt.whole] for prompt in prompts]
    for number, wave in enumerate(model.decode(clips)):
        write_audio(options.out / f"{number:04d}.wav", wave, model.tokenizer.sample_rate)
    seconds = sum(map(len, clips)) / model.tokenizer.frame_rate
    print(f"{options.out}: {len(clips)} clips, {seconds:.1f} s of audio")

"""Audio language models in five lines; everything here stands elsewhere, and is loaded when it is first used.

    from almkit import load_codec, load_model

    codec = load_codec()                                   # a folder, one that ships, or a hub id
    codec.reconstruct("a.wav").save("again.wav")
    model = load_model()
    model.speak("peter carried the purple ladder", voice="slt").save("peter.wav")
    print(model.transcribe("peter.wav").text)

The command of the same name is `almkit.command`.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codec.files import Codec
    from lm.audio_model import AudioModel

__all__ = ["load_codec", "load_model"]


def load_codec(
    path: str | Path = "checkpoints/codec-real",
    device: str = "auto",
    window: int | None = None,
    levels: int | None = None,
) -> Codec:
    """An audio tokenizer for files and arrays: ``encode``, ``decode``, ``reconstruct`` (`codec.files.Codec`).

    Args:
        path: of a folder that codec/train.py wrote, ``checkpoints/codec-real`` that ships, or a hub id.
        device: auto, cpu or cuda.
        window: frames per query, from 2 to 10, in place of the codec's own: fewer bits where it is larger.
        levels: so many of its levels, from the first.

    Raises:
        TokenizerError: there is no such codec, or it is damaged.
        ValueError: it cannot have that window, or has fewer levels.
    """
    return import_module("codec.files").Codec.open(path, device, window, levels)


def load_model(
    path: str | Path = "checkpoints/lm-all-mini",
    codec: str | Path | None = None,
    device: str = "auto",
) -> AudioModel:
    """A model that speaks, streams, transcribes, captions, makes sound and music (`lm.audio_model.AudioModel`).

    Args:
        path: of a folder that lm/train.py wrote, ``checkpoints/NAME`` that ships (``lm-all-mini``: six tasks;
            ``lm-tts-mini``: speech; ``lm-tts-voice``: any text; ``lm-spoken-mini``: continuation and voices of
            recordings), or a hub id.
        codec: whose tokens it has learnt, as of `load_codec`; None: the one of those that ship.
        device: auto, cpu or cuda.

    Raises:
        ModelError, TokenizerError, VocabularyError: one is not there or damaged, or they do not belong together.
    """
    return import_module("lm.audio_model").AudioModel.open(path, codec, device)

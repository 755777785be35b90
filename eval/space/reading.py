"""What the programs of the space begin with: a tokenizer that shows it, and the recordings' samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from codec.corpus import AudioError, read_audio
from codec.interface import HasLatents
from eval.harness.audio import Wave
from eval.space.recordings import Recording
from training.config import ConfigError
from training.progress import progress


def need_latents(tokenizer: Any) -> HasLatents:
    """``tokenizer``, which must show its space. Raises ConfigError."""
    if not isinstance(tokenizer, HasLatents):
        raise ConfigError(
            f"tokenizer {tokenizer.name} does not show what it quantises: take almtokenizer, encodec, dac or mimi, or "
            "derive yours from HasLatents (docs/tokenizers.md)."
        )
    return tokenizer


def read_waves(recordings: Sequence[Recording], rate: int) -> tuple[dict[str, Wave], dict[str, str]]:
    """Each recording at ``rate`` Hz, and ``{id: why}`` of those that cannot be read. Raises ConfigError: none can."""
    waves, problems = {}, {}
    for recording in progress(recordings, desc="reading"):
        try:
            waves[recording.id] = read_audio(recording.clip.path, rate)
        except AudioError as error:
            problems[recording.id] = str(error)
    if not waves:
        raise ConfigError(
            f"none of the {len(recordings)} recordings can be read, the first because: {[*problems.values()][0]}"
        )
    return {name: wav for name, wav in waves.items() if len(wav)}, problems

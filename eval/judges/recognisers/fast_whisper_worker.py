"""Worker process of Whisper in the CTranslate2 format (see eval/harness/worker_pool.py): float32 samples at 16 kHz, at
most 30 s of them, in; words out.

A process of its own, because CTranslate2 and torch each bring a runtime of threads, which do not stand each other on
every system. Silero's voice activity detector inside faster-whisper listens first: Whisper itself finds words in
silence, noise and music ("you", "I'm going to …"), and its own probability of no speech does not tell those from speech
through a bad codec.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from eval.harness.worker_pool import Answer, Handler, serve

# Silero's own defaults: speech is what it hears for a quarter of a second, pauses of up to a tenth included
SPEECH_MS, PAUSE_MS = 250, 100


def start(settings: dict[str, Any]) -> Handler:
    """``settings``: ``folder``, ``device``, ``device_index``, ``compute`` (CTranslate2's type), ``language``."""
    if settings["device"] == "cuda":
        import torch  # noqa: F401  (brings cuBLAS and cuDNN, which CTranslate2 looks for)
    from faster_whisper import WhisperModel
    from faster_whisper.vad import VadOptions, get_speech_timestamps

    network = WhisperModel(
        settings["folder"], device=settings["device"], device_index=settings["device_index"],
        compute_type=settings["compute"], local_files_only=True,
    )  # fmt: skip
    several = network.model.is_multilingual
    activity = VadOptions(min_speech_duration_ms=SPEECH_MS, min_silence_duration_ms=PAUSE_MS)

    def handle(header: dict[str, Any], payload: bytes) -> Answer:
        samples = np.frombuffer(payload, "<f4")
        if not len(samples) or not get_speech_timestamps(samples, activity):
            return {"text": ""}
        segments, _ = network.transcribe(
            samples, language=settings["language"] if several else "en", beam_size=1, temperature=0.0,
            without_timestamps=True, condition_on_previous_text=False, compression_ratio_threshold=None,
            log_prob_threshold=None, no_speech_threshold=None,
        )  # fmt: skip
        return {"text": " ".join(segment.text.strip() for segment in segments).strip()}

    return handle


if __name__ == "__main__":
    serve(start)

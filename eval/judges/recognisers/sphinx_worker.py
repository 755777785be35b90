"""Worker process of the pocketsphinx recogniser (see eval/harness/worker_pool.py): int16 samples in, words out."""

from __future__ import annotations

from typing import Any

from eval.harness.worker_pool import Answer, Handler, serve


def start(settings: dict[str, Any]) -> Handler:
    """``settings`` are pocketsphinx options (``lm``, ``dict``, ``maxhmmpf`` ...) for 16 kHz audio."""
    import pocketsphinx

    decoder = pocketsphinx.Decoder(pocketsphinx.Config(samprate=16000, loglevel="FATAL", **settings))

    def handle(header: dict[str, Any], payload: bytes) -> Answer:
        decoder.reinit_feat()  # otherwise the front end remembers earlier clips, and words depend on the order
        decoder.start_utt()
        # A whole utterance at once: its own cepstral mean is removed.
        decoder.process_raw(payload, no_search=False, full_utt=True)
        decoder.end_utt()
        hypothesis = decoder.hyp()
        return {"text": hypothesis.hypstr if hypothesis is not None else ""}

    return handle


if __name__ == "__main__":
    serve(start)

"""Texts to audio files through llama.cpp.

    python scripts/export_gguf.py checkpoints/lm-tts-mini runs/lm-tts-mini.gguf
    python scripts/gguf_speak.py checkpoints/lm-tts-mini runs/lm-tts-mini.gguf --text "peter carried the purple ladder"

Needs `pip install llama-cpp-python`, which is compiled while it is installed. Prompts, legality mask and decoding are
those of `lm/generate.py`. See docs/serving.md.
"""

from __future__ import annotations

import training.help  # noqa: F401

from pathlib import Path

import numpy as np

from lm.generation.legality import Legality
from lm.sequences.vocabulary import AudioVocabulary
from lm.serving.asking import speaking_parser
from lm.serving.engines import speak
from training.config import ending_plainly


def generate_ids(engine: object, rule: Legality, prompt: list[int], temperature: float = 0.0) -> list[int]:
    """Ids after ``<audio>``, the end included.

    Args:
        engine: `llama_cpp.Llama`.
        rule: legality of the clip; its ``max_frames`` ends it.
    """

    def mask(ids: np.ndarray, logits: np.ndarray) -> np.ndarray:
        masked = np.full_like(logits, -np.inf)
        for part in rule.after([int(i) for i in ids[len(prompt) :]]):
            place = slice(part.start, part.stop) if isinstance(part, range) else part
            masked[place] = logits[place]
        return masked

    written: list[int] = []
    options = {"temp": temperature, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0}
    for token in engine.generate(prompt, logits_processor=[mask], **options):  # type: ignore[attr-defined]
        written.append(int(token))
        if rule.ended(written):
            return written
    return written


@ending_plainly()
def main(arguments: list[str] | None = None) -> None:
    parser = speaking_parser(__doc__, "runs/gguf")
    parser.add_argument("gguf", type=Path, help="what scripts/export_gguf.py made of it")
    options = parser.parse_args(arguments)
    try:
        from llama_cpp import Llama
    except ImportError:
        raise SystemExit("llama.cpp is not here: pip install llama-cpp-python (it needs a C++ compiler).") from None

    def generate(vocabulary: AudioVocabulary, prompts: list[list[int]], most: list[int]) -> list[list[int]]:
        engine = Llama(str(options.gguf), n_ctx=0, seed=options.seed, verbose=False)  # 0: as long as the model's
        return [
            generate_ids(engine, Legality(vocabulary, 1, frames), prompt, options.temperature)
            for prompt, frames in zip(prompts, most, strict=True)
        ]

    speak(options, generate)


if __name__ == "__main__":
    main()

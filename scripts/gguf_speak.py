"""Texts to audio files through llama.cpp.

    python scripts/export_gguf.py checkpoints/lm-tts-mini runs/lm-tts-mini.gguf
    python scripts/gguf_speak.py checkpoints/lm-tts-mini runs/lm-tts-mini.gguf --text "peter carried the purple ladder"

Needs `pip install llama-cpp-python`, which is compiled while it is installed. Prompts, legality mask and decoding are
those of `lm/generate.py`. See docs/serving.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from codec.interface import load
from lm.legality import Legality
from lm.serving import speech_prompts, write_clips


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


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the language model: its layout and text tokenizer")
    parser.add_argument("gguf", type=Path, help="what scripts/export_gguf.py made of it")
    parser.add_argument("--text", action="append", required=True, help="may be given several times")
    parser.add_argument("--speaker", default="slt")
    parser.add_argument("--tokenizer", default="checkpoints/codec-mini", help="folder of the audio tokenizer")
    parser.add_argument("--max-seconds", type=float, default=20.0)
    parser.add_argument("--temperature", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/gguf"))
    options = parser.parse_args(arguments)
    try:
        from llama_cpp import Llama
    except ImportError:
        raise SystemExit("llama.cpp is not here: pip install llama-cpp-python (it needs a C++ compiler).") from None
    tokenizer = load(options.tokenizer)
    vocabulary, prompts = speech_prompts(options.model, options.text, options.speaker)
    vocabulary.check_tokenizer(tokenizer.describe(), f"tokenizer {tokenizer.name}")
    frames = int(options.max_seconds * tokenizer.frame_rate)
    engine = Llama(str(options.gguf), n_ctx=0, seed=options.seed, verbose=False)  # 0: as long as the model's
    clips = [generate_ids(engine, Legality(vocabulary, 1, frames), prompt, options.temperature) for prompt in prompts]
    lengths = write_clips(vocabulary, clips, tokenizer, options.out)
    print(f"{options.out}: {len(lengths)} clips, {sum(lengths) / tokenizer.frame_rate:.1f} s of audio")


if __name__ == "__main__":
    main()

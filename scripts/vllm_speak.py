"""Texts to audio files through vLLM, in this process.

    python scripts/vllm_speak.py runs/lm-tts/final --text "peter carried the purple ladder" --out runs/vllm

Needs `pip install vllm` and a GPU that it runs on. Prompts, legality mask and decoding are those of `lm/generate.py`;
vLLM brings the sampling and the speed. See docs/serving.md.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from codec.interface import load
from lm.serving import speech_prompts, write_clips
from lm.vocabulary import AudioVocabulary


def generate_ids(
    folder: Path, vocabulary: AudioVocabulary, prompts: list[list[int]], max_frames: int, temperature: float, seed: int
) -> list[list[int]]:
    """Ids after ``<audio>`` of each prompt, from vLLM."""
    from vllm import LLM, SamplingParams

    # Text is not wanted back: audio ids are unknown to the text tokenizer, so nothing is detokenised.
    engine = LLM(
        model=str(folder), logits_processors=["lm.vllm_legality:LegalAudio"], max_num_seqs=64, generation_config="vllm"
    )
    delayed = max(vocabulary.order.delays(vocabulary.levels)) > 0
    stop = vocabulary.control_id("<pad>" if delayed else "</audio>")
    settings = [
        SamplingParams(
            temperature=temperature,
            seed=seed + number,
            max_tokens=(max_frames + 1) * vocabulary.levels + 1 + vocabulary.levels**2,
            stop_token_ids=[stop],
            detokenize=False,
            extra_args={"audio_min_frames": 1, "audio_max_frames": max_frames},
        )
        for number in range(len(prompts))
    ]
    results = engine.generate([{"prompt_token_ids": ids} for ids in prompts], settings)
    return [list(result.outputs[0].token_ids) for result in results]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a language model (flat variant)")
    parser.add_argument("--text", action="append", required=True, help="may be given several times")
    parser.add_argument("--speaker", default="slt")
    parser.add_argument("--tokenizer", default="checkpoints/codec-mini", help="folder of the audio tokenizer")
    parser.add_argument("--max-seconds", type=float, default=20.0)
    parser.add_argument("--temperature", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0, help="text i uses seed + i")
    parser.add_argument("--out", type=Path, default=Path("runs/vllm"))
    options = parser.parse_args(arguments)
    tokenizer = load(options.tokenizer)
    vocabulary, prompts = speech_prompts(options.model, options.text, options.speaker)
    vocabulary.check_tokenizer(tokenizer.describe(), f"tokenizer {tokenizer.name}")
    frames = int(options.max_seconds * tokenizer.frame_rate)
    clips = generate_ids(options.model, vocabulary, prompts, frames, options.temperature, options.seed)
    lengths = write_clips(vocabulary, clips, tokenizer, options.out)
    print(f"{options.out}: {len(lengths)} clips, {sum(lengths) / tokenizer.frame_rate:.1f} s of audio")


if __name__ == "__main__":
    main()

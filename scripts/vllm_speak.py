"""Texts to audio files through vLLM, in this process.

    python scripts/vllm_speak.py runs/lm-tts/final --text "peter carried the purple ladder" --out runs/vllm

Needs `pip install vllm` and a GPU that it runs on. Prompts, legality mask and decoding are those of `lm/generate.py`;
vLLM brings the sampling and the speed; text i uses `--seed` + i. See docs/serving.md.
"""

from __future__ import annotations

import training.help  # noqa: F401

from pathlib import Path

from lm.sequences.vocabulary import AudioVocabulary
from lm.serving.asking import speaking_parser
from lm.serving.engines import speak
from training.config import ending_plainly


def generate_ids(
    folder: Path, vocabulary: AudioVocabulary, prompts: list[list[int]], most: list[int], temperature: float, seed: int
) -> list[list[int]]:
    """Ids after ``<audio>`` of each prompt, from vLLM."""
    from vllm import LLM, SamplingParams

    # Text is not wanted back: audio ids are unknown to the text tokenizer, so nothing is detokenised.
    engine = LLM(
        model=str(folder),
        logits_processors=["lm.serving.vllm_legality:LegalAudio"],
        max_num_seqs=64,
        generation_config="vllm",
    )
    delayed = max(vocabulary.order.delays(vocabulary.levels)) > 0
    stop = vocabulary.control_id("<pad>" if delayed else "</audio>")
    settings = [
        SamplingParams(
            temperature=temperature,
            seed=seed + number,
            max_tokens=(frames + 1) * vocabulary.levels + 1 + vocabulary.levels**2,
            stop_token_ids=[stop],
            detokenize=False,
            extra_args={"audio_min_frames": 1, "audio_max_frames": frames},
        )
        for number, frames in enumerate(most)
    ]
    results = engine.generate([{"prompt_token_ids": ids} for ids in prompts], settings)
    return [list(result.outputs[0].token_ids) for result in results]


@ending_plainly()
def main(arguments: list[str] | None = None) -> None:
    options = speaking_parser(__doc__, "runs/vllm").parse_args(arguments)

    def generate(vocabulary: AudioVocabulary, prompts: list[list[int]], most: list[int]) -> list[list[int]]:
        return generate_ids(options.model, vocabulary, prompts, most, options.temperature, options.seed)

    speak(options, generate)


if __name__ == "__main__":
    main()

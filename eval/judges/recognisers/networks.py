"""Whisper and CTC networks (HuBERT, wav2vec 2.0) from a local folder or a hub id, decoded the one way that repeats.

Whisper: greedy, no temperature fall-back, language and task fixed, no timestamps, no conditioning on earlier text; a
clip longer than 30 s is cut into equal pieces of at most 30 s, and one that more probably holds no speech than some, by
Whisper's own token, has no words. CTC: greedy, clip by clip, no language model. No hypothesis is cleaned: what was
recognised is what is counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoModelForCTC, AutoProcessor, WhisperForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutput
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from eval.harness.audio import Wave, pieces, resample
from eval.harness.networks import NetworkError, describe_network, load_network, load_part
from eval.judges.recognisers.interface import RATE, Recogniser, RecogniserError

WHISPER_SECONDS = 30.0
NO_SPEECH = 0.6  # the probability of OpenAI's own program
SHORTEST = 0.1  # s; CTC networks need 25 ms


def check_language(language: str | None) -> None:
    """Refuse what is none of Whisper's languages.

    Raises:
        RecogniserError: with those there are.
    """
    if language is not None and language not in LANGUAGES:
        raise RecogniserError(
            f"language={language} is none of Whisper's, which are {', '.join(sorted(LANGUAGES))}; null: it finds out."
        )


class _Network(Recogniser):
    """What the two have in common: a transformers network and its processor."""

    decoding: str

    def __init__(self, kind: Any, path: str, device: str) -> None:
        super().__init__()
        try:
            self.network = load_network(kind, path, device, self.name)
            self.processor = load_part(AutoProcessor, path, self.name)
        except NetworkError as error:
            raise RecogniserError(str(error)) from None
        self.path, self.device = path, device

    def how(self) -> dict[str, object]:
        """What a result records about this recogniser."""
        return {**describe_network(self.path, self.network), "decoding": self.decoding, "sample_rate": RATE}


class Whisper(_Network):
    """A Whisper checkpoint.

    Args:
        path: folder or hub id, for example ``openai/whisper-base.en``.
        language: spoken language, None: found out clip by clip; ignored by English-only checkpoints.
        batch: pieces of 30 s per forward pass.

    Raises:
        RecogniserError: there is no such checkpoint.
    """

    name = "whisper"

    def __init__(self, path: str, device: str = "cpu", language: str | None = "en", batch: int = 8) -> None:
        check_language(language)
        self.language, self.batch = language, batch
        self.decoding = (
            f"greedy, language {language or 'found out'}, no timestamps, pieces of at most {WHISPER_SECONDS:g} s"
        )
        super().__init__(WhisperForConditionalGeneration, path, device)
        # "nospeech" or "nocaptions", by age
        self.nobody = self.processor.tokenizer.convert_tokens_to_ids("<|notimestamps|>") - 1

    @torch.inference_mode()
    def transcribe(self, waves: list[NDArray[np.float32]], sample_rate: int) -> list[str]:
        """Words of each clip ``[samples]``, none where nobody speaks."""
        jobs: list[tuple[int, Wave]] = []
        for index, wav in enumerate(waves):
            samples = resample(wav, sample_rate, RATE)
            jobs += [(index, part) for part in pieces(samples, RATE, WHISPER_SECONDS)]
        options: dict[str, Any] = {"do_sample": False, "num_beams": 1, "return_timestamps": False}
        if getattr(self.network.generation_config, "is_multilingual", False):
            options |= {"language": self.language, "task": "transcribe"}
        texts: list[list[str]] = [[] for _ in waves]
        for start in range(0, len(jobs), self.batch):
            chosen = jobs[start : start + self.batch]
            inputs = self.processor.feature_extractor(
                [part for _, part in chosen], sampling_rate=RATE, return_tensors="pt", return_attention_mask=True
            ).to(self.device)
            heard = self.network.get_encoder()(inputs.input_features).last_hidden_state
            spoken = (self.no_speech(heard) <= NO_SPEECH).nonzero()[:, 0].tolist()
            if not spoken:
                continue
            ids = self.network.generate(
                encoder_outputs=BaseModelOutput(last_hidden_state=heard[spoken]),
                attention_mask=inputs.attention_mask[spoken], **options,
            )  # fmt: skip
            found = self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
            for place, text in zip(spoken, found, strict=True):
                texts[chosen[place][0]].append(text.strip())
        return [" ".join(part for part in parts if part) for parts in texts]

    def no_speech(self, heard: Tensor) -> Tensor:
        """Encoder output ``[clips, frames, width]`` → ``[clips]`` probability of no speech: of the token before that of
        no timestamps, in the place after the start of the transcript.
        """
        first = torch.full((len(heard), 1), self.network.config.decoder_start_token_id, device=heard.device)
        encoded = BaseModelOutput(last_hidden_state=heard)
        logits = self.network(encoder_outputs=encoded, decoder_input_ids=first).logits[:, 0]
        return logits.softmax(-1)[:, self.nobody]

    def how(self) -> dict[str, object]:
        """What a result records about this recogniser."""
        return {**super().how(), "no_words": f"where Whisper's probability of no speech is above {NO_SPEECH:g}"}


class HubertCTC(_Network):
    """A CTC network with its character vocabulary.

    Args:
        path: folder or hub id, for example ``facebook/hubert-large-ls960-ft`` ("WER-H" of continuation papers).

    Raises:
        RecogniserError: there is no such checkpoint.
    """

    name = "hubert-ctc"
    decoding = "greedy, clip by clip, no language model"

    def __init__(self, path: str, device: str = "cpu") -> None:
        super().__init__(AutoModelForCTC, path, device)

    @torch.inference_mode()
    def transcribe(self, waves: list[NDArray[np.float32]], sample_rate: int) -> list[str]:
        """Words of each clip ``[samples]``; an empty string for clips under 0.1 s."""
        texts = []
        for wav in waves:
            samples = resample(wav, sample_rate, RATE)
            if len(samples) < SHORTEST * RATE:
                texts.append("")
                continue
            inputs = self.processor.feature_extractor(samples, sampling_rate=RATE, return_tensors="pt")
            ids = self.network(inputs.input_values.to(self.device)).logits[0].argmax(-1)
            texts.append(self.processor.tokenizer.decode(ids, skip_special_tokens=True).strip())
        return texts

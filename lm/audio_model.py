"""An audio language model behind one door: commands, evaluations, exports and people ask it here.

    model = AudioModel(folder, tokenizer)                # what one has trained, and the tokenizer of its tokens
    prompts = model.prompts(task, rows)                  # texts as it learnt them, as ids, with limits
    clips = model.generate(prompts, sampling, seeds)     # codes; model.write(prompts) of tasks that write text
    waves = model.decode([clip.codes for clip in clips])

The weights are loaded when they are first needed: engines of others (lm/serving) bring their own.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from codec.audio.answer import wave_of
from codec.interface import AudioTokenizer
from lm.generation.decoding import Engine
from lm.generation.frames import Generation, Steps, best_of, live
from lm.generation.legality import Legality
from lm.generation.sampling import Sampling
from lm.generation.streaming import StreamDecoder, decode
from lm.generation.writing import Writing, write
from lm.model import ModelError, load_layout, load_network
from lm.run_state import normalisation_of, speakers_of
from lm.sequences.documents import render
from tasks.base import Request, Task
from tasks.text import normalisers
from training.pretrained import description


@dataclass(frozen=True)
class Prompt:
    """What is asked of a model.

    Attributes:
        ids: that end in ``<audio>`` or ``<text>``.
        least: frames before which the audio cannot end.
        most: frames of audio, or tokens of text, at which the answer is cut off.
    """

    ids: np.ndarray
    least: int
    most: int


class AudioModel:
    """A language model with its audio tokenizer, its text tokenizer and its normalisation of texts.

    Args:
        folder: that lm/train.py or `lm.model.save_lm` wrote.
        tokenizer: whose tokens it has learnt.
        device: of the language model.

    Attributes:
        places: positions that it was trained for; None: it has no limit.

    Raises:
        ModelError: the folder is missing or damaged.
        TextTokenizerError: it has no text tokenizer.
        VocabularyError: its parts are of different trainings, or it has learnt another audio tokenizer.
    """

    def __init__(self, folder: str | Path, tokenizer: AudioTokenizer, device: str = "cpu") -> None:
        self.folder, self.tokenizer, self.device = Path(folder), tokenizer, device
        self.vocabulary, self.text_tokenizer = load_layout(self.folder)
        self.vocabulary.check_tokenizer(tokenizer.describe(), f"tokenizer {tokenizer.name}")
        self.places: int | None = description(self.folder).get("max_position_embeddings")

    @cached_property
    def network(self) -> Any:
        """The language model in eval mode. Raises ModelError."""
        return load_network(self.folder, self.device)

    # ---- what is asked -----------------------------------------------------------------------------------------
    def adopt(self, task: Task) -> None:
        """Have ``task`` read and write texts as the model learnt them."""
        task.use_normaliser(normalisers(normalisation_of(self.folder)))

    def prompts(self, task: Task, rows: Sequence[Any], max_seconds: float | None = None) -> list[Prompt]:
        """What asks the model for each of ``rows``.

        Args:
            max_seconds: of audio, in place of the task's own limits.
        """
        self.adopt(task)
        found = []
        for row in rows:
            ids = render(task.document(row, with_target=False), self.vocabulary, self.text_tokenizer).ids
            if task.target == "text":
                found.append(Prompt(ids, 1, int(task.decoding["max_tokens"])))
                continue
            low, high = task.seconds(row) if max_seconds is None else (0.0, max_seconds)
            most = max(1, min(int(high * self.tokenizer.frame_rate), self._room(ids)))
            found.append(Prompt(ids, max(1, min(int(low * self.tokenizer.frame_rate), most)), most))
        return found

    def _room(self, ids: np.ndarray) -> int:
        """Frames that the model has positions for after ``ids``."""
        return (self.places - len(ids)) // self.vocabulary.levels - 1 if self.places is not None else 1 << 30

    def check_room(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts that fill the model's positions. Raises ModelError."""
        for prompt in prompts:
            if self._room(prompt.ids) < 1:
                raise ModelError(
                    f"what is given makes {len(prompt.ids)} ids, and the model has {self.places} positions: shorten it."
                )

    def check_speaker(self, name: str | None) -> None:
        """Refuse the name of a speaker that the model has not heard; say so where that is not recorded.

        Raises:
            ModelError: with those that it has heard.
        """
        heard = speakers_of(self.folder)
        if not name or name in (heard or ()):
            return
        if heard is None:
            print(f"{self.folder} does not record which speakers it has heard: speaker={name} is taken as it is.")
            return
        if not heard:
            raise ModelError(
                f"speaker={name}: the model in {self.folder} has heard no speaker by name: give speaker=null."
            )
        known = ", ".join(heard[:20]) + (f" and {len(heard) - 20} more" if len(heard) > 20 else "")
        raise ModelError(f"speaker={name}: the model in {self.folder} has heard {known}: choose one of them.")

    def hear(self, audio: Any, text: str = "", sample_rate: int | None = None) -> Request:
        """A recording (`codec.audio.answer.wave_of`) as codes, with what is said in it where a task reads that.

        Raises:
            AudioError: a file that cannot be read, or no audio.
        """
        wave = torch.from_numpy(wave_of(audio, self.tokenizer.sample_rate, sample_rate))
        device = getattr(self.tokenizer, "device", "cpu")
        codes = self.tokenizer.encode(wave[None].to(device), torch.tensor([len(wave)], device=device)).clip(0)
        return Request(str(audio) if isinstance(audio, str | Path) else "", text, codes=codes.cpu().numpy())

    # ---- what it answers ---------------------------------------------------------------------------------------
    def generate(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        seeds: Sequence[int],
        count: int = 1,
        batch_size: int = 64,
        engine: Engine | None = None,
    ) -> list[tuple[Generation, list[Generation]]]:
        """For each prompt the best of ``count`` clips, and all of them (`lm.generation.frames.best_of`)."""
        ids, least, most = _columns(prompts)
        return best_of(
            self.network, self.vocabulary, ids, count, most, least, sampling, seeds, batch_size, engine
        )  # fmt: skip

    def stream(
        self,
        prompt: Prompt,
        sampling: Sampling,
        seed: int,
        decoder: StreamDecoder,
        before: np.ndarray | None = None,
        engine: Engine | None = None,
    ) -> Generator[np.ndarray, None, Generation]:
        """Audio ``[samples]`` piece by piece while it is generated; returns the clip.

        Args:
            before: codes ``[frames, levels]`` whose audio comes first.
        """
        if before is not None:
            yield from decoder.feed(before)
        ids, least, most = _columns([prompt])
        frames = Steps(live(self.network, self.vocabulary, ids, most, least, sampling, [seed], engine=engine))
        for _, codes in frames:
            yield from decoder.feed(codes)
        yield from decoder.finish()
        return frames.result[0]

    def write(self, prompts: Sequence[Prompt], batch_size: int = 64, engine: Engine | None = None) -> list[Writing]:
        """The texts that answer ``prompts`` of one task."""
        ids, _, most = _columns(prompts)
        return write(
            self.network, self.vocabulary, self.text_tokenizer, ids, max(most, default=1), batch_size, engine
        )  # fmt: skip

    def codes(self, ids: Sequence[int]) -> np.ndarray:
        """Codes ``[frames, levels]`` of the ids of a whole clip, as another engine wrote them after a prompt."""
        return np.array(Legality(self.vocabulary).codes(list(ids))).reshape(-1, self.vocabulary.levels)

    def decode(self, clips: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Waveforms ``[samples]`` of codes ``[frames, levels]``."""
        return decode(self.tokenizer, clips)


def _columns(prompts: Sequence[Prompt]) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Ids, least and most of the prompts."""
    return [prompt.ids for prompt in prompts], [prompt.least for prompt in prompts], [prompt.most for prompt in prompts]

"""An audio language model behind one door: commands, evaluations, exports and people ask it here.

    model = AudioModel(folder, tokenizer)                # what one has trained, and the tokenizer of its tokens
    prompts = model.prompts(task, rows)                  # texts as it learnt them, as ids, with limits
    clips = model.generate(prompts, sampling, seeds)     # codes; model.write(prompts) of tasks that write text
    waves = model.decode([clip.codes for clip in clips])

The weights are loaded when they are first needed: engines of others (lm/serving) bring their own. What follows the
line *in one call* is for people:

    model = AudioModel.open("checkpoints/lm-all-mini")
    model.speak("peter carried the purple ladder").save("peter.wav")
    model.transcribe("peter.wav").text
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from codec.audio.answer import Answer, wave_of
from codec.files import Codec
from codec.interface import AudioTokenizer
from codec.load import load, shipped_codec
from lm.generation.asking import Prompt, new_task, use_manner
from lm.generation.batch import Generation, joined
from lm.generation.decoding import Engine
from lm.generation.frames import Steps, best, best_of, live
from lm.generation.legality import Legality
from lm.generation.sampling import Sampling
from lm.generation.streaming import StreamDecoder, decode
from lm.generation.writing import Writing, write
from lm.model import ModelError, load_layout, load_network
from lm.run_state import (
    STATE_FILE,
    asked_of,
    codec_of,
    longest_texts_of,
    model_folder,
    normalisation_of,
    speakers_of,
    tasks_of,
)
from lm.sequences.documents import render
from tasks.base import Request, Task, TaskError, changed
from tasks.text import normalisers, note_on_lengths, note_on_texts, parts_to_say
from training.config import compose, group_options
from training.launch import pick_device
from training.pretrained import PretrainedError, load_config


class AudioModel:
    """A language model with its audio tokenizer, its text tokenizer and its normalisation of texts.

    Args:
        folder: that lm/train.py or `lm.model.save_lm` wrote.
        tokenizer: whose tokens it has learnt.
        device: of the language model.

    Attributes:
        places: positions that it was trained for; None: it has no limit.
        speakers: that it has heard by name; None: that is not recorded.
        learnt: the tasks that it was trained for, as far as they are recorded.
        normalise: ``text.normalise`` of its training.
        longest_texts: task → characters of the longest text that it has learnt to say, as far as it is recorded.

    Raises:
        ModelError: the folder is missing or damaged, or a package that its texts need is missing.
        TextTokenizerError: it has no text tokenizer.
        VocabularyError: its parts are of different trainings, or it has learnt another audio tokenizer.
    """

    def __init__(self, folder: str | Path, tokenizer: AudioTokenizer, device: str = "cpu") -> None:
        self.folder, self.tokenizer, self.device = Path(folder), tokenizer, device
        self.vocabulary, self.text_tokenizer = load_layout(self.folder)
        self.vocabulary.check_tokenizer(tokenizer.describe(), f"tokenizer {tokenizer.name}", shipped_codec)
        try:
            config = load_config(self.folder).get_text_config()
        except PretrainedError as error:
            raise ModelError(str(error)) from None
        self.places: int | None = getattr(config, "max_position_embeddings", None)
        self.speakers, self.learnt = speakers_of(self.folder), tasks_of(self.folder)
        self.normalise = normalisation_of(self.folder)
        try:
            self._normalisers = normalisers(self.normalise)
        except TaskError as error:
            raise ModelError(f"the texts of the model in {self.folder}: {error}") from None
        self._manner, self.longest_texts = asked_of(self.folder), longest_texts_of(self.folder)
        self._tasks: dict[str, Task] = {}  # by name, as they are asked for
        self._place = self.folder.absolute()  # the working directory may change until the weights are needed

    @cached_property
    def network(self) -> Any:
        """The language model in eval mode. Raises ModelError."""
        return load_network(self._place, self.device)

    def load(self) -> None:
        """Load the weights now, and not when they are first needed. Raises ModelError."""
        _ = self.network

    # ---- what is asked -----------------------------------------------------------------------------------------
    def note_on(self, task: Task, rows: Sequence[Any]) -> str | None:
        """What of the texts of ``rows`` will hardly be said as it is written, in a sentence or two; None: all will."""
        notes = note_on_lengths(self.longest_texts, task, rows), note_on_texts(self.normalise, task, rows, share=0)
        return " ".join(filter(None, notes)) or None

    def adopt(self, task: Task) -> None:
        """Have ``task`` read, write and ask as the model learnt it.

        Raises:
            TaskError: it is set to ask in other words.
        """
        task.use_normaliser(self._normalisers)
        try:
            use_manner(task, self._manner)
        except (AttributeError, KeyError, TypeError) as error:
            raise ModelError(
                f"{self.folder / STATE_FILE} is damaged (asked: {error}): copy the folder again."
            ) from None

    def prompts(
        self, task: Task, rows: Sequence[Any], max_seconds: float | None = None, in_all: float | None = None
    ) -> list[Prompt]:
        """What asks the model for each of ``rows``; for a text that is longer than what it has learnt to say, in parts.

        Args:
            max_seconds: of audio, in place of the task's own limits.
            in_all: seconds at which all parts together are cut off; the task's own limits are of each.
        """
        in_all = in_all if max_seconds is None else max_seconds
        self.adopt(task)
        found = []
        for row in rows:
            parts = parts_to_say(self.longest_texts, task, row)
            whole: Prompt | None = None
            for part in reversed(parts):
                of_part = row if len(parts) == 1 else changed(row, text=part)
                whole = self._prompt(task, of_part, max_seconds, in_all, whole)
            assert whole is not None  # there is at least one part
            found.append(whole)
        return found

    def _prompt(
        self, task: Task, row: Any, max_seconds: float | None, in_all: float | None, then: Prompt | None
    ) -> Prompt:
        ids = render(task.document(row, with_target=False), self.vocabulary, self.text_tokenizer).ids
        if task.target == "text":
            return Prompt(ids, 1, int(task.decoding["max_tokens"]))
        low, high = task.seconds(row) if max_seconds is None else (0.0, max_seconds)
        most = max(1, min(int(high * self.tokenizer.frame_rate), self._room(ids)))
        whole = None if in_all is None else max(1, int(in_all * self.tokenizer.frame_rate))
        return Prompt(ids, max(1, min(int(low * self.tokenizer.frame_rate), most)), most, whole, then)

    def _room(self, ids: np.ndarray) -> int:
        """Frames that the model has positions for after ``ids``."""
        return (self.places - len(ids)) // self.vocabulary.levels - 1 if self.places is not None else 1 << 30

    def check_room(self, prompts: Sequence[Prompt]) -> None:
        """Refuse prompts that fill the model's positions. Raises ModelError."""
        for part in (part for prompt in prompts for part in prompt.parts):
            if self._room(part.ids) < 1:
                raise ModelError(
                    f"what is given makes {len(part.ids)} ids, and the model has {self.places} positions: shorten it."
                )

    @property
    def default_speaker(self) -> str | None:
        """The speaker that is taken where none is named: the last by name that the model has heard, if any."""
        return max(self.speakers or [], default=None)

    def check_speaker(self, name: str | None) -> None:
        """Refuse the name of a speaker that the model has not heard; say so where that is not recorded.

        Raises:
            ModelError: with those that it has heard.
        """
        heard = self.speakers
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
        codes = Codec(self.tokenizer).codes_of(wave_of(audio, self.tokenizer.sample_rate, sample_rate))
        return Request(str(audio) if isinstance(audio, str | Path) else "", text, codes=codes)

    # ---- what it answers ---------------------------------------------------------------------------------------
    def generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, seeds: Sequence[int], count: int = 1, **options: Any
    ) -> list[tuple[Generation, list[Generation]]]:
        """For each prompt the best of ``count`` clips, and all of them (`lm.generation.frames.best_of`)."""
        parts = [(part, seed) for prompt, seed in zip(prompts, seeds, strict=True) for part in prompt.parts]
        ids, least, most = _columns([part for part, _ in parts])
        drawn = iter(best_of(
            self.network, self.vocabulary, ids, count, most, least, [seed for _, seed in parts], sampling=sampling,
            **options,
        ))  # fmt: skip
        found = []
        for prompt in prompts:
            of_parts = [clips for _, clips in islice(drawn, len(prompt.parts))]
            clips = [joined(candidate, prompt.whole) for candidate in zip(*of_parts, strict=True)]
            found.append((best(clips), clips))
        return found

    def stream_codes(
        self,
        prompt: Prompt,
        sampling: Sampling,
        seed: int,
        decoder: StreamDecoder,
        before: np.ndarray | None = None,
        engine: Engine | None = None,
    ) -> Generator[np.ndarray, None, Generation]:
        """Audio ``[samples]`` piece by piece while its codes are generated; returns the clip.

        Args:
            before: codes ``[frames, levels]`` whose audio comes first.
        """
        if before is not None:
            yield from decoder.feed(before)
        clips: list[Generation] = []
        for part in prompt.parts:
            left = part.most if prompt.whole is None else prompt.whole - sum(clip.n_frames for clip in clips)
            if left < 1:
                break
            ids, least, most = _columns([replace(part, most=min(part.most, left), least=min(part.least, left))])
            frames = Steps(live(self.network, self.vocabulary, ids, most, least, sampling, [seed], engine=engine))
            for _, codes in frames:
                yield from decoder.feed(codes)
            clips += frames.result
        yield from decoder.finish()
        clip = joined(clips, prompt.whole)
        return clip if len(clips) == len(prompt.parts) else replace(clip, ended=False)

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

    # ---- in one call -------------------------------------------------------------------------------------------
    @classmethod
    def open(
        cls,
        path: str | Path = "checkpoints/lm-all-mini",
        codec: str | Path | None = None,
        device: str = "auto",
    ) -> AudioModel:
        """The language model and the codec in two folders; each may be one that ships, or a hub id.

        Args:
            codec: None: the one that ships and whose tokens the model speaks.

        Raises:
            ModelError, TokenizerError, VocabularyError: one is missing or damaged, or they do not belong together.
        """
        device = pick_device(device) if device == "auto" else device
        codec = codec or codec_of(path) or "checkpoints/codec-mini"
        return cls(model_folder(path, "tts"), load(codec, device), device)

    def speak(self, text: str, voice: Any = None, voice_text: str = "", seed: int = 0, **sampling: Any) -> Answer:
        """``text`` as speech.

        Args:
            voice: a speaker that the model has heard (None: the last of them by name); or a recording, a file or
                floats ``[samples]`` at the codec's rate, whose voice is taken, and ``voice_text``, what it says.
            sampling: fields of `lm.generation.sampling.Sampling`, in place of the task's own.

        Raises:
            ModelError: a voice or a task that the model has not learnt, or more than it has positions for.
            AudioError: a recording that cannot be read.
            ValueError: no text, or sampling that cannot work.
        """
        return self._answer(*self._voiced(text, voice, voice_text), text, seed, sampling)

    def speech(self, text: str, speaker: str | None = None, **sampling: Any) -> tuple[Prompt, Sampling, str | None]:
        """What asks for ``text`` by a speaker that the model has heard (None: the last by name), how it is drawn, and
        what `note_on` says; errors as of `speak`. No file is opened, whatever the speaker is called.
        """
        task, row = self._named(text, speaker)
        return self._asked(task, row), self._sampling(task, sampling), self.note_on(task, [row])

    def question(self, task: str, heard: Request) -> Prompt:
        """What asks for the text that ``task`` (``asr``, …) writes about a recording; errors as of `transcribe`."""
        made = self._task(task)
        return self._asked(made, made.asked("0", "", [heard]))

    def stream(
        self, text: str, voice: Any = None, voice_text: str = "", seed: int = 0, **sampling: Any
    ) -> Iterator[np.ndarray]:
        """As `speak`: float32 ``[samples]`` at ``tokenizer.sample_rate``, piece by piece while they are made."""
        task, row = self._voiced(text, voice, voice_text)
        cfg = compose("lm_generate", [])
        decoder = StreamDecoder(self.tokenizer, cfg.stream_frames, cfg.stream_context, cfg.stream_ahead)
        yield from self.stream_codes(self._asked(task, row), self._sampling(task, sampling), seed, decoder)

    def sound(self, caption: str, seed: int = 0, **sampling: Any) -> Answer:
        """The sound that ``caption`` describes; arguments and errors as of `speak`."""
        return self._captioned("text_to_sound", caption, seed, sampling)

    def music(self, caption: str, seed: int = 0, **sampling: Any) -> Answer:
        """The music that ``caption`` describes; arguments and errors as of `speak`."""
        return self._captioned("text_to_music", caption, seed, sampling)

    def continue_(
        self, audio: Any, sample_rate: int | None = None, domain: str = "speech", seed: int = 0, **sampling: Any
    ) -> Answer:
        """A recording and how it goes on, in one piece.

        Args:
            audio: a file, or floats ``[samples]`` at ``sample_rate`` Hz (None: at the codec's rate).
            domain: of the recording: speech, sound or music.
        """
        task = self._task("continuation")
        if domain not in task.domains:
            raise ValueError(f"domain={domain}: choose one of {', '.join(task.domains)}.")
        row = task.asked("0", "", [self.hear(audio, sample_rate=sample_rate)], domain=domain)
        return self._answer(task, row, "", seed, sampling, row.codes)

    def transcribe(self, audio: Any, sample_rate: int | None = None) -> Answer:
        """What is said in a recording: a file, or floats ``[samples]`` at ``sample_rate`` Hz."""
        return self._written("asr", audio, sample_rate)

    def caption(self, audio: Any, sample_rate: int | None = None, music: bool = False) -> Answer:
        """What is heard in a recording of a sound, or of music."""
        return self._written("music_captioning" if music else "audio_captioning", audio, sample_rate)

    def check_task(self, name: str) -> None:
        """Refuse a task for which the model was not trained, where its folder records that. Raises ModelError."""
        if name not in self.learnt and self.learnt and set(self.learnt) <= set(group_options("task")):
            known = ", ".join(self.learnt)
            raise ModelError(f"the model in {self.folder} has learnt {known} and not {name}: take another.")

    def _task(self, name: str) -> Task:
        if name not in self._tasks:
            self.check_task(name)
            self._tasks[name] = new_task(name)
            self.adopt(self._tasks[name])
        return self._tasks[name]

    def _voiced(self, text: str, voice: Any, voice_text: str) -> tuple[Task, Any]:
        """The task and the row that ask for ``text`` in a voice."""
        if voice is not None and (not isinstance(voice, str) or Path(voice).is_file()):
            task = self._task("voice_prompted_tts")
            if not voice_text.strip():
                raise ValueError("voice_text must be what is said in the recording of the voice.")
            return task, task.asked("0", text, [self.hear(voice, voice_text)])
        return self._named(text, voice)

    def _named(self, text: str, speaker: str | None) -> tuple[Task, Any]:
        """The task and the row that ask for ``text`` by a speaker."""
        name = self.default_speaker if speaker is None else speaker
        self.check_speaker(name)
        task = self._task("tts")
        return task, task.asked("0", text, [], name or "")

    def _captioned(self, name: str, caption: str, seed: int, sampling: dict[str, Any]) -> Answer:
        task = self._task(name)
        return self._answer(task, task.asked("0", caption, []), caption, seed, sampling)

    def _asked(self, task: Task, row: Any) -> Prompt:
        """The one prompt of ``row``, where it fits and asks for something."""
        if "text" in task.needs and not row.text.strip():
            raise ValueError("there is no text to generate from.")
        (prompt,) = self.prompts(task, [row])
        self.check_room([prompt])
        return prompt

    def _sampling(self, task: Task, chosen: dict[str, Any]) -> Sampling:
        if unknown := set(chosen) - {field.name for field in fields(Sampling)}:
            raise ValueError(f"{min(unknown)} is no field of sampling: {', '.join(f.name for f in fields(Sampling))}.")
        return Sampling.of({**task.decoding, **chosen})

    def _answer(
        self, task: Task, row: Any, text: str, seed: int, sampling: dict[str, Any], before: np.ndarray | None = None
    ) -> Answer:
        """The audio that answers ``row``, after that of the codes ``before``."""
        ((clip, _),) = self.generate([self._asked(task, row)], self._sampling(task, sampling), [seed])
        codes = clip.codes if before is None else np.concatenate([before, clip.codes])
        scores = {"ended": clip.ended, "log_probability": clip.log_probability, "seed": seed}
        return Answer(self.decode([codes])[0], self.tokenizer.sample_rate, text, codes, scores)

    def _written(self, name: str, audio: Any, sample_rate: int | None) -> Answer:
        """The text that the task ``name`` writes about a recording."""
        self.check_task(name)
        (text,) = self.write([self.question(name, self.hear(audio, sample_rate=sample_rate))])
        return Answer(text=text.text, scores={"ended": text.ended, "log_probability": text.log_probability})


def _columns(prompts: Sequence[Prompt]) -> tuple[list[np.ndarray], list[int], list[int]]:
    """Ids, least and most of the prompts."""
    return [prompt.ids for prompt in prompts], [prompt.least for prompt in prompts], [prompt.most for prompt in prompts]

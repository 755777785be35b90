"""What a model makes of a recording that it is given: it speaks in its voice, reads on after it, or goes on with it.

    python eval/prompted.py                                  # task=voice_prompted_tts: another sentence in that voice
    python eval/prompted.py task=interleaved                 # the next sentences, each after the audio of those before
    python eval/prompted.py task=continuation domain=speech  # the rest of the recording itself
    python eval/prompted.py weights.resemblyzer=installed    # likeness of the voices as a cosine

Rows: reference (the recordings of what was asked for), resynthesis (the same through the codec: the ceiling),
generated, and generated-shuffled (the model was given another speaker's recording: the floor of likeness). Likeness is
that to the voice of the clip's own recording: ``speaker-similarity/…`` by networks in ``weights``, and
``class-accuracy``, the share of clips in which a classifier of the corpus' train clips hears its speaker. Words are
counted where a text was said, quality is DNSMOS, and continuations have a Fréchet distance to recordings
(``against``); how likely the model finds the true rest says ``eval/likelihood.py task=continuation``. Writes
results.json, items.jsonl and wavs/<row>/<id>.wav, and the recordings that were given to wavs/given/.
"""

from __future__ import annotations

import training.help  # noqa: F401

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig

from codec.corpus import Clip, spread
from eval.embedders import NAMES as EMBEDDINGS
from eval.harness.clips import audio_record, derangement, heard_at, read_reference, row_like, text_of
from eval.harness.coding import decode_clips, encode_clips, resynthesise
from eval.harness.provenance import record_hash
from eval.harness.run import Rows, Run
from eval.harness.scored import ScoredClip, as_stored, write_clip
from eval.harness.speaking import GENERATION, Speaker, file_generation, run_name
from eval.judges.classes import judge_classes
from eval.judges.corpus_classifier import Recipe
from eval.judges.judging import check_skipped, how_texts, judge_by_networks, judge_mos, judge_words, network_metrics
from eval.judges.recognisers.interface import NAMES
from eval.judges.sounds import judge_frechet
from tasks.base import Request, Task, TaskError, changed, make_task
from tasks.continuation import Continuation
from tasks.document import AudioSegment
from tasks.interleaved import Interleaved, Passage
from tasks.voice_prompted_tts import VoicePromptedTTS
from training.config import ConfigError, hydra_entry, refusing
from training.identity import file_names

ROWS = ("reference", "resynthesis", "generated", "generated-shuffled")
TASKS = (Continuation, VoicePromptedTTS, Interleaved)
UNREAD = np.zeros((2, 1), np.uint16)  # codes of clips while it is decided which are needed


@dataclass(frozen=True)
class Case:
    """What the model is asked for: the clips ``asked``, one after the other, once it was given the clip ``given``."""

    given: str
    asked: tuple[str, ...]


def cases_of(clips: Sequence[Clip], task: Task, limit: int) -> list[Case]:
    """``limit`` (0: all) of what `Task.select` makes of the clips; a continuation goes on with its own clip."""
    cases = []
    for row in spread(task.select([changed(clip, codes=UNREAD) for clip in clips]), limit):
        if isinstance(row, Passage):
            cases.append(Case(row.rows[0].id, tuple(sentence.id for sentence in row.rows[1:])))
        else:
            given = row.references[0].id if isinstance(task, VoicePromptedTTS) else row.id
            cases.append(Case(given, (row.id,)))
    return cases


def other_voices(cases: Sequence[Case], speaker: Mapping[str, str], seed: int) -> list[str]:
    """For each case the recording of another one, of another speaker where there is one."""
    other = derangement(len(cases), seed)
    found = []
    for place, case in enumerate(cases):
        ring = [other[place]]
        while other[ring[-1]] != place:
            ring.append(other[ring[-1]])
        strangers = [i for i in ring if speaker[cases[i].given] != speaker[case.given]]
        found.append(cases[(strangers or ring)[0]].given)
    return found


class Material:
    """Clips by id, as recordings at their own rate and as codes; of a continuation the part that is given and the rest.

    Args:
        task: says where a continuation is cut.
    """

    def __init__(self, clips: Sequence[Clip], task: Task, tokenizer: Any) -> None:
        self.clips = {clip.id: clip for clip in clips}
        self.task, self.tokenizer = task, tokenizer
        self.recorded = {scored.id: scored for scored in read_reference(clips)}
        self.waves = heard_at(list(self.recorded.values()), tokenizer.sample_rate)
        self.codes = encode_clips(tokenizer, self.waves)

    def frames_given(self, name: str) -> int:
        """Frames of a clip that are given, where it is asked to go on; else 0."""
        if not isinstance(self.task, Continuation):
            return 0
        row = changed(self.clips[name], codes=self.codes[name])
        segment = self.task.document(row, with_target=False).segments[-2]
        assert isinstance(segment, AudioSegment) and segment.codes is not None
        return len(segment.codes)

    def given(self, name: str) -> Request:
        """A clip as the model is given it."""
        codes = self.codes[name]
        return Request(name, self.clips[name].text or "", codes=codes[: self.frames_given(name) or len(codes)])

    def rest(self, name: str, wave: np.ndarray) -> np.ndarray:
        """What was asked for of a clip's ``wave`` at the tokenizer's rate."""
        return wave[self.frames_given(name) * self.tokenizer.samples_per_frame :]

    def voice(self, name: str) -> ScoredClip:
        """The recording that was given, to be heard."""
        frames = self.frames_given(name) if name in self.codes else 0
        if not frames:
            return self.recorded[name]
        wave = self.waves[name][: frames * self.tokenizer.samples_per_frame]
        return ScoredClip(name, "given", "", as_stored(wave), self.tokenizer.sample_rate)

    def reference(self, name: str) -> ScoredClip:
        """The recording of what was asked for."""
        clip = self.recorded[name]
        if not isinstance(self.task, Continuation) or name not in self.codes:
            return ScoredClip(name, "reference", self.text(name), clip.wav, clip.rate, dict(clip.item))
        wave = as_stored(self.rest(name, self.waves[name]))
        return ScoredClip(name, "reference", "", wave, self.tokenizer.sample_rate)

    def resynthesis(self, names: Sequence[str]) -> list[ScoredClip]:
        """What was asked for through the codec."""
        outputs = resynthesise(self.tokenizer, {name: self.waves[name] for name in names if name in self.waves})
        rests = {name: self.rest(name, wave) for name, (wave, _) in outputs.items()}
        row = row_like("resynthesis", [self.recorded[name] for name in names], rests, self.tokenizer.sample_rate)
        for clip in row:
            clip.text = self.text(clip.id)
        return row

    def text(self, name: str) -> str:
        """What is said in the audio that was asked for, where the task reads it."""
        return text_of(self.clips[name]) if "text" in self.task.takes else ""


def speak_row(
    cfg: DictConfig, row: str, cases: Sequence[Case], given: Sequence[str], material: Material, speaker: Speaker
) -> list[ScoredClip]:
    """The clips that the model makes after the recordings ``given``, in the order of the cases; each sentence of a
    passage after the model's own audio of those before it.
    """
    task, tokenizer = material.task, material.tokenizer
    numbers = {name: i for i, name in enumerate(name for case in cases for name in case.asked)}
    made: dict[str, ScoredClip] = {}
    heard = {i: [material.given(name)] for i, name in enumerate(given) if name in material.codes}
    for turn in range(max(len(case.asked) for case in cases)):
        live = [i for i, case in enumerate(cases) if turn < len(case.asked) and i in heard]
        names = [cases[i].asked[turn] for i in live]
        requests = [
            task.asked(name, material.text(name), heard[i], domain=cfg.domain or "")
            for i, name in zip(live, names, strict=True)
        ]
        desc = row if turn == 0 else f"{row}, sentence {turn + 1}"
        spoken = speaker.speak(requests, [cfg.seed + numbers[name] for name in names], desc)
        is_rest = isinstance(task, Continuation)  # decoded with what it goes on from, then cut
        before = [heard[i][-1].codes if is_rest else clip.codes[:0] for i, clip in zip(live, spoken, strict=True)]
        whole = [np.concatenate([start, clip.codes]) for start, clip in zip(before, spoken, strict=True)]
        waves = decode_clips(tokenizer, whole)
        for i, name, clip, start, wave in zip(live, names, spoken, before, waves, strict=True):
            rest = wave[len(start) * tokenizer.samples_per_frame :] if len(clip.codes) and wave is not None else None
            scored = clip.scored(name, row, material.text(name), rest, tokenizer)
            scored.item = {"given": given[i], **scored.item}
            made[name] = scored
            heard[i].append(Request(name, material.text(name), codes=clip.codes))
    for i, case in enumerate(cases):
        for name in case.asked if i not in heard else ():
            scored = ScoredClip(name, row, material.text(name), None, tokenizer.sample_rate)
            scored.item |= {"given": given[i], "ended": False, "legal": True, "frames": 0, "generation_seconds": 0.0,
                                "recurring_seconds": 0.0}  # fmt: skip
            made[name] = scored
            scored.item["error"] = f"the recording that is given, {given[i]}, cannot be read"
            scored.source = False
    return [made[name] for name in numbers]


def given_item(out: Path, name: str, voice: ScoredClip, material: Material, files: Mapping[str, str]) -> dict[str, Any]:
    """Write what was given for the clip ``name``; its line of items.jsonl, of the row ``given``.

    Args:
        files: names by ids.
    """
    assert voice.wav is not None
    clip = material.clips[voice.id]
    return {
        "id": name, "text": clip.text or "", "domain": clip.domain, "row": "given", "given": voice.id,
        "speaker": clip.speaker,
        "audio": write_clip(out, f"wavs/given/{files[voice.id]}", voice.wav, voice.rate),
        "seconds": round(voice.seconds, 3),
    }  # fmt: skip


def task_of(cfg: DictConfig) -> Task:
    """The task, with the one domain that is asked for. Raises ConfigError: another task, or not its domain."""
    with refusing(TaskError):
        task = make_task(cfg.task)
    if not isinstance(task, TASKS):
        raise ConfigError(f"task={task.name}: choose {', '.join(kind.name for kind in TASKS)}.")
    if cfg.domain is not None and cfg.domain not in task.domains:
        raise ConfigError(f"domain={cfg.domain}: task={task.name} is for {', '.join(task.domains)}.")
    task.domains = (cfg.domain or task.domains[0],)
    return task


@hydra_entry("eval_prompted")
def main(cfg: DictConfig) -> None:
    run = Run(cfg, rows=ROWS, recognisers=NAMES, embeddings=EMBEDDINGS)
    check_skipped(cfg)
    task = task_of(cfg)
    folder, domain = run.model(task.name), task.domains[0]
    run.load_tokenizer()
    speaker = run.open(Speaker, folder, task)
    clips = run.choose(lambda clip: clip.domain == domain, domain, limit=0)
    cases = cases_of(clips, task, cfg.limit)
    if not cases:
        raise ConfigError(f"{cfg.data.root} has no {cfg.split} clips for task={task.name} (docs/tasks.md says which).")
    asked = [name for case in cases for name in case.asked]
    needed = {case.given for case in cases} | set(asked)
    run.take(run_name(folder), f"eval-{task.name}")
    run.say(f"{len(asked)} clips of {cfg.data.root} ({cfg.split}), model {folder}")
    material = Material([clip for clip in clips if clip.id in needed], task, run.tokenizer)
    report = run.begin(
        [row for row in ROWS if row in cfg.rows],
        {
            "split": cfg.split,
            "cases": record_hash([[case.given, *case.asked] for case in cases]),
            "audio": audio_record(material.clips.values()),
        },
        "torch transformers numpy soxr jiwer",
        task=task.name, **how_texts(cfg.normaliser, map(material.text, asked)), model=speaker.how, recognisers={},
    )  # fmt: skip

    # ---- the clips -------------------------------------------------------------------------------------------------
    made: Rows = {"reference": [material.reference(name) for name in asked]}
    made["resynthesis"] = material.resynthesis(asked) if "resynthesis" in cfg.rows else []
    given = {"generated": [case.given for case in cases]}
    if "generated-shuffled" in cfg.rows:
        given["generated-shuffled"] = other_voices(cases, {c.id: c.speaker or "" for c in clips}, cfg.seed)
    for row, names in given.items():
        if row in cfg.rows:
            made[row] = speak_row(cfg, row, cases, names, material, speaker)
    rows = {row: made[row] for row in report.cells}
    voices = {name: material.voice(case.given) for case in cases for name in case.asked}
    files = file_names(material.clips, ".wav")
    heard = [given_item(run.out, n, voices[n], material, files) for n in asked if voices[n].wav is not None]
    run.keep(rows, material.clips.values(), "domain", "speaker")
    for row in given:
        if row in rows:
            file_generation(report, row, rows[row], made["reference"])

    # ---- the judges ------------------------------------------------------------------------------------------------
    if "text" in task.takes:
        judge_words(run, rows)
    if cfg.dnsmos and domain == "speech":
        judge_mos(run, rows)
    judge_by_networks(run, rows, voices if domain == "speech" else {})
    told = ""
    if cfg.voice_judge and domain == "speech":
        recipe = Recipe(steps=cfg.class_steps)
        told = judge_classes(report, rows, run.corpus, domain, "speaker", run.cache, recipe)
    if "fad" in task.metrics and cfg.embeddings:
        against = run.choose(lambda clip: clip.domain == domain, domain, cfg.against, cfg.against_limit)
        judge_frechet(run, rows, read_reference(against))
    first = report.how["headline"]
    for metric in report.metrics():
        if metric.startswith((f"{first}/", "speaker-similarity", "class-accuracy")):
            report.difference(metric, "generated", "resynthesis")
            report.difference(metric, "generated", "generated-shuffled")
    shown = [f"{metric}/{name}" for metric in (first, "repeated-words") for name in cfg.recognisers]
    shown += ["class-accuracy", *network_metrics(report), "dnsmos/p808", "dnsmos/ovrl"]
    shown += [metric for metric in report.metrics() if metric.startswith("fad/")]
    run.finish(heard, [*shown, *GENERATION], [told])


if __name__ == "__main__":
    main()

"""Text to speech: speaks unseen sentences and reports what recognisers understand, beside what bounds it.

    python eval/tts.py                          # newest finished TTS run, else the checkpoint that ships
    python eval/tts.py model=runs/my-tts/final limit=20 recognisers=[ctc-mini]
    python eval/tts.py generated=FOLDER rows=[reference,generated]      # <id>.wav of any other system

Rows: reference (ground truth), resynthesis (ground truth through the codec: the ceiling), generated, and
generated-shuffled (each sentence's speaker and seed with another sentence's text: scored against the text
that was given, and as wer-original against the sentence's own). Writes results.json, items.jsonl and
wavs/<row>/<id>.wav. What is already known for the same audio and the same judge is not computed again.
"""

from __future__ import annotations

import training.help  # noqa: F401

import time
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.corpus import AudioError, Clip, read_audio, spread
from codec.interface import AudioTokenizer, TokenizerError
from codec.load import load_tokenizer
from eval.harness.clips import choose_clips, derangement, read_generated, read_reference, refuse_unreadable
from eval.harness.failures import CannotScore
from eval.harness.processes import hold_out, join
from eval.harness.provenance import record_hash, sha256, versions
from eval.harness.report import Report
from eval.harness.scored import ScoredClip, as_stored, split_usable, write_clip
from eval.harness.speaking import Speaker, decode_clips, resynthesise, run_name
from eval.harness.worker_pool import WorkerError
from eval.judges.judging import how_texts, rate_mos, rate_words, score_mos, transcribe
from eval.judges.networks import judge_by_networks, network_metrics
from eval.judges.recognisers import load_recogniser
from eval.judges.recognisers.interface import NAMES, RecogniserError
from eval.metrics.mos import DNSMOS
from lm.generation.speak import sampling_of
from lm.model import ModelError
from lm.run_state import newest_model, speakers_of
from lm.sequences.vocabulary import VocabularyError
from tasks.base import Request
from training.config import ConfigError, hydra_entry
from training.identity import file_names
from training.launch import pick_device
from training.log import duration

ROWS = ("reference", "resynthesis", "generated", "generated-shuffled")
GENERATION = ("limit", "legal", "silent", "duration-ratio", "real-time-factor")
SILENCE = 1e-3  # peak below which a clip is silent: -60 dB of full scale


def check_options(cfg: DictConfig) -> None:
    """Refuse unknown rows and recognisers before anything is computed."""
    for key, chosen, known in (("rows", cfg.rows, ROWS), ("recognisers", cfg.recognisers, NAMES)):
        if unknown := [name for name in chosen if name not in known]:
            raise ConfigError(f"{key}: there is no '{unknown[0]}'; choose from {', '.join(known)}.")
    judges = (*NAMES, "dnsmos")
    for row, names in cfg.skip.items():
        if unknown := [name for name in names if name not in judges]:
            raise ConfigError(f"skip.{row}: there is no '{unknown[0]}'; choose from {', '.join(judges)}.")
    if not cfg.rows:
        raise ConfigError("rows is empty: name at least one row.")
    if cfg.generated and "generated-shuffled" in cfg.rows:
        raise ConfigError("generated=FOLDER has no shuffled row: give rows=[reference,resynthesis,generated].")


def test_sentences(cfg: DictConfig) -> list[Clip]:
    """The speech clips with text of the split, in the order of the corpus."""
    return choose_clips(
        cfg.data.root, cfg.split, cfg.limit,
        lambda clip: clip.domain == "speech" and bool(clip.text), "speech with text",
    )  # fmt: skip


def read_rows(
    cfg: DictConfig, sentences: list[Clip], tokenizer: AudioTokenizer | None, out: Path
) -> dict[str, list[ScoredClip]]:
    """The rows that need no language model; a file that cannot be read is a clip without audio and with its
    reason.
    """
    rows: dict[str, list[ScoredClip]] = {}
    waves: dict[str, np.ndarray] = {}
    if "reference" in cfg.rows:
        rows["reference"] = read_reference(sentences)
    if "resynthesis" in cfg.rows and tokenizer is not None:
        rows["resynthesis"] = []
        for clip in sentences:
            scored = ScoredClip(clip.id, "resynthesis", clip.text or "", None, tokenizer.sample_rate)
            try:
                waves[clip.id] = read_audio(clip.path, tokenizer.sample_rate)
            except AudioError as error:
                scored.item["error"], scored.source = str(error), False
            rows["resynthesis"].append(scored)
        outputs, _ = resynthesise(tokenizer, list(waves.values()))
        found = dict(zip(waves, outputs, strict=True))
        for scored in rows["resynthesis"]:
            if scored.id in found:
                scored.wav = as_stored(found[scored.id])
        refuse_unreadable(rows["resynthesis"])
    return rows


def note_strangers(sentences: list[Clip], folder: Path) -> None:
    """Say of how many sentences the model in ``folder`` has not heard the speaker: it knows voices by name."""
    heard = speakers_of(folder)
    if heard is None:
        print(f"{folder} does not record which speakers it has heard: those of the sentences are taken as they are.")
    elif strange := [clip.speaker for clip in sentences if clip.speaker and clip.speaker not in heard]:
        print(
            f"{len(strange)} of {len(sentences)} sentences name a speaker that the model has not heard, as "
            f"{strange[0]}; it has heard {', '.join(heard[:20]) or 'none by name'}{' …' if len(heard) > 20 else ''}.",
            flush=True,
        )


def speak_rows(cfg: DictConfig, sentences: list[Clip], speaker: Speaker) -> dict[str, list[ScoredClip]]:
    """The rows that the language model speaks."""
    rows: dict[str, list[ScoredClip]] = {}
    seeds = [cfg.seed + i for i in range(len(sentences))]
    for row in ("generated", "generated-shuffled"):
        if row not in cfg.rows:
            continue
        texts = [clip.text or "" for clip in sentences]
        if row == "generated-shuffled":
            texts = [texts[i] for i in derangement(len(texts), cfg.seed)]
        requests = [
            Request(clip.id, text, speaker=clip.speaker or "") for clip, text in zip(sentences, texts, strict=True)
        ]
        spoken = speaker.speak(requests, seeds, cfg.batch_size, row)
        waves = decode_clips(speaker.tokenizer, [clip.codes for clip in spoken])
        rows[row] = []
        for clip, text, found, wav in zip(sentences, texts, spoken, waves, strict=True):
            scored = ScoredClip(clip.id, row, text, None, speaker.tokenizer.sample_rate)
            if wav is not None:
                scored.wav = as_stored(wav)
            else:
                scored.item["error"] = "the model generated no audio"
            scored.item |= {"ended": found.ended, "legal": found.legal, "frames": len(found.codes)}
            scored.item["generation_seconds"] = round(found.seconds, 4)
            if row == "generated-shuffled":
                scored.item["original_text"] = clip.text
            rows[row].append(scored)
    return rows


def file_generation(report: Report, row: str, clips: list[ScoredClip], references: list[ScoredClip]) -> None:
    """Shares of clips that hit the limit, are legal and are silent, length relative to the recording, speed."""
    ours = all("ended" in clip.item for clip in clips)  # not the audio of another system
    if ours:
        report.mean(row, "limit", {clip.id: float(not clip.item["ended"]) for clip in clips})
        report.mean(row, "legal", {clip.id: float(clip.item["legal"]) for clip in clips})
    heard = {clip.id: clip.wav for clip in clips if clip.wav is not None}
    _, failures = split_usable(clips)
    report.mean(row, "silent", {name: float(np.abs(wav).max() < SILENCE) for name, wav in heard.items()}, failures)
    if row == "generated":  # the shuffled texts have recordings of other lengths
        seconds = {clip.id: len(clip.wav) / clip.rate for clip in references if clip.wav is not None}
        ratios = {c.id: c.item["seconds"] / seconds[c.id] for c in clips if c.id in heard and c.id in seconds}
        report.mean(row, "duration-ratio", ratios, failures)
    audio = sum(clip.item["seconds"] for clip in clips if clip.id in heard)
    if audio and ours:
        spent = sum(clip.item["generation_seconds"] for clip in clips)
        report.number(row, "real-time-factor", spent / audio, len(clips))


def chosen_clips(cfg: DictConfig, rows: dict[str, list[ScoredClip]], judge: str) -> dict[str, list[ScoredClip]]:
    """The clips of each row that ``judge`` gets: none of the rows in ``cfg.skip``, of others ``judge_clips``."""
    count = int(cfg.judge_clips.get(judge) or 0)
    kept = {row: clips for row, clips in rows.items() if judge not in cfg.skip.get(row, ())}
    return {row: spread(clips, count, lambda clip: clip.row) for row, clips in kept.items()}


def judge_rows(cfg: DictConfig, rows: dict[str, list[ScoredClip]], report: Report, cache: Path | None) -> None:
    """Let every judge score its clips."""
    device = pick_device(cfg.device)
    first = report.how["headline"]
    for name in cfg.recognisers:
        judged = chosen_clips(cfg, rows, name)
        try:
            with load_recogniser(
                name, Path(cfg.data.root), Path(cfg.ctc), cfg.processes, device, dict(cfg.weights), cfg.language
            ) as judge:
                report.how["recognisers"][name] = judge.how()
                transcribe(judge, [clip for clips in judged.values() for clip in clips], cache)
        except (RecogniserError, WorkerError, ModuleNotFoundError) as error:
            print(f"{name}: not computed: {error}", flush=True)
            for row, clips in judged.items():
                report.rate(row, f"{first}/{name}", {}, {clip.id: f"not computed: {error}" for clip in clips})
            continue
        for row, clips in judged.items():
            rate_words(report, row, name, clips, cfg.normaliser)
            if any("original_text" in clip.item for clip in clips):
                rate_words(report, row, name, clips, cfg.normaliser, original=True)
    if cfg.dnsmos:
        judged = chosen_clips(cfg, rows, "dnsmos")
        try:
            with DNSMOS(cfg.processes) as mos:
                report.how["dnsmos"] = mos.how()
                for row, clips in judged.items():
                    rate_mos(report, row, clips, score_mos(mos, clips, cache))
        except (CannotScore, WorkerError) as error:
            print(f"dnsmos: {error}", flush=True)
            for row, clips in judged.items():
                report.mean(row, "dnsmos/p808", {}, {clip.id: str(error) for clip in clips})


@hydra_entry("eval_tts")
def main(cfg: DictConfig) -> None:
    join()
    check_options(cfg)
    started = time.monotonic()
    device = pick_device(cfg.device)
    cache = Path(cfg.cache) if cfg.cache else None
    sentences = test_sentences(cfg)

    # ---- the model and its tokenizer -----------------------------------------------------------------------
    speaks = any(row.startswith("generated") for row in cfg.rows) and not cfg.generated
    folder = (Path(cfg.model) if cfg.model else newest_model("tts")) if speaks else None
    other = cfg.generated or cfg.tokenizer.get("path") or cfg.tokenizer._target_
    run = run_name(folder) if folder else Path(other).name
    out = Path(cfg.out) if cfg.out else Path("runs") / run / "eval-tts"
    hold_out(out)
    try:
        tokenizer = load_tokenizer(cfg.tokenizer, device) if speaks or "resynthesis" in cfg.rows else None
        speaker = None
        if folder is not None and tokenizer is not None:
            task = instantiate(cfg.task)
            speaker = Speaker(folder, tokenizer, task, sampling_of(cfg, task), cfg.max_seconds, device, cache)
    except (TokenizerError, ModelError, VocabularyError) as error:
        raise ConfigError(str(error)) from error
    source = folder or cfg.generated or "none"
    print(f"{len(sentences)} sentences of {cfg.data.root} ({cfg.split}), model {source}, to {out}", flush=True)
    if folder is not None:
        note_strangers(sentences, folder)

    # ---- how: everything that makes the numbers ------------------------------------------------------------
    how: dict[str, Any] = {
        "corpus": {
            "name": cfg.data.name or Path(cfg.data.root).name,
            "split": cfg.split,
            "sentences": record_hash([[clip.id, clip.text, clip.speaker] for clip in sentences]),
            "audio": record_hash([sha256(clip.path) for clip in sentences if clip.path.is_file()]),
        },
        **how_texts(cfg.normaliser, (clip.text for clip in sentences)),
        "tokenizer": tokenizer.describe() if tokenizer is not None else None,
        "model": speaker.how if speaker is not None else None,
        "seed": cfg.seed,
        "recognisers": {},
        "versions": versions("torch", "transformers", "numpy", "soxr", "jiwer"),
    }
    spoken: dict[str, list[ScoredClip]] = {}
    if cfg.generated and "generated" in cfg.rows:
        spoken["generated"], how["model"] = read_generated(Path(cfg.generated), sentences)
    report = Report(how, [row for row in ROWS if row in cfg.rows])

    # ---- the clips -----------------------------------------------------------------------------------------
    rows = read_rows(cfg, sentences, tokenizer, out)
    if speaker is not None:
        rows |= speak_rows(cfg, sentences, speaker)
    rows |= spoken
    files = file_names((clip.id for clip in sentences), ".wav")
    for row, clips in rows.items():
        for clip, sentence in zip(clips, sentences, strict=True):
            head: dict[str, Any] = {"id": clip.id, "text": clip.text, "speaker": sentence.speaker, "row": row}
            if clip.wav is not None:
                head["audio"] = write_clip(out, f"wavs/{row}/{files[clip.id]}", clip.wav, clip.rate)
                head["seconds"] = round(len(clip.wav) / clip.rate, 3)
            clip.item = head | clip.item
        _, unusable = split_usable(clips)
        for clip_id, reason in unusable.items():
            print(f"{row}: {clip_id}: {reason}", flush=True)
        if row.startswith("generated"):
            file_generation(report, row, clips, rows.get("reference", []))

    # ---- the judges ----------------------------------------------------------------------------------------
    judge_rows(cfg, rows, report, cache)
    judge_by_networks(cfg.weights, device, rows, report, cache)
    for name in cfg.recognisers:
        report.difference(f"{how['headline']}/{name}", "resynthesis", "reference")
        report.difference(f"{how['headline']}/{name}", "generated", "resynthesis")
    report.write(out, [clip.item for clips in rows.values() for clip in clips])
    first = how["headline"]
    shown = [f"{metric}/{name}" for metric in (first, f"{first}-original") for name in cfg.recognisers]
    print("\n" + report.table([*shown, "dnsmos/p808", "dnsmos/ovrl", *network_metrics(report), *GENERATION]))
    print(f"\n{out}/results.json, items.jsonl and wavs/, in {duration(time.monotonic() - started)}", flush=True)


if __name__ == "__main__":
    main()

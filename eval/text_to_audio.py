"""Text to sound or music: does what the model makes sound like the real thing, and does it fit the caption?

    python eval/text_to_audio.py                                   # newest finished text_to_sound run
    python eval/text_to_audio.py task=text_to_music
    python eval/text_to_audio.py generated=FOLDER                  # <id>.wav of any other system
    python eval/text_to_audio.py weights.clap=laion/clap-htsat-unfused embeddings=[log-mel,clap]

Rows: reference (the recordings), resynthesis (through the codec: the ceiling), generated (from each clip's first
caption), generated-shuffled (the generated clips under other captions: the floor of what compares clip and caption) and
silence. ``class-accuracy`` is the share of clips in which a classifier hears the class that was asked for; it is
trained on the real train clips of the corpus, on first use (eval/judges/corpus_classifier.py). ``fad/log-mel`` knows
nothing of meaning; CLAP score, retrieval, KL and other Fréchet distances come with the networks in ``weights``. Fréchet
distances are taken to the clips of another split (``against``), so that the recordings themselves have a value: the
distance that is left when all is well. Writes results.json, items.jsonl and wavs/<row>/<id>.wav.
"""

from __future__ import annotations

import training.help  # noqa: F401

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar

from codec.corpus import Clip, read_corpus
from codec.interface import AudioTokenizer, TokenizerError
from codec.load import load_tokenizer
from eval.embedders import NAMES, Embedder, load_embedder
from eval.embedders.clap import Clap
from eval.harness.audio import RESAMPLER
from eval.harness.clips import choose_clips, derangement, heard_at, read_generated, read_reference, silence_like
from eval.harness.failures import CannotScore
from eval.harness.networks import NetworkError
from eval.harness.processes import gather, hold_out, join, share
from eval.harness.provenance import record_hash, sha256, versions
from eval.harness.report import Report
from eval.harness.score_cache import EmbeddingCache
from eval.harness.scored import ScoredClip, as_stored, split_usable, write_clip
from eval.harness.speaking import Speaker, decode_clips, resynthesise, run_name
from eval.judges.classes import judge_classes
from eval.judges.corpus_classifier import Recipe
from eval.judges.judging import score_each
from eval.metrics.clap import clip_vector, retrieval
from eval.metrics.classifier import AudioClassifier
from eval.metrics.divergence import kl_divergence
from eval.metrics.frechet import FrechetDistance
from lm.generation.speak import sampling_of
from lm.model import ModelError
from lm.run_state import newest_model
from lm.sequences.vocabulary import VocabularyError
from tasks.base import Request, Task
from training.config import ConfigError, hydra_entry
from training.identity import file_names
from training.launch import pick_device
from training.log import duration
from training.progress import progress

ROWS = ("reference", "resynthesis", "generated", "generated-shuffled", "silence")
SILENCE = 1e-3  # peak below which a clip is silent: -60 dB of full scale
FEW = 500  # frames below which the table says that the Fréchet distance is mostly bias


def check_options(cfg: DictConfig) -> None:
    """Refuse unknown rows, embeddings and tasks before anything is computed."""
    for key, chosen, known in (("rows", cfg.rows, ROWS), ("embeddings", cfg.embeddings, NAMES)):
        if unknown := [name for name in chosen if name not in known]:
            raise ConfigError(f"{key}: there is no '{unknown[0]}'; choose from {', '.join(known)}.")
    if not cfg.rows:
        raise ConfigError("rows is empty: name at least one row.")
    if "generated-shuffled" in cfg.rows and "generated" not in cfg.rows:
        raise ConfigError("rows: generated-shuffled needs generated, whose clips it takes.")
    if str(cfg.task._target_).split(".")[-1] not in ("TextToSound", "TextToMusic"):
        raise ConfigError("task: choose text_to_sound or text_to_music.")


def caption_of(clip: Clip) -> str:
    """The caption that is given to the model: the first."""
    return clip.captions[0]


def generate_row(cfg: DictConfig, clips: list[Clip], speaker: Speaker, domain: str) -> list[ScoredClip]:
    """What the model makes of the captions."""
    requests = [Request(clip.id, captions=[caption_of(clip)], domain=domain) for clip in clips]
    made = speaker.speak(requests, [cfg.seed + i for i in range(len(clips))], cfg.batch_size, "generated")
    waves = decode_clips(speaker.tokenizer, [found.codes for found in made])
    row = []
    for clip, found, wav in zip(clips, made, waves, strict=True):
        scored = ScoredClip(clip.id, "generated", caption_of(clip), None, speaker.tokenizer.sample_rate)
        if wav is not None:
            scored.wav = as_stored(wav)
        else:
            scored.item["error"] = "the model generated no audio"
        scored.item |= {"ended": found.ended, "legal": found.legal, "frames": len(found.codes)}
        scored.item["generation_seconds"] = round(found.seconds, 4)
        row.append(scored)
    return row


def resynthesis_row(references: list[ScoredClip], tokenizer: AudioTokenizer) -> list[ScoredClip]:
    """The recordings through the codec."""
    heard = heard_at(references, tokenizer.sample_rate)
    outputs, _ = resynthesise(tokenizer, list(heard.values()))
    waves = dict(zip(heard, outputs, strict=True))
    return [
        ScoredClip(
            clip.id, "resynthesis", clip.text,
            as_stored(waves[clip.id]) if clip.id in waves else None, tokenizer.sample_rate, source=clip.id in waves,
        )
        for clip in references
    ]  # fmt: skip


def embed_row(
    embedder: Embedder, clips: list[ScoredClip], desc: str, cache_folder: Path | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """``{id: [frames, d]}`` and ``{id: reason}``; what is known for the same audio is not embedded again."""
    cache = EmbeddingCache(cache_folder, f"embedding-{embedder.name}", embedder.how())
    usable, failures = split_usable(clips)
    found: dict[str, NDArray[np.float32]] = {}
    failed: dict[str, str] = {}
    for clip in progress(share(usable), desc=f"{desc}, {len(usable)} clips"):
        try:
            known = cache.get(clip.hash)
            if known is None:
                known = embedder.embed(clip.usable(), clip.rate)
                cache.put(clip.hash, known)
            found[clip.id] = known
        except CannotScore as error:
            failed[clip.id] = error.reason
    found, failed = gather(found, f"embeddings, {desc}"), gather(failed, f"failures, {desc}")
    failures |= {clip.id: failed[clip.id] for clip in usable if clip.id in failed}
    return {clip.id: found[clip.id] for clip in usable if clip.id in found}, failures


def file_frechet(
    report: Report,
    embedder: Embedder,
    rows: dict[str, list[ScoredClip]],
    against: list[ScoredClip],
    seed: int,
    cache: Path | None,
) -> None:
    """File the Fréchet distance of every row to the clips ``against``, and FAD∞ where there are enough frames."""
    name = embedder.name
    report.how.setdefault("embeddings", {})[name] = embedder.how()
    reference, lost = embed_row(embedder, against, f"{name}, against", cache)
    for row, clips in rows.items():
        found, failures = embed_row(embedder, clips, f"{name}, {row}", cache)
        metric = FrechetDistance(sync_on_compute=False)  # every process has all embeddings here
        for rows_of_clip in reference.values():
            metric.update(rows_of_clip, reference=True)
        for rows_of_clip in found.values():
            metric.update(rows_of_clip, reference=False)
        counts = metric.counts() | {"reference_failed": len(lost)}
        if counts["evaluated_frames"] < 2 or counts["reference_frames"] < 2:
            report.mean(row, f"fad/{name}", {}, failures or {"all": "fewer than 2 embeddings"}, **counts)
            continue
        report.number(row, f"fad/{name}", float(metric.compute()), len(found), None, failures, **counts)
        try:
            report.number(row, f"fad-inf/{name}", metric.infinity(seed), len(found), None, failures, **counts)
        except CannotScore as error:
            report.mean(row, f"fad-inf/{name}", {}, {"all": f"not computed: {error.reason}"}, **counts)


def file_clap(report: Report, path: str, rows: dict[str, list[ScoredClip]], device: str, cache: Path | None) -> None:
    """File CLAP score and retrieval of every row."""
    clap = Clap(path, device)
    how = clap.how()
    report.how["clap"] = how
    name = f"clap-score/{how['id']}"
    for row, clips in rows.items():
        found, failures = embed_row(clap, clips, f"clap, {row}", cache)
        chosen = [clip for clip in clips if clip.id in found]
        if not chosen:
            report.mean(row, name, {}, failures)
            continue
        texts = clap.embed_texts([clip.text for clip in chosen]).astype(np.float64)
        audio = np.stack([clip_vector(found[clip.id]) for clip in chosen])
        scores = (texts * audio).sum(1)
        report.mean(row, name, {clip.id: float(s) for clip, s in zip(chosen, scores, strict=True)}, failures)
        for clip, value in zip(chosen, scores, strict=True):
            clip.item["clap"] = float(value)
        nothing = {clip.id: 0.0 for clip in clips if clip.undelivered()}  # is found by no caption
        others = {name: reason for name, reason in failures.items() if name not in nothing}
        for metric, values in retrieval(texts, audio, range(len(chosen))).items():
            found_at = {clip.id: value for clip, value in zip(chosen, values, strict=True)} | nothing
            report.mean(
                row, f"retrieval/{metric}", found_at, others, clips_to_choose_from=len(chosen), undelivered=len(nothing)
            )  # fmt: skip


def file_divergence(
    report: Report, path: str, rows: dict[str, list[ScoredClip]], device: str, cache: Path | None
) -> None:
    """File the KL of class posteriors of every row to the recording of the same caption."""
    judge = AudioClassifier(path, device)
    how = judge.how()
    report.how["classifier"] = how
    posteriors: dict[str, NDArray[np.float64]] = {}

    def posterior(clip: ScoredClip) -> NDArray[np.float64]:
        if clip.hash not in posteriors:
            posteriors[clip.hash] = judge.posterior(clip.usable(), clip.rate)
        return posteriors[clip.hash]

    originals = {clip.id: clip for clip in rows["reference"]}

    def score(clip: ScoredClip) -> float:
        original = originals[clip.id]
        original.usable()
        return kl_divergence(posterior(original), posterior(clip))

    def key(clip: ScoredClip) -> str:
        original = originals[clip.id]
        return record_hash([original.hash if original.wav is not None else None, clip.hash])

    name = f"kl/{how['id']}"
    for row, clips in rows.items():
        if row != "reference":
            report.mean(row, name, *score_each(name, score, how, clips, cache, key))


def file_generation(report: Report, row: str, clips: list[ScoredClip], references: dict[str, float]) -> None:
    """Shares of clips that hit the limit, are legal and are silent, length relative to the recording, speed."""
    heard = {clip.id: clip.wav for clip in clips if clip.wav is not None}
    _, failures = split_usable(clips)
    report.mean(row, "silent", {name: float(np.abs(wav).max() < SILENCE) for name, wav in heard.items()}, failures)
    if row != "generated":
        return
    seconds = {clip.id: len(clip.wav) / clip.rate for clip in clips if clip.wav is not None}
    ratios = {name: spoken / references[name] for name, spoken in seconds.items() if name in references}
    report.mean(row, "duration-ratio", ratios, failures)
    if not all("ended" in clip.item for clip in clips):
        return  # the audio of another system
    report.mean(row, "limit", {clip.id: float(not clip.item["ended"]) for clip in clips})
    report.mean(row, "legal", {clip.id: float(clip.item["legal"]) for clip in clips})
    if seconds:
        spent = sum(clip.item["generation_seconds"] for clip in clips)
        report.number(row, "real-time-factor", spent / sum(seconds.values()), len(seconds))


def prepare(cfg: DictConfig, task: Task, device: str, cache: Path | None) -> tuple[Path | None, Any, Speaker | None]:
    """Folder of the model, tokenizer and model, as far as the rows need them."""
    folder = None
    if "generated" in cfg.rows and not cfg.generated:
        folder = Path(cfg.model) if cfg.model else newest_model(task.name)
    try:
        needed = folder is not None or "resynthesis" in cfg.rows
        tokenizer: Any = load_tokenizer(cfg.tokenizer, device) if needed else None
        if folder is None:
            return None, tokenizer, None
        speaker = Speaker(folder, tokenizer, task, sampling_of(cfg, task), cfg.max_seconds, device, cache)
        return folder, tokenizer, speaker
    except (TokenizerError, ModelError, VocabularyError) as error:
        raise ConfigError(str(error)) from error


@hydra_entry("eval_text_to_audio")
def main(cfg: DictConfig) -> None:
    join()
    check_options(cfg)
    disable_progress_bar()  # of loading weights, which takes no time here
    started = time.monotonic()
    device = pick_device(cfg.device)
    cache = Path(cfg.cache) if cfg.cache else None
    task = instantiate(cfg.task)
    domain = task.domains[0]
    accepts: Callable[[Clip], bool] = lambda clip: clip.domain == domain and bool(clip.captions)  # noqa: E731
    clips = choose_clips(cfg.data.root, cfg.split, cfg.limit, accepts, f"{domain} with captions")
    others = choose_clips(cfg.data.root, cfg.against, cfg.against_limit, lambda clip: clip.domain == domain, domain)
    folder, tokenizer, speaker = prepare(cfg, task, device, cache)
    run = run_name(folder) if folder else Path(cfg.generated).name if cfg.generated else "recordings"
    out = Path(cfg.out) if cfg.out else Path("runs") / run / f"eval-{task.name}"
    hold_out(out)
    source = folder or cfg.generated or "none"
    print(f"{len(clips)} captions of {cfg.data.root} ({cfg.split}), model {source}, to {out}", flush=True)
    how: dict[str, Any] = {
        "corpus": {
            "name": cfg.data.name or Path(cfg.data.root).name,
            "split": cfg.split,
            "captions": record_hash([[clip.id, caption_of(clip)] for clip in clips]),
            "audio": record_hash([sha256(clip.path) for clip in clips if clip.path.is_file()]),
            "against": cfg.against,
            "against_audio": record_hash([sha256(clip.path) for clip in others if clip.path.is_file()]),
        },
        "prompt": "first caption of each clip",
        "resampler": RESAMPLER,
        "samples": "as stored, 16 bit",
        "tokenizer": tokenizer.describe() if tokenizer is not None else None,
        "model": speaker.how if speaker is not None else None,
        "seed": cfg.seed,
        "versions": versions("torch", "transformers", "numpy", "soxr"),
    }

    # ---- the clips ---------------------------------------------------------------------------------------------
    references = read_reference(clips)
    for scored, clip in zip(references, clips, strict=True):
        scored.text = caption_of(clip)
    made: dict[str, list[ScoredClip]] = {"reference": references}
    if "resynthesis" in cfg.rows:
        made["resynthesis"] = resynthesis_row(references, tokenizer)
    if speaker is not None:
        made["generated"] = generate_row(cfg, clips, speaker, domain)
    elif cfg.generated and "generated" in cfg.rows:
        made["generated"], how["model"] = read_generated(Path(cfg.generated), clips)
        for scored, clip in zip(made["generated"], clips, strict=True):
            scored.text = caption_of(clip)
    if "generated-shuffled" in cfg.rows:
        other = derangement(len(clips), cfg.seed)
        sources = made["generated"]
        made["generated-shuffled"] = [
            ScoredClip(
                clip.id, "generated-shuffled", caption_of(clip), sources[other[i]].wav, sources[other[i]].rate,
                {"of": sources[other[i]].id},
            )
            for i, clip in enumerate(clips)
        ]  # fmt: skip
    if "silence" in cfg.rows:
        made["silence"] = silence_like(references)
    rows = {row: made[row] for row in ROWS if row in made and row in cfg.rows}
    report = Report(how, list(rows))
    files = file_names((clip.id for clip in clips), ".wav")
    for row, found in rows.items():
        for scored in found:
            head: dict[str, Any] = {"id": scored.id, "text": scored.text, "domain": domain, "row": row}
            if scored.wav is not None:
                head["seconds"] = round(len(scored.wav) / scored.rate, 3)
                if row in ("reference", "resynthesis", "generated"):
                    head["audio"] = write_clip(out, f"wavs/{row}/{files[scored.id]}", scored.wav, scored.rate)
            scored.item = head | scored.item
        seconds = {clip.id: len(clip.wav) / clip.rate for clip in references if clip.wav is not None}
        if row != "generated-shuffled":
            file_generation(report, row, found, seconds)

    # ---- scores ------------------------------------------------------------------------------------------------
    # what is the same set of clips has the same Fréchet distance
    sets = {row: found for row, found in rows.items() if row != "generated-shuffled"}
    against = read_reference(others)
    try:
        for name in cfg.embeddings:
            path = None if name == "log-mel" else cfg.weights[name]
            embedder = load_embedder(name, path, device, cfg.weights.ssl_layer)
            file_frechet(report, embedder, sets, against, cfg.seed, cache)
        if cfg.weights.clap:
            file_clap(report, cfg.weights.clap, rows, device, cache)
        if cfg.weights.classifier:
            file_divergence(report, cfg.weights.classifier, {"reference": references, **rows}, device, cache)
    except NetworkError as error:
        raise ConfigError(f"weights: {error}") from None
    judge = ""
    if cfg.class_judge:
        corpus, recipe = read_corpus(cfg.data.root)[0], Recipe(steps=cfg.class_steps)
        judge = judge_classes(report, rows, corpus, domain, cfg.class_key, cache, recipe)
    for metric in report.metrics():
        if metric.startswith(("clap-score", "kl", "class-accuracy")):
            report.difference(metric, "generated", "generated-shuffled")
            report.difference(metric, "generated", "resynthesis")
    report.write(out, [clip.item for found in rows.values() for clip in found])
    print("\n" + report.table())
    if judge:
        print(judge)
    for row, cells in report.results()["rows"].items():
        for metric, cell in cells.items():
            if metric.startswith("fad/"):
                few = ": so few that it is mostly bias" if cell["evaluated_frames"] < FEW else ""
                sides = [f"{cell[f'{side}_clips']} clips ({cell[f'{side}_frames']} frames)"
                         for side in ("evaluated", "reference")]  # fmt: skip
                print(f"{metric} of {row}: {sides[0]} against {sides[1]}{few}")
    print(f"\n{out}/results.json, items.jsonl and wavs/, in {duration(time.monotonic() - started)}", flush=True)


if __name__ == "__main__":
    main()

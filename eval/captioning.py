"""Captioning: what the model writes when it hears unseen sounds or music, beside what bounds it.

    python eval/captioning.py                               # newest finished audio_captioning run
    python eval/captioning.py task=music_captioning
    python eval/captioning.py model=runs/my-run/final limit=20

Rows: reference (each clip's first caption against its others: one person judged by the rest), generated,
generated-shuffled (the model's captions for other clips), and silence (the model hears zeros). CIDEr-D takes its word
weights from the references of the evaluated clips, so values of different clips are not comparable, and the row
reference has one reference fewer than the others. ``class-named`` is the share of captions that name the clip's class
(of the sound in the foreground; the instrument), where the corpus has classes. Writes results.json and items.jsonl.
"""

from __future__ import annotations

import training.help  # noqa: F401

import time
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar

from codec.corpus import read_corpus
from codec.interface import TokenizerError
from codec.load import load_tokenizer
from eval.harness.clips import choose_clips, derangement, heard_at, read_reference, silence_like
from eval.harness.failures import CannotScore
from eval.harness.listening import Listener, encode_clips
from eval.harness.processes import hold_out, is_main, join
from eval.harness.provenance import record_hash, sha256, versions
from eval.harness.report import Report
from eval.harness.scored import ScoredClip, write_clip
from eval.harness.speaking import run_name
from eval.judges.captions import rate_captions, rate_classes_named
from eval.judges.corpus_classifier import classes_of, find_key
from eval.metrics.meteor import describe_meteor
from lm.model import ModelError
from lm.run_state import newest_model
from lm.sequences.vocabulary import VocabularyError
from training.config import ConfigError, hydra_entry
from training.identity import file_names
from training.launch import pick_device
from training.log import duration

ROWS = ("reference", "generated", "generated-shuffled", "silence")


def check_options(cfg: DictConfig) -> None:
    """Refuse unknown rows and tasks before anything is computed."""
    if unknown := [name for name in cfg.rows if name not in ROWS]:
        raise ConfigError(f"rows: there is no '{unknown[0]}'; choose from {', '.join(ROWS)}.")
    if not cfg.rows:
        raise ConfigError("rows is empty: name at least one row.")
    if not str(cfg.task._target_).endswith("Captioning"):
        raise ConfigError("task: choose audio_captioning or music_captioning.")


def listen_to(
    listener: Listener, clips: list[ScoredClip], row: str, domain: str, cfg: DictConfig, tokenizer: Any
) -> tuple[dict[str, str], dict[str, str]]:
    """``{id: caption}`` of what the model writes, and ``{id: reason}`` of clips without audio."""
    codes = encode_clips(tokenizer, heard_at(clips, tokenizer.sample_rate))
    written = listener.listen(codes, domain, cfg.batch_size, row)
    for clip in clips:
        if clip.id in written:
            clip.item |= {"ended": written[clip.id].ended, "generation_seconds": round(written[clip.id].seconds, 4)}
    failures = {clip.id: clip.item.get("error", "no audio") for clip in clips if clip.id not in written}
    return {name: found.text for name, found in written.items()}, failures


@hydra_entry("eval_captioning")
def main(cfg: DictConfig) -> None:
    join()
    check_options(cfg)
    disable_progress_bar()  # of loading weights, which takes no time here
    started = time.monotonic()
    device = pick_device(cfg.device)
    cache = Path(cfg.cache) if cfg.cache else None
    task = instantiate(cfg.task)
    domain = task.domains[0]
    clips = choose_clips(
        cfg.data.root, cfg.split, cfg.limit,
        lambda clip: clip.domain == domain and bool(clip.captions), f"{domain} with captions",
    )  # fmt: skip
    needs_model = any(row != "reference" for row in cfg.rows)
    folder = (Path(cfg.model) if cfg.model else newest_model(task.name)) if needs_model else None
    out = Path(cfg.out) if cfg.out else Path("runs") / (run_name(folder) if folder else "people") / f"eval-{task.name}"
    hold_out(out)
    tokenizer, listener = None, None
    try:
        if folder is not None:
            tokenizer = load_tokenizer(cfg.tokenizer, device)
            listener = Listener(folder, tokenizer, task, cfg.max_tokens, device, cache)
    except (TokenizerError, ModelError, VocabularyError) as error:
        raise ConfigError(str(error)) from error
    print(f"{len(clips)} clips of {cfg.data.root} ({cfg.split}), model {folder or 'none'}, to {out}", flush=True)
    try:
        judge: Any = describe_meteor() if cfg.meteor else "left out"
    except CannotScore as error:
        judge = error.reason
    how: dict[str, Any] = {
        "corpus": {
            "name": cfg.data.name or Path(cfg.data.root).name,
            "split": cfg.split,
            "captions": record_hash([[clip.id, clip.captions] for clip in clips]),
            "audio": record_hash([sha256(clip.path) for clip in clips if clip.path.is_file()]),
        },
        "references": {"reference": "all captions but the first", "other rows": "all captions"},
        "words": "Penn Treebank tokens, lower case, no punctuation (eval/metrics/caption_words.py)",
        "meteor": judge,
        "tokenizer": tokenizer.describe() if tokenizer is not None else None,
        "model": listener.how if listener is not None else None,
        "seed": cfg.seed,
        "versions": versions("torch", "transformers", "numpy", "soxr"),
    }
    report = Report(how, [row for row in ROWS if row in cfg.rows])

    # ---- what is heard, and what is said about it --------------------------------------------------------------
    references = {clip.id: list(clip.captions) for clip in clips}
    candidates: dict[str, tuple[dict[str, str], dict[str, str]]] = {}
    heard: dict[str, list[ScoredClip]] = {}
    if "reference" in cfg.rows:
        alone = {clip.id: "only one caption" for clip in clips if len(clip.captions) < 2}
        candidates["reference"] = ({c.id: c.captions[0] for c in clips if c.id not in alone}, alone)
    if listener is not None:
        audio = read_reference(clips)
        if {"generated", "generated-shuffled"} & set(cfg.rows):
            said, failures = listen_to(listener, audio, "generated", domain, cfg, tokenizer)
            if "generated" in cfg.rows:
                candidates["generated"], heard["generated"] = (said, failures), audio
            if "generated-shuffled" in cfg.rows:
                names = list(said)
                other = derangement(len(names), cfg.seed)
                candidates["generated-shuffled"] = (
                    {name: said[names[other[i]]] for i, name in enumerate(names)}, failures,
                )  # fmt: skip
        if "silence" in cfg.rows:
            heard["silence"] = silence_like(audio)
            candidates["silence"] = listen_to(listener, heard["silence"], "silence", domain, cfg, tokenizer)

    # ---- scores ------------------------------------------------------------------------------------------------
    corpus = read_corpus(cfg.data.root)[0]
    key = cfg.class_key or find_key(corpus, domain)
    classes = {clip.id: classes_of(clip, key) for clip in corpus if key and clip.domain == domain}
    synonyms = {name: list(others) for name, others in cfg.class_synonyms.items()}
    report.how["classes"] = {"key": key, "synonyms": synonyms}
    files = file_names((clip.id for clip in clips), ".wav")
    items = []
    for row in report.cells:
        said, failures = candidates[row]
        against = {name: texts[1:] if row == "reference" else texts for name, texts in references.items()}
        found: dict[str, dict[str, Any]] = dict(
            rate_captions(report, row, said, against, failures, cfg.meteor and is_main())
        )
        if any(classes.values()):
            for name, classes_said in rate_classes_named(report, row, said, classes, failures, synonyms).items():
                found.setdefault(name, {})["classes_named"] = classes_said
        clips_of_row = {clip.id: clip for clip in heard.get(row, [])}
        if clips_of_row:
            written = [clip for clip in clips_of_row.values() if clip.id in said]
            report.mean(row, "limit", {clip.id: float(not clip.item["ended"]) for clip in written})
            report.mean(row, "empty", {clip.id: float(not said[clip.id].strip()) for clip in written})
            report.number(row, "different", len(set(said.values())) / max(1, len(said)), len(said))
        for clip in clips:
            item: dict[str, Any] = {"id": clip.id, "row": row, "domain": domain, "captions": against[clip.id]}
            if clip.id in said:
                item |= {"caption": said[clip.id], **found.get(clip.id, {})}
            else:
                item["error"] = failures[clip.id]
            if clip.id in clips_of_row:
                scored = clips_of_row[clip.id]
                item |= {k: scored.item[k] for k in ("ended", "generation_seconds") if k in scored.item}
                if scored.wav is not None and row == "generated":
                    item["audio"] = write_clip(out, f"wavs/reference/{files[clip.id]}", scored.wav, scored.rate)
            items.append(item)
    for metric in ("rouge-l", "cider-d", "class-named"):
        report.difference(metric, "generated", "generated-shuffled")
        report.difference(metric, "generated", "silence")
    report.write(out, items)
    print("\n" + report.table())
    print(f"\n{out}/results.json and items.jsonl, in {duration(time.monotonic() - started)}", flush=True)


if __name__ == "__main__":
    main()

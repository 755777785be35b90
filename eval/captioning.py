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

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig

from eval.harness.audio import CannotScore
from eval.harness.clips import audio_record, derangement, read_reference, silence_like
from eval.harness.listening import Listener, file_writing
from eval.harness.processes import is_main
from eval.harness.provenance import record_hash
from eval.harness.run import Rows, Run
from eval.harness.scored import write_clip
from eval.harness.speaking import run_name
from eval.judges.captions import rate_captions, rate_classes_named
from eval.judges.corpus_classifier import classes_of, find_key
from eval.metrics.meteor import describe_meteor
from training.config import ConfigError, hydra_entry
from training.identity import file_names

ROWS = ("reference", "generated", "generated-shuffled", "silence")


@hydra_entry("eval_captioning")
def main(cfg: DictConfig) -> None:
    run = Run(cfg, rows=ROWS)
    if not str(cfg.task._target_).endswith("Captioning"):
        raise ConfigError("task: choose audio_captioning or music_captioning.")
    task = instantiate(cfg.task)
    domain = task.domains[0]
    clips = run.choose(lambda clip: clip.domain == domain and bool(clip.captions), f"{domain} with captions")
    folder = run.model(task.name) if any(row != "reference" for row in cfg.rows) else None
    run.take(run_name(folder) if folder else "people", f"eval-{task.name}")
    listener = None
    if folder is not None:
        run.load_tokenizer()
        listener = run.open(Listener, folder, task)
    run.say(f"{len(clips)} clips of {cfg.data.root} ({cfg.split}), model {folder or 'none'}")
    try:
        judge: Any = describe_meteor() if cfg.meteor else "left out"
    except CannotScore as error:
        judge = error.reason
    report = run.begin(
        [row for row in ROWS if row in cfg.rows],
        {
            "split": cfg.split,
            "captions": record_hash([[clip.id, clip.captions] for clip in clips]),
            "audio": audio_record(clips),
        },
        references={"reference": "all captions but the first", "other rows": "all captions"},
        words="Penn Treebank tokens, lower case, no punctuation (eval/metrics/caption_words.py)",
        meteor=judge, model=listener.how if listener is not None else None,
    )  # fmt: skip

    # ---- what is heard, and what is said about it --------------------------------------------------------------
    heard: Rows = {}
    if listener is not None:
        audio = read_reference(clips)
        if {"generated", "generated-shuffled"} & set(cfg.rows):
            heard["generated"] = listener.row("generated", audio)
        if "silence" in cfg.rows:
            heard["silence"] = listener.row("silence", silence_like(audio))
    said: dict[str, dict[str, str]] = {}
    failures: dict[str, dict[str, str]] = {}
    for row, members in heard.items():
        written = sorted((c for c in members if c.wav is not None), key=lambda c: c.seconds)
        said[row] = {clip.id: clip.item["hypotheses"]["model"] for clip in written}
        failures[row] = {clip.id: clip.item["error"] for clip in members if clip.wav is None}
    failures["reference"] = {clip.id: "only one caption" for clip in clips if len(clip.captions) < 2}
    said["reference"] = {clip.id: clip.captions[0] for clip in clips if len(clip.captions) > 1}
    if "generated-shuffled" in cfg.rows:
        names = list(said["generated"])
        others = [names[i] for i in derangement(len(names), cfg.seed)]
        said["generated-shuffled"] = {n: said["generated"][other] for n, other in zip(names, others, strict=True)}
        failures["generated-shuffled"] = failures["generated"]

    # ---- scores ------------------------------------------------------------------------------------------------
    key = cfg.class_key or find_key(run.corpus, domain)
    classes = {clip.id: classes_of(clip, key) for clip in run.corpus if key and clip.domain == domain}
    synonyms = {name: list(others) for name, others in cfg.class_synonyms.items()}
    report.how["classes"] = {"key": key, "synonyms": synonyms}
    files = file_names((clip.id for clip in clips), ".wav")
    items = []
    for row in report.cells:
        against = {clip.id: list(clip.captions[1:] if row == "reference" else clip.captions) for clip in clips}
        found: dict[str, dict[str, Any]] = dict(
            rate_captions(report, row, said[row], against, failures[row], cfg.meteor and is_main())
        )
        if any(classes.values()):
            named = rate_classes_named(report, row, said[row], classes, failures[row], synonyms)
            for name, classes_said in named.items():
                found.setdefault(name, {})["classes_named"] = classes_said
        if row in heard:
            file_writing(report, row, heard[row])
            texts = list(said[row].values())
            report.number(row, "different", len(set(texts)) / max(1, len(texts)), len(texts))
        of_row = {clip.id: clip for clip in heard.get(row, [])}
        for clip in clips:
            item: dict[str, Any] = {"id": clip.id, "row": row, "domain": domain, "captions": against[clip.id]}
            if clip.id in said[row]:
                item |= {"caption": said[row][clip.id], **found.get(clip.id, {})}
            else:
                item["error"] = failures[row][clip.id]
            if scored := of_row.get(clip.id):
                item |= {k: scored.item[k] for k in ("ended", "generation_seconds") if k in scored.item}
                if scored.wav is not None and row == "generated":
                    item["audio"] = write_clip(run.out, f"wavs/reference/{files[clip.id]}", scored.wav, scored.rate)
            items.append(item)
    for metric in ("rouge-l", "cider-d", "class-named"):
        report.difference(metric, "generated", "generated-shuffled")
        report.difference(metric, "generated", "silence")
    run.finish(items, wrote="results.json and items.jsonl")


if __name__ == "__main__":
    main()

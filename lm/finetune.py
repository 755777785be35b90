"""Fine-tune a trained model on a folder of recordings: one command from files to a voice, and what came of it.

    python lm/finetune.py folder=recordings weights.whisper=openai/whisper-base.en
    python lm/finetune.py folder=recordings init=checkpoints/lm-all-mini lora=true name=anna

The steps, each a program or a few functions that stand alone: recordings are cut at pauses and filtered
(lm/finetuning/gathering.py), heard and rated (eval/label.py), chosen and held out (choosing.py), encoded and mixed
with the voices that the model knows (mixing.py), learnt (lm/train.py), and the held-out sentences are spoken before and
after (eval/tts.py, eval/likelihood.py, eval/compare.py). The same command continues what was stopped or killed,
anywhere. All lies in runs/<name>/: the model in final/, the rest in finetune/, with left_out.jsonl and report.json.
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from codec.corpus import Clip, CorpusError, Reject, holds_audio
from codec.encode import encode_corpus
from codec.interface import TokenizerError
from codec.load import load_tokenizer
from codec.shards import ShardError, read_shards
from lm.audio_model import AudioModel
from lm.finetuning.choosing import LEAST, choose, hold_out, unseen_letters, warnings
from lm.finetuning.gathering import Limits, gather, line_of, write_lines
from lm.finetuning.mixing import known_rows, mix, rehearsal
from lm.finetuning.planning import plan
from lm.finetuning.verdict import ceiling, read_differences, shown, verdict
from lm.model import ModelError
from lm.run_state import model_folder, normalisation_of
from lm.sequences.document_set import render_documents
from lm.sequences.text_tokenizer import TextTokenizerError
from lm.sequences.vocabulary import VocabularyError
from tasks.base import make_task
from tasks.text import normaliser, normalisers, note_on_texts
from training.checkpoint import write_file
from training.config import ConfigError, compose, hydra_entry, refusing
from training.launch import pick_device
from training.lock import hold, release
from training.places import REPOSITORY, beside_code, environment
from training.quoting import written
from training.stopping import run_and_pass_on

REFUSALS = (CorpusError, ModelError, ShardError, TextTokenizerError, TokenizerError, VocabularyError)
SHOWN = 3  # reasons whose first clip is named


def step(program: str, *settings: str) -> None:
    """Run a program of this repository in a process of its own; what it refuses ends this one, too."""
    print(f"$ python {program} {' '.join(settings)}", flush=True)
    status = run_and_pass_on([sys.executable, str(REPOSITORY / program), *settings], environment())
    if status:
        raise SystemExit(status)


def say_left_out(rejects: Sequence[Reject], path: Path) -> None:
    """Write what was left out, and print it: how many for each reason, and the first of them."""
    write_lines(path, [vars(reject) for reject in rejects])
    counts = Counter(reject.reason for reject in rejects)
    first = {reject.reason: reject.id or reject.file for reject in reversed(rejects)}
    for reason, count in counts.most_common(SHOWN):
        print(f"left out: {count}, as {first[reason]}: {reason}")
    if rejects:
        print(f"left out: {len(rejects)} in all, {path}", flush=True)


def tokenizer_settings(cfg: DictConfig) -> list[str]:
    """The tokenizer of this configuration, for other programs; how a flow decoder samples stays at their default."""
    keys: Any = OmegaConf.to_container(cfg.tokenizer, resolve=True)
    return [setting(f"tokenizer.{key}", value) for key, value in keys.items() if not isinstance(value, dict)]


def setting(key: str, value: Any) -> str:
    """``key=value`` in Hydra's grammar."""
    return f"{key}={written(value)}"


def normalisation(folder: Path, clips: Sequence[Clip], tokenizer: Any) -> tuple[Any, float]:
    """``text.normalise`` for these texts, and the share of their letters that the model has never seen.

    It is that of the model, but ``basic`` (lower case, no punctuation) where the model read texts as they stand and
    has met more of the letters so.
    """
    own = normalisation_of(folder)
    texts = [clip.text or "" for clip in clips]
    found = {own if isinstance(own, str) else "own": unseen_letters(map(normalisers(own)("tts"), texts), tokenizer)}
    if own == "none":
        found["basic"] = unseen_letters(map(normaliser("basic"), texts), tokenizer)
    best = min(found, key=lambda name: found[name])  # the first of equals: the model's own
    return (own if best == "own" else best), found[best]


def finetune(cfg: DictConfig) -> Path:
    """Fine-tune as ``cfg`` (configs/lm_finetune.yaml) says; returns the folder of the model."""
    # ---- the model that learns -------------------------------------------------------------------------------
    if not cfg.folder:
        raise ConfigError("say which recordings: python lm/finetune.py folder=FOLDER")
    name = cfg.name or f"finetune-{Path(cfg.folder).resolve().name}"
    run_dir = Path("runs") / name
    work = run_dir / "finetune"
    hold(run_dir)
    device = pick_device(cfg.device)
    init = beside_code(model_folder(cfg.init, "tts"))
    tokenizer = load_tokenizer(cfg.tokenizer, device)
    model = AudioModel(init, tokenizer, device)
    model.check_task("tts")
    frames = tokenizer.levels * tokenizer.frame_rate
    longest = cfg.longest if model.places is None else min(cfg.longest, round(0.8 * model.places / frames, 1))
    limits = Limits(cfg.shortest, longest, cfg.quietest, cfg.least_dnsmos)

    # ---- the recordings that it learns from ------------------------------------------------------------------
    clips, rejects = gather(cfg.folder, work / "clips", cfg.voice or Path(cfg.folder).resolve().name, limits)
    if not clips:
        say_left_out(rejects, work / "left_out.jsonl")
        raise ConfigError(f"no clip of folder={cfg.folder} can be used, the first because: {rejects[0].reason}.")
    weights = [setting(f"weights.{key}", value) for key, value in cfg.weights.items() if value is not None]
    label = [setting("data.root", work / "clips"), setting("out", work / "labels"), f"device={device}"]
    dnsmos = setting("dnsmos", limits.dnsmos is not None)
    label += [dnsmos, *(setting(key, cfg[key]) for key in ("recogniser", "language"))]
    step("eval/label.py", *label, *weights)
    lines = (work / "labels/labels.jsonl").read_text(encoding="utf-8").splitlines()
    labelled, refused = choose(clips, {line["id"]: line for line in map(json.loads, lines)}, limits)
    chosen, tested = hold_out(labelled, cfg.held_out)
    say_left_out([*rejects, *refused, *tested], work / "left_out.jsonl")
    held, learnt = ([clip for clip in chosen if clip.split == split] for split in ("test", "train"))
    if len(held) < cfg.held_out or len(learnt) < LEAST:
        raise ConfigError(
            f"folder={cfg.folder} is too small: {len(labelled)} clips of speech with text are left of it, and "
            f"{cfg.held_out} sentences are for the test and at least {LEAST} clips to learn from (why the others were "
            f"left out: {work}/left_out.jsonl)."
        )
    normalise, unseen = normalisation(init, chosen, model.text_tokenizer)
    task = make_task(compose("lm_train", ["task=tts"]).task)
    of_texts = [note] if (note := note_on_texts(normalise, task, chosen)) else []
    said = [f"!! {line}" for line in [*warnings(chosen, labelled, unseen, str(normalise)), *of_texts]]
    print("\n".join(said), end="\n" if said else "", flush=True)
    corpus = work / "corpus"
    lines = [json.dumps(line_of(clip, **clip.extra), ensure_ascii=False) for clip in chosen]
    text = "\n".join(lines) + "\n"
    if not (corpus / "metadata.jsonl").is_file() or (corpus / "metadata.jsonl").read_text(encoding="utf-8") != text:
        write_file(corpus / "metadata.jsonl", text)

    # ---- its tokens, and those of the voices that it knows ---------------------------------------------------
    encode_corpus(corpus, tokenizer, work / "tokens")
    new = read_shards(work / "tokens")
    seconds = sum(row.duration for row in new if row.split == "train")
    data = OmegaConf.create({"root": cfg.known, "name": None, "tokens": "auto"})
    speakers = sorted(set(model.speakers or []) - {row.speaker for row in new})
    keeps = bool(cfg.known and speakers and beside_code(cfg.known).is_dir())
    old = rehearsal(known_rows(data, tokenizer, speakers), cfg.rehearse * seconds) if keeps and cfg.rehearse else []
    mix(new, old, work / "mixture", tokenizer)
    kept = f"{sum(row.duration for row in old) / 60:.1f} minutes of {', '.join(speakers)}" if old else "no known voice"
    print(f"{seconds / 60:.1f} minutes to learn from, {len(held)} sentences held out; with {kept}", flush=True)

    # ---- training --------------------------------------------------------------------------------------------
    task.use_normaliser(normalisers(normalise))
    rows = task.select([row for row in (*new, *old) if row.split == "train"])
    documents = render_documents(rows, task, model.vocabulary, model.text_tokenizer, model.places or 1 << 20)
    schedule = plan(documents.lengths.tolist(), seconds, model.places, cfg.steps)
    asked = [setting("name", name), "task=tts", setting("init", init), *tokenizer_settings(cfg)]
    asked += [setting("data.tokens", work / "mixture"), *schedule.settings(cfg.lora), setting("device", cfg.device)]
    asked += [setting("text.normalise", normalise), *cfg.train]
    release(run_dir)
    step("lm/train.py", *asked)
    hold(run_dir)

    # ---- the same sentences before and after -----------------------------------------------------------------
    final = run_dir / "final"
    common = [*tokenizer_settings(cfg), f"device={device}"]
    listeners = [setting("recognisers", cfg.recognisers), setting("language", cfg.language)]
    whole = ["rows=[reference,resynthesis,generated]", dnsmos, "judge_clips.dnsmos=0", *weights, *listeners]
    whole += [f"skip.{row}=[dnsmos]" for row in ("reference", "resynthesis")]
    evaluations = {
        "tts": ("eval/tts.py", [setting("data.root", corpus), *whole], "generated"),
        "likelihood": ("eval/likelihood.py", ["task=tts", setting("tokens", work / "tokens")], "own-condition"),
    }
    if keeps and holds_audio(cfg.known):
        of_known = [setting("data.root", cfg.known), f"limit={cfg.held_out}", "rows=[generated]", "dnsmos=false"]
        evaluations["known"] = ("eval/tts.py", [*of_known, *listeners], "generated")
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, (program, settings, row) in evaluations.items():
        for when, folder in (("before", init), ("after", final)):
            out = setting("out", work / when / f"eval-{kind}")
            step(program, setting("model", folder), out, *settings, *common)
        compared = work / f"compare-{kind}"
        pair = setting("runs", [work / when / f"eval-{kind}" for when in ("before", "after")])
        step("eval/compare.py", pair, f"rows=[{row}]", setting("out", compared))
        found[kind] = read_differences(compared)

    # ---- what came of it -------------------------------------------------------------------------------------
    voice, known = [*found["tts"], *found["likelihood"]], found.get("known", [])
    told = [*ceiling(work / "after/eval-tts"), *verdict(voice, known)]
    report = {"warnings": said, "verdict": told, "voice": voice, "known": known, "model": str(final), "init": str(init)}
    report |= {"steps": schedule.steps, "seconds": seconds, "left_out": len(rejects) + len(refused) + len(tested)}
    write_file(work / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if (REPOSITORY / "scripts/demo_page.py").is_file():
        pair = setting("runs", [work / when / "eval-tts" for when in ("before", "after")])
        step("scripts/demo_page.py", pair, setting("out", work / "page"), setting("title", name))
    else:
        print("the page to listen is made in a checkout, by scripts/demo_page.py")
    print("\nafter minus before, the held-out sentences:")
    print("\n".join(f"  {shown(part)}" for part in voice))
    for part in known:
        print(f"  known voices, {shown(part)}")
    print("\n".join([*said, *(f"!! {line}" if line.partition(":")[0].isupper() else line for line in told)]))
    print(f"{final}: say something with `almkit speak --model {final}`; {work}/report.json", flush=True)
    return final


@hydra_entry("lm_finetune")
def main(cfg: DictConfig) -> None:
    with refusing(*REFUSALS):
        finetune(cfg)


if __name__ == "__main__":
    main()

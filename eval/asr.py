"""Speech recognition: what the model writes when it hears unseen speech, beside what bounds it.

    python eval/asr.py                                  # newest finished ASR run
    python eval/asr.py model=runs/my-asr/final limit=20

Rows: generated (the model hears the clips), generated-shuffled (its transcripts against other clips' texts: what is
right by knowing the sentences and not by hearing), silence (the model hears zeros), and for orientation reference and
resynthesis (other recognisers on the recordings, and on the recordings through the codec: what is still to be heard).
Writes results.json, items.jsonl and wavs/<row>/<id>.wav; a second run redoes nothing.
"""

from __future__ import annotations

import training.help  # noqa: F401

import time
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar

from codec.interface import TokenizerError
from codec.load import load_tokenizer
from eval.harness.clips import choose_clips, derangement, heard_at, read_reference, silence_like
from eval.harness.listening import Listener, encode_clips
from eval.harness.processes import hold_out, join
from eval.harness.provenance import record_hash, sha256, versions
from eval.harness.report import Report
from eval.harness.scored import ScoredClip, as_stored, write_clip
from eval.harness.speaking import resynthesise, run_name
from eval.harness.worker_pool import WorkerError
from eval.judges.judging import how_texts, rate_words, transcribe
from eval.judges.recognisers import load_recogniser
from eval.judges.recognisers.interface import NAMES, RecogniserError
from lm.model import ModelError
from lm.run_state import newest_model
from lm.sequences.vocabulary import VocabularyError
from training.config import ConfigError, hydra_entry
from training.identity import file_names
from training.launch import pick_device
from training.log import duration

ROWS = ("reference", "resynthesis", "generated", "generated-shuffled", "silence")


def check_options(cfg: DictConfig) -> None:
    """Refuse unknown rows and recognisers before anything is computed."""
    for key, chosen, known in (("rows", cfg.rows, ROWS), ("recognisers", cfg.recognisers, NAMES)):
        if unknown := [name for name in chosen if name not in known]:
            raise ConfigError(f"{key}: there is no '{unknown[0]}'; choose from {', '.join(known)}.")
    if not cfg.rows:
        raise ConfigError("rows is empty: name at least one row.")


def listen_to(
    listener: Listener, clips: list[ScoredClip], row: str, cfg: DictConfig, tokenizer: Any
) -> list[ScoredClip]:
    """A row of what the model writes when it hears ``clips``."""
    codes = encode_clips(tokenizer, heard_at(clips, tokenizer.sample_rate))
    written = listener.listen(codes, "speech", cfg.batch_size, row)
    made = []
    for clip in clips:
        scored = ScoredClip(clip.id, row, clip.text, clip.wav if clip.id in written else None, clip.rate)
        if clip.id in written:
            found = written[clip.id]
            scored.item |= {"hypotheses": {"model": found.text}, "ended": found.ended}
            scored.item["generation_seconds"] = round(found.seconds, 4)
        else:
            scored.item["error"], scored.source = clip.item.get("error", "no audio"), False
        made.append(scored)
    return made


def file_generation(report: Report, row: str, clips: list[ScoredClip]) -> None:
    """Shares of texts that hit the limit and that are empty, and speed."""
    written = [clip for clip in clips if "hypotheses" in clip.item]
    report.mean(row, "limit", {clip.id: float(not clip.item["ended"]) for clip in written})
    report.mean(row, "empty", {clip.id: float(not clip.item["hypotheses"]["model"].strip()) for clip in written})
    audio = sum(len(clip.wav) / clip.rate for clip in written if clip.wav is not None)
    if audio and row == "generated":
        spent = sum(clip.item["generation_seconds"] for clip in written)
        report.number(row, "real-time-factor", spent / audio, len(written))


@hydra_entry("eval_asr")
def main(cfg: DictConfig) -> None:
    join()
    check_options(cfg)
    disable_progress_bar()  # of loading weights, which takes no time here
    started = time.monotonic()
    device = pick_device(cfg.device)
    cache = Path(cfg.cache) if cfg.cache else None
    folder = Path(cfg.model) if cfg.model else newest_model("asr")
    clips = choose_clips(
        cfg.data.root, cfg.split, cfg.limit,
        lambda clip: clip.domain == "speech" and bool(clip.text), "speech with text",
    )  # fmt: skip
    out = Path(cfg.out) if cfg.out else Path("runs") / run_name(folder) / "eval-asr"
    hold_out(out)
    try:
        tokenizer = load_tokenizer(cfg.tokenizer, device)
        listener = Listener(folder, tokenizer, instantiate(cfg.task), cfg.max_tokens, device, cache)
    except (TokenizerError, ModelError, VocabularyError) as error:
        raise ConfigError(str(error)) from error
    print(f"{len(clips)} clips of {cfg.data.root} ({cfg.split}), model {folder}, to {out}", flush=True)

    how: dict[str, Any] = {
        "corpus": {
            "name": cfg.data.name or Path(cfg.data.root).name,
            "split": cfg.split,
            "sentences": record_hash([[clip.id, clip.text] for clip in clips]),
            "audio": record_hash([sha256(clip.path) for clip in clips if clip.path.is_file()]),
        },
        **how_texts(cfg.normaliser, (clip.text for clip in clips)),
        "tokenizer": tokenizer.describe(),
        "model": listener.how,
        "seed": cfg.seed,
        "recognisers": {},
        "versions": versions("torch", "transformers", "numpy", "soxr", "jiwer"),
    }
    report = Report(how, [row for row in ROWS if row in cfg.rows])

    # ---- what is heard, and what the model writes --------------------------------------------------------------
    references = read_reference(clips)
    rows: dict[str, list[ScoredClip]] = {}
    if "reference" in cfg.rows:
        rows["reference"] = references
    if "resynthesis" in cfg.rows:
        waves = heard_at(references, tokenizer.sample_rate)
        outputs, _ = resynthesise(tokenizer, list(waves.values()))
        heard = dict(zip(waves, outputs, strict=True))
        rows["resynthesis"] = [
            ScoredClip(
                clip.id, "resynthesis", clip.text,
                as_stored(heard[clip.id]) if clip.id in heard else None, tokenizer.sample_rate, source=clip.id in heard,
            )
            for clip in references
        ]  # fmt: skip
    if {"generated", "generated-shuffled"} & set(cfg.rows):
        written = listen_to(listener, references, "generated", cfg, tokenizer)
        if "generated" in cfg.rows:
            rows["generated"] = written
        if "generated-shuffled" in cfg.rows:
            other = derangement(len(written), cfg.seed)
            rows["generated-shuffled"] = []
            for i, clip in enumerate(written):
                source = written[other[i]]
                shuffled = ScoredClip(
                    clip.id, "generated-shuffled", clip.text, source.wav, source.rate, source=source.source
                )  # fmt: skip
                shuffled.item |= {**source.item, "heard": source.id}
                rows["generated-shuffled"].append(shuffled)
    if "silence" in cfg.rows:
        rows["silence"] = listen_to(listener, silence_like(references), "silence", cfg, tokenizer)
    files = file_names((clip.id for clip in clips), ".wav")
    for row, found in rows.items():
        for scored, original in zip(found, clips, strict=True):
            head: dict[str, Any] = {"id": scored.id, "text": scored.text, "speaker": original.speaker, "row": row}
            if scored.wav is not None:
                head["seconds"] = round(len(scored.wav) / scored.rate, 3)
                if row in ("reference", "resynthesis"):
                    head["audio"] = write_clip(out, f"wavs/{row}/{files[scored.id]}", scored.wav, scored.rate)
            scored.item = head | scored.item

    # ---- scores ------------------------------------------------------------------------------------------------
    for name in cfg.recognisers if {"reference", "resynthesis"} & set(rows) else ():
        heard_rows = {row: rows[row] for row in ("reference", "resynthesis") if row in rows}
        try:
            with load_recogniser(
                name, Path(cfg.data.root), Path(cfg.ctc), cfg.processes, device, dict(cfg.weights), cfg.language
            ) as judge:
                report.how["recognisers"][name] = judge.how()
                transcribe(judge, [clip for found in heard_rows.values() for clip in found], cache)
        except (RecogniserError, WorkerError, ModuleNotFoundError) as error:
            print(f"{name}: not computed: {error}", flush=True)
            for row, found in heard_rows.items():
                report.rate(row, f"{how['headline']}/{name}", {}, {clip.id: f"not computed: {error}" for clip in found})
            continue
        for row, found in heard_rows.items():
            rate_words(report, row, name, found, cfg.normaliser)
    for row in ("generated", "generated-shuffled", "silence"):
        if row in rows:
            rate_words(report, row, "model", rows[row], cfg.normaliser)
            if row != "generated-shuffled":
                file_generation(report, row, rows[row])
    report.difference(f"{how['headline']}/model", "generated-shuffled", "generated")
    report.write(out, [clip.item for found in rows.values() for clip in found])
    print("\n" + report.table())
    print(f"\n{out}/results.json, items.jsonl and wavs/, in {duration(time.monotonic() - started)}", flush=True)


if __name__ == "__main__":
    main()

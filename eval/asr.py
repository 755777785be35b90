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

from hydra.utils import instantiate
from omegaconf import DictConfig

from eval.harness.clips import (
    audio_record,
    read_reference,
    resynthesis_of,
    shuffled,
    silence_like,
    text_of,
)
from eval.harness.listening import Listener, file_writing
from eval.harness.provenance import record_hash
from eval.harness.run import Rows, Run
from eval.harness.speaking import file_speed, run_name
from eval.judges.judging import how_texts, judge_words, rate_words
from eval.judges.recognisers.interface import NAMES
from training.config import hydra_entry

RECORDED = ("reference", "resynthesis")
ROWS = (*RECORDED, "generated", "generated-shuffled", "silence")


@hydra_entry("eval_asr")
def main(cfg: DictConfig) -> None:
    run = Run(cfg, rows=ROWS, recognisers=NAMES)
    folder = run.model("asr")
    clips = run.choose(lambda clip: clip.domain == "speech" and bool(clip.text), "speech with text")
    run.take(run_name(folder), "eval-asr")
    run.load_tokenizer()
    listener = run.open(Listener, folder, instantiate(cfg.task))
    run.say(f"{len(clips)} clips of {cfg.data.root} ({cfg.split}), model {folder}")
    report = run.begin(
        [row for row in ROWS if row in cfg.rows],
        {
            "split": cfg.split,
            "sentences": record_hash([[clip.id, clip.text] for clip in clips]),
            "audio": audio_record(clips),
        },
        "torch transformers numpy soxr jiwer",
        **how_texts(cfg.normaliser, map(text_of, clips)), model=listener.how, recognisers={},
    )  # fmt: skip

    # ---- what is heard, and what the model writes --------------------------------------------------------------
    made: Rows = {"reference": read_reference(clips)}
    if "resynthesis" in cfg.rows:
        made["resynthesis"] = resynthesis_of(made["reference"], run.tokenizer)
    if {"generated", "generated-shuffled"} & set(cfg.rows):
        made["generated"] = listener.row("generated", made["reference"])
    if "generated-shuffled" in cfg.rows:
        made["generated-shuffled"] = shuffled(made["generated"], cfg.seed, "heard")
    if "silence" in cfg.rows:
        made["silence"] = listener.row("silence", silence_like(made["reference"]))
    rows = {row: made[row] for row in report.cells}
    run.keep(rows, clips, "speaker", heard=RECORDED)

    # ---- scores ------------------------------------------------------------------------------------------------
    judge_words(run, {row: rows[row] for row in RECORDED if row in rows})
    for row in rows:
        if row not in RECORDED:
            rate_words(report, row, "model", rows[row], cfg.normaliser)
            if row != "generated-shuffled":
                file_writing(report, row, rows[row])
    if "generated" in rows:
        file_speed(report, "generated", [clip for clip in rows["generated"] if clip.wav is not None])
    report.difference(f"{report.how['headline']}/model", "generated-shuffled", "generated")
    run.finish()


if __name__ == "__main__":
    main()

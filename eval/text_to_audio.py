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

from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.corpus import Clip
from eval.embedders import NAMES
from eval.harness.audio import RESAMPLER
from eval.harness.clips import (
    audio_record,
    read_generated,
    read_reference,
    resynthesis_of,
    shuffled,
    silence_like,
)
from eval.harness.provenance import record_hash
from eval.harness.report import Report
from eval.harness.run import Rows, Run
from eval.harness.speaking import Speaker, file_generation, run_name
from eval.judges.classes import judge_classes
from eval.judges.corpus_classifier import Recipe
from eval.judges.sounds import judge_fit, judge_frechet
from tasks.base import Request
from training.config import ConfigError, hydra_entry

ROWS = ("reference", "resynthesis", "generated", "generated-shuffled", "silence")
FEW = 500  # frames below which the table says that the Fréchet distance is mostly bias


def caption_of(clip: Clip) -> str:
    """The caption that is given to the model: the first."""
    return clip.captions[0]


def sizes_of_sets(report: Report) -> list[str]:
    """Lines about how much audio the Fréchet distances compare."""
    lines = []
    for row, cells in report.results()["rows"].items():
        for metric, cell in cells.items():
            if metric.startswith("fad/"):
                few = ": so few that it is mostly bias" if cell["evaluated_frames"] < FEW else ""
                sides = [f"{cell[f'{side}_clips']} clips ({cell[f'{side}_frames']} frames)"
                         for side in ("evaluated", "reference")]  # fmt: skip
                lines.append(f"{metric} of {row}: {sides[0]} against {sides[1]}{few}")
    return lines


@hydra_entry("eval_text_to_audio")
def main(cfg: DictConfig) -> None:
    run = Run(cfg, rows=ROWS, embeddings=NAMES)
    if "generated-shuffled" in cfg.rows and "generated" not in cfg.rows:
        raise ConfigError("rows: generated-shuffled needs generated, whose clips it takes.")
    if str(cfg.task._target_).split(".")[-1] not in ("TextToSound", "TextToMusic"):
        raise ConfigError("task: choose text_to_sound or text_to_music.")
    task = instantiate(cfg.task)
    domain = task.domains[0]
    clips = run.choose(lambda clip: clip.domain == domain and bool(clip.captions), f"{domain} with captions")
    others = run.choose(lambda clip: clip.domain == domain, domain, cfg.against, cfg.against_limit)
    folder = run.model(task.name) if "generated" in cfg.rows and not cfg.generated else None
    run.take(run_name(folder) if folder else Path(cfg.generated or "recordings").name, f"eval-{task.name}")
    if folder is not None or "resynthesis" in cfg.rows:
        run.load_tokenizer()
    speaker = run.open(Speaker, folder, task) if folder else None
    source = folder or cfg.generated or "none"
    run.say(f"{len(clips)} captions of {cfg.data.root} ({cfg.split}), model {source}")

    # ---- the clips ---------------------------------------------------------------------------------------------
    how_model = speaker.how if speaker is not None else None
    made: Rows = {"reference": read_reference(clips, caption_of)}
    if "resynthesis" in cfg.rows:
        made["resynthesis"] = resynthesis_of(made["reference"], run.tokenizer)
    if speaker is not None:
        requests = [Request(clip.id, captions=[caption_of(clip)], domain=domain) for clip in clips]
        made["generated"] = speaker.row("generated", requests, list(map(caption_of, clips)))
    elif cfg.generated and "generated" in cfg.rows:
        made["generated"], how_model = read_generated(Path(cfg.generated), clips, caption_of)
    if "generated-shuffled" in cfg.rows:
        made["generated-shuffled"] = shuffled(made["generated"], cfg.seed, "of")
    if "silence" in cfg.rows:
        made["silence"] = silence_like(made["reference"])
    rows = {row: made[row] for row in ROWS if row in made and row in cfg.rows}
    report = run.begin(
        rows,
        {
            "split": cfg.split,
            "captions": record_hash([[clip.id, caption_of(clip)] for clip in clips]),
            "audio": audio_record(clips),
            "against": cfg.against,
            "against_audio": audio_record(others),
        },
        prompt="first caption of each clip", resampler=RESAMPLER, samples="as stored, 16 bit", model=how_model,
    )  # fmt: skip
    run.keep(rows, clips, "domain", heard=ROWS[:3])
    # what is the same set of clips is as silent and has the same Fréchet distance
    sets = {row: found for row, found in rows.items() if row != "generated-shuffled"}
    for row, found in sets.items():
        file_generation(report, row, found, made["reference"])

    # ---- scores ------------------------------------------------------------------------------------------------
    judge_frechet(run, sets, read_reference(others))
    judge_fit(run, rows, made["reference"])
    judge = ""
    if cfg.class_judge:
        recipe = Recipe(steps=cfg.class_steps)
        judge = judge_classes(report, rows, run.corpus, domain, cfg.class_key, run.cache, recipe)
    for metric in report.metrics():
        if metric.startswith(("clap-score", "kl", "class-accuracy")):
            report.difference(metric, "generated", "generated-shuffled")
            report.difference(metric, "generated", "resynthesis")
    run.finish(notes=[judge, *sizes_of_sets(report)])


if __name__ == "__main__":
    main()

"""Text to speech: speaks unseen sentences and reports what recognisers understand, beside what bounds it.

    python eval/tts.py                          # newest finished TTS run, else the checkpoint that ships
    python eval/tts.py model=runs/my-tts/final limit=20 recognisers=[ctc-mini]
    python eval/tts.py generated=FOLDER rows=[reference,generated]      # <id>.wav of any other system
    python eval/tts.py texts=hard normaliser=whisper-english weights.whisper=FOLDER    # does it stop, and not too soon?

Rows: reference (ground truth), resynthesis (ground truth through the codec: the ceiling), generated, and
generated-shuffled (each sentence's speaker and seed with another sentence's text: scored against the text
that was given, and as wer-original against the sentence's own). Sentences of ``texts`` have no recording, so no row of
one. Writes results.json, items.jsonl and wavs/<row>/<id>.wav. What is already known for the same audio and the same
judge is not computed again.
"""

from __future__ import annotations

import training.help  # noqa: F401

from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from codec.corpus import Clip, spread
from eval.harness.clips import audio_record, derangement, read_generated, read_reference, resynthesis_of, text_of
from eval.harness.hard_texts import HARD
from eval.harness.provenance import record_hash
from eval.harness.run import Rows, Run
from eval.harness.speaking import GENERATION, Speaker, file_generation, run_name
from eval.judges.judging import check_skipped, how_texts, judge_by_networks, judge_mos, judge_words, network_metrics
from eval.judges.recognisers.interface import NAMES
from lm.run_state import speakers_of
from tasks.base import Request
from training.config import ConfigError, hydra_entry

ROWS = ("reference", "resynthesis", "generated", "generated-shuffled")


def sentences(texts: str, clips: Sequence[Clip], limit: int) -> list[Clip]:
    """Sentences that nobody recorded, as clips without a file, spoken by the speakers of ``clips`` in turn.

    Args:
        texts: ``hard`` (eval/harness/hard_texts.py), or a text file with a sentence per line.
        limit: at most so many (0: all).

    Raises:
        ConfigError: no such file, or no sentence in it.
    """
    if texts == "hard":
        named = [(f"{kind}-{n}".replace(" ", "-"), text) for kind, said in HARD.items() for n, text in enumerate(said)]
    else:
        try:
            lines = Path(texts).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"texts={texts} is neither 'hard' nor a text file in UTF-8 ({error}).") from None
        named = [(f"line-{n:05}", line.strip()) for n, line in enumerate(lines, 1) if line.strip()]
        if not named:
            raise ConfigError(f"texts={texts} holds no sentence: write one per line.")
    voices = list(dict.fromkeys(clip.speaker for clip in clips))
    made = [
        Clip(name, Path(), text, speaker=voices[n % len(voices)], domain="speech")
        for n, (name, text) in enumerate(named)
    ]
    return spread(made, limit)


def note_strangers(clips: list[Clip], folder: Path, prompt: str) -> None:
    """Say of how many sentences the model in ``folder`` has not heard the speaker, where ``prompt`` names them."""
    heard = speakers_of(folder)
    if "{speaker}" not in prompt:
        return
    if heard is None:
        print(f"{folder} does not record which speakers it has heard: those of the sentences are taken as they are.")
    elif strange := [clip.speaker for clip in clips if clip.speaker and clip.speaker not in heard]:
        print(
            f"{len(strange)} of {len(clips)} sentences name a speaker that the model has not heard, as "
            f"{strange[0]}; it has heard {', '.join(heard[:20]) or 'none by name'}{' …' if len(heard) > 20 else ''}.",
            flush=True,
        )


@hydra_entry("eval_tts")
def main(cfg: DictConfig) -> None:
    run = Run(cfg, rows=ROWS, recognisers=NAMES)
    check_skipped(cfg)
    if cfg.generated and "generated-shuffled" in cfg.rows:
        raise ConfigError("generated=FOLDER has no shuffled row: give rows=[reference,resynthesis,generated].")
    names = list(cfg.rows)
    if cfg.texts:
        clips = sentences(cfg.texts, run.choose(lambda clip: clip.domain == "speech", "speech", limit=0), cfg.limit)
        names = [row for row in names if row.startswith("generated")]
        if not names:
            raise ConfigError("texts: nobody recorded these sentences: give rows=[generated].")
    else:
        clips = run.choose(lambda clip: clip.domain == "speech" and bool(clip.text), "speech with text")

    # ---- the model and its tokenizer -----------------------------------------------------------------------
    speaks = any(row.startswith("generated") for row in names) and not cfg.generated
    folder = run.model("tts") if speaks else None
    other = cfg.generated or cfg.tokenizer.get("path") or cfg.tokenizer._target_
    what = f"eval-tts-{Path(cfg.texts).stem}" if cfg.texts else "eval-tts"
    run.take(run_name(folder) if folder else Path(other).name, what)
    if speaks or "resynthesis" in names:
        run.load_tokenizer()
    task = instantiate(cfg.task)
    speaker = run.open(Speaker, folder, task) if folder else None
    source = folder or cfg.generated or "none"
    of = f"{cfg.texts}, without recordings" if cfg.texts else f"{cfg.data.root} ({cfg.split})"
    run.say(f"{len(clips)} sentences of {of}, model {source}")
    if folder is not None:
        note_strangers(clips, folder, task.prompt)

    # ---- the clips -----------------------------------------------------------------------------------------
    made: Rows = {}
    how_model = speaker.how if speaker else None
    if {"reference", "resynthesis"} & set(names):
        made["reference"] = read_reference(clips)
    if "resynthesis" in names:
        made["resynthesis"] = resynthesis_of(made["reference"], run.tokenizer)
    if cfg.generated and "generated" in names:
        made["generated"], how_model = read_generated(Path(cfg.generated), clips)
    report = run.begin(
        [row for row in ROWS if row in names],
        {
            "split": cfg.split,
            "sentences": record_hash([[clip.id, clip.text, clip.speaker] for clip in clips]),
            "audio": audio_record(clips),
        },
        "torch transformers numpy soxr jiwer",
        **how_texts(cfg.normaliser, map(text_of, clips)), model=how_model, recognisers={},
    )  # fmt: skip
    for row in names if speaker else ():
        texts = list(map(text_of, clips))
        if row == "generated-shuffled":
            texts = [texts[i] for i in derangement(len(texts), cfg.seed)]
        if row.startswith("generated") and speaker:
            requests = [Request(c.id, text, speaker=c.speaker or "") for c, text in zip(clips, texts, strict=True)]
            made[row] = speaker.row(row, requests, texts)
    for scored, clip in zip(made.get("generated-shuffled", []), clips, strict=False):
        scored.item["original_text"] = clip.text
    rows = {row: made[row] for row in report.cells}
    run.keep(rows, clips, "speaker")
    for row in rows:
        if row.startswith("generated"):
            file_generation(report, row, rows[row], rows.get("reference", []))

    # ---- the judges ----------------------------------------------------------------------------------------
    judge_words(run, rows)
    if cfg.dnsmos:
        judge_mos(run, rows)
    judge_by_networks(run, rows)
    first = report.how["headline"]
    for name in cfg.recognisers:
        report.difference(f"{first}/{name}", "resynthesis", "reference")
        report.difference(f"{first}/{name}", "generated", "resynthesis")
    shown = [f"{metric}/{name}" for metric in (first, f"{first}-original") for name in cfg.recognisers]
    shown += [f"repeated-words/{name}" for name in cfg.recognisers]
    run.finish(shown=[*shown, "dnsmos/p808", "dnsmos/ovrl", *network_metrics(report), *GENERATION])


if __name__ == "__main__":
    main()

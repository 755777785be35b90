"""Evaluation folders of every kind that the demo page shows, small, through the writer that the eval scripts use."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from json_files import read_json, read_lines, write_lines

from eval.harness.report import Report

EVIL = "<script>document.title='owned'</script> & \"two\" 'words' </table><img src=x onerror=alert(1)>"
LONG = "word " * 2000 + "unbroken" * 500
RIGHT_TO_LEFT = "\u202eevil\u202c שלום עולם مرحبا بالعالم"
TEXTS = ("the red boat", "a green box is here", "seven blue birds")
TOKENIZER = {
    "name": "almtokenizer", "fingerprint": "00" * 32, "sample_rate": 24000, "frame_rate": 12.5, "levels": 3,
    "codebook_sizes": [2048] * 3, "samples_per_frame": 1920, "bitrate": 412.5, "causal": False,
}  # fmt: skip


def tone(seconds: float, rate: int, frequency: float = 1000.0, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype("float32")


def write_wav(folder: Path, row: str, id: str, wav: np.ndarray, rate: int) -> str:
    """Write ``wavs/<row>/<id>.wav`` and return that name."""
    path = folder / "wavs" / row / f"{id}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, rate, subtype="PCM_16")
    return str(path.relative_to(folder))


def audio_item(
    folder: Path, row: str, id: str, number: int, seconds: float, amplitude: float, **head: Any
) -> dict[str, Any]:
    """A line of items.jsonl with its clip."""
    rate = 16000 if row == "reference" else 24000
    audio = write_wav(folder, row, f"clip{number}", tone(seconds, rate, 300.0 + 200 * number, amplitude), rate)
    return {"id": id, "row": row, **head, "audio": audio, "seconds": seconds}


def reconstruction(
    folder: Path, domains: Sequence[str] = ("speech",), count: int = 3, window: int = 6, offset: float = 0.0
) -> Path:
    """As eval/reconstruction.py writes it; ``offset`` makes a system worse."""
    rate = 75 / window
    how = {
        "corpus": {"name": "mini", "splits": ["test"], "domains": list(domains), "clips": "aa"},
        "comparison": {"rate": "the lower"}, "recognisers": {},
        "tokenizer": {**TOKENIZER, "frame_rate": rate, "bitrate": rate * 33},
    }  # fmt: skip
    report = Report(how, ["reference", "resynthesis"])
    items = []
    scores: dict[str, float] = {}
    for number in range(count * len(domains)):
        domain = domains[number // count]
        id = f"{domain}-{number}"
        head = {"text": TEXTS[number % 3] if domain == "speech" else "", "speaker": None, "domain": domain}
        for row in ("reference", "resynthesis"):
            loud = 0.5 if row == "reference" else 0.05
            item = audio_item(folder, row, id, number, 1.0 + 0.2 * number, loud, **head)
            if row == "resynthesis":
                scores[id] = item["stoi"] = 0.9 - 0.1 * (number % count) - offset
                item["mel-distance"] = 1.0 + 0.1 * number
            items.append(item)
    report.mean("resynthesis", "stoi", scores)
    report.number("resynthesis", "real-time-factor", 0.02, len(scores))
    report.write(folder, items)
    return folder


def tts(folder: Path, texts: Sequence[str] = TEXTS, seconds: float = 2.0, loud: float = 0.4) -> Path:
    """As eval/tts.py writes it."""
    rows = ("reference", "resynthesis", "generated", "generated-shuffled")
    report = Report({"corpus": {"name": "mini"}, "recognisers": {"ctc": {}}, "tokenizer": TOKENIZER, "seed": 7,
                     "note": EVIL}, rows)  # fmt: skip
    items = []
    for row_number, row in enumerate(rows):
        errors: dict[str, tuple[float, float]] = {}
        for number, text in enumerate(texts):
            own = texts[(number + 1) % len(texts)] if row == "generated-shuffled" else text
            id = f"id/../{number}"
            # every row another pitch: what sounds can be told from the samples
            item = audio_item(folder, row, id, number + 3 * row_number, seconds, loud / (row_number + 1), text=own,
                              speaker="slt")  # fmt: skip
            wer = 0.25 * number if row == "generated" else 0.0
            item |= {"hypotheses": {"ctc": own.upper()}, "wer": {"ctc": wer}, "cer": {"ctc": wer / 2}}
            item |= {"dnsmos": {"ovrl": 3.0 + number / 10}}
            if row.startswith("generated"):
                item |= {"ended": number != 2, "legal": True, "frames": 25, "generation_seconds": 0.5}
            items.append(item)
            errors[id] = (4 * wer, 4.0)
        report.rate(row, "wer/ctc", errors)
    report.difference("wer/ctc", "generated", "resynthesis")
    report.write(folder, items)
    return folder


def prompted(folder: Path, task: str) -> Path:
    """As eval/prompted.py writes it: `tts` after a recording, which has a row of its own without scores."""
    tts(folder)
    results = read_json(folder / "results.json")
    results["how"]["task"] = task
    (folder / "results.json").write_text(json.dumps(results))
    lines = read_lines(folder / "items.jsonl")
    for number, id in enumerate(dict.fromkeys(line["id"] for line in lines)):
        lines.append(audio_item(folder, "given", id, number, 1.0, 0.3, text="what was given", speaker="slt"))
    write_lines(folder / "items.jsonl", lines)
    return folder


def text_to_audio(folder: Path, domain: str, captions: Sequence[str] = TEXTS, classes: bool = False) -> Path:
    """As eval/text_to_audio.py writes it without networks, with a judge of classes where ``classes`` says so."""
    how = {"corpus": {"name": "mini", "against": "train"}, "prompt": "first caption", "tokenizer": TOKENIZER}
    report = Report(how, ["reference", "generated", "silence"])
    items = []
    for row in ("reference", "generated", "silence"):
        for number, caption in enumerate(captions):
            head = {"text": caption, "domain": domain}
            if row == "silence":
                items.append({"id": f"{domain}{number}", "row": row, **head, "seconds": 1.0})
            else:
                items.append(audio_item(folder, row, f"{domain}{number}", number, 1.0, 0.3, **head))
        report.number(row, "fad/log-mel", 3.5, len(captions))
        if classes:
            found = {item["id"]: item for item in items if item["row"] == row}
            for number, item in enumerate(found.values()):
                item["class"] = {"requested": ["rain"], "heard": "wind" if number else "rain", "probability": 0.8}
            report.mean(row, "class-accuracy", {id: float(not n) for n, id in enumerate(found)})
    report.write(folder, items)
    return folder


def asr(folder: Path, texts: Sequence[str] = TEXTS) -> Path:
    """As eval/asr.py writes it: two rows with audio, three with text."""
    rows = ("reference", "resynthesis", "generated", "generated-shuffled", "silence")
    report = Report({"corpus": {"name": "mini"}, "recognisers": {}, "tokenizer": TOKENIZER}, rows)
    items = []
    for row in rows:
        errors = {}
        for number, text in enumerate(texts):
            head: dict[str, Any] = {"text": text, "speaker": "rms"}
            if row in ("reference", "resynthesis"):
                item = audio_item(folder, row, f"c{number}", number, 1.0, 0.3, **head)
                item |= {"hypotheses": {"ctc": text}, "wer": {"ctc": 0.0}}
            else:
                said = "" if row == "silence" else f"{text} too"
                item = {"id": f"c{number}", "row": row, **head, "seconds": 1.0, "hypotheses": {"model": said}}
                item |= {"ended": True, "generation_seconds": 0.1, "wer": {"model": 0.1 * number}}
                errors[item["id"]] = (float(number), 10.0)
            items.append(item)
        if errors:
            report.rate(row, "wer/model", errors)
    report.write(folder, items)
    return folder


def captioning(folder: Path, domain: str, said: Sequence[str] = TEXTS) -> Path:
    """As eval/captioning.py writes it: what is heard is filed with what the model says about it."""
    rows = ("reference", "generated", "silence")
    report = Report({"corpus": {"name": "mini"}, "references": {}, "tokenizer": TOKENIZER}, rows)
    items = []
    for row in rows:
        scores = {}
        for number, caption in enumerate(said):
            captions = [f"{caption}, one", f"{caption}, two", f"{caption}, three"]
            id = f"{domain}{number}"
            item: dict[str, Any] = {"id": id, "row": row, "domain": domain,
                                    "captions": captions[1:] if row == "reference" else captions}  # fmt: skip
            item |= {"caption": caption, "rouge-l": 0.5, "cider-d": 0.3 * number, "ended": True}
            if row == "generated":
                item["audio"] = write_wav(folder, "reference", id, tone(1.0, 24000, 500.0, 0.3), 24000)
            scores[id] = item["cider-d"]
            items.append(item)
        report.mean(row, "cider-d", scores)
    report.write(folder, items)
    return folder


def every_kind(runs: Path) -> list[Path]:
    """A run folder with an evaluation of each kind, and with a second codec."""
    return [
        reconstruction(runs / "codec" / "eval-reconstruction", ("speech", "sound", "music")),
        reconstruction(runs / "codec-w3" / "eval-reconstruction", window=3, offset=0.2),
        tts(runs / "lm" / "eval-tts"),
        *(
            prompted(runs / "lm" / f"eval-{task}", task)
            for task in ("voice_prompted_tts", "interleaved", "continuation")
        ),
        text_to_audio(runs / "lm" / "eval-text_to_sound", "sound"),
        text_to_audio(runs / "lm" / "eval-text_to_music", "music"),
        asr(runs / "lm" / "eval-asr"),
        captioning(runs / "lm" / "eval-audio_captioning", "sound"),
        captioning(runs / "lm" / "eval-music_captioning", "music"),
    ]


def latents(folder: Path, classes: Sequence[str] = ("flute", "cello"), count: int = 6, heard: int = 4) -> Path:
    """As eval/latents.py writes it: points of all recordings, sounds of some."""
    rows = ("requantised", "continuous", "log-mel")
    report = Report({"task": "latents", "tokenizer": TOKENIZER}, rows)
    names = [f"note{number}" for number in range(count)]
    for row in rows:
        report.mean(row, "accuracy/instrument", dict.fromkeys(names, 1.0))
        report.number(row, "accuracy-shuffled/instrument", 0.5, count, (0.2, 0.8))
    items = [
        audio_item(folder, row, name, number, 0.5, 0.3, text=classes[number % 2], domain="music")
        for row in ("reference", "requantised", "continuous")
        for number, name in enumerate(names[:heard])
    ]
    report.write(folder, items)
    labels = [{"instrument": classes[number % 2], "octave": str(3 + number // 2)} for number in range(count)]
    points = {
        "labels": ["instrument", "octave"],
        "recordings": [{"id": name, "split": "test", "labels": own} for name, own in zip(names, labels, strict=True)],
        "maps": [
            {"row": "continuous", "name": name, "caption": f"what {name} does not show", "plot": "plots/x.svg",
             "points": [[float(number), float(number % 3)] for number in range(count)]}
            for name in ("PCA", "LDA")
        ],
    }  # fmt: skip
    (folder / "points.json").write_text(json.dumps(points))
    return folder


def sound_space(folder: Path, classes: Sequence[str] = ("flute", "cello")) -> Path:
    """As eval/sound_space.py writes it: walks and transfers in one folder, scored over more than is shown; a grid."""
    rows = ("reference", "continuous", "requantised", "cross-fade", "unmoved", "random")
    report = Report({"task": "sound_space", "tokenizer": TOKENIZER, "corpus": {"domains": ["walk", "transfer"]}}, rows)
    items = []
    for kind, own in (("walk", ("continuous", "requantised", "cross-fade")),
                      ("transfer", ("reference", "continuous", "requantised", "unmoved", "random"))):  # fmt: skip
        for number, row in enumerate(own):
            item = audio_item(folder, row, f"{kind} one", number, 1.0, 0.3, text="flute → cello", domain=kind)
            item |= {"kind": kind, "holds": [[0.0, 0.2], [0.8, 1.0]] if kind == "walk" else []}
            items.append({**item, "failures": {"pitch-cents": "no pitch in the source"}})
            metric = "walk-path-ratio" if kind == "walk" else "transfer-posterior-target"
            report.mean(row, metric, {f"random {k}": 0.5 + k / 20 for k in range(10)})
    report.write(folder, items)
    cells = []
    for number, (source, target) in enumerate((classes, classes[::-1])):
        before, *after = (
            write_wav(folder, "grid", f"{number}-{k}", tone(0.3, 24000, 300.0 + 100 * k, 0.3), 24000) for k in range(5)
        )
        steps = [{"audio": name, "posterior": 0.9 - 0.2 * k, "cents": 12.0 * k or None} for k, name in enumerate(after)]
        cells.append({"source": source, "target": target, "text": f"{source} A 4 → {target}", "audio": before,
                      "posterior": 0.1, "moved": {"requantised": steps[:2], EVIL: steps[2:]}})  # fmt: skip
    grid = {"label": "instrument", "classes": sorted(classes), "rows": ["requantised", EVIL],
            "amounts": [0.0, 1.0], "cells": cells}  # fmt: skip
    (folder / "grid.json").write_text(json.dumps(grid))
    return folder

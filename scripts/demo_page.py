"""Build the demo page: a static folder to listen to what an evaluation produced.

    python scripts/demo_page.py                                # the newest evaluation under runs/
    python scripts/demo_page.py runs/a/eval-tts runs/b/eval-tts --out runs/compare-page

The folder opens from disk (file://), needs no network and no server: one index.html, FLAC audio, PNG
spectrograms, and the evaluation's own results.json and items.jsonl. It is built beside its final place and
swapped in when complete.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import math
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from page_data import (
    ROW_TITLES,
    Clip,
    Evaluation,
    PageError,
    Sentence,
    direction,
    label,
    newest_evaluation,
    read_evaluation,
    show,
)
from page_media import (
    DB_HIGH,
    DB_LOW,
    Scale,
    active_level,
    common_scale,
    read_mono,
    save_picture,
    spectrogram_picture,
    write_flac,
)
from training.progress import progress

TEMPLATE = Path(__file__).resolve().parent / "page_template"
MARKER = ".demo-page"  # names a folder as ours, so that a rebuild may replace it


def build_page(folders: Sequence[Path], out: Path, title: str, sample_size: int = 8, seed: int = 0) -> Path:
    """Write the page for evaluation ``folders`` to the folder ``out`` and return the path of its index.html.

    ``sample_size`` sentences drawn by ``seed`` are shown first; best, worst and all are one click away.
    """
    evaluations = [read_evaluation(folder, sample_size, seed) for folder in folders]
    if out.exists() and not (out / MARKER).exists() and any(out.iterdir()):
        raise PageError(f"error: {out} exists and is not a demo page: choose another --out.")
    building = out.with_name(out.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    (building / "media").mkdir(parents=True)
    (building / MARKER).touch()
    scale = _scale(evaluations)
    sections = [_section(e, n, building, scale) for n, e in enumerate(evaluations, 1)]
    html = _render(title, sections, scale, sample_size, seed)
    (building / "index.html").write_text(html, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    building.rename(out)
    return out / "index.html"


def _scale(evaluations: list[Evaluation]) -> Scale:
    """One scale for all pictures of the page, from the files' headers."""
    import soundfile

    durations, rates = [], []
    for clip in _clips(evaluations):
        if clip.audio is None:
            continue
        try:
            info = soundfile.info(clip.audio)
        except soundfile.LibsndfileError as error:
            clip.problem, clip.audio = f"{clip.audio.name} cannot be read ({error})", None
            continue
        if info.frames == 0:
            clip.problem, clip.audio = f"{clip.audio.name} holds no sample", None
            continue
        durations.append(info.duration)
        rates.append(info.samplerate)
    return common_scale(durations, rates)


def _clips(evaluations: list[Evaluation]) -> list[Clip]:
    return [clip for e in evaluations for sentence in e.sentences for clip in sentence.clips]


def _section(evaluation: Evaluation, number: int, out: Path, scale: Scale) -> dict[str, Any]:
    """What the template needs for one evaluation; writes its media and copies its results."""
    results = out / f"results-{number}"
    results.mkdir()
    for name in ("results.json", "items.jsonl"):
        shutil.copyfile(evaluation.folder / name, results / name)
    sentences = [
        _sentence_view(sentence, f"{number}-{sentence.number:04d}", out, scale)
        for sentence in progress(evaluation.sentences, total=len(evaluation.sentences), desc="page")
    ]
    return {
        "number": number,
        "name": evaluation.name,
        "task": evaluation.task,
        "rows": [_row_view(row) for row in evaluation.rows],
        "recognisers": [(name, label(name)) for name in evaluation.recognisers],
        "table": _table(evaluation),
        "failures": _failures(evaluation),
        "how": list(_flatten(evaluation.how)),
        "results": results.name,
        "sentences": sentences,
        "sample": evaluation.sample,
    }


def _row_view(row: str) -> dict[str, str]:
    title, note = ROW_TITLES.get(row, (row, ""))
    return {"row": row, "title": title, "note": note}


def _sentence_view(sentence: Sentence, stem: str, out: Path, scale: Scale) -> dict[str, Any]:
    clips = []
    for clip in sentence.clips:
        view: dict[str, Any] = {
            **vars(clip),
            **_row_view(clip.row),
            "media": None,
            "level": None,
            "cut": None,
        }
        view["wer"] = [(name, label(name), value, show("wer", value)) for name, value in clip.wer.items()]
        view["heard"] = [(label(name), words) for name, words in clip.heard.items()]
        if clip.audio is not None:
            # Names are made from numbers, never from ids: an id may hold any character.
            view["media"] = f"media/{stem}-{re.sub(r'[^a-z0-9-]', '_', clip.row.lower())}"
            wav, rate = read_mono(clip.audio)
            write_flac(out / f"{view['media']}.flac", wav, rate)
            save_picture(spectrogram_picture(wav, rate, scale), out / f"{view['media']}.png")
            view["level"] = active_level(wav, rate)
            view["seconds"] = len(wav) / rate
            if view["seconds"] > scale.seconds + 0.01:
                view["cut"] = f"the picture shows the first {scale.seconds:g} s"
        clips.append(view)
    return {**vars(sentence), "clips": clips}


def _table(evaluation: Evaluation) -> dict[str, Any]:
    """The results table: one line per row, one column per metric; and the bars above it."""
    lines = []
    for row in evaluation.rows:
        cells = []
        for metric in evaluation.metrics:
            score = evaluation.table.get(row, {}).get(metric)
            cells.append(score and {**score, "text": show(metric, score.get("value")), "metric": metric})
        lines.append({**_row_view(row), "cells": cells})
    columns = [{"metric": m, "title": label(m), "arrow": direction(m)} for m in evaluation.metrics]
    return {"columns": columns, "lines": lines, "chart": _chart(evaluation)}


def _chart(evaluation: Evaluation) -> dict[str, Any] | None:
    """Positions (percent of the width) of value and interval for every WER metric and row."""
    metrics = [m for m in evaluation.metrics if "wer" in m.lower()]
    scores = {(m, r): evaluation.table.get(r, {}).get(m) for m in metrics for r in evaluation.rows}
    highest = max((s.get("high") or s.get("value") or 0 for s in scores.values() if s), default=0)
    if not highest:
        return None
    groups = []
    for metric in metrics:
        marks = []
        for row in evaluation.rows:
            score = scores[metric, row]
            if score and score.get("value") is not None:
                low, high = (
                    score.get(k) if score.get(k) is not None else score["value"] for k in ("low", "high")
                )
                place = {
                    k: 100 * v / highest for k, v in {"at": score["value"], "low": low, "high": high}.items()
                }
                marks.append({**_row_view(row), **place, "text": show(metric, score["value"])})
        groups.append({"title": label(metric), "marks": marks})
    return {"groups": groups}


def _failures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(row, metric, what failed) for every clip that a metric could not score."""
    found = []
    for row in evaluation.rows:
        for metric, score in evaluation.table.get(row, {}).items():
            for failure in score.get("failures") or []:
                what = (
                    ": ".join(str(v) for v in failure.values()) if isinstance(failure, dict) else str(failure)
                )
                found.append((_row_view(row)["title"], label(metric), what))
    return found


def _flatten(node: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A nested record as (dotted key, value) pairs."""
    if isinstance(node, dict):
        return [pair for key, value in node.items() for pair in _flatten(value, f"{prefix}{key}.")]
    if isinstance(node, list):
        return [(prefix.rstrip("."), ", ".join(str(value) for value in node))]
    return [(prefix.rstrip("."), str(node))]


def _render(title: str, sections: list[dict[str, Any]], scale: Scale, sample_size: int, seed: int) -> str:
    """Render the template. Style and script are inlined, and the page's Content-Security-Policy names their
    hashes, so that nothing else can run, whatever the data say."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style = environment.get_template("page.css").render(scale=scale).strip()
    script = (TEMPLATE / "page.js").read_text(encoding="utf-8").strip()
    data = [_script_data(section) for section in sections]
    return environment.get_template("page.html").render(
        title=title,
        sections=sections,
        data=data,
        scale=scale,
        sample_size=sample_size,
        seed=seed,
        show=show,
        db_low=f"{DB_LOW:g}",
        db_high=f"{DB_HIGH:g}",
        built=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(style),
        script=Markup(script),
        style_hash=_content_hash(style),
        script_hash=_content_hash(script),
    )


def _script_data(section: dict[str, Any]) -> dict[str, Any]:
    """What the page's script sorts and filters by."""
    return {
        "sample": section["sample"],
        "sentences": [
            {
                "number": s["number"],
                "rank": s["rank"] if math.isfinite(s["rank"]) else None,
                "text": f"{s['text']} {s['speaker']} {s['id']}".lower(),
                "levels": {c["row"]: c["level"] for c in s["clips"] if c["level"] is not None},
            }
            for s in section["sentences"]
        ],
    }


def _content_hash(text: str) -> str:
    """A Content-Security-Policy source: ``sha256-…`` of an inline element's text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def console_table(folder: Path) -> str:
    """The results as text: one line per row; value, interval and number of clips per metric."""
    results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    metrics = list(dict.fromkeys(m for scores in results["rows"].values() for m in scores))
    head = ["", *(f"{label(m)} {direction(m)}".strip() for m in metrics)]
    lines = [head]
    for row, scores in results["rows"].items():
        cells = [_console_cell(m, scores.get(m)) for m in metrics]
        lines.append([_row_view(row)["title"], *cells])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _console_cell(metric: str, score: dict[str, Any] | None) -> str:
    if not score:
        return "–"
    text = show(metric, score.get("value"))
    if score.get("low") is not None:
        text += f" [{show(metric, score['low'])}, {show(metric, score.get('high'))}]"
    return text + f" N={score.get('n')}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "folders", nargs="*", type=Path, help="evaluation folders (default: the newest in runs/)"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), help="where the newest evaluation is looked for"
    )
    parser.add_argument("--out", type=Path, default=Path("runs/demo-page"), help="the folder to write")
    parser.add_argument("--title", default="Listen to the tokens", help="the page's heading")
    parser.add_argument(
        "--sample", type=int, default=8, help="how many sentences best, worst and random show"
    )
    parser.add_argument("--seed", type=int, default=0, help="draws the random sentences")
    options = parser.parse_args(arguments)
    try:
        folders = options.folders or [newest_evaluation(options.runs)]
        index = build_page(folders, options.out, options.title, options.sample, options.seed)
    except PageError as error:
        print(error, file=sys.stderr)
        raise SystemExit(1) from None
    for folder in folders:
        print(f"\n{folder}\n{console_table(folder)}")
    print(f"\nThe page: {index.resolve().as_uri()}")


if __name__ == "__main__":
    main()

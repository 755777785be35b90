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

from eval.report import show as show_cell
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
MARKER = ".demo-page"  # names a folder as ours, which a rebuild may replace; holds what it was built from


def build_page(folders: Sequence[Path], out: Path, title: str, sample_size: int = 8, seed: int = 0) -> Path:
    """Write the page for evaluation ``folders`` to the folder ``out`` and return the path of its index.html.

    ``sample_size`` sentences drawn by ``seed`` are shown first; best, worst and all are one click away. A
    page that was built from the same evaluations with the same options is left as it is.
    """
    inputs = _inputs(folders, title, sample_size, seed)
    if (out / MARKER).exists() and (out / MARKER).read_text(encoding="utf-8") == inputs:
        return out / "index.html"
    evaluations = [read_evaluation(folder, sample_size, seed) for folder in folders]
    if out.exists() and not (out / MARKER).exists() and any(out.iterdir()):
        raise PageError(f"error: {out} exists and is not a demo page: choose another --out.")
    building = out.with_name(out.name + ".building")
    shutil.rmtree(building, ignore_errors=True)
    (building / "media").mkdir(parents=True)
    scale = _scale(evaluations)
    sections = [_section(e, n, building, scale) for n, e in enumerate(evaluations, 1)]
    html = _render(title, sections, scale, sample_size, seed)
    (building / "index.html").write_text(html, encoding="utf-8")
    (building / MARKER).write_text(inputs, encoding="utf-8")
    shutil.rmtree(out, ignore_errors=True)
    building.rename(out)
    return out / "index.html"


def _inputs(folders: Sequence[Path], *options: object) -> str:
    """A digest of what a page is made from. Audio is not read: eval scripts write the two files after it."""
    digest = hashlib.sha256(repr(options).encode())
    code = [*sorted(TEMPLATE.parent.glob("*page*.py")), *sorted(TEMPLATE.iterdir())]
    for path in [*code, *(folder / name for folder in folders for name in ("results.json", "items.jsonl"))]:
        digest.update(f"{path.resolve()}\n".encode())
        if path.is_file():  # what is missing is reported when it is read
            digest.update(f"{path.stat().st_mtime_ns}\n".encode() + path.read_bytes())
    return digest.hexdigest()


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
    """The results table: one line per metric, one column per row, and the paired differences."""
    pairs = list(dict.fromkeys((d["row"], d["against"]) for d in evaluation.differences))
    noted = {(d["metric"], d["row"], d["against"]): d for d in evaluation.differences}
    lines = []
    for metric in evaluation.metrics:
        scores = [evaluation.table.get(row, {}).get(metric) for row in evaluation.rows]
        found = [noted.get((metric, *pair)) for pair in pairs]
        cells = [_cell(metric, score) for score in scores]
        lines.append({
            "title": label(metric),
            "arrow": direction(metric),
            "cells": cells,
            "differences": [_cell(metric, score, sign=True) for score in found],
        })  # fmt: skip
    titles = [f"{_row_view(row)['title']} − {_row_view(against)['title'].lower()}" for row, against in pairs]
    return {"pairs": titles, "lines": lines, "chart": _chart(evaluation)}


def _cell(metric: str, score: dict[str, Any] | None, sign: bool = False) -> dict[str, Any] | None:
    if score is None:
        return None
    text, low, high = (show(metric, score.get(key)) for key in ("value", "low", "high"))
    plus = "+" if sign and (score.get("value") or 0) > 0 else ""
    interval = f"[{low}, {high}]" if score.get("low") is not None else ""
    return {"text": plus + text, "interval": interval, "n": score["n"], "failed": score.get("n_failed", 0)}


def _chart(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Positions (percent of the width) of value and interval for every word error rate and row."""
    metrics = [m for m in evaluation.metrics if m.startswith("wer/")]
    scores = {(m, r): evaluation.table.get(r, {}).get(m) for m in metrics for r in evaluation.rows}
    highest = max((s.get("high") or s.get("value") or 0 for s in scores.values() if s), default=0)
    if not highest:
        return []
    groups = []
    for metric in metrics:
        marks = []
        for row in evaluation.rows:
            score = scores[metric, row]
            if score and score.get("value") is not None:
                low, high = (score["value"] if score.get(k) is None else score[k] for k in ("low", "high"))
                place = {"at": score["value"], "low": low, "high": high}
                place = {key: f"{100 * value / highest:.2f}" for key, value in place.items()}
                marks.append({**_row_view(row), **place, "text": show(metric, score["value"])})
        groups.append({"title": label(metric), "marks": marks})
    return groups


def _failures(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(row, metric, reason and clips) for every reason why a metric could not score clips."""
    return [
        (
            _row_view(row)["title"],
            label(metric),
            f"{failure['reason']} ({', '.join(map(str, failure['ids']))})",
        )
        for row in evaluation.rows
        for metric, score in evaluation.table.get(row, {}).items()
        for failure in score.get("failures") or []
    ]


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
    """The results as text: a line per metric, a column per row."""
    rows: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    most = max((s["n"] + s["n_failed"] for scores in rows.values() for s in scores.values()), default=0)
    metrics = dict.fromkeys(metric for scores in rows.values() for metric in scores)
    lines = [["", *rows], *([m, *(show_cell(m, rows[row].get(m), most) for row in rows)] for m in metrics)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    padded = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*padded, f"N = {most} clips; [95 % interval over clips]"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="evaluation folders (default: the newest in runs/)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the newest evaluation is looked for")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-page"), help="the folder to write")
    parser.add_argument("--title", default="Listen to the tokens", help="the page's heading")
    parser.add_argument("--sample", type=int, default=8, help="how many sentences best, worst and random show")
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

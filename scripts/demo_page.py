"""Build the demo page: a static folder to listen to what evaluations produced.

    python scripts/demo_page.py                                # of each kind, the newest evaluation under runs/
    python scripts/demo_page.py runs=[runs/a/eval-tts,runs/b/eval-tts] out=runs/compare-page

One section per kind (reconstruction of speech, sound and music, text to speech, to sound and to music, transcripts,
captions); several evaluations of one kind stand side by side. The folder opens from disk (file://), needs no network
and no server: one index.html, listening copies, spectrograms, and the evaluations' own results.json and items.jsonl.
It is built beside its final place and put there when it is complete.
"""

from __future__ import annotations

import training.help  # noqa: F401

import base64
import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from markupsafe import Markup
from omegaconf import DictConfig

from eval.harness.pages import render
from eval.harness.report import console_table
from listening_test import write_listening_test
from page.data import newest_evaluations, read_evaluation
from page.front import Front, read_front
from page.sections import VIEWS, Section, make_sections
from page.view import section_view
from training.checkpoint import save_folder
from training.config import ConfigError, hydra_entry
from training.lock import hold

TEMPLATE = Path(__file__).resolve().parent / "page/template"
MARKER = ".demo-page"  # names a folder as ours, which a rebuild may replace; holds what it was built from
FORMATS = ("auto", "flac", "mp3")
# what is copied of a comparison; a sweep's folder also holds weights and token shards
SUFFIXES = "html svg png webp jpg css js json jsonl csv md tex yaml txt"
SMALL = tuple(f".{suffix}" for suffix in SUFFIXES.split())


@dataclass(frozen=True)
class Options:
    """What a page is made with; the keys of configs/demo_page.yaml."""

    title: str = "Listen to the tokens"
    show: tuple[str, ...] = ("random", "best", "worst")
    count: int = 8
    seed: int = 0
    rank: str | None = None
    loudness: float = -20.0
    format: str = "auto"
    size_limit: float = 50.0
    comparison: Path | None = None
    front: Front = Front()

    def __post_init__(self) -> None:
        if not self.show or any(view not in VIEWS for view in self.show):
            raise ConfigError(f"show: name at least one of {', '.join(VIEWS)}, and nothing else.")
        if self.format not in FORMATS:
            raise ConfigError(f"format: there is no '{self.format}'; choose from {', '.join(FORMATS)}.")
        if self.comparison is not None:
            comparison_page(self.comparison)


def read_sections(folders: Sequence[Path], options: Options) -> list[Section]:
    """The sections that evaluation ``folders`` give."""
    evaluations = [read_evaluation(folder) for folder in folders]
    return make_sections(evaluations, options.show, options.count, options.seed, options.rank)


def build_page(
    folders: Sequence[Path], out: Path, options: Options | None = None, read: Callable[[], list[Section]] | None = None
) -> Path:
    """Write the page for evaluation ``folders`` to the folder ``out`` and return the path of its index.html.

    A page that was built from the same evaluations with the same options is left as it is.

    Args:
        read: gives their sections (`read_sections`), for who needs them as well.
    """
    options = options or Options()
    inputs = _inputs(folders, options)
    if (out / MARKER).exists() and (out / MARKER).read_text(encoding="utf-8") == inputs:
        return out / "index.html"
    sections = read() if read else read_sections(folders, options)
    if out.exists() and not (out / MARKER).exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} exists and is not a demo page: choose another out.")

    def write(folder: Path) -> None:
        for form in ("flac", "mp3") if options.format == "auto" else (options.format,):
            size = _write(sections, folder, options, form)
            if size <= options.size_limit * 1e6:
                (folder / MARKER).write_text(inputs, encoding="utf-8")
                return
        found = f"error: the page has {size / 1e6:.1f} MB, more than size_limit={options.size_limit:g}"
        raise ConfigError(f"{found}: {'' if form == 'mp3' else 'take format=mp3, '}lower count or raise size_limit.")

    save_folder(out, write)
    return out / "index.html"


def page_size(folder: Path) -> int:
    """Bytes of all files below ``folder``."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _write(sections: list[Section], folder: Path, options: Options, form: str) -> int:
    """Fill ``folder`` with a page with copies in the format ``form``; returns its size in bytes."""
    shutil.rmtree(folder)
    folder.mkdir()
    comparison = copy_comparison(options.comparison, folder / "comparison") if options.comparison else None
    figure = ""
    if options.front.figure:
        figure = f"figure{options.front.figure.suffix}"
        shutil.copyfile(options.front.figure, folder / figure)
    views = [section_view(section, folder, options.loudness, form) for section in sections]
    html, files = "", page_size(folder)
    for _ in range(2):  # the page states its size, which includes its own
        size = files + len(html.encode())
        html = _render(options, figure, views, form, size, comparison.name if comparison else "")
    (folder / "index.html").write_text(html, encoding="utf-8")
    return page_size(folder)


def _inputs(folders: Sequence[Path], options: Options) -> str:
    """A digest of what a page is made from. Audio is not read: evaluations write when they finished after it."""
    digest = hashlib.sha256(repr(options).encode())
    code = [Path(__file__), *sorted(TEMPLATE.parent.glob("*.py")), *sorted(TEMPLATE.iterdir())]
    made = [
        folder / name
        for folder in folders
        for name in ("results.json", "items.jsonl", "clips.json", "points.json", "grid.json")
    ]
    if options.comparison:
        made.append(comparison_page(options.comparison))
    if options.front.figure:
        made.append(options.front.figure)
    for path in [*code, *made]:
        digest.update(f"{path.resolve()}\n".encode())
        if path.is_file():  # what is missing is reported when it is read
            digest.update(path.read_bytes())
    return digest.hexdigest()


class _Links(HTMLParser):
    """The src and href attributes of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if name in ("src", "href") and value]


def comparison_page(folder: Path) -> Path:
    """The page of a comparison: ``comparison.html``, or ``index.html`` beside ``comparison.json``."""
    if (folder / "comparison.html").is_file():
        return folder / "comparison.html"
    if (folder / "index.html").is_file() and (folder / "comparison.json").is_file():
        return folder / "index.html"
    raise ConfigError(f"compared: {folder} has no comparison.html, and no index.html beside a comparison.json.")


def copy_comparison(folder: Path, out: Path) -> Path:
    """Copy the page of a comparison and the tables, texts and pictures of its folder that it refers to; links that lead
    out are left alone."""
    page = comparison_page(folder)
    out.mkdir(parents=True)
    for link in [page.name, *_Links(page.read_text(encoding="utf-8", errors="replace")).found]:
        parts = urlsplit(link)
        source = (folder / unquote(parts.path)).resolve()
        inside = source.is_relative_to(folder.resolve()) and source.is_file() and source.suffix.lower() in SMALL
        if parts.scheme or parts.netloc or not inside:
            continue
        target = out / source.relative_to(folder.resolve())
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return out / page.name


def _render(
    options: Options, figure: str, sections: list[dict[str, Any]], form: str, size: int, comparison: str
) -> str:
    """Render the template. Style and script are inlined, and the page's Content-Security-Policy names their
    hashes, so that nothing else can run, whatever the data say."""
    style, script = (
        "\n".join((TEMPLATE / name).read_text(encoding="utf-8").strip() for name in names)
        for names in (("page.css", "items.css", "space.css"), ("page.js", "space.js"))
    )
    return render(
        TEMPLATE / "page.html",
        title=options.front.title or options.title,
        front=options.front,
        figure=figure,
        sections=sections,
        data=[section["data"] for section in sections],
        seed=options.seed,
        loudness=f"{options.loudness:g}".replace("-", "−"),
        form=form,
        size=f"{size / 1e6:.1f} MB",
        comparison=comparison,
        built=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        style=Markup(style),
        script=Markup(script),
        style_hash=_content_hash(style),
        script_hash=_content_hash(script),
    )


def _content_hash(text: str) -> str:
    """A Content-Security-Policy source: ``sha256-…`` of an inline element's text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode()


def results_table(folder: Path) -> str:
    """The results as text: a line per metric, a column per row."""
    rows: dict[str, Any] = json.loads((folder / "results.json").read_text(encoding="utf-8"))["rows"]
    # what has an interval is of clips; other numbers may count frames
    scored = [s for scores in rows.values() for s in scores.values() if s.get("low") is not None]
    return console_table(rows, None, max((s["n"] + s["n_failed"] for s in scored), default=0))


@hydra_entry("demo_page")
def main(cfg: DictConfig) -> None:
    options = Options(
        str(cfg.title), tuple(cfg.show), int(cfg.count), int(cfg.seed), cfg.rank, float(cfg.loudness),
        str(cfg.format), float(cfg.size_limit), Path(cfg.compared) if cfg.compared else None,
        read_front(Path(cfg.front)) if cfg.front else Front(),
    )  # fmt: skip
    folders = [Path(folder) for folder in cfg.runs] or newest_evaluations(Path("runs"))
    out = Path(cfg.out)
    if cfg.webmushra:
        hold(cfg.webmushra, "webmushra", replaced=True)
    hold(out, "out", replaced=True)
    read = cache(lambda: read_sections(folders, options))  # once for the page and the test
    index = build_page(folders, out, options, read)
    for folder in folders:
        print(f"\n{folder}\n{results_table(folder)}")
    if cfg.webmushra:
        written = write_listening_test(read(), Path(cfg.webmushra), options.title)
        print(f"\nListening test for webMUSHRA: {', '.join(map(str, written))}")
    print(f"\n{page_size(out) / 1e6:.1f} MB in {out}\nThe page: {index.resolve().as_uri()}")


if __name__ == "__main__":
    main()

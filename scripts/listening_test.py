"""Exports a listening test for webMUSHRA (github.com/audiolabs/webMUSHRA, doc/experimenter.md) from sections.

The folder mirrors webMUSHRA's own: copy its ``configs/`` over that of webMUSHRA, and open ``?config=<name>.yaml``.

- Reconstruction gives ``mushra`` pages (ITU-R BS.1534): the recording as the open and the hidden reference, every
  system that is no control, and the recording low-passed at 3.5 kHz as the anchor.
- Speech, sounds and music that a model made have no reference that they should be equal to: ``likert_multi_stimulus``
  pages ask for the five grades of ITU-T P.800, and the recording is one stimulus among the others.

webMUSHRA wants equal rates and lengths on a page, so all files are 48 kHz, 16 bit, mono, padded with silence to the
longest of their page, and MUSHRA's are cut after the 12 s that it allows. All clips of a page are equally loud.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.signal import fftconvolve, firwin

from codec.audio.files import write_audio
from eval.harness.audio import resample
from page.data import Item
from page.loudness import equally_loud
from page.media import read_mono
from page.sections import Section, System
from training.checkpoint import save_folder
from training.config import ConfigError

RATE = 48_000
LONGEST = 12.0  # s, what webMUSHRA accepts on a mushra page
MOST = 12  # conditions on a page, likewise
FADE = 0.02  # s, where a clip is cut
LOUDNESS = -23.0  # LUFS, of all clips, or as much lower as the sharpest peak of the page needs
VIEW = "random"  # whose items are used, lest the test be about chosen ones
ANCHOR = "anchor35"
MARKER = ".listening-test"
GRADES = ((5, "excellent"), (4, "good"), (3, "fair"), (2, "poor"), (1, "bad"))


def write_listening_test(sections: Sequence[Section], folder: Path, title: str) -> list[Path]:
    """Write a configuration for every section that has something to hear, and return their paths."""
    if folder.exists() and not (folder / MARKER).exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"webmushra: {folder} exists and is not a listening test: choose another folder.")
    names: list[str] = []
    save_folder(folder, lambda building: names.extend(_fill(sections, building, title)))
    return [folder / "configs" / name for name in names]


def _fill(sections: Sequence[Section], folder: Path, title: str) -> list[str]:
    """Fill ``folder``; the names of the configurations."""
    (folder / MARKER).touch()
    written = []
    for section in sections:
        pages = [] if section.kind.writes else _pages(section, folder)
        if not pages:
            continue
        name = f"almkit-{section.key}"
        config = {
            "testname": f"{' '.join(title.split())}: {section.kind.title}",
            "testId": name,
            "bufferSize": 2048,
            "stopOnErrors": True,
            "showButtonPreviousPage": True,
            "remoteService": "service/write.php",
            "pages": [
                {"type": "generic", "id": "welcome", "name": section.kind.title, "content": _welcome(section)},
                {"type": "volume", "id": "volume", "name": "Volume", "content": "Set a comfortable volume. Leave it as "
                 "it is from here on.", "stimulus": _first_stimulus(pages), "defaultVolume": 0.5},
                ["random", *pages],
                {"type": "finish", "name": "Thank you", "content": "Thank you for listening.", "showResults": False,
                 "writeResults": True},
            ],
        }  # fmt: skip
        path = folder / "configs" / f"{name}.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text("\n".join(_yaml(config)) + "\n", encoding="utf-8")
        written.append(path.name)
    if not written:
        raise ConfigError("webmushra: no section has recordings and systems to compare.")
    return written


def _pages(section: Section, folder: Path) -> list[dict[str, Any]]:
    """One page per item that the reference and at least one system have audio of."""
    chosen = set(section.views.get(VIEW) or [item.id for item in section.items])
    names = _names(section.systems)
    pages = []
    for number, item in enumerate((item for item in section.items if item.id in chosen), 1):
        found = {}
        for system in section.systems:
            clip = system.clip(item.id)
            if clip is not None and clip.audio is not None and not system.control:
                found[names[system.key]] = read_mono(clip.audio)
        systems = [name for name in found if name != "reference"]
        if "reference" not in found or not systems:
            continue
        if len(systems) + 1 > MOST:
            raise ConfigError(f"webmushra: a page holds at most {MOST - 1} systems, not {len(systems)}.")
        place = f"configs/resources/{section.key}/{number:03d}"
        files = _write(found, folder / place, section.kind.name == "reconstruction")
        paths = {name: f"{place}/{path.name}" for name, path in files.items()}
        pages.append(_page(section, item, number, paths))
    return pages


def _page(section: Section, item: Item, number: int, paths: dict[str, str]) -> dict[str, Any]:
    head = {"id": f"{section.key}-{number:03d}", "name": f"{section.kind.title}, {number}"}
    # content is HTML; as ASCII, because webMUSHRA's parser reads \u escapes wrongly
    safe = html.escape(item.text).encode("ascii", "xmlcharrefreplace").decode()
    text = f"<p>{safe}</p>" if item.text else ""
    if section.kind.name == "reconstruction":
        return {
            "type": "mushra", **head, "content": f"How much does each differ from the reference?{text}",
            "showWaveform": True, "enableLooping": True, "randomize": True, "showConditionNames": False,
            "reference": paths.pop("reference"), "createAnchor35": False, "createAnchor70": False, "stimuli": paths,
        }  # fmt: skip
    return {
        "type": "likert_multi_stimulus", **head, "content": f"How good does each sound?{text}", "mustRate": True,
        "mustPlayback": "ended", "stimuli": paths,
        "response": [{"value": value, "label": label} for value, label in GRADES],
    }  # fmt: skip


def _write(clips: dict[str, tuple[np.ndarray, int]], folder: Path, mushra: bool) -> dict[str, Path]:
    """Write the clips of one page at one rate, length and loudness, with the anchor on a MUSHRA page."""
    waves = {name: resample(np.nan_to_num(wav), rate, RATE) for name, (wav, rate) in clips.items()}
    if mushra:
        waves[ANCHOR] = low_pass(waves["reference"])
    size = max(map(len, waves.values()))
    if mushra:
        size = min(size, round(LONGEST * RATE))
    copies = equally_loud({name: (wav, RATE) for name, wav in waves.items()}, LOUDNESS)
    folder.mkdir(parents=True)
    files = {}
    for name, copy in copies.items():
        wav, out = copy.wav, np.zeros(size, np.float32)
        out[: min(size, len(wav))] = wav[:size]
        if len(wav) > size:
            ramp = round(FADE * RATE)
            out[-ramp:] *= np.linspace(1, 0, ramp, dtype=np.float32)
        files[name] = folder / f"{name}.wav"
        write_audio(files[name], out, RATE)
    return files


def low_pass(wav: np.ndarray) -> np.ndarray:
    """The 3.5 kHz anchor of ITU-R BS.1534-3: ripple at most 0.1 dB up to 3.5 kHz, at least 25 dB down at 4 kHz and
    50 dB at 4.5 kHz. Linear phase, without delay; ``wav [samples]`` keeps its length."""
    taps = firwin(round(RATE / 75) | 1, 3790.0, window=("kaiser", 5.5), fs=RATE)
    return fftconvolve(wav.astype(np.float64), taps, mode="same").astype(np.float32)


def _names(systems: Sequence[System]) -> dict[str, str]:
    """``{key: name}``: short, unlike, and of letters that mean nothing in HTML, YAML or a path."""
    names: dict[str, str] = {}
    for system in systems:
        base = system.row if system.row == "reference" else "-".join([system.row, system.sources[0].name])
        name = re.sub(r"[^A-Za-z0-9]+", "-", base).strip("-") or "system"
        while name in names.values() or name == ANCHOR:
            name += "-2"
        names[system.key] = name
    return names


def _yaml(node: Any, indent: int = 0) -> list[str]:
    """``node`` as lines of plain YAML. webMUSHRA reads it with a parser that takes a list in a list (``- - a``) for
    text, so each entry stands on lines of its own, and every string is quoted, on one line."""
    space = " " * indent
    if isinstance(node, dict):
        pairs = [(f"{space}{key}:", value) for key, value in node.items()]
    else:
        pairs = [(f"{space}-", value) for value in node]
    lines: list[str] = []
    for head, value in pairs:
        if isinstance(value, (dict, list)):
            lines += [head, *_yaml(value, indent + 4)]
        else:
            lines.append(f"{head} {json.dumps(value, ensure_ascii=False)}")
    return lines


def _first_stimulus(pages: list[dict[str, Any]]) -> str:
    first = pages[0]
    return str(first.get("reference") or next(iter(first["stimuli"].values())))


def _welcome(section: Section) -> str:
    if section.kind.name == "reconstruction":
        return (
            "Please use headphones in a quiet room. On each page compare the clips with the reference: 100 means that "
            "you hear no difference. One of the clips is the reference itself."
        )
    return "Please use headphones in a quiet room. On each page listen to all clips to their end and grade each."

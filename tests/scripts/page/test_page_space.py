"""The map of recordings, walks and moved sounds: what the page shows, and a map in a browser by mouse and key."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import page_fixtures as made
import pytest
from headless_chromium import Browser, find_chromium
from transformers.audio_utils import hertz_to_mel

from demo_page import Options, build_page, read_sections
from page.media import Scale
from page.space import pitch_line
from training.config import ConfigError

POINTS = "[...document.querySelectorAll('.map:not([hidden]) .point')]"


def test_walks_and_transfers_are_sections_with_rows_of_their_own(tmp_path: Path) -> None:
    walk, transfer = read_sections([made.sound_space(tmp_path / "run" / "eval-sound_space")], Options(show=("all",)))
    assert [system.row for system in walk.systems] == ["continuous", "requantised", "cross-fade", "encodec"]
    assert [system.row for system in transfer.systems] == [
        "reference",
        "continuous",
        "requantised",
        "unmoved",
        "encodec",
        "random",
    ]
    empty = walk.systems[-1]
    assert empty.title == "EnCodec" and "empty without its weights" in empty.note and empty.clip("walk one") is None
    score = walk.score(walk.systems[1], "walk-path-ratio")
    assert score["n"] == 10 and score["low"] is not None, "over all walks, not those shown"
    clip = transfer.systems[2].clip("transfer one")
    assert clip.notes == ["pitch-cents: no pitch in the source"]


def test_what_is_not_heard_is_scored_all_the_same(tmp_path: Path) -> None:
    (section,) = read_sections([made.latents(tmp_path / "run" / "eval-latents")], Options(show=("all",)))
    assert [(s.row, s.control) for s in section.systems][-1] == ("log-mel", True)
    assert section.headline() == ["accuracy/instrument", "accuracy-shuffled/instrument"]


WRONG = {
    "no maps": lambda space: space.update(maps=[]),
    "fewer points": lambda space: space["maps"][0]["points"].pop(),
    "NaN": lambda space: space["maps"][0]["points"].__setitem__(0, [0, float("nan")]),
    "text for a number": lambda space: space["maps"][0]["points"].__setitem__(0, ["0", 0]),
    "another label": lambda space: space["recordings"][0]["labels"].update(key="C"),
    "a list": lambda space: space.update(recordings=[[]]),
}


def spoil(path: Path, change: Callable[[dict], object]) -> None:
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))


@pytest.mark.parametrize("what", WRONG)
def test_points_of_the_wrong_kind_are_one_sentence(what: str, tmp_path: Path) -> None:
    folder = made.latents(tmp_path / "run" / "eval-latents")
    spoil(folder / "points.json", WRONG[what])
    with pytest.raises(ConfigError, match="points.json is not what eval/latents.py writes"):
        read_sections([folder], Options())


NO_GRID = "is not what eval/sound_space.py writes"
WRONG_GRID = {
    "no cells": (lambda grid: grid.pop("cells"), NO_GRID),
    "another class": (lambda grid: grid["cells"][0].update(target="oboe"), NO_GRID),
    "an amount less": (lambda grid: grid["cells"][0]["moved"][made.EVIL].pop(), NO_GRID),
    "text for a number": (lambda grid: grid["cells"][1].update(posterior="1"), NO_GRID),
    "infinite": (lambda grid: grid["cells"][1]["moved"][made.EVIL][0].update(cents=float("inf")), NO_GRID),
    "no amounts": (
        lambda grid: grid.update(amounts=[], cells=[c | {"moved": {r: [] for r in c["moved"]}} for c in grid["cells"]]),
        NO_GRID,
    ),
    "outside": (lambda grid: grid["cells"][0].update(audio="../../x.wav"), "names '../../x.wav', which is no file of"),
    "absent": (lambda grid: grid["cells"][0].update(audio="x.wav"), "names 'x.wav', which is no file of its folder"),
}


@pytest.mark.parametrize("what", WRONG_GRID)
def test_a_grid_of_the_wrong_kind_is_one_sentence(what: str, tmp_path: Path) -> None:
    change, reason = WRONG_GRID[what]
    folder = made.sound_space(tmp_path / "run" / "eval-sound_space")
    spoil(folder / "grid.json", change)
    with pytest.raises(ConfigError, match=f"grid.json {re.escape(reason)}"):
        read_sections([folder], Options())


@pytest.mark.parametrize(("kind", "name"), [("latents", "reference/clip0"), ("sound_space", "grid/0-1")])
def test_a_sound_of_a_picture_that_cannot_be_read_is_one_sentence(kind: str, name: str, tmp_path: Path) -> None:
    folder = getattr(made, kind)(tmp_path / "run" / f"eval-{kind}")
    (folder / f"wavs/{name}.wav").write_bytes(b"no sound")
    with pytest.raises(ConfigError, match=f"{Path(name).name}.wav cannot be read .*; run the evaluation again"):
        build_page([folder], tmp_path / "page", Options())


def test_holds_of_the_wrong_kind_are_one_sentence(tmp_path: Path) -> None:
    folder = made.sound_space(tmp_path / "run" / "eval-sound_space")
    text = (folder / "items.jsonl").read_text()
    (folder / "items.jsonl").write_text(text.replace("[0.8, 1.0]", '[0.8, "1"]', 1))
    with pytest.raises(ConfigError, match="line 1: holds must be pairs of numbers"):
        read_sections([folder], Options())


def test_pitch_is_drawn_at_its_height_in_the_picture() -> None:
    """A tone, and an octave above it: two lines, at the heights of 440 and 880 Hz; noise has none."""
    scale = Scale(1.0, 12_000.0)
    two = np.concatenate([made.tone(0.5, 24_000, hertz, 0.3) for hertz in (440.0, 880.0)])
    lines = [line.split("L") for line in pitch_line(two, 24_000, scale).split("M") if line]
    heights = [float(line[len(line) // 2].split()[1]) for line in lines if len(line) > 20]
    ticks = [144 * (1 - hertz_to_mel(hertz) / hertz_to_mel(12_000.0)) for hertz in (440.0, 880.0)]
    assert heights == pytest.approx(ticks, abs=0.7)
    noise = np.random.default_rng(0).standard_normal(24_000).astype(np.float32)
    assert len(pitch_line(noise, 24_000, scale)) < 200 and pitch_line(noise[:9], 24_000, scale) == ""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("work") / "runs"
    folders = [
        made.latents(runs / "one" / "eval-latents", ("flute", made.EVIL)),
        made.sound_space(runs / "one" / "eval-sound_space", ("flute", made.EVIL)),
    ]
    return build_page(folders, runs.parent / "page", Options(title="A page"))


@pytest.mark.slow
@pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here (CHROMIUM=path names one)")
@pytest.mark.parametrize("width", [1280, 420])
def test_a_point_plays_by_mouse_and_by_key(browser: Browser, index: Path, width: int) -> None:
    browser.messages.clear()
    browser.requests.clear()
    browser.emulate(width, 900, dark=width == 420)
    browser.open(index)
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert (
        browser.js(f"{POINTS}.length") == 6 and browser.js(f"{POINTS}.filter((p) => p.matches('.silent')).length") == 2
    )
    assert browser.js("document.title") == "A page", "labels are text"
    ringing, status = "document.querySelectorAll('.ringing').length", "document.querySelector('.heard-now').textContent"
    browser.click(".map:not([hidden]) .point[role]")
    browser.wait(f"{ringing} === 1 && {status}.endsWith('the recording')")
    browser.wait(f"{status}.endsWith('its codes')")
    browser.wait(f"{ringing} === 0")
    browser.press("ArrowRight")
    browser.wait(f"{ringing} === 1 && document.activeElement === document.querySelector('.ringing')")
    assert browser.js(f"document.activeElement === {POINTS}[0]") is False
    browser.press("Enter")
    browser.wait(f"{status}.endsWith('the recording')")
    browser.click("[data-view-of-map='1']")
    assert browser.js(ringing) == 0
    assert "LDA does not show" in browser.js("document.querySelector('.map:not([hidden])').textContent")
    before = browser.js(f"{POINTS}.map((p) => p.querySelector('path').getAttribute('d'))")
    by = "document.querySelector('.by')"
    browser.js(f"{by}.value = '1', {by}.dispatchEvent(new Event('change'))")
    after = browser.js(f"{POINTS}.map((p) => p.querySelector('path').getAttribute('d'))")
    assert len(set(before)) == 2 and len(set(after)) == 3, "shapes follow the label, not colours alone"
    # the grid: before and after by mouse and key; what is shown and played follows vectors and amount
    told = "document.querySelector('[data-grid] .heard-now').textContent"
    shown, first = (
        "document.querySelectorAll('.move:not([hidden])').length",
        "document.querySelector('.move:not([hidden])')",
    )
    assert browser.js(shown) == 2 and browser.js(f"{first}.querySelector('b').textContent") == "70 %"
    browser.click(".move:not([hidden])")
    browser.wait(f"{told}.endsWith('before')")
    browser.wait(f"{told}.endsWith('after')")
    browser.wait(f"{ringing} === 0")
    browser.press("ArrowDown")
    browser.wait(f"{ringing} === 1 && {told}.endsWith('before') && document.activeElement.dataset.y === '1'")
    browser.click("[data-vectors='1']")
    browser.click("[data-amount='0']")
    assert browser.js(shown) == 2 and browser.js(ringing) == 0
    assert browser.js(f"{first}.querySelector('b').textContent") == "50 %"
    # walks: names at the way-points, a pitch, and a cursor over them that moves
    walk = "document.querySelector('#sound-space-walk"
    assert browser.js(f"{walk} .items').querySelectorAll('.holds rect').length") == 6
    assert browser.js(f"{walk} .holds').textContent") == "flutecello"
    assert browser.js(f"{walk} .pitch path').getAttribute('d').length") > 200
    browser.click("#sound-space-walk .switch")
    browser.wait(f"parseFloat({walk} .head').style.left) > 10")
    inside = index.parent.resolve().as_uri() + "/"
    assert [url for url in browser.requests if not url.startswith((inside, "data:"))] == [] and browser.messages == []

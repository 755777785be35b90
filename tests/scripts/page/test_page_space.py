"""The map of recordings, walks and moved sounds: what the page shows, and a map in a browser by mouse and key."""

import json
from pathlib import Path

import page_fixtures as made
import pytest
from headless_chromium import Browser, find_chromium

from demo_page import Options, build_page, read_sections
from page.data import PageError

POINTS = "[...document.querySelectorAll('.map:not([hidden]) .point')]"


def test_walks_and_transfers_are_sections_with_rows_of_their_own(tmp_path: Path) -> None:
    walk, transfer = read_sections([made.sound_space(tmp_path / "run" / "eval-sound_space")], Options(show=("all",)))
    assert [system.row for system in walk.systems] == ["continuous", "requantised", "cross-fade"]
    assert [system.row for system in transfer.systems] == [
        "reference",
        "continuous",
        "requantised",
        "unmoved",
        "random",
    ]
    score = walk.score(walk.systems[1], "walk-path-ratio")
    assert score is not None and score["n"] == 10 and score["low"] is not None, "over all walks, not those shown"
    clip = transfer.systems[2].clip("transfer one")
    assert clip is not None and clip.notes == ["pitch-cents: no pitch in the source"]


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


@pytest.mark.parametrize("what", WRONG)
def test_points_of_the_wrong_kind_are_one_sentence(what: str, tmp_path: Path) -> None:
    folder = made.latents(tmp_path / "run" / "eval-latents")
    space = json.loads((folder / "points.json").read_text())
    WRONG[what](space)
    (folder / "points.json").write_text(json.dumps(space))
    with pytest.raises(PageError, match="points.json is not what eval/latents.py writes"):
        read_sections([folder], Options())


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("work") / "runs"
    folders = [
        made.latents(runs / "one" / "eval-latents", ("flute", made.EVIL)),
        made.sound_space(runs / "one" / "eval-sound_space"),
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
    inside = index.parent.resolve().as_uri() + "/"
    assert [url for url in browser.requests if not url.startswith((inside, "data:"))] == [] and browser.messages == []

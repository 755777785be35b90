"""The demo page as a person uses it, in headless Chromium with real clicks and keys, from file:// without network."""

from pathlib import Path

import page_fixtures as made
import pytest
from headless_chromium import Browser, find_chromium

from demo_page import Options, build_page

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here (CHROMIUM=path names one)"),
]
HOSTILE = (made.EVIL, made.LONG, made.RIGHT_TO_LEFT)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("work") / "runs"
    folders = made.every_kind(runs)
    made.tts(runs / "lm" / "eval-tts", seconds=6.0)
    return build_page(folders, runs.parent / "page", Options(title="A page", show=("all", "random", "best", "worst")))


@pytest.fixture
def page(browser: Browser, index: Path) -> Browser:
    browser.messages.clear()
    browser.requests.clear()
    browser.emulate(1280, 900)
    browser.open(index)
    return browser


def audio(system: int, item: int = 1) -> str:
    """JavaScript for a player of the section tts, whose items keep their order."""
    return f"document.querySelector('#tts .item[data-number=\"{item}\"] [data-system=s{system}] audio')"


def switch(system: int, item: int = 1) -> str:
    return f'#tts .item[data-number="{item}"] [data-system="s{system}"] .switch'


def shown(browser: Browser, section: str) -> list[int]:
    """The numbers of the items of a section, in the order in which they stand."""
    rows = f"[...document.querySelectorAll('#{section} .item')].filter((row) => !row.hidden)"
    return browser.js(f"{rows}.map((row) => Number(row.dataset.number))")


def test_every_player_loads(page: Browser) -> None:
    problems = page.js(
        "Promise.all([...document.querySelectorAll('audio')].map((a) => new Promise((done) => {"
        "a.onloadedmetadata = () => done(a.duration > 0 ? null : a.src); a.onerror = () => done(a.src); a.load(); })))"
        ".then((all) => ({count: all.length, bad: all.filter(Boolean)}))"
    )
    assert problems["count"] > 50 and problems["bad"] == []


def test_a_click_plays_and_the_time_runs(page: Browser) -> None:
    page.click(switch(1))
    page.wait(f"{audio(1)}.currentTime > 0.3 && !{audio(1)}.paused")
    assert page.js("document.querySelectorAll('tr.playing').length") == 1
    assert page.js(f"document.querySelector('{switch(1)}').getAttribute('aria-pressed')") == "true"
    assert page.wait("Number(document.querySelector('tr.playing .seek').value) > 0.3")
    page.click(switch(1))
    page.wait(f"{audio(1)}.paused")


def test_switching_keeps_the_position(page: Browser) -> None:
    page.click(switch(1))
    page.wait(f"{audio(1)}.currentTime > 1.0")
    page.press("2")
    page.wait(f"{audio(1)}.paused && !{audio(2)}.paused && {audio(2)}.currentTime > 0")
    # the first one stands where it was left, the second one runs on from there
    left, now = page.js(f"[{audio(1)}.currentTime, {audio(2)}.currentTime]")
    assert left >= 1.0 and now >= left - 0.05
    page.press(" ")
    page.wait(f"{audio(2)}.paused")
    at = page.js(f"{audio(2)}.currentTime")
    page.press("3")
    page.wait(f"!{audio(3)}.paused && {audio(3)}.currentTime > 0")
    assert page.js(f"{audio(3)}.currentTime") >= at - 0.05
    page.press(" ")


def test_the_slider_moves_what_sounds(page: Browser) -> None:
    slider = "document.querySelector('#tts .item[data-number=\"2\"] .seek')"
    page.js(f"{slider}.value = 3, {slider}.dispatchEvent(new Event('input'))")
    page.press("2")  # the item whose slider was moved is the one that keys go to
    page.wait(f"!{audio(2, 2)}.paused && {audio(2, 2)}.currentTime >= 3")
    page.js(f"{slider}.value = 1, {slider}.dispatchEvent(new Event('input'))")
    assert page.js(f"{audio(2, 2)}.currentTime") < 2.9
    page.press(" ")


def test_only_one_item_sounds(page: Browser) -> None:
    page.click(switch(1, 1))
    page.wait(f"!{audio(1, 1)}.paused")
    page.click(switch(2, 2))
    page.wait(f"{audio(1, 1)}.paused && !{audio(2, 2)}.paused")
    assert page.js("document.querySelectorAll('tr.current').length") == 1
    page.press(" ")


def test_keys_walk_through_the_items(page: Browser) -> None:
    numbers = "document.querySelector('tr.current').dataset.number"
    page.press("j")
    first = page.js(numbers)
    page.press("j")
    assert page.js(numbers) != first
    page.press("k")
    assert page.js(numbers) == first


def test_a_heading_sorts_by_click_and_by_key(page: Browser) -> None:
    heading = "document.querySelector('#tts th[data-system=s3]')"
    assert page.js(f"{heading}.getAttribute('aria-sort')") == "none"
    assert shown(page, "tts") == [1, 2, 3]  # in this fixture the error grows with the number
    page.click("#tts th[data-system=s3] .sort")
    assert shown(page, "tts") == [1, 2, 3] and page.js(f"{heading}.getAttribute('aria-sort')") == "ascending"
    page.js(f"{heading}.querySelector('.sort').focus()")
    page.press("Enter")
    assert shown(page, "tts") == [3, 2, 1] and page.js(f"{heading}.getAttribute('aria-sort')") == "descending"
    assert page.js("document.querySelectorAll('#tts .items thead [aria-sort=none]').length") == 4
    assert "by WER" in page.js("document.querySelector('#tts .count').textContent")
    page.press(" ")  # of a button: once more
    assert shown(page, "tts") == [1, 2, 3]
    page.click("#tts [data-view=worst]")  # a view has its own order
    assert shown(page, "tts") == [3, 2, 1] and page.js(f"{heading}.getAttribute('aria-sort')") == "none"


def test_another_score_sorts_the_other_way(page: Browser) -> None:
    page.js("document.querySelector('#tts .metric').value = 'dnsmos/ovrl'")  # more is better
    page.click("#tts th[data-system=s3] .sort")
    assert shown(page, "tts") == [3, 2, 1]


def test_the_summary_sorts(page: Browser) -> None:
    table = "document.querySelector('table.summary')"
    rates = f"[...{table}.tBodies[0].rows].map((row) => row.cells[1].dataset.value)"
    assert page.js(rates) == ["", "412.5", "825.0"]
    for order, values in (("ascending", ["412.5", "825.0", ""]), ("descending", ["825.0", "412.5", ""])):
        page.click("table.summary th:nth-child(2) .sort")
        assert page.js(rates) == values
        assert page.js(f"{table}.querySelector('th:nth-child(2)').getAttribute('aria-sort')") == order


def test_search_and_columns(page: Browser) -> None:
    search = "document.querySelector('#tts input[type=search]')"
    page.js(f"{search}.value = 'BLUE birds', {search}.dispatchEvent(new Event('input'))")
    assert shown(page, "tts") == [3]
    page.js(f"{search}.value = 'no such words', {search}.dispatchEvent(new Event('input'))")
    assert shown(page, "tts") == [] and not page.js("document.querySelector('#tts .none').hidden")
    control = "document.querySelector('#tts td[data-system=s4]')"
    assert page.js(f"{control}.hidden")  # shuffled texts wait behind a tick
    page.click("#tts .columns summary")
    page.click("#tts [data-column=s4]")
    assert not page.js(f"{control}.hidden")


def test_no_request_leaves_the_folder(page: Browser, index: Path) -> None:
    page.js("document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })")
    page.js("document.querySelectorAll('audio').forEach((audio) => audio.load())")
    page.click(switch(1))
    page.wait(f"{audio(1)}.currentTime > 0.1")
    page.press(" ")
    inside = index.parent.resolve().as_uri() + "/"
    assert len(page.requests) > 50
    # data: is Chromium's own drawing of its media controls
    assert [url for url in page.requests if not url.startswith((inside, "data:"))] == []
    assert page.messages == []


def test_what_is_injected_does_not_run(page: Browser) -> None:
    page.js(
        "(() => { const s = document.createElement('script'); s.textContent = 'document.title = 1';"
        "document.body.append(s); const i = new Image(); i.src = 'https://example.org/x.png'; })()"
    )
    assert page.js("document.title") == "A page"
    assert any("Content Security Policy" in message for message in page.messages)


@pytest.mark.parametrize("width", [1280, 420])
def test_hostile_texts_are_harmless(browser: Browser, tmp_path: Path, width: int) -> None:
    runs = tmp_path / "runs" / made.EVIL.replace("/", "_")[:80]
    folders = [
        made.tts(runs / "eval-tts", HOSTILE, 0.3),
        made.asr(runs / "eval-asr", HOSTILE),
        made.captioning(runs / "eval-audio_captioning", "sound", HOSTILE),
    ]
    index = build_page(folders, tmp_path / "page", Options(title=made.EVIL))
    browser.messages.clear()
    browser.emulate(width, 900)
    browser.open(index)
    assert browser.js("document.title") == made.EVIL  # as text; not 'owned'
    assert browser.js("document.querySelector('#tts .text').textContent") == made.EVIL
    assert browser.js("document.querySelectorAll('script').length") == 2
    assert browser.js("document.querySelectorAll('img:not([src^=\"media/\"])').length") == 0
    assert browser.messages == []
    assert browser.js("document.documentElement.scrollWidth") <= width
    assert browser.js("Math.max(...[...document.querySelectorAll('.item')].map((row) => row.offsetHeight))") < 2500
    # a text that runs from right to left does not turn its neighbours
    assert browser.js("getComputedStyle(document.querySelectorAll('#tts .text')[2]).direction") in ("rtl", "ltr")
    assert browser.js("getComputedStyle(document.querySelector('#tts .meta')).direction") == "ltr"


@pytest.mark.parametrize("width", [1280, 700, 420])
def test_no_width_needs_sideways_scrolling(page: Browser, width: int) -> None:
    page.emulate(width, 900)
    assert page.js("document.documentElement.scrollWidth") <= width


def test_light_and_dark_follow_the_system_until_chosen(page: Browser) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    light = page.js(paper)
    page.emulate(1280, 900, dark=True)
    dark = page.js(paper)
    assert light != dark
    page.click("#theme")
    assert page.js(paper) == light
    page.js("localStorage.clear()")


def test_every_control_has_a_name_and_is_reached_by_tab(page: Browser) -> None:
    nameless = page.js(
        "[...document.querySelectorAll('button, input, select, summary, a')].filter((e) => !(e.textContent.trim()"
        " || e.getAttribute('aria-label') || (e.labels && e.labels.length))).map((e) => e.outerHTML)"
    )
    assert nameless == []
    assert page.js('document.querySelectorAll(\'[tabindex]:not([tabindex="0"]):not([tabindex="-1"])\').length') == 0
    page.js("document.querySelector('#tts .item .toggle').focus()")
    page.press("Tab")
    assert page.js("document.activeElement.className") == "seek"
    page.press("Tab")
    assert page.js("document.activeElement.closest('td').dataset.system") == "s1"
    page.press("Enter")
    page.wait(f"!{audio(1)}.paused")
    page.press("4")  # of a hidden column: nothing happens
    assert page.js(f"{audio(4)}.paused") and not page.js(f"{audio(1)}.paused")

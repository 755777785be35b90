"""The page of the server, in a browser: it is used by keys and by clicks, and asks nobody but its server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from headless_chromium import Browser, find_chromium

from tests.lm.serving.conftest import SAID, Running
from training.config import REPOSITORY

SPEECH = REPOSITORY / "data/mini/speech/speech-test-0000.flac"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here (CHROMIUM=path names one)"),
]
PATIENCE = 120.0
# Different colour values of each canvas in a place: next to none in an empty one.
DRAWN = """(kind) => [...document.querySelectorAll(`#${kind} canvas`)].map((canvas) => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return new Set(data).size; })"""


@pytest.fixture
def opened(browser: Browser, server: Running) -> Browser:
    browser.requests.clear()
    browser.messages.clear()
    browser.open(f"http://127.0.0.1:{server.port}/")
    browser.wait("document.querySelector('#model').textContent === 'lm-all-mini'")
    return browser


def text(browser: Browser, selector: str) -> str:
    return browser.js(f"document.querySelector({json.dumps(selector)}).innerText")


def drawn(browser: Browser, place: str) -> int:
    """Pictures in a place; none of them is empty."""
    colours = browser.js(f"({DRAWN})('{place}')")
    assert all(count > 20 for count in colours)
    return len(colours)


def test_a_text_is_spoken_by_the_keyboard(opened: Browser, server: Running) -> None:
    assert opened.js("[...document.querySelector('#voice').options].map((one) => one.value)") == ["auto", "rms", "slt"]
    opened.js("document.querySelector('#text').focus(), document.querySelector('#voice').value = 'rms'")
    opened.js("document.querySelector('#temperature').value = '0'")
    for _ in range(4):  # voice, temperature, seed, button
        opened.press("Tab")
    assert opened.js("document.activeElement.id") == "say"
    opened.press("Enter")
    opened.wait("!!document.querySelector('#said .download')", PATIENCE)
    said = server.service.model.speak(SAID, voice="rms", temperature=0)
    codes = [
        [int(code) for code in row.split()]
        for row in opened.js("document.querySelector('#said pre').textContent").split("\n")
    ]
    assert codes == said.codes.tolist()
    opened.wait("document.querySelector('#said audio').readyState >= 1", PATIENCE)
    assert opened.js("document.querySelector('#said audio').duration") == pytest.approx(said.seconds, abs=0.01)
    assert opened.js("document.querySelector('#said .download').download") == "said.wav"
    assert drawn(opened, "said") == 2
    assert "First sound after" in text(opened, "#status")
    opened.js("document.querySelector('#text').value = 'x'.repeat(5000)")
    opened.click("#say")
    opened.wait("document.querySelector('#status').className === 'problem'", PATIENCE)
    assert "longer than 1000 characters" in text(opened, "#status")


def test_a_recording_is_heard_described_and_reconstructed(opened: Browser, server: Running) -> None:
    assert opened.js("[...document.querySelectorAll('[data-ask]')].every((one) => one.disabled)")
    opened.give_file("#file", SPEECH)
    opened.wait(
        "document.querySelectorAll('[data-ask]:enabled').length === 4 && !!document.querySelector('#given canvas')",
        PATIENCE,
    )
    opened.click("[data-ask=transcriptions]")
    opened.wait("!document.querySelector('#heard').hidden", PATIENCE)
    assert text(opened, "#heard .written") == server.service.model.transcribe(SPEECH).text
    for name in ("captions", "music"):
        opened.js("document.querySelector('#heard').hidden = true")
        opened.click(f"[data-ask={name}]")
        opened.wait("!document.querySelector('#heard').hidden", PATIENCE)
        assert text(opened, "#heard .written")
    opened.js("document.querySelector('#window').value = '8', document.querySelector('#levels').value = '2'")
    opened.click("[data-ask=reconstructions]")
    opened.wait("!!document.querySelector('#heard .tokens')", PATIENCE)
    assert "bit/s" in text(opened, "#heard .written") and "of 2 levels" in text(opened, "#heard")
    assert text(opened, "#heard .download") == "Download reconstructed.wav"
    assert drawn(opened, "heard") == 2


def test_what_the_microphone_hears_is_taken(opened: Browser) -> None:
    opened.click("#record")
    opened.wait("document.querySelector('#record').getAttribute('aria-pressed') === 'true'", PATIENCE)
    opened.js("new Promise((go) => setTimeout(go, 1200))")
    opened.click("#record")
    opened.wait("document.querySelectorAll('[data-ask]:enabled').length === 4", PATIENCE)
    opened.wait("!!document.querySelector('#given canvas')", PATIENCE)
    assert text(opened, "#dropped") == "your recording"
    assert drawn(opened, "given") == 1


def test_a_file_that_is_no_audio_is_refused_in_words(opened: Browser, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(b"no audio" * 99)
    opened.give_file("#file", tmp_path / "a.wav")
    opened.wait("document.querySelectorAll('[data-ask]:enabled').length === 4", PATIENCE)
    opened.click("[data-ask=transcriptions]")
    opened.wait("document.querySelector('#status').className === 'problem'", PATIENCE)
    assert "is not audio" in text(opened, "#status")


def test_a_key_is_asked_for_where_one_is_needed(browser: Browser, start) -> None:
    keyed = start(key="ours")
    browser.open(f"http://127.0.0.1:{keyed.port}/")
    browser.wait("!document.querySelector('#key-form').hidden")
    browser.js("document.querySelector('#key').value = 'ours'")
    browser.click("#key-form button")
    browser.wait("document.querySelector('#model').textContent === 'lm-all-mini'")
    assert browser.js("document.querySelector('#key-form').hidden")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [420, 1280])
def test_it_fits_a_phone_and_a_screen_in_both_themes(opened: Browser, server: Running, width: int, dark: bool) -> None:
    opened.emulate(width, 900, dark)
    assert opened.js("document.documentElement.scrollWidth <= innerWidth")
    paper = opened.js("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, paper.removeprefix("rgb(").rstrip(")").split(","))) > 384
    assert light != dark
    assert opened.js("getComputedStyle(document.querySelector('main')).gridTemplateColumns.split(' ').length") == (
        2 if width > 1000 else 1
    )
    named = "document.querySelectorAll('input, select, textarea')"
    assert opened.js(f"[...{named}].every((one) => one.labels.length && one.labels[0].innerText.trim())")
    own = f"http://127.0.0.1:{server.port}/"
    asked = {url for url in opened.requests if not url.startswith("data:")}
    assert asked == {own, f"{own}playground.css", f"{own}playground.js", f"{own}v1/models"}
    assert not opened.messages  # no error, and nothing that the policy of the page blocked

"""The listening test that the demo page exports: what webMUSHRA's documentation asks of a configuration."""

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import page_fixtures as made
import pytest
import soundfile
import yaml

from demo_page import main
from listening_test import ANCHOR, GRADES, LONGEST, MARKER, RATE, low_pass, write_listening_test
from page.data import Evaluation, read_evaluation
from page.loudness import measure
from page.sections import Section, make_sections
from training.config import ConfigError, compose


def sections_of(*folders: Path, count: int = 2) -> list[Section]:
    return make_sections([read_evaluation(folder) for folder in folders], ("random", "best"), count, 0)


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def pages_of(path: Path) -> list[dict[str, Any]]:
    pages = yaml.safe_load(path.read_text(encoding="utf-8"))["pages"]
    assert pages[0]["type"] == "generic" and pages[1]["type"] == "volume" and pages[-1]["type"] == "finish"
    assert pages[2][0] == "random"
    # webMUSHRA's own parser reads "- - a" and text over several lines wrongly
    assert all(re.fullmatch(r" *(-|[A-Za-z0-9-]+:)( (\".*\"|true|false|[\d.]+))?", line) for line in lines_of(path))
    return pages[2][1:]


@pytest.fixture
def codecs(tmp_path: Path) -> list[Path]:
    return [
        made.reconstruction(tmp_path / "runs" / "codec 1" / "eval-reconstruction"),
        made.reconstruction(tmp_path / "runs" / "codec<2>" / "eval-reconstruction", window=3, offset=0.1),
    ]


def test_reconstruction_gives_mushra_pages(tmp_path: Path, codecs: list[Path]) -> None:
    out = tmp_path / "test"
    (path,) = write_listening_test(sections_of(*codecs), out, "A test")
    assert path == out / "configs" / "almkit-reconstruction-speech.yaml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"testname", "testId", "bufferSize", "stopOnErrors", "showButtonPreviousPage", "remoteService"} <= set(
        config
    )
    pages = pages_of(path)
    assert len(pages) == 2
    for page in pages:
        assert page["type"] == "mushra" and page["createAnchor35"] is False
        assert set(page["stimuli"]) == {"resynthesis-codec-1", "resynthesis-codec-2", ANCHOR}
        files = [out / name for name in [page["reference"], *page["stimuli"].values()]]
        infos = [soundfile.info(file) for file in files]  # webMUSHRA refuses a page of unequal files
        assert {(i.format, i.samplerate, i.channels) for i in infos} == {("WAV", RATE, 1)}
        assert len({i.frames for i in infos}) == 1
        waves = [soundfile.read(file)[0] for file in files]
        loudness = [measure(wav, RATE).loudness for wav in waves]
        assert loudness == pytest.approx([-23.0] * len(files), abs=0.3)


def test_what_a_model_made_is_graded_without_a_reference(tmp_path: Path) -> None:
    folder = made.tts(tmp_path / "runs" / "lm" / "eval-tts", ["a", made.EVIL, made.RIGHT_TO_LEFT], seconds=0.5)
    (path,) = write_listening_test(sections_of(folder, count=3), tmp_path / "test", "A test")
    pages = pages_of(path)
    assert len(pages) == 3
    for page in pages:
        assert page["type"] == "likert_multi_stimulus" and [r["value"] for r in page["response"]] == [5, 4, 3, 2, 1]
        assert set(page["stimuli"]) == {"reference", "resynthesis-lm", "generated-lm"}  # no controls
    assert len(GRADES) == 5
    assert "&lt;script&gt;" in pages[1]["content"] and "<script>" not in path.read_text()
    assert html.unescape(pages[2]["content"]).endswith(f"<p>{made.RIGHT_TO_LEFT}</p>")


def test_there_is_nothing_to_hear_in_texts(tmp_path: Path) -> None:
    folder = made.asr(tmp_path / "runs" / "lm" / "eval-asr")
    with pytest.raises(ConfigError, match="no section has recordings"):
        write_listening_test(sections_of(folder), tmp_path / "test", "A test")


def test_long_clips_are_cut_to_what_webmushra_accepts(tmp_path: Path, codecs: list[Path]) -> None:
    for number in range(3):
        made.write_wav(codecs[0], "reference", f"clip{number}", made.tone(13.0, 16000, 300.0, 0.3), 16000)
    (path,) = write_listening_test(sections_of(codecs[0], count=1), tmp_path / "test", "A test")
    wav, rate = soundfile.read(tmp_path / "test" / pages_of(path)[0]["reference"])
    assert len(wav) == LONGEST * rate and abs(wav[-1]) < 1e-3


def test_the_anchor_is_the_one_of_the_standard() -> None:
    impulse = np.zeros(8192, np.float32)
    impulse[4096] = 1
    out = low_pass(impulse)
    assert len(out) == len(impulse) and np.abs(out).argmax() == 4096  # no delay
    response = 20 * np.log10(np.abs(np.fft.rfft(out)) + 1e-12)
    frequency = np.fft.rfftfreq(len(out), 1 / RATE)
    assert np.abs(response[frequency <= 3500]).max() <= 0.1
    assert response[frequency >= 4000].max() <= -25 and response[frequency >= 4500].max() <= -50


def test_only_our_own_folder_is_replaced(tmp_path: Path, codecs: list[Path]) -> None:
    out = tmp_path / "test"
    out.mkdir()
    (out / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="not a listening test"):
        write_listening_test(sections_of(*codecs), out, "A test")
    (out / "thesis.txt").unlink()
    write_listening_test(sections_of(*codecs), out, "A test")
    assert (out / MARKER).is_file()
    write_listening_test(sections_of(*codecs), out, "A test")


@pytest.mark.slow
def test_the_page_and_its_test_are_made_of_one_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.reconstruction(tmp_path / "runs/codec/eval-reconstruction")
    read: list[Path] = []

    def reading(folder: Path) -> Evaluation:
        read.append(folder)
        return read_evaluation(folder)

    monkeypatch.setattr("demo_page.read_evaluation", reading)
    monkeypatch.chdir(tmp_path)
    options = ["out=page", "webmushra=test", "count=1", "show=[random]"]
    for times in (1, 2):  # of a page that is current the test alone is made again
        main.__wrapped__(compose("demo_page", options))  # type: ignore[attr-defined]
        assert read == times * [Path("runs/codec/eval-reconstruction")]
    assert Path("page/index.html").is_file() and Path("test", MARKER).is_file()


def test_too_many_systems_are_refused(tmp_path: Path) -> None:
    folders = [made.reconstruction(tmp_path / "runs" / f"c{n}" / "eval-reconstruction", offset=n / 100)
               for n in range(12)]  # fmt: skip
    with pytest.raises(ConfigError, match="at most 11 systems, not 12"):
        write_listening_test(sections_of(*folders), tmp_path / "test", "A test")

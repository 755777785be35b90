"""The demo page: complete, escaped, self-contained, and on one scale."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from demo_page import build_page, console_table, main
from page_data import PageError, newest_evaluation, read_evaluation, word_changes
from page_media import (
    HEIGHT,
    WIDTH,
    Scale,
    active_level,
    common_scale,
    save_picture,
    spectrogram_picture,
)

ROWS = ["reference", "resynthesis", "generated", "generated-shuffled"]
EVIL = "<script>alert('x')</script> & \"two\" words"


class Elements(HTMLParser):
    """All start tags with their attributes, and the text per tag."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts.setdefault(self._open[-1], []).append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def tone(seconds: float, rate: int, frequency: float = 1000.0, amplitude: float = 1.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    return (amplitude * np.sin(2 * np.pi * frequency * time)).astype("float32")


def make_evaluation(folder: Path, texts: list[str]) -> Path:
    """A small evaluation as the eval scripts write it."""
    items = []
    for i, text in enumerate(texts):
        for k, row in enumerate(ROWS):
            audio = Path("wavs") / row / f"clip{i}.wav"
            (folder / audio).parent.mkdir(parents=True, exist_ok=True)
            rate = 16000 if row == "reference" else 24000
            soundfile.write(folder / audio, tone(0.5 + 0.25 * k, rate, amplitude=0.5), rate)
            own = " ".join(reversed(text.split())) if row == "generated-shuffled" else text
            item = {"id": f"id/../{i}", "text": own, "speaker": "slt", "row": row, "audio": str(audio)}
            item |= {"hypotheses": {"ctc": own}, "wer": {"ctc": 0.1 * i}, "dnsmos": {"ovrl": 3.0 + i / 10}}
            items.append(item)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "items.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items))
    score = {"value": 0.125, "low": 0.1, "high": 0.2, "n": len(texts), "n_failed": 0, "failures": []}
    results = {"rows": {row: {"wer/ctc": score} for row in ROWS}, "how": {"seed": 7, "note": EVIL}}
    pair = {"of": {"row": "generated", "metric": "wer/ctc"}, "minus": {"row": "resynthesis", "metric": "wer/ctc"}}
    other = {**pair, "of": {"row": "generated", "metric": "stoi"}}  # of two metrics: not for the page
    results["differences"] = [{**p, "value": 0.025, "low": -0.01, "high": 0.06, "n": len(texts)} for p in (pair, other)]
    (folder / "results.json").write_text(json.dumps(results))
    return folder


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return make_evaluation(tmp_path / "runs" / "demo" / "eval-tts", ["the red boat", EVIL, "a green box"])


def build(evaluation: Path, **options: int) -> tuple[Path, str]:
    index = build_page([evaluation], evaluation.parents[2] / "page", "Title", **options)
    return index.parent, index.read_text()


def test_every_clip_has_audio_and_picture(evaluation: Path) -> None:
    page, html = build(evaluation)
    elements = Elements(html)
    players = elements.of("audio")
    assert len(players) == 3 * len(ROWS)
    for player in players:
        assert player["preload"] == "none" and player["aria-label"]
        assert soundfile.info(page / str(player["src"])).format == "FLAC"
    pictures = elements.of("img")
    assert len(pictures) == 3 * len(ROWS)
    for picture in pictures:
        assert picture["alt"] and Image.open(page / str(picture["src"])).size == (WIDTH, HEIGHT)


def test_what_comes_from_data_is_escaped(evaluation: Path) -> None:
    _, html = build(evaluation)
    elements = Elements(html)
    scripts = elements.of("script")
    assert [script.get("type") for script in scripts] == ["application/json", None]
    assert "<script>alert" not in html
    assert EVIL in elements.texts["h3"] and EVIL in elements.texts["dd"]
    assert json.loads(elements.texts["script"][0])[0]["sentences"][1]["text"].startswith(EVIL.lower())


def test_nothing_is_loaded_from_elsewhere(evaluation: Path) -> None:
    page, html = build(evaluation)
    assert not re.findall(r"(?:https?:)?//[a-z]", html)
    assert "fetch(" not in html and "XMLHttpRequest" not in html and 'type="module"' not in html
    elements = Elements(html)
    for _, attrs in elements.tags:  # the policy forbids both
        assert "style" not in attrs and not any(name.startswith("on") for name in attrs)
    for tag, name in (("audio", "src"), ("img", "src"), ("a", "href")):
        for attrs in elements.of(tag):
            link = str(attrs[name])
            assert link.startswith("#") or (page / link).is_file()


def test_policy_names_exactly_our_style_and_script(evaluation: Path) -> None:
    _, html = build(evaluation)
    metas = Elements(html).of("meta")
    policy = next(str(m["content"]) for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    inline = re.findall(r"<(style|script)>(.*?)</\1>", html, flags=re.DOTALL)
    assert [tag for tag, _ in inline] == ["style", "script"]
    for _, text in inline:
        assert "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_a_missing_clip_is_shown_with_its_reason(evaluation: Path) -> None:
    (evaluation / "wavs" / "generated" / "clip1.wav").unlink()
    (evaluation / "wavs" / "generated" / "clip2.wav").write_bytes(b"not audio")
    _, html = build(evaluation)
    assert "No audio: wavs/generated/clip1.wav is missing" in html
    assert "No audio: clip2.wav cannot be read" in html
    assert len(Elements(html).of("audio")) == 3 * len(ROWS) - 2


def test_scores_and_intervals_are_in_the_tables(evaluation: Path) -> None:
    _, html = build(evaluation)
    assert "12.5 %" in html and "[10.0 %, 20.0 %]" in html and "N&nbsp;3" in html
    assert "Generated − resynthesis" in html and "+2.5 %" in html
    head, line = (row.split() for row in console_table(evaluation).splitlines()[:2])
    assert head == ROWS and line[:5] == ["wer/ctc", "12.5", "%", "[10.0,", "20.0]"]


def test_the_random_sentences_follow_the_seed(evaluation: Path) -> None:
    draws = [read_evaluation(evaluation, sample_size=2, seed=seed).sample for seed in range(8)]
    assert draws[0] == read_evaluation(evaluation, sample_size=2, seed=0).sample
    assert len({tuple(draw) for draw in draws}) > 1


def test_a_current_page_is_left_as_it_is(evaluation: Path) -> None:
    page, _ = build(evaluation)
    (page / "index.html").write_text("untouched")
    assert build(evaluation)[1] == "untouched"
    assert build(evaluation, seed=1)[1] != "untouched"
    (page / "index.html").write_text("untouched")
    results = evaluation / "results.json"
    results.write_text(results.read_text().replace("0.125", "0.15"))
    assert "15.0 %" in build(evaluation, seed=1)[1]


def test_rebuilding_replaces_only_our_own_folder(evaluation: Path) -> None:
    page, _ = build(evaluation)
    (page / "media" / "old.flac").touch()
    build(evaluation, seed=1)
    assert not (page / "media" / "old.flac").exists()
    other = evaluation.parents[2] / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(PageError, match="not a demo page"):
        build_page([evaluation], other, "Title")
    assert (other / "thesis.txt").exists()


def test_the_newest_evaluation_is_the_default(
    evaluation: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(evaluation.parents[2])
    assert newest_evaluation(Path("runs")) == Path("runs/demo/eval-tts")
    main([])
    printed = capsys.readouterr().out
    assert "runs/demo/eval-tts" in printed and printed.splitlines()[-1].endswith("/runs/demo-page/index.html")


def test_errors_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["--runs", str(tmp_path)], "there is no evaluation"),
        ([str(tmp_path / "absent")], "results.json does not exist"),
    ):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 1 and words in capsys.readouterr().err


def test_a_clip_outside_the_folder_is_refused(evaluation: Path) -> None:
    items = evaluation / "items.jsonl"
    items.write_text(items.read_text().replace("wavs/reference/clip0.wav", "../../../secret.wav"))
    with pytest.raises(PageError, match="leads out of"):
        build(evaluation)


def test_word_changes() -> None:
    assert word_changes("The red boat.", "the red boat") == [("same", "the red boat")]
    assert word_changes("the red boat", "the bed boat now") == [
        ("same", "the"),
        ("missing", "red"),
        ("extra", "bed"),
        ("same", "boat"),
        ("extra", "now"),
    ]


def test_spectrograms_share_one_scale(tmp_path: Path) -> None:
    scale = Scale(seconds=2.0, frequency=8000.0)
    rows, columns = {}, {}
    for rate in (16000, 24000):
        picture = spectrogram_picture(tone(1.0, rate, amplitude=0.01), rate, scale)
        pixels = np.asarray(picture)
        rows[rate] = int(pixels[:, WIDTH // 4].argmax())
        columns[rate] = int((pixels[0] != 255).sum())
    assert abs(rows[16000] - rows[24000]) <= 1
    mel = 2595 * np.log10(1 + np.array([1000.0, 8000.0]) / 700)
    assert abs(rows[16000] - HEIGHT * (1 - mel[0] / mel[1])) <= 2  # row 0 is the highest frequency
    assert columns[16000] == columns[24000] == WIDTH // 2  # beyond the clip's end: transparent
    save_picture(picture, tmp_path / "a.png")
    assert Image.open(tmp_path / "a.png").convert("RGBA").getpixel((WIDTH - 1, 0))[3] == 0
    assert Image.open(tmp_path / "a.png").convert("RGBA").getpixel((0, 0))[3] == 255


def test_a_quieter_clip_is_darker() -> None:
    scale = Scale(seconds=1.0, frequency=8000.0)
    brightest = [
        int(np.asarray(spectrogram_picture(tone(1.0, 16000, amplitude=a), 16000, scale)).max(initial=0))
        for a in (0.0001, 0.001, 0.01)
    ]
    assert brightest[0] < brightest[1] < brightest[2]


def test_one_runaway_clip_does_not_shrink_the_others() -> None:
    assert common_scale([2.0, 2.2, 2.4, 20.0], [16000, 24000]) == Scale(seconds=7.0, frequency=12000.0)
    assert common_scale([], []).seconds > 0


def test_active_level() -> None:
    half = np.concatenate([tone(1.0, 16000, amplitude=0.1), np.zeros(16000, "float32")])
    assert active_level(half, 16000) == pytest.approx(20 * np.log10(0.1 / np.sqrt(2)), abs=0.1)
    assert active_level(np.zeros(16000, "float32"), 16000) is None

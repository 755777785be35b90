"""The demo page without a browser: complete, escaped, self-contained, of every kind of evaluation."""

import base64
import errno
import hashlib
import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import page_fixtures as made
import pytest
import soundfile
from json_files import read_json, read_lines
from PIL import Image

from demo_page import Options, build_page, page_size, results_table
from page.data import kind_of, newest_evaluations, read_evaluation
from page.labels import KINDS
from page.media import HEIGHT, WIDTH
from page.words import word_changes
from training.checkpoint import CheckpointError
from training.config import REPOSITORY, ConfigError

ROWS = ["reference", "resynthesis", "generated", "generated-shuffled"]
TEXTS = ["the red boat", made.EVIL, "a green box"]


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


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    return made.tts(tmp_path / "runs" / "demo" / "eval-tts", TEXTS, seconds=0.6)


def build(*folders: Path, **options: object) -> tuple[Path, str]:
    index = build_page(folders, folders[0].parents[2] / "page", Options(**options))
    return index.parent, index.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The page of such an evaluation, only to be read."""
    return build(made.tts(tmp_path_factory.mktemp("built") / "runs/demo/eval-tts", TEXTS, seconds=0.6))


def test_every_clip_has_audio_and_picture(built: tuple[Path, str]) -> None:
    page, html = built
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
    assert len([e for e in elements.of("input") if e.get("type") == "range"]) == 3  # one player per item


@pytest.mark.slow
def test_what_comes_from_data_is_escaped(tmp_path: Path) -> None:
    texts = [made.EVIL, made.LONG, made.RIGHT_TO_LEFT]
    runs = tmp_path / "runs" / "lm"
    _, html = build(
        made.tts(runs / "eval-tts", texts, 0.2),
        made.text_to_audio(runs / "eval-text_to_sound", "sound", texts),
        made.asr(runs / "eval-asr", texts),
        made.captioning(runs / "eval-music_captioning", "music", texts),
    )
    elements = Elements(html)
    assert [script.get("type") for script in elements.of("script")] == ["application/json", None]
    assert "<script>document" not in html and "<img src=x" not in html
    assert elements.texts["div"].count(made.EVIL) == 3 and made.EVIL in elements.texts["dd"]
    assert all(item["dir"] == "auto" for item in elements.of("div") if "text" in str(item.get("class")).split())
    data = json.loads("".join(elements.texts["script"][:1]))
    assert data[0]["items"][0]["text"].startswith(made.EVIL.lower())


def test_nothing_is_loaded_from_elsewhere(built: tuple[Path, str]) -> None:
    page, html = built
    assert not re.findall(r"(?:https?:)?//[a-z]", html)
    assert "fetch(" not in html and "XMLHttpRequest" not in html and 'type="module"' not in html
    elements = Elements(html)
    ids = {attrs["id"] for _, attrs in elements.tags if "id" in attrs}
    for _, attrs in elements.tags:  # the policy forbids both
        assert "style" not in attrs and not any(name.startswith("on") for name in attrs)
    for tag, name in (("audio", "src"), ("img", "src"), ("a", "href")):
        for attrs in elements.of(tag):
            link = str(attrs[name])
            assert link[1:] in ids if link.startswith("#") else (page / link).is_file()


def test_policy_names_exactly_our_style_and_script(built: tuple[Path, str]) -> None:
    html = built[1]
    metas = Elements(html).of("meta")
    policy = next(str(m["content"]) for m in metas if m.get("http-equiv") == "Content-Security-Policy")
    inline = re.findall(r"<(style|script)>(.*?)</\1>", html, flags=re.DOTALL)
    assert [tag for tag, _ in inline] == ["style", "script"]
    for _, text in inline:
        assert "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() + "'" in policy
    assert policy.startswith("default-src 'none'") and "unsafe" not in policy


def test_a_missing_clip_is_shown_with_its_reason(evaluation: Path) -> None:
    (evaluation / "wavs" / "generated" / "clip7.wav").unlink()
    (evaluation / "wavs" / "generated" / "clip8.wav").write_bytes(b"not audio")
    _, html = build(evaluation)
    assert "No audio: wavs/generated/clip7.wav is missing" in html
    assert "No audio: clip8.wav cannot be read" in html
    assert len(Elements(html).of("audio")) == 3 * len(ROWS) - 2


def test_scores_and_intervals_are_in_the_tables(built: tuple[Path, str]) -> None:
    page, html = built
    assert "25.0 %" in html and "N&nbsp;3" in html
    assert "Generated − resynthesis" in html and "+25.0 %" in html
    assert "412.5 bit/s · 37.5 tokens/s" in html
    head, line = (row.split() for row in results_table(page.parent / "runs/demo/eval-tts").splitlines()[:3:2])
    assert head == ROWS and line[:3] == ["wer/ctc", "0.0", "%"]


@pytest.mark.slow
def test_every_kind_has_its_section(tmp_path: Path) -> None:
    folders = made.every_kind(tmp_path / "runs")
    folders += [
        made.latents(tmp_path / "runs/codec/eval-latents"),
        made.sound_space(tmp_path / "runs/codec/eval-space"),
    ]
    assert [read_evaluation(folder).kind for folder in folders] == [
        "reconstruction", "reconstruction", "tts", "voice_prompted_tts", "interleaved",
        "continuation", "text_to_sound", "text_to_music", "asr", "audio_captioning",
        "music_captioning", "latents", "sound_space",
    ]  # fmt: skip
    page, html = build(*folders)
    elements = Elements(html)
    sections = [e["id"] for e in elements.of("section") if e.get("class") == "evaluation"]
    assert len(sections) == len(KINDS) == 15
    assert sections[0] == "reconstruction-speech" and sections[-1] == "sound-space-transfer"
    assert 'not in the text">too</ins>' in html and "<i>nothing</i>" in html  # a transcript, and one of silence
    assert html.count(">Given <small>") == 3  # the recording that a model heard first is a column of its own
    assert "the red boat, two" in html  # people's captions
    # what a captioner heard stands in the people's column
    assert (page / "media" / "audio-captioning-0001-s1.flac").is_file()


def test_the_kind_is_told_by_the_content_and_not_only_by_the_name(tmp_path: Path) -> None:
    for folder in made.every_kind(tmp_path / "runs"):
        kind = read_evaluation(folder).kind
        lines = read_lines(folder / "items.jsonl")
        how = read_json(folder / "results.json")["how"]
        written = [line for line in lines if line["row"] == "generated"] or lines
        assert kind_of(Path("runs/x/eval-mine"), how, written[0]) == kind
    assert kind_of(Path("runs/x/eval-semantics"), {"probe": {}}, {}) is None


def test_the_newest_of_each_kind_is_the_default(tmp_path: Path) -> None:
    folders = made.every_kind(tmp_path / "runs")
    other = made.tts(tmp_path / "runs" / "old" / "eval-tts", TEXTS[:2], 0.2)
    for age, folder in enumerate([other, *folders]):
        path = folder / "results.json"
        path.write_text(json.dumps({**read_json(path), "finished": 1e9 + age}))
        os.utime(path, (1e9 - age, 1e9 - age))  # a copy of an old evaluation is no new one
    # of reconstruction, speech comes from the newer folder, sound and music from the older one
    assert set(newest_evaluations(tmp_path / "runs")) == set(folders)
    (folders[1] / "results.json").unlink()
    assert set(newest_evaluations(tmp_path / "runs")) == {*folders} - {folders[1]}


@pytest.mark.slow
def test_a_current_page_is_left_as_it_is(evaluation: Path) -> None:
    page, _ = build(evaluation)
    (page / "index.html").write_text("untouched")
    assert build(evaluation)[1] == "untouched"
    assert build(evaluation, seed=1)[1] != "untouched"
    (page / "index.html").write_text("untouched")
    results = evaluation / "results.json"
    results.write_text(results.read_text().replace("0.25", "0.15"))
    assert "15.0 %" in build(evaluation, seed=1)[1]


@pytest.mark.slow
def test_rebuilding_replaces_only_our_own_folder(evaluation: Path) -> None:
    page, _ = build(evaluation)
    (page / "media" / "old.flac").touch()
    build(evaluation, seed=1)
    assert not (page / "media" / "old.flac").exists()
    other = evaluation.parents[2] / "other"
    other.mkdir()
    (other / "thesis.txt").touch()
    with pytest.raises(ConfigError, match="not a demo page"):
        build_page([evaluation], other)
    assert (other / "thesis.txt").exists()
    beside = page.with_name(page.name + ".building")  # nor what lies beside it, whatever it is called
    beside.mkdir()
    (beside / "thesis.txt").touch()
    build(evaluation, seed=2)
    assert (beside / "thesis.txt").exists()


@pytest.mark.slow
def test_a_build_that_ends_early_leaves_the_page_that_was_there(
    evaluation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, before = build(evaluation)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("demo_page._render", full)
    with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\)"):
        build(evaluation, seed=1)
    monkeypatch.setattr("demo_page._render", lambda *_: sys.exit(130))
    with pytest.raises(SystemExit):
        build(evaluation, seed=1)
    assert (page / "index.html").read_text() == before


@pytest.mark.slow
def test_a_page_too_large_takes_mp3_then_is_refused(evaluation: Path) -> None:
    page, _ = build(evaluation)
    flac = page_size(page)
    page, html = build(evaluation, size_limit=(flac - 1000) / 1e6)
    assert {path.suffix for path in (page / "media").iterdir()} == {".mp3", ".webp"}
    assert page_size(page) < flac and "MP3" in html
    with pytest.raises(ConfigError, match="size_limit=0.01: lower count"):
        build(evaluation, size_limit=0.01)
    with pytest.raises(ConfigError, match="take format=mp3"):
        build(evaluation, size_limit=0.01, format="flac")
    assert (page / "index.html").is_file() and not page.with_name("page.building").exists()


@pytest.mark.slow
def test_a_comparison_is_copied_with_what_it_shows(evaluation: Path) -> None:
    sweep = evaluation.parents[1] / "sweep"
    (sweep / "plots").mkdir(parents=True)
    (sweep / "plots" / "wer 1.svg").write_text("<svg/>")
    (sweep / "weights.bin").write_bytes(bytes(1000))
    (sweep / "comparison.html").write_text(
        '<img src="plots/wer%201.svg"><a href="weights.bin">w</a><a href="../../../secret">x</a>'
        '<a href="https://a.b/c">y</a><a href="#z">z</a>'
    )
    page, html = build(evaluation, comparison=sweep)
    assert 'href="comparison/comparison.html"' in html
    copied = {str(path.relative_to(page / "comparison")) for path in (page / "comparison").rglob("*.*")}
    assert copied == {"comparison.html", "plots/wer 1.svg"}
    (sweep / "comparison.html").rename(sweep / "index.html")
    (sweep / "comparison.json").write_text("{}")
    assert 'href="comparison/index.html"' in build(evaluation, comparison=sweep)[1]
    with pytest.raises(ConfigError, match="has no comparison.html"):
        build(evaluation, comparison=sweep / "plots")


def test_a_clip_outside_the_folder_is_refused(evaluation: Path) -> None:
    items = evaluation / "items.jsonl"
    items.write_text(items.read_text().replace("wavs/reference/clip0.wav", "../../../secret.wav"))
    with pytest.raises(ConfigError, match="leads out of"):
        build(evaluation)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"show": ()}, "show: name"), ({"show": ("nicest",)}, "show: name"),
     ({"format": "ogg"}, "format: there is no 'ogg'")],
)  # fmt: skip
def test_options_that_cannot_be(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Options(**options)


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(REPOSITORY / "scripts/demo_page.py"), *arguments]
    return subprocess.run(line, cwd=folder, text=True, capture_output=True)


@pytest.mark.slow
def test_the_command(evaluation: Path, tmp_path: Path) -> None:
    done = command(tmp_path, "seed=3")
    assert done.returncode == 0, done.stderr
    assert "runs/demo/eval-tts" in done.stdout and done.stdout.splitlines()[-1].endswith("/runs/demo-page/index.html")
    assert (tmp_path / "runs/demo-page/index.html").is_file()
    done = command(tmp_path, "runs=[absent]")
    assert done.returncode == 2 and "absent has no results.json" in done.stderr and done.stderr.count("\n") == 1


def test_errors_are_one_sentence(evaluation: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no clip has the score 'beauty'"):
        build(evaluation, rank="beauty")
    with pytest.raises(ConfigError, match="there is no evaluation under"):
        newest_evaluations(tmp_path / "empty")
    no_json = {
        b"\xff\xfe{}": "is not JSON",
        b"[" * 100_000: "is not JSON",
        b'{"a": ' + b"9" * 5000 + b"}": "is not JSON",
    }
    fields: dict[bytes, str] = {
        b'"audio": 7': "audio must be a text", b'"audio": "a.wav\\u0000"': "audio cannot be .* control characters",
        b'"audio": "/etc/passwd"': "audio cannot be '/etc/passwd': it is a path of its own",
        b'"text": ["a"]': "text must be a text", b'"speaker": {}': "speaker must be a text",
        b'"domain": 1': "domain must be a text", b'"error": [1]': "error must be a text",
        b'"captions": "a dog"': "captions must be a list of texts",
        b'"captions": [1]': "captions must be a list of texts",
        b'"hypotheses": ["a"]': "hypotheses must be a record", b'"hypotheses": {"x": 1}': "hypotheses must be texts",
        b'"caption": 1': "caption must be a text", b'"seconds": "1"': "seconds must be a number",
        b'"seconds": NaN': "seconds must be a number", b'"seconds": 1' + b"0" * 400: "seconds must be a number",
        b'"ended": "no"': "ended must be true or false", b'"legal": 0': "legal must be true or false",
        b'"class": "dog"': "class must be a record", b'"class": {"requested": 1}': "class: requested must be a list",
        b'"class": {"probability": "a"}': "class: probability must be a number",
        b'"class": {"heard": 1}': "class: heard must be a text",
        b'"classes_named": "dog"': "classes_named must be a list", b'"of": 1': "of must be a text",
    }  # fmt: skip
    lines = {b'{"id": "1"}': " has no 'id' or no 'row'", b'{"id": "a", "row": ""}': " has no 'id' or no 'row'"}
    lines |= {b'{"id": 1, "row": "generated"}': ": id must be a text"}
    lines |= {line: f" {reason}" for line, reason in no_json.items()}
    lines |= {b'{"id": "a", "row": "generated", ' + field + b"}": f": {reason}" for field, reason in fields.items()}
    for line, reason in lines.items():
        (evaluation / "items.jsonl").write_bytes(line)
        with pytest.raises(ConfigError, match=f"items.jsonl, line 1{reason}"):
            build(evaluation)
    (evaluation / "results.json").write_text("[]")
    with pytest.raises(ConfigError, match="holds no record"):
        build(evaluation)


def test_word_changes() -> None:
    assert word_changes("The red boat.", "the red boat") == [("same", "the red boat")]
    assert word_changes("मैं घर गया।", "मैं घर गयी") == [("same", "मैं घर"), ("missing", "गया"), ("extra", "गयी")]
    assert word_changes("cafe\u0301", "café") == [("same", "café")]
    assert word_changes("今天天气", "今天 天汽") == [("same", "今天天"), ("missing", "气"), ("extra", "汽")]
    assert word_changes("the red boat", "the bed boat now") == [
        ("same", "the"),
        ("missing", "red"),
        ("extra", "bed"),
        ("same", "boat"),
        ("extra", "now"),
    ]

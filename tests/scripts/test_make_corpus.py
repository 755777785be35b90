"""scripts/make_corpus.py: speech builds, resuming, and the command line.

flite itself is replaced by a small program that hums, except in one test that needs the real one.
"""

import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import soundfile
from spoken_texts import sentence_of

import make_corpus
from mini_corpus import layout, rendering, sounds, speech, voices
from mini_corpus.grammar import vocabulary
from training.lock import try_lock

HUMMING_FLITE = """#!{python}
import array, math, sys, wave
if "-lv" in sys.argv:
    print("Voices available: slt rms awb kal")
    sys.exit(0)
option = dict(zip(sys.argv[1::2], sys.argv[2::2]))
if option["-t"] == "fail":
    sys.exit("no such word")
rate = 8000 if option["-voice"] == "kal" else 16000
seconds = 0.0 if option["-t"] == "..." else 0.05 * len(option["-t"])
pitch = 100 + sum(map(ord, option["-t"] + option["-voice"])) % 100
hum = [int(9000 * math.sin(6.28 * pitch * n / rate)) for n in range(int(rate * seconds))]
with wave.open(option["-o"], "wb") as out:
    out.setnchannels(1), out.setsampwidth(2), out.setframerate(rate)
    out.writeframes(array.array("h", hum).tobytes())
"""


@pytest.fixture
def flite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program named flite, first on PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "flite"
    program.write_text(HUMMING_FLITE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return program


HUMMING_PIPER = """#!{python}
import array, math, pathlib, sys, wave
option = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert pathlib.Path(option["-m"]).is_file()
print("INFO: loaded", file=sys.stderr)
for number, text in enumerate(map(str.strip, sys.stdin)):
    if text == "fail":
        sys.exit("no such phoneme")
    path = pathlib.Path(option["-d"]) / f"{{id(option)}}{{number}}.wav"
    if text == "…":
        wave.open(str(path), "wb").close()  # as piper itself
    hum = [int(9000 * math.sin(6.28 * (100 + sum(map(ord, text)) % 100) * n / 22050)) for n in range(900 * len(text))]
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1), out.setsampwidth(2), out.setframerate(22050)
        out.writeframes(array.array("h", hum).tobytes())
    print(f"INFO:piper:Wrote {{path}}", file=sys.stderr)
"""


@pytest.fixture
def piper(flite: Path, tmp_path: Path) -> Path:
    """A program named piper beside flite; returns the model of a voice for it."""
    program = flite.with_name("piper")
    program.write_text(HUMMING_PIPER.format(python=sys.executable))
    program.chmod(0o755)
    model = tmp_path / "en_US-joe.onnx"
    for name in ("en_US-joe.onnx", "en_US-joe.onnx.json"):
        model.with_name(name).write_text("a voice")
    return model


@pytest.fixture
def sentences(tmp_path: Path) -> Path:
    path = tmp_path / "sentences.txt"
    path.write_text("Hello there.\n\n  It  works!\nHello there.\n" + "".join(f"Number {n}.\n" for n in range(9)))
    return path


def build(*arguments: object) -> int:
    return make_corpus.main([str(argument) for argument in arguments])


def speak(sentences: Path, out: Path, *more: object) -> int:
    return build("--what", "speech", "--sentences", sentences, "--out", out, *more)


def make_sounds(out: Path, *more: object) -> int:
    return build("--what", "sounds", "--out", out, "--jobs", 1, *more)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """As another process that writes there: this process, too, can lock nothing in ``folder``."""
    lock = try_lock(folder / ".lock")
    assert isinstance(lock, int)
    yield
    os.close(lock)


def rows_of(folder: Path) -> list[dict]:
    return layout.read_metadata(folder)


def samples_of(folder: Path) -> dict[str, bytes]:
    return {path.name: soundfile.read(path, dtype="int16")[0].tobytes() for path in folder.glob("*/*.flac")}


# --- speech builds ---------------------------------------------------------------------------------------------


def test_sentences_of_a_file_become_a_corpus(flite: Path, sentences: Path, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    assert speak(sentences, out, "--voices", "slt", "awb") == 0
    rows = rows_of(out)
    assert sorted(row["text"] for row in rows) == sorted(
        ["Hello there.", "It works!"] + [f"Number {n}." for n in range(9)]
    )
    assert {row["speaker"] for row in rows} == {"slt", "awb"}
    assert {row["domain"] for row in rows} == {"speech"}
    for row in rows:
        samples, rate = soundfile.read(out / row["file_name"])
        assert rate == 16_000 and samples.ndim == 1
        assert row["seconds"] == pytest.approx(len(samples) / rate, abs=1e-3)
        assert soundfile.info(out / row["file_name"]).subtype == "PCM_16"


def test_what_changes_the_texts_changes_the_build(
    flite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Clips are named by number: where other texts come of the same file, what lies there would say something else."""
    given = tmp_path / "text.txt"
    given.write_text(sentence_of("train", "Come here, my dear; and sit") + "\n")
    assert speak(given, tmp_path / "m", "--words", 2, 3) == 0
    monkeypatch.setattr(speech, "CLAUSE_ENDS", re.compile(r"\s(?=my|and)"))
    assert speak(given, tmp_path / "m", "--words", 2, 3) == 1
    assert "source='sentences " in capsys.readouterr().err


def test_words_choose_among_the_clauses_of_a_file(
    flite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "text.txt"
    given.write_text(sentence_of("train", "Come here, my dear old friend of many years") + "\n")
    assert speak(given, tmp_path / "m", "--words", 2, 3) == 0
    assert [row["text"] for row in rows_of(tmp_path / "m")] == ["Come here"]
    assert "1 texts of 1 sentences: test 0, valid 0, train 1\n" in capsys.readouterr().out
    for other in (("--words", 2, 9), ()):
        assert speak(given, tmp_path / "m", *other) == 1, "another choice is another corpus"
        assert "holds another speech build" in capsys.readouterr().err
    assert speak(given, tmp_path / "n", "--words", 1, 1) == 1
    assert "holds no text of --words [1, 1]" in capsys.readouterr().err
    for wrong in (("--words", 3, 2), ("--words", 0, 2)):
        with pytest.raises(SystemExit):
            speak(given, tmp_path / "n", *wrong)


@pytest.mark.slow
def test_build_is_deterministic_and_jobs_do_not_matter(flite: Path, sentences: Path, tmp_path: Path) -> None:
    for name, jobs in (("one", 1), ("three", 3)):
        assert speak(sentences, tmp_path / name, "--jobs", jobs) == 0
    assert rows_of(tmp_path / "one") == rows_of(tmp_path / "three")
    assert samples_of(tmp_path / "one") == samples_of(tmp_path / "three")


@pytest.mark.slow
def test_hours_bound_the_train_split(flite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "SPLIT_SIZE", 3)
    assert build("--what", "speech", "--hours", 10 / 3600, "--out", tmp_path / "big") == 0
    rows = rows_of(tmp_path / "big")
    counts = Counter(row["split"] for row in rows)
    assert counts["test"] == counts["valid"] == 3
    train = [row["seconds"] for row in rows if row["split"] == "train"]
    assert sum(train[:-1]) < 10 <= sum(train)
    assert len(samples_of(tmp_path / "big")) == len(rows)  # no file that the metadata does not name
    assert (tmp_path / "big" / "words.txt").read_text().split() == list(vocabulary())
    assert (tmp_path / "big" / "grammar.arpa").read_text().startswith("\\data\\")


@pytest.mark.slow
def test_killed_build_goes_on_and_leaves_no_half_file(
    flite: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert speak(sentences, tmp_path / "whole", "--jobs", 1) == 0
    spoken: list[str] = []
    say = voices.Flite.speak

    def interrupted(self: voices.Flite, text: str) -> tuple[np.ndarray, int]:
        if len(spoken) == 4:
            raise KeyboardInterrupt
        spoken.append(text)
        return say(self, text)

    monkeypatch.setattr(voices.Flite, "speak", interrupted)
    assert speak(sentences, tmp_path / "cut", "--jobs", 1) == 130
    done = samples_of(tmp_path / "cut")
    assert len(done) == 4
    stale = tmp_path / "cut" / "speech" / ".speech-train-000000.flac.1.tmp"
    stale.write_bytes(b"half")

    os.utime(stale, (0, 0))

    spoken.clear()
    monkeypatch.setattr(voices.Flite, "speak", lambda self, text: spoken.append(text) or say(self, text))
    assert speak(sentences, tmp_path / "cut", "--jobs", 1) == 0
    assert len(spoken) == 11 - 4  # what was finished is not spoken again
    assert samples_of(tmp_path / "cut") == samples_of(tmp_path / "whole")
    assert rows_of(tmp_path / "cut") == rows_of(tmp_path / "whole")
    assert not list((tmp_path / "cut").rglob("*.tmp"))


@pytest.mark.slow
def test_a_piper_voice_speaks_beside_a_flite_voice(piper: Path, sentences: Path, tmp_path: Path) -> None:
    assert speak(sentences, tmp_path / "mine", "--voices", piper, "slt") == 0
    rows = rows_of(tmp_path / "mine")
    assert {row["speaker"] for row in rows} == {"en_US-joe", "slt"} and len(rows) == 11
    for row in rows:
        info = soundfile.info(tmp_path / "mine" / row["file_name"])
        joe = row["speaker"] == "en_US-joe"
        assert info.samplerate == (22_050 if joe else 16_000)
        length = 900 * len(row["text"]) / 22_050 if joe else 0.05 * len(row["text"])
        assert length <= info.duration <= length + 0.181
        assert ("card of the Piper voice en_US-joe" in row["licence"]) == joe
    assert speak(sentences, tmp_path / "again", "--voices", piper, "slt", "--jobs", 3) == 0
    assert samples_of(tmp_path / "again") == samples_of(tmp_path / "mine")


def test_a_text_without_sounds_ends_no_build(piper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("\ufeffHello there.\r\n…\r\n\r\nIt works.\r\n", encoding="utf-8")
    assert speak(path, tmp_path / "mine", "--voices", piper, "--jobs", 1) == 0
    assert {row["text"] for row in rows_of(tmp_path / "mine")} == {"Hello there.", "It works."}
    assert "left out 1 sentences that are not spoken: ['…']" in capsys.readouterr().out


def test_a_piper_voice_that_cannot_speak_is_one_sentence(
    piper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("fail\n")

    def said(*given: Path) -> str:
        assert speak(path, tmp_path / f"m{len(given)}", "--voices", *given) == 1
        return capsys.readouterr().err

    assert "piper ended on 'fail' with voice en_US-joe" in (message := said(piper)) and "no such phoneme" in message
    assert "names en_US-joe twice" in said(piper, piper)
    piper.with_name("en_US-joe.onnx.json").unlink()
    assert "lacks en_US-joe.onnx.json" in said(piper)
    monkeypatch.setenv("PATH", "")
    assert "pip install piper-tts" in said(piper)


def test_finished_build_needs_no_flite(
    flite: Path, sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speak(sentences, tmp_path / "mine") == 0
    monkeypatch.setenv("PATH", "")
    with locked(tmp_path / "mine"):  # nothing is written, so nothing is locked: a read-only checkout will do
        assert speak(sentences, tmp_path / "mine") == 0
    assert "all there" in capsys.readouterr().out


def test_missing_flite_is_one_sentence_with_where_to_get_it(
    sentences: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert speak(sentences, tmp_path / "mine") == 1
    message = capsys.readouterr().err
    assert "apt install flite" in message and "github.com/festvox/flite" in message
    assert "Traceback" not in message


@pytest.mark.parametrize(("voice", "why"), [("bob", "'bob'.* slt, rms, awb"), ("kal", "8000 Hz")])
def test_a_voice_that_is_unknown_or_of_another_rate_is_refused(
    voice: str, why: str, flite: Path, sentences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speak(sentences, tmp_path / "m", "--voices", voice) == 1
    assert re.search(why, capsys.readouterr().err)


def test_two_builds_are_not_mixed_in_one_folder(
    flite: Path, sentences: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert speak(sentences, tmp_path / "mine") == 0
    assert speak(sentences, tmp_path / "mine", "--voices", "awb") == 1
    message = capsys.readouterr().err
    assert "voices=['awb']" in message and "--out" in message


def test_sentence_that_flite_does_not_speak_is_counted(
    flite: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sentences.txt"
    path.write_text("...\nHello.\n")
    assert speak(path, tmp_path / "m") == 0
    assert [row["text"] for row in rows_of(tmp_path / "m")] == ["Hello."]
    assert "left out 1 sentence" in capsys.readouterr().out
    path.write_text("fail\n")
    assert speak(path, tmp_path / "n") == 1
    assert "no such word" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xff\xfe", b"a\x07b\n"])
def test_bad_sentence_file(content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "sentences.txt"
    path.write_bytes(content)
    assert speak(path, tmp_path / "m") == 1
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [["--hours", "1"], ["--times", "2"], ["--seed", "3"], ["--voices", "awb"],
     ["--jobs", "0"], ["--times", "0"], ["--hours", "-1"]],
)  # fmt: skip
def test_shipped_corpus_is_not_overwritten(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        make_corpus.parse(arguments)
    assert stop.value.code == 2
    assert "--" in capsys.readouterr().err


@pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")
def test_real_flite_speaks_the_shipped_clips_again(tmp_path: Path) -> None:
    clip = next(speech.plan_grammar(make_corpus.SEED, make_corpus.VOICES))
    speech.render(clip, tmp_path, voices.Flite(clip.speaker))
    again, _ = soundfile.read(tmp_path / clip.file_name)
    shipped, _ = soundfile.read(make_corpus.MINI / clip.file_name)
    assert abs(len(again) - len(shipped)) < 1600  # another version of flite may differ in detail
    if len(again) == len(shipped):
        assert np.corrcoef(again, shipped)[0, 1] > 0.9


# --- sounds and music ------------------------------------------------------------------------------------------


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> list[dict]:
    """Three sound clips instead of all."""
    rows = [row for row in sounds.plan(7) if row["classes"] in (["clock"], ["alarm"])][:3]
    monkeypatch.setattr(sounds, "plan", lambda seed, times=1: iter(rows * times))
    return rows


def test_sounds_are_made_once(few: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert make_sounds(tmp_path) == 0
    assert rows_of(tmp_path) == few
    first = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")}
    assert len(first) == 3
    assert soundfile.info(next(iter(first))).samplerate == 24_000
    with locked(tmp_path):
        assert make_sounds(tmp_path) == 0
        assert "all there" in capsys.readouterr().out
        next(iter(first)).unlink()
        with pytest.raises(SystemExit):
            make_sounds(tmp_path)
    assert make_sounds(tmp_path) == 0
    now = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.flac")}
    assert now.keys() == first.keys() and sum(now[path] != first[path] for path in first) == 1


def test_sounds_are_made_anew_when_their_code_changed(
    few: list[dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert make_sounds(tmp_path) == 0
    monkeypatch.setattr(rendering, "recipe_hash", lambda domain: "changed")
    assert len(rendering.outstanding("sound", 7, tmp_path)) == 3
    assert make_sounds(tmp_path) == 0
    assert rendering.outstanding("sound", 7, tmp_path) == []


def test_other_seed_in_the_same_folder_is_refused(
    few: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_sounds(tmp_path) == 0
    assert make_sounds(tmp_path, "--seed", 8) == 1
    assert "seed=8" in capsys.readouterr().err


def test_other_number_of_takes_in_the_same_folder_is_refused(
    few: list[dict], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_sounds(tmp_path) == 0
    assert make_sounds(tmp_path, "--times", 2) == 1
    assert "times=2 (the folder has 1)" in capsys.readouterr().err
    stamp = layout.read_stamp(tmp_path, "sound")
    layout.write_stamp(tmp_path, "sound", {key: stamp[key] for key in ("seed", "recipe")})  # as it was before --times
    assert make_sounds(tmp_path) == 0
    assert "all there" in capsys.readouterr().out
    layout.write_stamp(tmp_path, "sound", {**stamp, "times": 3})
    assert make_sounds(tmp_path) == 1
    assert "times=1 (the folder has 3)" in capsys.readouterr().err


def test_domains_share_one_metadata_file(few: list[dict], flite: Path, sentences: Path, tmp_path: Path) -> None:
    out = tmp_path / "both"
    assert build("--what", "sounds", "speech", "--sentences", sentences, "--out", out, "--jobs", 1) == 0
    assert Counter(row["domain"] for row in rows_of(out)) == {"speech": 11, "sound": 3}
    assert [row["domain"] for row in rows_of(out)][0] == "speech"

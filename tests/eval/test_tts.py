"""eval/tts.py on a tiny codec and a tiny language model: what it writes, and that a second run redoes nothing."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from json_files import read_lines, write_lines
from tiny_models import tiny_codec

from eval import tts
from eval.harness.audio import CannotScore
from eval.harness.clips import derangement, read_clips
from eval.metrics.utmos import UTMOS22
from lm.audio_model import AudioModel
from tests.eval import tiny_networks
from tests.eval.tiny_task import JUDGE, TEXTS, evaluate
from training.config import REPOSITORY, ConfigError

TASK = "tts"
KEYS = (*JUDGE, "recognisers=[ctc-mini]", "max_seconds=1.0")


def speak(folder: Path, *overrides: str) -> dict:
    return evaluate("eval_tts", folder, *KEYS, *overrides)[0]


@pytest.mark.slow
def test_rows_items_and_wavs(inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    results = speak(inside, "task.decoding.temperature=0.3")
    rows = results["rows"]
    assert list(rows) == ["reference", "resynthesis", "generated", "generated-shuffled"]
    assert all(cells["wer/ctc-mini"]["n"] == 3 for cells in rows.values())
    assert rows["generated"]["legal"]["value"] == 1.0
    assert set(rows["generated-shuffled"]) >= {"wer-original/ctc-mini", "limit", "legal", "real-time-factor"}
    assert set(rows["generated"]) >= {"limit", "early-stop", "repeated-codes", "repeated-words/ctc-mini"}
    items = read_lines("out/items.jsonl")
    assert len(items) == 12 and len({(item["id"], item["row"]) for item in items}) == 12
    for item in items:
        info = soundfile.info(Path("out") / item["audio"])
        assert info.frames / info.samplerate == pytest.approx(item["seconds"], abs=1e-3)
        assert "ctc-mini" in item["wer"] and "ctc-mini" in item["hypotheses"]
    shuffled = [item for item in items if item["row"] == "generated-shuffled"]
    assert sorted(item["text"] for item in shuffled) == sorted(TEXTS)
    assert all(item["text"] != item["original_text"] for item in shuffled)
    how = results["how"]
    assert how["model"]["sha256"] and how["tokenizer"]["fingerprint"] and how["recognisers"]["ctc-mini"]["sha256"]
    assert (how["model"]["sampling"]["temperature"], how["model"]["sampling"]["top_p"]) == (0.3, 0.9)
    assert "soxr" in how["resampler"] and how["normaliser"].startswith("plain")
    assert "wer/ctc-mini" in capsys.readouterr().out

    # the second run finds everything: neither the model nor a recogniser is asked again
    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(AudioModel, "generate", never)
    monkeypatch.setattr("eval.judges.recognisers.ctc.GreedyCTC.transcribe", never)
    assert speak(inside, "task.decoding.temperature=0.3")["rows"] == rows


@pytest.mark.parametrize(
    ("state", "prompt", "said"),
    [
        ({}, "{speaker}: {text}", "does not record which speakers it has heard"),
        ({"speakers": ["rms", "slt"]}, "{speaker}: {text}", ""),
        (
            {"speakers": ["rms"]},
            "{speaker}: {text}",
            "3 of 3 sentences name a speaker that the model has not heard, as slt; it has heard rms.",
        ),
        ({"speakers": []}, "{text} ({speaker})", "it has heard none by name."),
        ({"speakers": []}, "{text}", ""),  # nobody is asked for by name
    ],
)
def test_sentences_of_speakers_that_the_model_has_not_heard_are_counted(
    state: dict, prompt: str, said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "state.json").write_text(json.dumps(state))
    clips = [clip for clip in read_clips(str(folder / "corpus")) if clip.split == "test" and clip.text]
    tts.note_strangers(clips, tmp_path, prompt)
    printed = capsys.readouterr().out
    assert said in printed and bool(printed) == bool(said)


@pytest.mark.slow
def test_a_reader_follows_a_run_through_few_files(inside: Path) -> None:
    """What the program enters of this folder; codec, model and task are entered through their own doors."""
    entered: set[str] = set()
    sys.setprofile(lambda frame, event, _: entered.add(frame.f_code.co_filename) if event == "call" else None)
    try:
        speak(inside, "cache=null")
    finally:
        sys.setprofile(None)
    ours = sorted(
        str(Path(name).relative_to(REPOSITORY)) for name in entered if name.startswith(f"{REPOSITORY / 'eval'}/")
    )
    assert "eval/tts.py" in ours and len(ours) <= 18, ours


def test_whisper_listens_where_its_weights_are_given(inside: Path, tmp_path: Path) -> None:
    tiny_networks.whisper_network(tmp_path / "whisper")
    results = speak(inside, "rows=[reference]", f"weights.whisper={tmp_path / 'whisper'}")
    assert {"wer/whisper", "wer/ctc-mini"} <= set(results["rows"]["reference"])
    assert len(results["how"]["recognisers"]["whisper"]["weights_sha256"]) == 64


def test_what_is_skipped_is_absent_and_what_cannot_run_says_so(inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: object) -> None:
        raise CannotScore("not computed: speechmos or onnxruntime is not installed")

    monkeypatch.setattr("eval.judges.judging.DNSMOS", absent)
    results = speak(
        inside, "rows=[reference,resynthesis]", "recognisers=[ctc-mini,pocketsphinx-grammar]", "dnsmos=true",
        "skip.reference=[ctc-mini]",
    )  # fmt: skip
    assert "wer/ctc-mini" not in results["rows"]["reference"]
    # this corpus has no grammar
    failed = results["rows"]["reference"]["wer/pocketsphinx-grammar"]
    assert failed["value"] is None and failed["n_failed"] == 3 and "grammar.arpa" in failed["failures"][0]["reason"]
    assert results["rows"]["resynthesis"]["dnsmos/p808"]["n_failed"] == 3


@pytest.mark.slow
def test_networks_judge_where_their_weights_are(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_networks.speaker_network(tmp_path / "speaker")
    tiny_networks.ctc_network(tmp_path / "ctc")
    tiny_networks.utmos_checkpoint(tmp_path / "utmos.pt")
    small = UTMOS22.load(tmp_path / "utmos.pt", tiny_networks.wav2vec2_config(), lstm=8, hidden=12)
    monkeypatch.setattr(UTMOS22, "load", lambda path: small)
    results = speak(
        inside, "rows=[reference,resynthesis]", "recognisers=[hubert-ctc]", f"weights.hubert-ctc={tmp_path / 'ctc'}",
        f"weights.utmos={tmp_path / 'utmos.pt'}", f"weights.speaker={tmp_path / 'speaker'}",
    )  # fmt: skip
    rows = results["rows"]
    assert rows["reference"]["utmos"]["n"] == rows["resynthesis"]["utmos"]["n"] == 3
    assert rows["resynthesis"]["speaker-similarity/speaker"]["n"] == 3
    assert "speaker-similarity/speaker" not in rows["reference"]
    assert rows["reference"]["wer/hubert-ctc"]["n"] == 3
    assert results["how"]["speaker"]["weights_sha256"] and results["how"]["utmos"]["sha256"]
    with pytest.raises(ConfigError):
        speak(inside, "rows=[reference]", "recognisers=[]", "weights.speaker=no/such/folder")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("texts", "first", "second"),
    [
        (["今天天气很好", "你好，世界", "我们走吧"], "cer", "wer"),
        (["मैं घर गया", "यह अच्छा है", "नमस्ते"], "wer", "cer"),
    ],
)
def test_what_leads_is_the_rate_of_the_script(
    texts: list[str], first: str, second: str, inside: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    rows = read_lines(inside / "corpus/metadata.jsonl")
    shutil.copytree(inside / "corpus", tmp_path / "corpus")
    lines = [{**row, "text": texts[number % 3]} for number, row in enumerate(rows) if row["domain"] == "speech"]
    write_lines(tmp_path / "corpus/metadata.jsonl", lines)
    results = speak(inside, f"data.root={tmp_path / 'corpus'}")
    assert results["how"]["headline"] == first
    assert {part["of"]["metric"] for part in results["differences"]} == {f"{first}/ctc-mini"}
    assert f"{first}-original/ctc-mini" in results["rows"]["generated-shuffled"]
    printed = capsys.readouterr().out
    assert f"{first}/ctc-mini" in printed and f"{second}/ctc-mini" not in printed


@pytest.mark.slow
def test_sentences_that_nobody_recorded(inside: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    rows = speak(inside, "texts=hard", "limit=4", "skip.generated-shuffled=[ctc-mini]")["rows"]
    assert list(rows) == ["generated", "generated-shuffled"]
    cells = rows["generated"]
    assert {"limit", "early-stop", "repeated-codes", "repeated-words/ctc-mini", "wer/ctc-mini"} <= set(cells)
    assert all(cells[name]["n"] == 4 for name in ("limit", "early-stop", "repeated-codes"))
    assert "duration-ratio" not in cells and "early-stop" not in rows["generated-shuffled"]
    items = read_lines("out/items.jsonl")
    assert {item["speaker"] for item in items} == {"slt"} and items[0]["id"].startswith("numbers-")
    assert all(item["recurring_seconds"] >= 0 for item in items)
    (tmp_path / "mine.txt").write_text("good morning\n\n  how are you?\n")
    rows = speak(inside, f"texts={tmp_path / 'mine.txt'}", "rows=[generated]", "recognisers=[]")["rows"]
    assert rows["generated"]["limit"]["n"] == 2
    items = read_lines("out/items.jsonl")
    assert [(item["id"], item["text"]) for item in items] == [
        ("line-00001", "good morning"), ("line-00003", "how are you?"),
    ]  # fmt: skip
    (tmp_path / "empty.txt").write_text("\n")
    for texts, said in (("no/such.txt", "neither 'hard' nor a text file"), (tmp_path / "empty.txt", "no sentence")):
        assert said in refusal(speak, inside, f"texts={texts}")
    assert "rows=[generated]" in refusal(speak, inside, "texts=hard", "rows=[reference]")


def test_options_are_checked_at_the_door(inside: Path) -> None:
    for override in ("rows=[reference,resynthesised]", "recognisers=[no-such]", "rows=[]", "split=dev", "model=none"):
        with pytest.raises(ConfigError):
            speak(inside, override)


def test_a_model_of_another_tokenizer_is_refused(inside: Path, tmp_path: Path) -> None:
    tiny_codec(seed=1).save_pretrained(tmp_path)
    with pytest.raises(ConfigError):
        speak(inside, f"tokenizer.path={tmp_path}")


def test_derangement() -> None:
    for size in (2, 3, 50):
        other = derangement(size, 0)
        assert sorted(other) == list(range(size)) and all(i != j for i, j in enumerate(other))
    with pytest.raises(ConfigError):
        derangement(1, 0)


def test_a_folder_of_any_other_system(inside: Path, tmp_path: Path, refusal: Callable[..., str]) -> None:
    (tmp_path / "theirs").mkdir()
    for number in range(2):
        wav, rate = soundfile.read(inside / f"corpus/test-speech-{number}.flac", dtype="float32")
        soundfile.write(tmp_path / f"theirs/test-speech-{number}.flac", wav[::2], rate // 2)
    results = speak(inside, f"generated={tmp_path / 'theirs'}", "rows=[reference,generated]")
    cells = results["rows"]["generated"]
    cell = cells["wer/ctc-mini"]  # the clip that they did not make is wrong, word for word
    assert (cell["n"], cell["n_failed"], cell["undelivered"]) == (3, 0, 1)
    assert cells["duration-ratio"]["value"] == pytest.approx(1.0, abs=1e-3)
    assert "limit" not in cells and "real-time-factor" not in cells
    assert results["how"]["model"]["files"] == 2 and results["how"]["tokenizer"] is None
    assert "has no file for test-speech-2" in Path("out/items.jsonl").read_text()
    (tmp_path / "empty").mkdir()
    for override, said in (
        (f"generated={tmp_path / 'empty'}", "no audio file named after a clip"), ("generated=gone", "no such folder"),
    ):  # fmt: skip
        assert said in refusal(speak, inside, override, "rows=[generated]")
    with pytest.raises(ConfigError):
        speak(inside, f"generated={tmp_path / 'theirs'}")

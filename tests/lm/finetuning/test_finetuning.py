"""The parts of a fine-tuning: cutting, choosing, holding out, warning, planning and what is said of the outcome."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from codec.corpus import Clip
from codec.corpus.cutting import cut_at_pauses, level
from codec.shards import Row
from lm.finetuning.choosing import choose, hold_out, in_train_and_test, two_voices, unseen_letters, warnings
from lm.finetuning.gathering import Limits, gather
from lm.finetuning.mixing import rehearsal
from lm.finetuning.planning import LEAST, MOST, RATE, plan
from lm.finetuning.verdict import ceiling, verdict

RATE_HZ = 16_000
LIMITS = Limits(1.0, 6.0, -50.0, 2.0)


def speech(seconds: float, pauses: tuple[float, ...] = ()) -> np.ndarray:
    """Noise as loud as speech, with 0.4 s of near silence around each of ``pauses`` (seconds)."""
    wave = 0.1 * np.random.default_rng(0).standard_normal(round(seconds * RATE_HZ)).astype(np.float32)
    for pause in pauses:
        wave[round((pause - 0.2) * RATE_HZ) : round((pause + 0.2) * RATE_HZ)] *= 1e-3
    return wave


def test_a_recording_is_cut_at_its_pauses_and_nothing_of_it_is_lost(tmp_path: Path) -> None:
    wave = speech(17.0, (4.0, 9.0, 13.5))
    soundfile.write(tmp_path / "a.wav", wave, RATE_HZ, subtype="FLOAT")
    pieces = list(cut_at_pauses(tmp_path / "a.wav", 6.0))
    assert [round(piece.start, 1) for piece in pieces] == [0.0, pytest.approx(4, abs=0.15), *(
        pytest.approx(place, abs=0.15) for place in (9.0, 13.5)
    )]  # fmt: skip
    assert np.array_equal(np.concatenate([piece.wave for piece in pieces]), wave)
    assert all(piece.whole for piece in pieces) and max(len(piece.wave) for piece in pieces) <= 6 * RATE_HZ


def test_pieces_that_end_or_begin_in_a_word_say_so(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", speech(15.0, (4.0,)), RATE_HZ)
    assert [piece.whole for piece in cut_at_pauses(tmp_path / "a.wav", 6.0)][:3] == [True, False, False]
    assert level(np.zeros(9)) == -200.0 and level(np.ones(9)) == 0.0


def killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_is_gathered_and_what_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "talk/deep"
    folder.mkdir(parents=True)
    for name, wave in {
        "good": speech(2.0), "short": speech(0.5), "silent": speech(2.0) * 1e-4, "long": speech(15.0, (4.0, 9.0)),
    }.items():  # fmt: skip
        soundfile.write(folder / f"{name}.wav", wave, RATE_HZ)
    (folder / "bad.wav").write_bytes(b"RIFF")
    clips, rejects = gather(tmp_path / "talk", tmp_path / "out", "anna", LIMITS)
    assert {clip.id.rpartition("/")[2] for clip in clips} >= {"good", "long-00000000"} and len(clips) >= 3
    assert {clip.speaker for clip in clips} == {"anna"} and clips[0].extra["seconds"] > 1
    reasons = {str(reject.id).rpartition("/")[2]: reject.reason for reject in rejects}
    assert reasons["short"] == "shorter than 1 s" and reasons["silent"] == "quieter than -50 dB" and "bad" in reasons
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert gather(tmp_path / "talk", tmp_path / "out", "anna", LIMITS)[1] == rejects
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before  # nothing done twice
    kept = [(clip.id, len(soundfile.read(clip.path)[0])) for clip in clips]
    monkeypatch.setattr("lm.finetuning.gathering.write_lines", killed)
    with pytest.raises(KeyboardInterrupt):  # under other limits, when the pieces are written already
        gather(tmp_path / "talk", tmp_path / "out", "anna", dataclasses.replace(LIMITS, longest=12.0))
    monkeypatch.undo()
    again, _ = gather(tmp_path / "talk", tmp_path / "out", "anna", LIMITS)
    assert [(clip.id, len(soundfile.read(clip.path)[0])) for clip in again] == kept
    soundfile.write(folder / "more.wav", speech(3.0), RATE_HZ)
    assert len(gather(tmp_path / "talk", tmp_path / "out", "anna", LIMITS)[0]) == len(clips) + 1


def clip(number: int, text: str | None, split: str = "train", speaker: str = "anna", **extra: object) -> Clip:
    return Clip(
        f"{number:03}", Path(f"{number}.wav"), text, [], speaker, "speech", split, None, {"seconds": 3.0, **extra}
    )


@pytest.mark.parametrize(
    ("text", "label", "reason"),
    [
        ("hello there", {"dnsmos": 3.0}, None),
        (None, {"text": "Hello there.", "dnsmos": 3.0}, None),
        ("hello there", {}, None),  # DNSMOS is not installed
        (None, {"dnsmos": 3.0}, "no text: nobody heard"),
        (None, {"text": ""}, "no words are said in it"),
        ("hello", {"dnsmos": 1.2}, "DNSMOS below 2"),
        ("hello", None, "it cannot be judged"),
    ],
)
def test_each_clip_is_taken_or_left_out_with_its_reason(
    text: str | None, label: dict | None, reason: str | None
) -> None:
    kept, rejects = choose([clip(0, text)], {} if label is None else {"000": label}, LIMITS)
    assert [reject.reason.startswith(str(reason)) for reject in rejects] == ([] if reason is None else [True])
    assert [bool(one.text) for one in kept] == ([True] if reason is None else [])


def test_no_sentence_of_the_test_is_learnt() -> None:
    clips = [clip(number, f"sentence number {number % 40}") for number in range(60)]
    found, rejects = hold_out(clips, 20)
    texts = {split: {one.text for one in found if one.split == split} for split in ("train", "valid", "test")}
    assert len(texts["test"]) == 20 == sum(one.split == "test" for one in found)
    assert not texts["test"] & (texts["train"] | texts["valid"]) and texts["valid"]
    assert len(found) + len(rejects) == 60 and rejects
    no_train = hold_out([clip(n, f"sentence {n}", ("test", "valid")[n % 2]) for n in range(60)], 20)[0]
    assert sum(one.split == "train" for one in no_train) > sum(one.split == "valid" for one in no_train) > 0
    own = [clip(n, f"sentence {n}", "test" if n < 25 else "train") for n in range(50)]
    assert {one.id for one in hold_out(own, 20)[0] if one.split == "test"} < {f"{n:03}" for n in range(25)}


PITCHES = np.random.default_rng(1).normal(0, 0.04, 40)


@pytest.mark.parametrize(("octaves", "found"), [(0.0, 0), (0.3, 0), (0.8, 1)])
def test_two_speakers_under_one_name_are_told_by_their_pitch(octaves: float, found: int) -> None:
    hertz = 110 * 2 ** (PITCHES + octaves * (np.arange(40) % 2))
    assert len(two_voices([clip(n, "a", pitch=float(pitch)) for n, pitch in enumerate(hertz)])) == found
    apart = [clip(n, "a", speaker=("anna", "bert")[n % 2], pitch=float(pitch)) for n, pitch in enumerate(hertz)]
    assert two_voices(apart) == []


def test_letters_that_the_text_tokenizer_never_saw(text_tokenizer) -> None:
    assert unseen_letters(["anna found the green apples"], text_tokenizer) == 0
    assert unseen_letters(["你好"], text_tokenizer) == 1.0 and 0 < unseen_letters(["Anna häufig"], text_tokenizer) < 0.5


@pytest.mark.parametrize(
    ("clips", "unseen", "said"),
    [
        ([clip(n, f"s {n}") for n in range(200)], 0.0, ""),
        ([clip(n, f"s {n}") for n in range(20)], 0.0, "TOO SMALL: 1.0 minutes"),
        ([clip(n, f"s {n}") for n in range(200)], 0.3, "A LANGUAGE THE MODEL NEVER SAW"),
        ([clip(n, f"s {n % 150}", "test" if n < 50 else "train") for n in range(200)], 0.0, "THE SAME SENTENCE"),
    ],
)
def test_what_a_person_must_know_is_said(clips: list[Clip], unseen: float, said: str) -> None:
    found = "".join(warnings(clips, clips, unseen, "none"))
    assert said in found and bool(found) == bool(said)
    assert bool(in_train_and_test(clips)) == (said == "THE SAME SENTENCE")


def test_old_voices_are_rehearsed_alike() -> None:
    rows = [Row(f"{n}", np.zeros((10, 3)), 2.0, "a", speaker="ab"[n < 70], domain="speech") for n in range(100)]
    found = rehearsal(rows, 40.0)
    assert sum(row.duration for row in found) == 40.0 and sum(row.speaker == "b" for row in found) == 10
    assert len(rehearsal(rows, 1e9)) == 100


def test_more_speech_trains_longer_and_at_a_higher_rate() -> None:
    little, much = plan([200] * 50, 120.0, 2048), plan([200] * 5000, 7200.0, 2048)
    assert (little.steps, little.rate) == (LEAST, RATE / 2) and little.steps < much.steps <= MOST and much.rate == RATE
    assert plan([400, 5000], 60.0, 2048).row_length == 416 and plan([400], 60.0, None, steps=7).steps == 7
    assert "tuning=lora" in little.settings(True) and not any("lr" in line for line in little.settings(True))


def part(metric: str, value: float, low: float | None = None, high: float | None = None) -> dict:
    return {"metric": metric, "value": value, "low": low, "high": high, "n": 20 if low is not None else 5}


@pytest.mark.parametrize(
    ("voice", "old", "said"),
    [
        ([part("wer/whisper", -0.2, -0.3, -0.1)], [], ["better: wer/whisper: -0.200 [-0.300, -0.100] over 20 clips"]),
        ([part("wer/whisper", 0.2, 0.1, 0.3)], [], ["THE VOICE GOT WORSE"]),
        ([part("speaker-similarity/x", -0.2, -0.3, -0.1)], [], ["THE VOICE GOT WORSE"]),
        ([part("bits-per-second", -9, -12, -6), part("dnsmos/p808", -1, -2, -0.5)], [], ["THE VOICE GOT W", "better"]),
        ([part("wer/whisper", -0.02, -0.1, 0.06)], [], ["NOTHING CHANGED"]),
        ([part("bits-per-second", 9, 6, 12), part("utmos", 1, 0.5, 2)], [], ["LEARNT BY HEART", "better: utmos"]),
        ([part("wer/whisper", -0.5)], [], ["NOTHING CAN BE SAID"]),
        ([part("utmos", 0.4, 0.2, 0.6)], [part("wer/a", 0.06, -0.1, 0.2)], ["THE OLD VOICES SUFFERED", "better"]),
        ([part("utmos", 0.4, 0.2, 0.6)], [part("wer/a", 0.04, 0.01, 0.1)], ["better"]),
    ],
)
def test_the_verdict_says_loudly_what_went_wrong(voice: list, old: list, said: list[str]) -> None:
    found = verdict(voice, old)
    assert len(found) == len(said) and all(line.startswith(start) for line, start in zip(found, said, strict=True))


@pytest.mark.parametrize(("resynthesis", "said"), [(0.3, 0), (0.96, 1), (None, 0)])
def test_a_tokenizer_that_cannot_carry_the_voice_is_named_as_the_cause(
    resynthesis: float | None, said: int, tmp_path: Path
) -> None:
    rows = {
        "reference": {"wer/a": {"value": 0.26}},
        "resynthesis": {"wer/a": {"value": resynthesis}, "utmos": {"value": 9}},
    }
    (tmp_path / "results.json").write_text(json.dumps({"rows": rows}))
    found = ceiling(tmp_path)
    assert len(found) == said and all("is 26 %, and 96 % after" in line for line in found)

"""eval/prompted.py on a tiny codec and an untrained model: what is given, what is judged, and against which voice."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hydra.utils import instantiate
from json_files import write_lines

from codec.corpus import Clip, read_corpus
from eval import prompted
from eval.prompted import Case, cases_of, other_voices
from lm.audio_model import AudioModel
from tests.eval import tiny_networks
from tests.eval.tiny_task import JUDGE, build, evaluate
from training.config import compose

TASKS = ("continuation", "voice_prompted_tts", "interleaved")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus with a second speaker, whose clips are called alike."""
    root = build(tmp_path_factory.mktemp("prompted"), "+".join(TASKS))
    lines = (root / "corpus/metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    noise = np.random.default_rng(1)
    for row in [row for row in rows if row["domain"] == "speech"]:
        name = f"rms-{row['file_name']}"
        soundfile.write(root / "corpus" / name, 0.1 * noise.standard_normal(24_000), 16_000)
        rows.append({**row, "file_name": name, "id": f"rms-{row['id']}", "speaker": "rms"})
    write_lines(root / "corpus/metadata.jsonl", rows)
    return root


KEYS = (*JUDGE, "task.decoding.max_seconds=1", "class_steps=4", "cache=cache")


def cases(folder: Path, task: str, limit: int = 0) -> list[Case]:
    clips = [clip for clip in read_corpus(folder / "corpus")[0] if clip.split == "test" and clip.domain == "speech"]
    return cases_of(clips, instantiate(compose("eval_prompted", [f"task={task}"]).task), limit)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_every_row_has_what_was_asked_for(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, task: str
) -> None:
    monkeypatch.chdir(folder)
    tiny_networks.speaker_network(tmp_path / "speaker")
    overrides = (f"task={task}", f"weights.speaker={tmp_path / 'speaker'}")
    results, items = evaluate("eval_prompted", folder, *KEYS, *overrides)
    rows, asked = results["rows"], [name for case in cases(folder, task) for name in case.asked]
    assert len(asked) == (4 if task == "interleaved" else 6)
    assert list(rows) == ["reference", "resynthesis", "generated", "generated-shuffled"]
    for cells in rows.values():
        assert cells["class-accuracy"]["n"] == len(asked)
        likeness = cells["speaker-similarity/speaker"]
        assert likeness["n"] + likeness["n_failed"] == len(asked) and likeness["n"] > 1  # half a second is needed
        assert ("wer/ctc-mini" in cells) == (task != "continuation")
        assert ("fad/log-mel" in cells) == (task == "continuation")
    assert rows["generated"]["legal"]["value"] == 1.0 and "limit" in rows["generated-shuffled"]
    assert {d["of"]["metric"] for d in results["differences"]} >= {"class-accuracy", "speaker-similarity/speaker"}

    speakers = {clip.id: clip.speaker for clip in read_corpus(folder / "corpus")[0]}
    for item in items:
        info = soundfile.info(folder / "out" / item["audio"])
        assert info.frames / info.samplerate == pytest.approx(item["seconds"], abs=1e-3)
        if item["row"] == "generated":
            assert speakers[item["given"]] == item["speaker"]
        if item["row"] == "generated-shuffled":
            assert speakers[item["given"]] != item["speaker"]
    of = {(item["row"], item["id"]): item for item in items}
    for name in asked if task == "continuation" else ():  # what is given and the rest make the recording
        given = soundfile.info(folder / f"out/wavs/given/{name}.wav")
        whole = soundfile.info(
            folder / f"corpus/{next(c for c in read_corpus(folder / 'corpus')[0] if c.id == name).path.name}"
        )
        total = given.frames / given.samplerate + of["reference", name]["seconds"]
        assert total == pytest.approx(whole.frames / whole.samplerate, abs=1e-3)

    def never(*_: object, **__: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(AudioModel, "generate", never)
    again, _ = evaluate("eval_prompted", folder, *KEYS, *overrides)
    for cells in (*again["rows"].values(), *rows.values()):
        cells.pop("real-time-factor", None)
    assert again["rows"] == rows
    assert "class-accuracy" in capsys.readouterr().out


def test_cases_are_what_the_tasks_select(folder: Path) -> None:
    assert [case.given == case.asked[0] for case in cases(folder, "continuation")] == [True] * 6
    for case in cases(folder, "voice_prompted_tts"):
        assert case.given != case.asked[0] and case.given.startswith("rms") == case.asked[0].startswith("rms")
    assert cases(folder, "interleaved") == [
        Case("rms-test-speech-0", ("rms-test-speech-1", "rms-test-speech-2")),
        Case("test-speech-0", ("test-speech-1", "test-speech-2")),
    ]
    drawn = [case.given.startswith("rms") for case in cases(folder, "continuation", 4)]
    assert len(drawn) == 4 and sum(drawn) == 2
    assert len({case.given for case in cases(folder, "interleaved", 1)}) == 1


def test_another_voice_is_that_of_another_speaker() -> None:
    names = [f"{speaker}-{i}" for speaker in "abc" for i in range(5)]
    own = [Case(name, (name,)) for name in names]
    for seed in range(5):
        other = other_voices(own, {name: name[0] for name in names}, seed)
        assert all(given[0] != case.given[0] for given, case in zip(other, own, strict=True))
    alone = other_voices(own, dict.fromkeys(names, "a"), 0)
    assert all(given != case.given for given, case in zip(alone, own, strict=True))


def test_a_recording_that_cannot_be_read_is_a_clip_without_audio(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    lost = cases(folder, "interleaved")[0]
    read = prompted.read_reference

    def reading(clips: list[Clip]) -> list:
        row = read(clips)
        for scored in row:
            if scored.id == lost.given:
                scored.wav, scored.item["error"] = None, "the file is cut off"
        return row

    monkeypatch.setattr(prompted, "read_reference", reading)
    results, items = evaluate(
        "eval_prompted", folder, *KEYS, "task=interleaved", "rows=[reference,generated]", "voice_judge=false"
    )
    assert results["rows"]["generated"]["legal"]["n"] == 4
    words = results["rows"]["generated"]["wer/ctc-mini"]  # nobody blames the model
    assert (words["n"], words["n_failed"], words["undelivered"]) == (2, 2, 0)
    errors = {item["id"]: item.get("error") for item in items if item["row"] == "generated"}
    assert errors[lost.asked[0]] == f"the recording that is given, {lost.given}, cannot be read"
    assert sum(error is not None for error in errors.values()) == 2


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (["task=tts"], "task=tts: choose continuation, voice_prompted_tts, interleaved."),
        (["task=voice_prompted_tts", "domain=music"], "domain=music: task=voice_prompted_tts is for speech."),
        (["task=interleaved", "task.recording=(nothing)"], "has no test clips for task=interleaved"),
        (["embeddings=[ears]"], "embeddings: there is no 'ears'"),
        (["rows=[reference,given]"], "rows: there is no 'given'"),
        (["task=continuation", "split=dev"], "has no speech in its dev split"),
    ],
)
def test_options_are_checked_at_the_door(
    folder: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str], overrides: list[str], reason: str
) -> None:
    monkeypatch.chdir(folder)
    assert reason in refusal(evaluate, "eval_prompted", folder, *KEYS, *overrides)

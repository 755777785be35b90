"""eval/asr.py and eval/captioning.py on a tiny codec and an untrained model: rows, bounds, and no work twice."""

from pathlib import Path

import pytest

from lm.audio_model import AudioModel
from tests.eval.tiny_task import CAPTIONS, JUDGE, evaluate
from training.config import ConfigError

TASK = "asr+audio_captioning"


def test_asr(inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    options = [JUDGE[0], "max_tokens=6"]
    results, items = evaluate("eval_asr", inside, *options)
    rows = results["rows"]
    assert list(rows) == ["reference", "resynthesis", "generated", "generated-shuffled", "silence"]
    assert rows["reference"]["wer/ctc-mini"]["n"] == rows["generated"]["wer/model"]["n"] == 3
    assert rows["generated"]["limit"]["n"] == 3 and rows["generated"]["real-time-factor"]["value"] > 0
    assert [d["of"] for d in results["differences"]] == [{"row": "generated-shuffled", "metric": "wer/model"}]
    written = {item["id"]: item["hypotheses"]["model"] for item in items if item["row"] == "generated"}
    for item in items:
        if item["row"] == "generated-shuffled":  # what was written about another clip
            assert item["heard"] != item["id"] and item["hypotheses"]["model"] == written[item["heard"]]
    assert results["how"]["model"]["decoding"] == "greedy"
    assert "wer/model" in capsys.readouterr().out
    monkeypatch.setattr(AudioModel, "write", None)  # the second run finds all texts
    assert evaluate("eval_asr", inside, *options)[0]["rows"] == rows


def test_asr_checks_its_options_and_says_what_to_run_first(inside: Path, tmp_path: Path, monkeypatch, refusal) -> None:
    for override in ("rows=[generate]", "recognisers=[no-such]"):
        with pytest.raises(ConfigError):
            evaluate("eval_asr", inside, override)
    monkeypatch.chdir(tmp_path)
    assert "or train a model on this one's tokens" in refusal(evaluate, "eval_asr", inside), (
        "the model that ships is found"
    )


def test_captioning(inside: Path, capsys: pytest.CaptureFixture) -> None:
    results, items = evaluate("eval_captioning", inside, "meteor=false", "max_tokens=6")
    rows = results["rows"]
    assert list(rows) == ["reference", "generated", "generated-shuffled", "silence"]
    for cells in rows.values():
        assert cells["cider-d"]["n"] == cells["rouge-l"]["n"] == cells["bleu-4"]["n"] == 3
        assert cells["spice"]["value"] is None and "not computed" in cells["spice"]["failures"][0]["reason"]
    assert rows["reference"]["rouge-l"]["value"] > rows["generated"]["rouge-l"]["value"]
    assert rows["reference"]["bleu-1"]["low"] is None, "three clips have no interval"
    people = {item["id"]: item for item in items if item["row"] == "reference"}
    assert people["test-sound-1"]["caption"] == CAPTIONS[1][0] and people["test-sound-1"]["captions"] == CAPTIONS[1][1:]
    heard = [item for item in items if item["row"] == "generated"]
    assert all((Path("out") / item["audio"]).is_file() and "ended" in item for item in heard)
    assert "cider-d" in capsys.readouterr().out
    assert rows["reference"]["class-named"]["value"] == 1.0 and rows["reference"]["class-wrong"]["value"] == 0.0
    assert rows["generated"]["class-named"]["n"] == 3 and people["test-sound-1"]["classes_named"] == ["dog"]
    assert results["how"]["classes"] == {"key": "classes", "synonyms": {}}


def test_captions_of_people_need_no_model(inside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    results, _ = evaluate("eval_captioning", inside, "rows=[reference]", "meteor=false")
    assert results["how"]["model"] is None and results["rows"]["reference"]["cider-d"]["n"] == 3
    with pytest.raises(ConfigError):  # no run of this task
        evaluate("eval_captioning", inside, "meteor=false")
    with pytest.raises(ConfigError):
        evaluate("eval_captioning", inside, "task=asr")

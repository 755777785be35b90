"""eval/text_to_audio.py on a tiny codec and an untrained model, without and with networks."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from json_files import read_lines

from eval.harness.audio import CannotScore
from eval.harness.clips import silence_like
from eval.harness.report import Report
from eval.harness.scored import ScoredClip
from eval.judges.sounds import file_clap
from lm.audio_model import AudioModel
from tests.eval import tiny_networks
from tests.eval.tiny_task import evaluate
from training.config import ConfigError

TASK = "text_to_sound"
KEYS = ("max_seconds=2.0", "class_steps=12", "sampling.temperature=1.0", "sampling.guidance=1.0")


def rate(folder: Path, *overrides: str) -> dict:
    return evaluate("eval_text_to_audio", folder, *KEYS, *overrides)[0]


@pytest.mark.slow
def test_without_weights(inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    results = rate(inside)
    rows = results["rows"]
    assert list(rows) == ["reference", "resynthesis", "generated", "generated-shuffled", "silence"]
    cell = rows["reference"]["fad/log-mel"]
    assert cell["evaluated_clips"] == cell["reference_clips"] == 3 and cell["evaluated_frames"] >= 3
    assert cell["value"] < rows["silence"]["fad/log-mel"]["value"]
    assert "fewer than 1000" in rows["reference"]["fad-inf/log-mel"]["failures"][0]["reason"]
    assert "fad/log-mel" not in rows["generated-shuffled"]  # the same set of clips
    assert rows["generated"]["legal"]["value"] == 1.0 and rows["resynthesis"]["silent"]["n"] == 3
    judged = {row: cells["class-accuracy"] for row, cells in rows.items()}
    assert judged["reference"]["chance"] == pytest.approx(1 / 3) and judged["silence"]["n"] == 3
    assert sum(counts["n"] for counts in judged["generated-shuffled"]["classes"].values()) == 2  # one is too short
    assert results["how"]["class_judge"]["train_clips"] == 3
    printed = capsys.readouterr().out
    assert "chance 33.3 %" in printed and "so few that it is mostly bias" in printed
    assert "log-mel statistics" in results["how"]["embeddings"]["log-mel"]["embedding"]
    items = read_lines("out/items.jsonl")
    assert all((Path("out") / item["audio"]).is_file() for item in items if item["row"] == "generated")
    # the second run finds all codes and all embeddings; clips without one are refused again

    def refuse(*_: object) -> None:
        raise CannotScore("shorter than 0.975 s")

    monkeypatch.setattr(AudioModel, "generate", None)
    monkeypatch.setattr("eval.embedders.log_mel.LogMel.embed", refuse)
    assert rate(inside)["rows"] == rows


def test_sampling_is_the_tasks_own_where_none_is_named(inside: Path) -> None:
    how = rate(
        inside, "rows=[generated]", "class_judge=false", "task.decoding.temperature=0.3", "task.decoding.guidance=3",
        "sampling.temperature=null", "sampling.guidance=1.5",
    )["how"]  # fmt: skip
    sampling = how["model"]["sampling"]
    assert (sampling["temperature"], sampling["guidance"], sampling["top_p"]) == (0.3, 1.5, 0.9)


@pytest.mark.slow
def test_with_networks(inside: Path, tmp_path: Path) -> None:
    tiny_networks.clap_network(tmp_path / "clap")
    tiny_networks.ast_network(tmp_path / "ast")
    rows = rate(
        inside, "rows=[reference,generated,generated-shuffled]", "embeddings=[clap]",
        f"weights.clap={tmp_path / 'clap'}", f"weights.classifier={tmp_path / 'ast'}",
    )["rows"]  # fmt: skip
    # one of the generated clips is shorter than 0.1 s: a failure with a reason, in every metric
    for metric in ("clap-score/clap", "retrieval/recall@1", "kl/ast", "fad/clap"):
        cell = rows["generated"][metric]
        assert (cell["n"], cell["n_failed"]) == (2, 1) and cell["failures"][0]["reason"] == "shorter than 0.1 s"
    assert rows["reference"]["clap-score/clap"]["n"] == 3 and "kl/ast" not in rows["reference"]
    assert rows["generated"]["fad/clap"]["value"] is not None
    assert rows["generated-shuffled"]["clap-score/clap"]["value"] != rows["generated"]["clap-score/clap"]["value"]


@pytest.mark.slow
def test_a_folder_of_any_other_system(inside: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    for number in range(3):
        shutil.copy(inside / f"corpus/test-sound-{number}.flac", tmp_path / "theirs")
    results = rate(inside, f"generated={tmp_path / 'theirs'}", "rows=[reference,generated,generated-shuffled]")
    rows = results["rows"]
    assert rows["generated"]["fad/log-mel"]["value"] == rows["reference"]["fad/log-mel"]["value"]
    assert rows["generated"]["class-accuracy"]["value"] == rows["reference"]["class-accuracy"]["value"]
    assert "limit" not in rows["generated"] and rows["generated-shuffled"]["class-accuracy"]["n"] == 3
    assert results["how"]["model"]["files"] == 3


@pytest.mark.parametrize(("source", "found", "n", "failed"), [(True, 0.5, 12, 0), (False, 1.0, 6, 6)])
def test_what_was_not_delivered_is_found_by_no_caption(
    source: bool, found: float, n: int, failed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Embeds:
        """Each clip's audio is the unit vector that its caption is."""

        name, how = "clap", lambda self: {"id": "fake"}

        def __init__(self, *_: object) -> None: ...

        def embed(self, wav: np.ndarray, rate: int) -> np.ndarray:
            return np.eye(12, dtype=np.float32)[[int(wav[0])]]

        def embed_texts(self, texts: list[str]) -> np.ndarray:
            return np.eye(12, dtype=np.float32)[[int(text) for text in texts]]

    monkeypatch.setattr("eval.judges.sounds.Clap", Embeds)
    waves = [np.full(9, i, np.float32) if i % 2 else None for i in range(12)]
    clips = [ScoredClip(str(i), "generated", str(i), wav, 9, source=source) for i, wav in enumerate(waves)]
    report = Report({}, ["generated"])
    file_clap(report, "", {"generated": clips}, "cpu", None)
    for metric in ("recall@1", "recall@5", "reciprocal-rank"):
        cell = report.results()["rows"]["generated"][f"retrieval/{metric}"]
        assert (cell["value"], cell["n"], cell["n_failed"]) == (found, n, failed)
        assert cell["undelivered"] == (6 if source else 0)


@pytest.mark.parametrize(
    ("row", "source", "blamed"),
    [("generated", True, True), ("resynthesis", True, True), ("reference", True, False), ("silence", False, False)],
)
@pytest.mark.parametrize("wav", [None, np.full(9, np.nan, np.float32), np.zeros(9, np.float32)])
def test_who_did_not_deliver(row: str, source: bool, blamed: bool, wav: np.ndarray | None) -> None:
    silent = wav is not None and not np.isnan(wav).any()  # is something to judge
    assert ScoredClip("a", row, "", wav, 9, source=source).undelivered() == (blamed and not silent)
    reference = [ScoredClip("a", "reference", "", wav, 9)]
    assert not silence_like(reference)[0].undelivered()


@pytest.mark.slow
def test_options_are_checked_at_the_door(inside: Path) -> None:
    for override in (
        "rows=[generate]", "rows=[reference,generated-shuffled]", "embeddings=[vggish]", "task=tts",
        "embeddings=[encodec]", "task=text_to_music",
    ):  # fmt: skip
        with pytest.raises(ConfigError):
            rate(inside, override)

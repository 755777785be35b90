"""eval/latents.py from the command line's configuration to its files, on 24 short notes and a tiny codec."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from json_files import read_json, read_lines
from programs import run_program
from tiny_notes import build, evaluate

ROWS = "levels-1 levels-1-2 requantised continuous log-mel duration-and-level untrained".split()


def run(folder: Path, *changes: str) -> dict:
    return evaluate("eval_latents", folder, "listen=3", *changes)


@pytest.mark.slow
def test_the_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """slow: some hundred probes."""
    folder = build(tmp_path)
    found = run(folder, "labels=[instrument,note]")
    rows = found["rows"]
    assert list(rows) == ROWS
    for row in rows.values():
        assert {"accuracy-shuffled/instrument", "macro-f1/note", "ami-k-means/note", "ami-shuffled/note"} <= set(row)
        cell = row["accuracy/instrument"]
        assert cell["n"] == 8 and cell["chance"] == 0.5 and cell["train"] == 12 and 1 / 21 <= cell["p"] <= 1
        assert row["accuracy-shuffled/note"]["shuffles"] == 20
    assert rows["log-mel"]["accuracy/instrument"]["value"] == 1.0
    axes = rows["continuous"]["axes-in-use"]
    assert 0 <= axes["value"] <= axes["dimensions"] == 4
    assert rows["continuous"]["mel-distance"]["n"] == rows["requantised"]["mel-distance"]["n"] == 8
    assert {"mel-distance/1 axes", "mel-distance/2 axes"} <= set(rows["continuous"])
    lines = read_lines(folder / "out/items.jsonl")
    assert [line["row"] for line in lines] == ["reference"] * 3 + ["requantised"] * 3 + ["continuous"] * 3
    assert all((folder / "out" / line["audio"]).is_file() for line in lines)
    points = read_json(folder / "out/points.json")
    assert len(points["recordings"]) == 8 and {r["split"] for r in points["recordings"]} == {"test"}
    assert all(len(m["points"]) == 8 and (folder / "out" / m["plot"]).is_file() for m in points["maps"])
    assert "are scored, in 24 groups; 0 left out" in capsys.readouterr().out
    # a run that was killed finds its latents, and gives the same digits
    kept = sorted((folder / "cache").rglob("*.npy"))
    kept[0].unlink()
    (kept[1].parent / "half.part").write_bytes(b"half")
    written = {path: path.stat().st_mtime_ns for path in kept[1:]}
    assert run(folder, "labels=[instrument,note]")["rows"] == rows
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())


@pytest.mark.slow
def test_what_cannot_be_looked_at_is_refused(tmp_path: Path, refusal: Callable[..., str]) -> None:
    """slow: begins five runs."""
    folder = build(tmp_path)
    example = Path(__file__).resolve().parents[2] / "docs/examples/tone_codec.py"
    shutil.copy(example, folder / "tone_codec.py")
    pytest.MonkeyPatch().syspath_prepend(str(folder))
    table = {
        ("labels=[]",): "labels is empty",
        ("labels=[key]",): "no clip has a column 'key'",
        ("group=player",): "group=player: no clip has this column",
        ("labels=[domain]",): "all recordings have the domain music",
        ("labels=[instrument]", "clusters=12"): "clusters=12: there are 12 recordings to train on; give 2 to 11",
        ("labels=[instrument]", "group=note"): "group=note: A is in test and train and valid",
    }
    for changes, reason in table.items():
        assert reason in refusal(run, folder, *changes)
    own = [f"data.root={folder}/notes", "tokenizer._target_=tone_codec.ToneCodec", "labels=[note]"]
    assert "does not show what it quantises" in refusal(run_program, "eval_latents", *own)

"""eval/reconstruction.py: scores of a perfect and of a random codec, code usage, the check over lengths."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from json_files import read_json, read_lines, write_lines
from programs import run_program
from tiny_models import tiny_codec, tiny_flow_codec

from codec.interface import AudioTokenizer, Codes
from eval.harness.report import Report
from eval.harness.scored import ScoredClip
from eval.known_answers import speechlike
from eval.reconstruction import bits_of_codes, code_usage, length_check
from training.config import ConfigError

RATE = 16_000


class Perfect(AudioTokenizer):
    """Keeps 16-bit samples as codes; ``spoil`` adds noise to pieces longer than so many seconds."""

    name, sample_rate, codebook_sizes, causal = "perfect", RATE, (65536,), True
    samples_per_frame, fingerprint = 1, "0" * 64

    def __init__(self, spoil: float = float("inf")) -> None:
        self.spoil = spoil

    def encode(self, wav: torch.Tensor, lengths: torch.Tensor | None = None) -> Codes:
        return Codes((wav * 32768).round().long()[:, None] + 32768, lengths, lengths)

    def decode(self, codes: Codes) -> torch.Tensor:
        wav = (codes.codes[:, 0] - 32768).float() / 32768
        spoilt = (codes.lengths > self.spoil * RATE)[:, None]
        return wav + spoilt * 0.05 * torch.randn(wav.shape, generator=torch.Generator().manual_seed(0))


def clips() -> list[ScoredClip]:
    return [ScoredClip(f"clip-{i}", "reference", "", speechlike(1.5 + 0.25 * i, seed=i), RATE) for i in range(3)]


def test_quality_over_lengths() -> None:
    """A codec that fails on long pieces is found out; one that does not scores the same at every length."""
    for codec, expected in ((Perfect(), [1.0, 1.0]), (Perfect(spoil=1.0), [1.0, 0.9])):
        report = Report({}, ["resynthesis"])
        length_check(report, clips(), codec, 0.5, [1, 4])
        cells = report.results()["rows"]["resynthesis"]
        found = [cells[f"stoi-pieces/{factor}x"] for factor in (1, 4)]
        assert found[0]["value"] == pytest.approx(1.0, abs=1e-3)
        assert (found[1]["value"] > 0.999) == (expected[1] == 1.0)
        assert found[1]["piece_seconds"] <= 3.0 and found[0]["pieces"] > found[1]["pieces"]
        assert report.differences[0]["value"] == pytest.approx(found[1]["value"] - found[0]["value"])


def test_code_usage() -> None:
    codes = [np.array([[0, 0], [1, 0]]), np.array([[2, 0], [3, 0]])]
    usage = code_usage(codes, (8, 4))
    assert usage[0] == {"usage": 0.5, "perplexity": pytest.approx(4.0)}
    assert usage[1] == {"usage": 0.25, "perplexity": pytest.approx(1.0)}


def test_bits_are_counted_in_three_ways() -> None:
    codec = SimpleNamespace(codebook_sizes=(8, 4), bitrate=50.0)
    codes = [np.array([[0, 0], [1, 0]]), np.array([[2, 0], [3, 0]])]  # 4 of 8 alike often, 1 of 4
    found = bits_of_codes(codes, codec, 2.0)
    assert found == {"nominal": 50.0, "entropy": pytest.approx(4 * 2 / 2), "whole": (4 * (3 + 2) + 2 * 32) / 2}


@pytest.mark.slow
def test_a_run_writes_scores_wavs_and_sheets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    rows = []
    for clip in clips():
        soundfile.write(corpus / f"{clip.id}.flac", clip.wav, RATE)
        speaker = "ann" if clip.id == "clip-1" else "bob"
        rows.append({"file_name": f"{clip.id}.flac", "id": clip.id, "text": "a b", "split": "test", "speaker": speaker})
    (corpus / "broken.flac").write_bytes(b"no audio")
    rows.append({"file_name": "broken.flac", "id": "broken", "text": "c", "split": "test"})
    write_lines(corpus / "metadata.jsonl", rows)
    tiny_codec().save_pretrained(tmp_path / "codec")
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str) -> dict:
        common = [f"data.root={corpus}", "data.tokens=null", f"tokenizer.path={tmp_path / 'codec'}", "device=cpu"]
        run_program("eval_reconstruction", *common, "recognisers=[]", "out=out", *overrides)
        return read_json("out/results.json")

    metrics = "metrics=[stoi,estoi,mel-distance,stft-distance,si-sdr]"
    rows = run(metrics, "concat=[1,2]", "crop_seconds=1.0")["rows"]
    cells = rows["resynthesis"]
    # silence and another clip bound the scores; a silent clip has no SI-SDR, and that is a counted failure
    assert rows["silence"]["mel-distance"]["n"] == 3 and rows["silence"]["si-sdr"]["n_failed"] == 3
    assert rows["shuffled"]["stoi"]["n"] == 3 and "wer/ctc-mini" not in rows["shuffled"]
    for name in ("stoi", "estoi", "mel-distance", "stft-distance", "si-sdr"):
        assert (cells[name]["n"], cells[name]["n_failed"]) == (3, 1)
        assert cells[name]["failures"][0]["ids"] == ["broken"]
        assert "is not audio that soundfile can read" in cells[name]["failures"][0]["reason"]
    assert 0 < cells["usage/level-3"]["value"] <= 1 and cells["perplexity/level-1"]["value"] >= 1
    assert cells["stoi-pieces/2x"]["n"] == 3
    items = read_lines("out/items.jsonl")
    assert len(items) == 8 and sum("audio" in item for item in items) == 6
    assert all("does not" in item["error"] or "not audio" in item["error"] for item in items if item["id"] == "broken")
    assert Path("out/sheets/sheet-01.png").stat().st_size > 1000
    codes_of_clips = read_json("out/results.json")["how"]["tokenizer"]["codes"]
    narrow = run("metrics=[]", "concat=[]", "sheets=false", "window=10")
    assert narrow["how"]["tokenizer"]["codes"] != codes_of_clips and "random-codes" not in narrow["rows"]
    assert (
        narrow["how"]["tokenizer"]["bitrate"]
        < run("metrics=[]", "concat=[]", "sheets=false")["how"]["tokenizer"]["bitrate"]
    )
    ann = run("metrics=[mel-distance]", "concat=[]", "sheets=false", "anchors=false", "speakers=[ann]")
    assert ann["how"]["corpus"]["speakers"] == ["ann"]
    assert ann["rows"]["resynthesis"]["mel-distance"]["n"] == 1
    assert {item["id"] for item in read_lines("out/items.jsonl")} == {"clip-1"}
    bits = {name: value["value"] for name, value in cells.items() if name.startswith("bitrate/")}
    assert bits["bitrate/nominal"] == pytest.approx(tiny_codec().bitrate)
    assert cells["bitrate/entropy"]["n"] == cells["usage/level-1"]["n"] > cells["bitrate/whole"]["n"] == 3
    assert bits["bitrate/entropy"] < bits["bitrate/nominal"] < bits["bitrate/whole"]

    # a flow decoder is bounded by its true target, and by codes that say nothing; Fréchet distances are of all
    tiny_flow_codec().save_pretrained(tmp_path / "flow")
    flow = run("metrics=[mel-distance,tonality]", "concat=[]", "sheets=false", f"tokenizer.path={tmp_path / 'flow'}",
               "embeddings=[log-mel]", "against=test")  # fmt: skip
    assert {"shuffled", "random-codes", "true-target"} <= set(flow["rows"])
    distance = {row: found["mel-distance"]["value"] for row, found in flow["rows"].items() if "mel-distance" in found}
    assert distance["true-target"] < min(value for row, value in distance.items() if row != "true-target")
    assert flow["rows"]["random-codes"]["mel-distance"]["n"] == 3 and flow["rows"]["reference"]["tonality"]["n"] == 3
    assert flow["rows"]["true-target"]["fad/log-mel"]["value"] < flow["rows"]["resynthesis"]["fad/log-mel"]["value"]
    assert flow["how"]["tokenizer"]["codes"] == codes_of_clips and flow["how"]["tokenizer"]["flow"]["steps"] == 8
    # the clips as another codec left them, one of which it did not deliver
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    for clip in clips()[:2]:
        soundfile.write(theirs / f"{clip.id}.wav", clip.wav[::2], RATE // 2)
    own = run("metrics=[stoi]", "sheets=false", f"resynthesis={theirs}")
    cells = own["rows"]["resynthesis"]
    assert (cells["stoi"]["n"], cells["stoi"]["n_failed"]) == (2, 2) and own["how"]["tokenizer"]["name"] == "theirs"
    assert not {"usage/level-1", "real-time-factor", "bitrate/nominal", "stoi-pieces/1x"} & set(cells)
    (theirs / "codec.json").write_text(json.dumps({"name": "Theirs", "bitrate": 600, "bits": 1000, "seconds": 2}))
    own = run("metrics=[]", "anchors=false", f"resynthesis={theirs}")
    assert own["how"]["tokenizer"]["name"] == "Theirs"
    cells = own["rows"]["resynthesis"]
    assert (cells["bitrate/nominal"]["value"], cells["bitrate/entropy"]["value"]) == (600, 500)
    assert cells["bitrate/whole"]["value"] == pytest.approx(500 + 32 * 2 / 3.25, rel=1e-3)
    assert Path("out/sheets/sheet-01.png").is_file()
    (theirs / "codec.json").write_text(json.dumps({"name": "Theirs"}))
    assert "is none that codec/classical.py wrote" in refusal(run, f"resynthesis={theirs}")
    assert "resynthesis=gone: there is no such folder" in refusal(run, "resynthesis=gone")
    assert "spoken by eve; they have ann, bob" in refusal(run, "speakers=[eve]")
    with pytest.raises(ConfigError):
        run("metrics=[pesq]")
    with pytest.raises(ConfigError):
        run("splits=[valid]")

"""Codecs without a neural network: what they keep, how many bits that took, and what they say where they cannot run."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from programs import run_program
from tiny_tones import write_corpus

from codec.classical import CODECS, can_run, opus, packets, through


def sweep(seconds: float, rate: int) -> np.ndarray:
    time = np.arange(int(seconds * rate)) / rate
    return (0.3 * np.sin(2 * np.pi * (200 + 150 * time) * time)).astype(np.float32)


@pytest.mark.parametrize(("rate", "coded"), [(8_000, 8_000), (16_000, 16_000), (22_050, 24_000), (44_100, 48_000)])
def test_opus_keeps_length_and_sound_at_its_rate(rate: int, coded: int) -> None:
    wav = sweep(3.0, rate)
    heard, found, bits = opus(wav, rate)
    assert found == coded and abs(len(heard) - 3 * coded) <= 1
    assert 4_000 < bits / 3 < 7_500
    expected = sweep(3.0, coded)[: len(heard)]
    assert np.corrcoef(heard[: len(expected)], expected)[0, 1] > 0.9


def page(*segments: int) -> bytes:
    return b"OggS" + bytes(22) + bytes([len(segments), *segments]) + bytes(sum(segments))


def test_packets_of_an_ogg_stream() -> None:
    assert packets(page(19) + page(255, 40) + page(7, 0, 255, 255) + page(3)) == [19, 295, 7, 0, 513]
    with pytest.raises(ValueError, match="not an Ogg stream"):
        packets(page(19) + b"RIFF" + bytes(40))


@pytest.mark.parametrize("name", CODECS)
def test_every_codec_runs_or_names_the_cure(name: str, refusal: Callable[..., str]) -> None:
    wav = sweep(1.0, 16_000)
    if not can_run(name):
        assert "needs c2enc: install codec2, or leave it out" in refusal(through, name, wav, 16_000)
        return
    heard, rate, bits = through(name, wav, 16_000)
    assert len(heard) == rate and np.abs(heard).max() > 0.02 and bits > 500


def test_a_corpus_becomes_a_folder_of_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(tmp_path / "corpus")
    run_program("codec_classical", "data.root=corpus", "splits=[test,valid]")
    made = sorted((tmp_path / "runs/opus").glob("*.wav"))
    assert [path.stem for path in made] == [f"clip-{number}" for number in range(4)]
    record = json.loads((tmp_path / "runs/opus/codec.json").read_text())
    assert (record["name"], record["clips"], record["bitrate"], record["seconds"]) == ("opus", 4, 6000, 4.0)
    assert sum(soundfile.info(path).duration for path in made) == pytest.approx(4.0, abs=1e-3)
    assert 4_000 < record["bits"] / record["seconds"] < 7_500
    assert "has no clips with splits=['nothing']" in refusal(
        run_program, "codec_classical", "data.root=corpus", "splits=[nothing]"
    )

"""Whisper in the CTranslate2 format: what arrives at faster-whisper, what comes back, no words where nobody speaks."""

import hashlib
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

from eval.judges.judging import load_recogniser
from eval.judges.recognisers.fast_whisper import FastWhisper, is_ctranslate2
from eval.judges.recognisers.interface import RecogniserError
from tests.eval import tiny_networks

RATE = 16_000
# In the place of the package, which is an extra: its words are the options it was called with.
STAND_IN = """
import json, types
class WhisperModel:
    def __init__(self, folder, **options):
        if b"damaged" in open(folder + "/model.bin", "rb").read():
            raise RuntimeError("Unsupported model binary version")
        self.model = types.SimpleNamespace(is_multilingual=b"several" in open(folder + "/model.bin", "rb").read())
        self.options = options
    def transcribe(self, samples, **options):
        if abs(samples).max() > 0.9:
            raise RuntimeError("too loud")
        said = json.dumps({**self.options, **options, "seconds": len(samples) / 16000})
        return [types.SimpleNamespace(text=f" {said} ")], None
"""
DETECTOR = """
import dataclasses
@dataclasses.dataclass
class VadOptions:
    min_speech_duration_ms: int
    min_silence_duration_ms: int
def get_speech_timestamps(samples, options):
    assert options == VadOptions(250, 100)
    return [{"start": 0}] if abs(samples).max() > 0.5 else []
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "packages"
    (place / "faster_whisper").mkdir(parents=True)
    (place / "faster_whisper/__init__.py").write_text(STAND_IN)
    (place / "faster_whisper/vad.py").write_text(DETECTOR)
    for name in ("faster_whisper", "ctranslate2"):
        (place / f"{name}-9.8.dist-info").mkdir()
        (place / f"{name}-9.8.dist-info/METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.8\n")
    monkeypatch.syspath_prepend(place)
    monkeypatch.setenv("PYTHONPATH", str(place))


def checkpoint(folder: Path, contents: bytes = b"several") -> Path:
    folder.mkdir()
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text("{}")
    (folder / "model.bin").write_bytes(contents)
    return folder


def loud(seconds: float, peak: float = 0.7) -> np.ndarray:
    return np.resize(np.array([peak, -peak], np.float32), int(seconds * RATE))


@pytest.mark.parametrize(
    ("contents", "language", "arrives"), [(b"several", "de", "de"), (b"several", None, None), (b"one", "de", "en")]
)
def test_options_arrive_and_words_come_back(
    tmp_path: Path, stand_in: None, contents: bytes, language: str | None, arrives: str | None
) -> None:
    folder = checkpoint(tmp_path / "ct2", contents)
    with load_recogniser(
        "whisper", tmp_path, tmp_path, 1, weights={"whisper": str(folder)}, language=language
    ) as judge:
        assert isinstance(judge, FastWhisper)
        first, silent, none, long, broken = judge.transcribe(
            [loud(1.0), loud(1.0, 0.1), loud(0.0), loud(45.0), loud(1.0, 0.95)], RATE
        )
        how = judge.how()
    said = json.loads(str(first))
    assert said["language"] == arrives and said["device"] == "cpu" and said["compute_type"] == "int8"
    assert said["beam_size"] == 1 and said["temperature"] == 0.0 and said["local_files_only"] is True
    assert silent == none == "" and str(long).count('"seconds": 22.5') == 2
    assert getattr(broken, "reason", "") == "RuntimeError: too loud"
    assert how["weights_sha256"] == hashlib.sha256(contents).hexdigest() and how["package"] == "faster-whisper 9.8"
    assert (language or "found out") in str(how["decoding"]) and "250 ms" in str(how["no_words"])


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ("tokenizer.json", "has no tokenizer.json"),
        ("language", "language=english is none of Whisper's, which are af,"),
        ("damaged", "cannot be loaded: .*Unsupported model binary version"),
    ],
)  # fmt: skip
def test_what_cannot_listen_is_refused(tmp_path: Path, stand_in: None, broken: str, said: str) -> None:
    folder = checkpoint(tmp_path / "ct2", broken.encode())
    (folder / broken).unlink(missing_ok=True)
    with pytest.raises(RecogniserError, match=said):
        FastWhisper(str(folder), language="english" if broken == "language" else "en")


def test_without_the_package_the_cure_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(RecogniserError, match="pip install faster-whisper, or give"):
        load_recogniser("whisper", tmp_path, tmp_path, weights={"whisper": str(checkpoint(tmp_path / "ct2"))})


def test_the_format_decides_who_reads_it(tmp_path: Path) -> None:
    tiny_networks.whisper_network(tmp_path / "transformers")
    assert is_ctranslate2(str(checkpoint(tmp_path / "ct2")))
    assert not is_ctranslate2(str(tmp_path / "transformers")) and not is_ctranslate2(str(tmp_path / "nowhere"))


@pytest.mark.slow
def test_a_converted_network_hears_no_words_where_nobody_speaks(tmp_path: Path) -> None:
    """With the package, on a network of random weights, which would find words everywhere."""
    converters = pytest.importorskip("ctranslate2.converters")
    pytest.importorskip("faster_whisper")
    tiny_networks.whisper_network(tmp_path / "transformers")
    copied = [name for name in ("tokenizer.json",) if (tmp_path / "transformers" / name).is_file()]
    converters.TransformersConverter(str(tmp_path / "transformers"), copy_files=copied).convert(str(tmp_path / "ct2"))
    time = np.arange(4 * RATE) / RATE
    chord = sum(0.1 * np.sin(2 * np.pi * hertz * time) for hertz in (220, 277, 330))
    noise = 0.1 * np.random.default_rng(0).standard_normal(len(time))
    waves = [np.asarray(wav, np.float32) for wav in (np.zeros_like(time), noise, chord)]
    with FastWhisper(str(tmp_path / "ct2"), processes=1) as judge:
        assert judge.transcribe(waves, RATE) == ["", "", ""]

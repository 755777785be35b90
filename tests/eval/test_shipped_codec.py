"""The codecs that ship keep what they promise on the test speech of the embedded corpus, at every length."""

import pytest

from codec.corpus import read_audio, read_corpus
from codec.load import load
from codec.recipe.validation import pitch_kept
from eval.harness.coding import resynthesise
from eval.harness.report import Report
from eval.harness.scored import ScoredClip
from eval.judges.recognisers.ctc import GreedyCTC
from eval.metrics.signal import stoi
from eval.metrics.wer import ErrorRate
from eval.reconstruction import length_check
from training.config import REPOSITORY

CODEC = REPOSITORY / "checkpoints/codec-mini"
CROP_SECONDS = 3.2  # configs/codec/mini.yaml

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (CODEC / "config.json").is_file(), reason="checkpoints/codec-mini is not there"),
]


@pytest.fixture(scope="module")
def clips() -> list[ScoredClip]:
    found = [
        clip for clip in read_corpus(REPOSITORY / "data/mini")[0] if clip.split == "test" and clip.domain == "speech"
    ]
    return [ScoredClip(clip.id, "reference", clip.text or "", read_audio(clip.path, 16_000), 16_000) for clip in found]


def test_speech_survives(clips: list[ScoredClip]) -> None:
    """STOI of at least .85, and at most 15 points more word errors than on the recordings."""
    codec = load(CODEC)
    waves = [read_audio(REPOSITORY / f"data/mini/speech/{clip.id}.flac", codec.sample_rate) for clip in clips]
    outputs = [wav for wav, _ in resynthesise(codec, dict(enumerate(waves))).values()]
    scores = [stoi(wav, out, codec.sample_rate) for wav, out in zip(waves, outputs, strict=True)]
    assert sum(scores) / len(scores) >= 0.85 and min(scores) >= 0.7
    rates = []
    for row in (waves, outputs):
        metric = ErrorRate()
        metric.update(
            GreedyCTC(REPOSITORY / "checkpoints/ctc-mini").transcribe(row, codec.sample_rate), [c.text for c in clips]
        )
        rates.append(float(metric.compute()))
    assert rates[1] - rates[0] <= 0.15


@pytest.mark.parametrize(("name", "least"), [("codec-mini", 0.85), ("codec-real", 0.65)])
def test_voices_keep_their_pitch(name: str, least: float) -> None:
    """Of every eighth clip: ``codec-real`` has never heard these two voices."""
    codec = load(REPOSITORY / "checkpoints" / name)
    waves = [
        read_audio(clip.path, codec.sample_rate)
        for clip in read_corpus(REPOSITORY / "data/mini")[0]
        if clip.split == "test" and clip.domain == "speech"
    ][::8]
    outputs = [wav for wav, _ in resynthesise(codec, dict(enumerate(waves))).values()]
    assert pitch_kept(list(zip(waves, outputs, strict=True)), codec.sample_rate, 320) >= least


def test_quality_does_not_depend_on_the_length(clips: list[ScoredClip]) -> None:
    """The same clips coded in pieces of 1, 3 and 30 training crops: STOI within .01."""
    report = Report({}, ["resynthesis"])
    length_check(report, clips, load(CODEC), CROP_SECONDS, [1, 3, 30])
    cells = report.results()["rows"]["resynthesis"]
    found = [cells[f"stoi-pieces/{factor}x"] for factor in (1, 3, 30)]
    assert found[2]["piece_seconds"] >= 30 * CROP_SECONDS
    assert max(cell["value"] for cell in found) - min(cell["value"] for cell in found) <= 0.01

"""Bad input: every metric gives a number or a reason, and which of them is written down here."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.embedders import load_embedder
from eval.harness.audio import CannotScore
from eval.judges.corpus_classifier import ClassNetwork, CorpusClassifier
from eval.known_answers import speechlike
from eval.metrics.classifier import AudioClassifier
from eval.metrics.distillmos import DistillMOS
from eval.metrics.mos import DNSMOS
from eval.metrics.signal import PAIRED, PESQ, snr
from eval.metrics.speaker import SpeakerSimilarity
from eval.metrics.texture import TEXTURE
from eval.metrics.utmos import UTMOS, UTMOS22
from eval.metrics.visqol import ViSQOL
from eval.metrics.voice_encoder import VoiceEncoder
from tests.eval import tiny_networks
from tests.eval.metrics.test_distillmos import checkpoint as distillmos_checkpoint
from tests.eval.metrics.test_voice_encoder import checkpoint

RATE = 16_000
NUMBER = "a number"
Score = Callable[[np.ndarray, np.ndarray, int], Any]


def clips(kind: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Reference, degraded clip and rate."""
    clip = speechlike(2.0)
    noise = np.random.default_rng(1).standard_normal(len(clip)).astype(np.float32)
    degraded = clip + 0.01 * noise
    broken = degraded.copy()
    broken[7] = np.nan
    return {
        "good": lambda: (clip, degraded, RATE),
        "silent": lambda: (clip, np.zeros_like(clip), RATE),
        "silent reference": lambda: (np.zeros_like(clip), degraded, RATE),
        "0.1 s": lambda: (clip[4000:5600], degraded[4000:5600], RATE),
        "0.01 s": lambda: (clip[4000:4160], degraded[4000:4160], RATE),
        "empty": lambda: (clip[:0], clip[:0], RATE),
        "NaN": lambda: (clip, broken, RATE),
        "lengths": lambda: (clip, degraded[:-9], RATE),
        "other rate": lambda: (clip, degraded, 11_025),
        "beyond full scale": lambda: (clip, 30 * degraded, RATE),
        "5 minutes": lambda: (np.tile(clip, 150), np.tile(degraded, 150), RATE),
    }[kind]()


# what is not a number; the paired metrics compare, the others look at the degraded clip alone
ALONE = {"empty": "no audio", "NaN": "NaN or infinite samples"}
PAIR = ALONE | {"lengths": "lengths differ"}
UNSPOKEN = {"silent reference": "silent reference", "0.1 s": "shorter than", "0.01 s": "shorter than"}
NO_VOICE = "silence has no speaker"
EXPECTED: dict[str, dict[str, str]] = {
    **dict.fromkeys(("stoi", "estoi"), PAIR | UNSPOKEN),
    "si-sdr": PAIR | {"silent reference": "silent reference", "silent": "silent degraded clip"},
    "snr": PAIR | {"silent reference": "silent reference"},
    **dict.fromkeys(("mel-distance", "stft-distance"), PAIR | {"0.01 s": "shorter than 1025 samples"}),
    **dict.fromkeys(
        ("deviation-ratio", "contrast-ratio"),
        PAIR | {"silent reference": "reference without change", "0.01 s": "shorter than 1025 samples"},
    ),
    "tonality": PAIR
    | {"silent": "silent degraded clip", "0.1 s": "shorter than 2048 samples", "0.01 s": "shorter than"},
    **dict.fromkeys(
        ("pesq-wb", "visqol-speech/exponential"), PAIR | UNSPOKEN | {"silent": "silent degraded clip"}
    ),
    **dict.fromkeys(
        ("dnsmos", "utmos", "encodec", "ssl", "clap", "classifier", "corpus-classifier"),
        ALONE | {"0.01 s": "shorter than"},
    ),
    "distillmos": ALONE | {"0.01 s": "shorter than", "silent": "silence has no quality"},
    **dict.fromkeys(
        ("speaker-similarity", "voice-encoder"),
        ALONE | UNSPOKEN | {"silent": NO_VOICE, "silent reference": NO_VOICE},
    ),
    "log-mel": ALONE | {"0.1 s": "shorter than", "0.01 s": "shorter than"},
}  # fmt: skip


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Score]]:
    folder = tmp_path_factory.mktemp("networks")
    for name in ("speaker", "encodec", "ssl", "clap", "ast"):
        getattr(tiny_networks, f"{name}_network")(folder / name)
    tiny_networks.utmos_checkpoint(folder / "utmos.pt")
    small = UTMOS22.load(folder / "utmos.pt", tiny_networks.wav2vec2_config(), lstm=8, hidden=12)
    utmos = UTMOS(folder / "utmos.pt", network=small)
    speaker = SpeakerSimilarity(str(folder / "speaker"))
    classifier = AudioClassifier(str(folder / "ast"))
    embedders = {n: load_embedder(n, str(folder / n)) for n in ("log-mel", "encodec", "ssl", "clap")}
    found: dict[str, Score] = {**PAIRED, **TEXTURE, "snr": snr, "speaker-similarity": speaker.similarity}
    found["utmos"] = lambda _, wav, rate: utmos.rate(wav, rate)
    distillmos = DistillMOS(distillmos_checkpoint(folder / "distillmos.pt"))
    found["distillmos"] = lambda _, wav, rate: distillmos.rate(wav, rate)
    found["classifier"] = lambda _, wav, rate: classifier.posterior(wav, rate)
    for name, embedder in embedders.items():
        found[name] = lambda _, wav, rate, embed=embedder.embed: embed(wav, rate)
    record = {"classes": ["a", "b"], "recipe": {"width": 4}}
    corpus = CorpusClassifier(ClassNetwork(2, 4), record)
    found["corpus-classifier"] = lambda _, wav, rate: corpus.posterior(wav, rate)
    voices = VoiceEncoder(checkpoint(folder / "pretrained.pt"))
    found["voice-encoder"] = voices.similarity
    if importlib.util.find_spec("visqol"):
        found["visqol-speech/exponential"] = ViSQOL("visqol-speech/exponential")
    pesq = PESQ("wb")
    found["pesq-wb"] = pesq
    mos = None
    if all(importlib.util.find_spec(name) for name in ("speechmos", "onnxruntime")):
        mos = judge = DNSMOS(processes=1)

        def dnsmos(_: np.ndarray, wav: np.ndarray, rate: int) -> float:
            (answer,) = judge.score([wav], rate)
            if isinstance(answer, CannotScore):
                raise answer
            return answer["p808"]

        found["dnsmos"] = dnsmos
    yield found
    pesq.close()
    if mos is not None:
        mos.close()


def outcome(score: Score, kind: str) -> str:
    """ "a number" or the reason."""
    try:
        value = np.asarray(score(*clips(kind)))
    except CannotScore as error:
        return error.reason
    assert value.size and np.isfinite(value).all()
    return NUMBER


def check(scores: dict[str, Score], name: str, kind: str) -> None:
    if name == "pesq-wb" and not PESQ.is_installed():
        pytest.skip("pesq is not installed")
    if name not in scores:
        pytest.skip(f"what {name} needs is not installed")
    expected, found = EXPECTED[name].get(kind, NUMBER), outcome(scores[name], kind)
    assert found.startswith(expected), f"{name} of {kind}: {found}"


KINDS = ("good", "silent", "silent reference", "0.1 s", "0.01 s", "empty", "NaN", "lengths", "other rate",
         "beyond full scale")  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name == "dnsmos" else []) for name in EXPECTED]
)
def test_outcome(scores: dict[str, Score], name: str, kind: str) -> None:
    check(scores, name, kind)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in EXPECTED if n not in ("dnsmos", "distillmos", "clap")])
def test_five_minutes(scores: dict[str, Score], name: str) -> None:
    """Without DNSMOS, DistillMOS and CLAP, whose 290 windows take minutes."""
    check(scores, name, "5 minutes")


def test_a_missing_file_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    from codec.audio.files import write_audio
    from codec.corpus import Clip
    from eval.harness.clips import heard_at, read_reference, silence_like
    from eval.harness.scored import ScoredClip

    write_audio(tmp_path / "there.wav", np.full(RATE, 99, np.int16), RATE)
    row = read_reference([Clip("gone", tmp_path / "gone.flac", text="a"), Clip("there", tmp_path / "there.wav")])
    assert row[0].wav is None and "gone.flac" in row[0].item["error"]
    one = ScoredClip("one", "generated", "", np.ones(1, np.float32), 48_000)
    assert not heard_at([one], 16_000) and one.item["error"], "one sample at 48 kHz is none at 16 kHz"
    assert heard_at(row, RATE).keys() == {"there"} and [clip.wav is None for clip in silence_like(row)] == [True, False]


def test_texts_at_the_edges() -> None:
    """What has no words is a failure of the clip or a zero, and is written down here."""
    from eval.harness.report import Report
    from eval.harness.scored import ScoredClip
    from eval.judges.captions import rate_captions
    from eval.judges.judging import rate_words

    wav = np.ones(RATE, np.float32)
    clips = [ScoredClip(name, "row", text, wav, RATE) for name, text in (("a", "one two"), ("b", ""), ("c", "one"))]
    clips.append(ScoredClip("d", "row", "one", None, RATE))
    for clip, said in zip(clips, ("", "one", "one", "one"), strict=True):
        clip.item["hypotheses"] = {"judge": said}
    report = Report({}, ["row"])
    rate_words(report, "row", "judge", clips, "plain")
    said = {"a": "", "b": "rain falls", "c": "a dog"}
    rate_captions(report, "row", said, {"a": ["a dog"], "b": ["!"], "c": ["a dog barks"]}, {"d": "no audio"}, False)
    cells = report.results()["rows"]["row"]
    assert cells["wer/judge"]["value"] == pytest.approx(3 / 4) and cells["wer/judge"]["n"] == 3
    assert {f["reason"]: f["ids"] for f in cells["wer/judge"]["failures"]} == {"empty reference": ["b"]}
    assert cells["wer/judge"]["undelivered"] == 1  # d: said nothing, so its word is deleted
    assert (cells["rouge-l"]["n"], cells["rouge-l"]["n_failed"]) == (2, 2) and cells["bleu-4"]["n"] == 2

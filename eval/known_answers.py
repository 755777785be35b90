"""Values that the metrics must reproduce: closed forms, and outputs of published implementations.

Each `KnownAnswer` computes one number and says what it must be. `python eval/selftest.py` prints them as a table, and
the test suite runs the same list.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from codec.corpus import read_audio
from eval.harness.intervals import paired_difference, ratio
from eval.judges.recognisers.sphinx import Sphinx
from eval.metrics.caption import Name, bleu, cider_d, rouge_l, score
from eval.metrics.caption_words import words
from eval.metrics.distillmos import DistillMOS, find_weights
from eval.metrics.divergence import kl_divergence
from eval.metrics.frechet import Gaussian, expected_bias, extrapolate, frechet_distance
from eval.metrics.meteor import meteor
from eval.metrics.signal import PESQ, si_sdr, snr, stft_distance, stoi
from eval.metrics.texture import contrast_ratio, deviation_ratio, tonality
from eval.metrics.visqol import ViSQOL
from eval.metrics.wer import ErrorRate
from tasks.text import scoring_normaliser

RATE = 16_000


@dataclass(frozen=True)
class KnownAnswer:
    """One number and what it must be.

    Attributes:
        group: of the table.
        what: is computed.
        expected: value, within ``tolerance``.
        source: where the expected value comes from.
        needs: packages without which it cannot run.
        slow: takes more than a second or two.
    """

    group: str
    what: str
    compute: Callable[[], float]
    expected: float
    tolerance: float
    source: str
    needs: tuple[str, ...] = ()
    slow: bool = False


# ---- Fréchet distance ----------------------------------------------------------------------------------------------
def _distance(means: Sequence[ArrayLike], covariances: Sequence[ArrayLike]) -> float:
    sides = [
        Gaussian(np.asarray(mean, dtype=float), np.asarray(covariance, dtype=float), 0)
        for mean, covariance in zip(means, covariances, strict=True)
    ]
    return frechet_distance(sides[0], sides[1])


def _self_distance(samples: int, dimensions: int) -> float:
    rows = np.random.default_rng(0).standard_normal((samples, dimensions))
    return frechet_distance(Gaussian.of(rows), Gaussian.of(rows))


def _measured_bias() -> float:
    """Mean distance of samples of a standard Gaussian from it, relative to the law."""
    dimensions, samples, draws = 128, 1000, 10
    exact = Gaussian(np.zeros(dimensions), np.eye(dimensions), 0)
    generator = np.random.default_rng(0)
    found = [
        frechet_distance(exact, Gaussian.of(generator.standard_normal((samples, dimensions)))) for _ in range(draws)
    ]
    return float(np.mean(found)) / expected_bias(dimensions, samples)


def _infinity() -> float:
    generator = np.random.default_rng(0)
    reference, evaluated = generator.standard_normal((60_000, 128)), generator.standard_normal((5000, 128))
    return extrapolate(reference, evaluated)


FRECHET = [
    KnownAnswer("Fréchet", "N(0,1) and N(1,4)", partial(_distance, [[0], [1]], [[[1]], [[4]]]), 2, 1e-8, "closed form"),
    KnownAnswer(
        "Fréchet", "diag(1,4,9) at 0 and diag(4,1,16) at (1,2,2)",
        partial(_distance, [[0, 0, 0], [1, 2, 2]], [np.diag([1, 4, 9]), np.diag([4, 1, 16])]), 12, 1e-8, "closed form",
    ),
    KnownAnswer(
        "Fréchet", "[[2,1],[1,2]] and [[2,-1],[-1,2]]",
        partial(_distance, [[0, 0], [0, 0]], [[[2, 1], [1, 2]], [[2, -1], [-1, 2]]]),
        8 - 4 * math.sqrt(3), 1e-8, "closed form",
    ),
    KnownAnswer(
        "Fréchet", "[[2,1],[1,1]] and [[1,0],[0,4]]",
        partial(_distance, [[0, 0], [0, 0]], [[[2, 1], [1, 1]], [[1, 0], [0, 4]]]),
        8 - 2 * math.sqrt(6 + 2 * math.sqrt(4)), 1e-8, "tr √M = √(tr M + 2 √det M)",
    ),
    KnownAnswer("Fréchet", "a set with itself, 2000 of 128", partial(_self_distance, 2000, 128), 0, 1e-9, "identity"),
    KnownAnswer("Fréchet", "a set with itself, 100 of 512", partial(_self_distance, 100, 512), 0, 1e-9, "identity"),
    KnownAnswer("Fréchet", "bias / law, d=128 N=1000", _measured_bias, 1, 0.05, "(d/N)(1+(d+1)/4)"),
    KnownAnswer("Fréchet", "FAD∞ of equal sets, N=5000", _infinity, 0, 0.1, "no bias left", slow=True),
]  # fmt: skip

# ---- Kullback-Leibler ----------------------------------------------------------------------------------------------
P, Q = (0.7, 0.2, 0.1), (0.5, 0.3, 0.2)
DIVERGENCE = [
    KnownAnswer("KL", "(.7 .2 .1) ‖ (.5 .3 .2)", partial(kl_divergence, P, Q, 0.0), 0.0851228, 1e-7, "closed form"),
    KnownAnswer("KL", "(.5 .3 .2) ‖ (.7 .2 .1)", partial(kl_divergence, Q, P, 0.0), 0.0920329, 1e-7, "closed form"),
    KnownAnswer("KL", "the first with ε = 1e-6", partial(kl_divergence, P, Q), 0.0851228, 1e-5, "closed form"),
]

# ---- signals -------------------------------------------------------------------------------------------------------
TARGET, ESTIMATE = np.array([3, -0.5, 2, 7], np.float32), np.array([2.5, 0, 2, 8], np.float32)


@cache
def speechlike(seconds: float = 3.0, seed: int = 0) -> NDArray[np.float32]:
    """Harmonics with syllables and pauses at 16 kHz: enough like speech for STOI and PESQ, and no recording."""
    time = np.arange(int(seconds * RATE)) / RATE
    tone = np.sum([np.sin(2 * np.pi * 130 * k * time + k) / k for k in range(1, 20)], axis=0)
    noise = np.random.default_rng(seed).standard_normal(len(time))
    return (0.1 * tone * np.clip(np.sin(2 * np.pi * 3 * time), 0, None) + 1e-3 * noise).astype(np.float32)


def _log_stft(gain: float) -> float:
    noise = 0.3 * np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
    return stft_distance(noise, np.float32(gain) * noise, RATE, clamp=1e-12, parts="log")


def _si_snr() -> float:
    return si_sdr(TARGET - TARGET.mean(), ESTIMATE - ESTIMATE.mean())


def pesq_score(mode: str, reference: NDArray[np.float32], degraded: NDArray[np.float32]) -> float:
    """PESQ of one pair at 16 kHz in a worker of its own."""
    judge = PESQ(mode)
    try:
        return judge(reference, degraded, RATE)
    finally:
        judge.close()


def _pesq_identity(mode: str) -> float:
    return pesq_score(mode, speechlike(), speechlike())


def _stoi_identity(extended: bool) -> float:
    return stoi(speechlike(), speechlike(), RATE, extended)


def _distillmos() -> float:
    path = find_weights()
    assert path is not None  # `needs` names the package
    return DistillMOS(path).rate(speechlike(), RATE)


def _visqol_identity(name: str) -> float:
    return ViSQOL(name)(speechlike(), speechlike(), RATE)


def _deviation(drop: float) -> float:
    """Pulses whose level goes up and down by ``drop``, over those by its square: in each band half the log-range."""
    time = np.arange(8 * RATE)
    pulses, quiet = (time % 256 == 0).astype(np.float32), (time // RATE % 2).astype(bool)
    wide, narrow = (np.where(quiet, gain * pulses, pulses).astype(np.float32) for gain in (drop**2, drop))
    return deviation_ratio(wide, narrow, RATE)


def _tonality(tone: float, noise: float) -> float:
    time = np.arange(4 * RATE) / RATE
    wav = tone * np.sqrt(2) * np.sin(2 * np.pi * 1003.7 * time)
    wav = (wav + noise * np.random.default_rng(0).standard_normal(len(time))).astype(np.float32)
    return tonality(wav, wav, RATE)


LOUD = np.random.default_rng(0).standard_normal(RATE).astype(np.float32)
METRICS = "torchmetrics' documentation"
VISQOL = "google/visqol, castanets with itself"
SIGNAL = [
    KnownAnswer("signal", "SNR of 4 samples, dB", partial(snr, TARGET, ESTIMATE), 16.1805, 1e-4, METRICS),
    KnownAnswer("signal", "SI-SDR of 4 samples, dB", partial(si_sdr, TARGET, ESTIMATE), 18.4030, 1e-4, METRICS),
    KnownAnswer("signal", "SI-SNR (means removed), dB", _si_snr, 15.0918, 1e-4, METRICS),
    KnownAnswer("signal", "log-STFT of a gain of 0.5", partial(_log_stft, 0.5), 1.20412, 1e-4, "4 |log10 g|"),
    KnownAnswer("signal", "log-STFT of a gain of 0.1", partial(_log_stft, 0.1), 4.0, 1e-4, "4 |log10 g|"),
    KnownAnswer("signal", "STFT distance to itself", partial(_log_stft, 1.0), 0.0, 1e-9, "identity"),
    KnownAnswer("signal", "STOI with itself", partial(_stoi_identity, False), 1.0, 1e-6, "identity", ("pystoi",)),
    KnownAnswer("signal", "ESTOI with itself", partial(_stoi_identity, True), 1.0, 1e-6, "identity", ("pystoi",)),
    KnownAnswer("signal", "PESQ-WB with itself", partial(_pesq_identity, "wb"), 4.6438885, 1e-6, "P.862.2", ("pesq",)),
    KnownAnswer("signal", "PESQ-NB with itself", partial(_pesq_identity, "nb"), 4.5486383, 1e-6, "P.862.1", ("pesq",)),
    KnownAnswer("signal", "deviation at half the log-range", partial(_deviation, 0.2), 0.5, 0.01, "log of a square"),
    KnownAnswer("signal", "contrast at another level", lambda: contrast_ratio(LOUD, 10 * LOUD, RATE), 1.0, 1e-3, "log"),
    KnownAnswer("signal", "tonality of a tone", partial(_tonality, 0.1, 0.0), 1.0, 0.02, "one peak"),
    KnownAnswer("signal", "tonality of noise", partial(_tonality, 0.0, 0.1), 0.0, 0.06, "hardly a steady peak"),
    KnownAnswer("signal", "tonality of both, as loud", partial(_tonality, 0.1, 0.1), 0.5, 0.03, "share of energy"),
    KnownAnswer(
        "signal", "DistillMOS of 3 s that are like speech", _distillmos, 1.2220332622528076, 1e-4,
        "package distillmos 0.9.1", ("distillmos",),
    ),
    KnownAnswer(
        "signal", "ViSQOL audio (SVR) with itself", partial(_visqol_identity, "visqol-audio/svr"), 4.732101253042, 1e-9,
        VISQOL, ("visqol",), True,
    ),
    KnownAnswer(
        "signal", "ViSQOL speech (exponential) with itself", partial(_visqol_identity, "visqol-speech/exponential"),
        5.0, 1e-9, "its mapper's ceiling", ("visqol",), True,
    ),
]  # fmt: skip

# ---- words ---------------------------------------------------------------------------------------------------------
PREDICTION = (["this is the reference", "there is another one"], ["this is the prediction", "there is an other sample"])
MONTY = (["hello world", "i like monthy python"], ["hello duck", "i like python"])
SPELL = (["i can spell", "i hope"], ["i kan cpell", "i hop"])
SHORT = (
    ["short one here", "quite a bit of longer sentence"],
    ["shoe order one", "quite bit of an even longest sentence here"],
)


def _rate(texts: tuple[list[str], list[str]], **options: Any) -> float:
    metric = ErrorRate(**options, normaliser="none")
    metric.update(texts[1], texts[0])
    return float(metric.compute())


def _normalised(text: str, expected: str) -> float:
    return float(scoring_normaliser("whisper-english")(text) == expected)


JIWER = "jiwer's documentation"
WORDS = [
    KnownAnswer("words", "WER, two sentences", partial(_rate, PREDICTION), 0.5, 1e-12, "torchmetrics and jiwer"),
    KnownAnswer("words", "CER, two sentences", partial(_rate, PREDICTION, unit="character"), 0.34146, 1e-5, METRICS),
    KnownAnswer("words", "WER above 1", partial(_rate, (["X"], ["X X Y Y"])), 3.0, 1e-12, JIWER),
    KnownAnswer("words", "WER, one right of three", partial(_rate, (["X Y X"], ["X Z"])), 2 / 3, 1e-12, JIWER),
    KnownAnswer("words", "WER, S2 D2 I4 of 9", partial(_rate, SHORT), 8 / 9, 1e-12, JIWER),
    KnownAnswer("words", "WER, corpus", partial(_rate, MONTY), 1 / 3, 1e-12, JIWER),
    KnownAnswer("words", "WER, mean of sentences", partial(_rate, MONTY, average="mean"), 0.375, 1e-12, JIWER),
    KnownAnswer("words", "CER, two sentences", partial(_rate, SPELL, unit="character"), 3 / 17, 1e-12, JIWER),
    *(
        KnownAnswer(
            "words", f"normalised: {text}", partial(_normalised, text, expected), 1, 0, "OpenAI's normaliser",
            ("whisper_normalizer",),
        )
        for text, expected in (
            ("two point five million", "2500000"),
            ("four point two billions", "4200000000s"),
            ("$0.36", "¢36"),
            ("nine double one", "911"),
            ("he's like", "he is like"),
            ("Mr. Park visited Assoc. Prof. Kim Jr.", "mister park visited associate professor kim junior"),
        )
    ),
]  # fmt: skip

# ---- captions ------------------------------------------------------------------------------------------------------
CANDIDATES = [words("a man is speaking"), words("rain falls")]
REFERENCES = [
    [
        words(text)
        for text in ("a man speaks.", "someone speaks.", "a man is speaking while a bird is chirping in the background")
    ],
    [words("rain is falling hard on a surface")],
]


def _caption(name: Name) -> float:
    return score(name, CANDIDATES, REFERENCES)


def _bleu(order: int) -> float:
    return bleu(CANDIDATES, REFERENCES)[order - 1]


def _meteor(item: int | None) -> float:
    whole, items = meteor_of_the_example()
    return whole if item is None else items[item]


@cache
def meteor_of_the_example() -> tuple[float, list[float]]:
    """METEOR of the two captions; the program takes seconds to start."""
    return meteor(CANDIDATES, REFERENCES)


COCO = "pycocoevalcap and aac-metrics"
CAPTIONS = [
    *(
        KnownAnswer("captions", f"BLEU-{order}", partial(_bleu, order), expected, 1e-5, COCO)
        for order, expected in enumerate((0.42785, 0.40589, 0.43897, 0.45650), 1)
    ),
    KnownAnswer("captions", "ROUGE-L", partial(_caption, "rouge-l"), 0.48707, 1e-5, COCO),
    KnownAnswer("captions", "ROUGE-L, item 1", lambda: rouge_l(CANDIDATES[0], REFERENCES[0]), 0.77215, 1e-5, COCO),
    KnownAnswer("captions", "ROUGE-L, item 2", lambda: rouge_l(CANDIDATES[1], REFERENCES[1]), 0.20199, 1e-5, COCO),
    KnownAnswer("captions", "CIDEr-D", partial(_caption, "cider-d"), 0.96135, 1e-5, COCO),
    KnownAnswer("captions", "CIDEr-D, item 1", lambda: cider_d(CANDIDATES, REFERENCES)[0], 1.36405, 1e-5, COCO),
    KnownAnswer("captions", "CIDEr-D, item 2", lambda: cider_d(CANDIDATES, REFERENCES)[1], 0.55865, 1e-5, COCO),
    *(
        KnownAnswer("captions", what, partial(_meteor, item), expected, 1e-5, "pycocoevalcap", ("pycocoevalcap",), True)
        for what, item, expected in (
            ("METEOR", None, 0.26338), ("METEOR, item 1", 0, 0.82416), ("METEOR, item 2", 1, 0.12809),
        )
    ),
]  # fmt: skip


# ---- intervals -----------------------------------------------------------------------------------------------------
def _interval_of_equals() -> float:
    parts = np.random.default_rng(0).integers(0, 4, 50), np.full(50, 8)
    found = paired_difference(parts, parts)
    assert found is not None and found.low is not None and found.high is not None
    return abs(found.value) + abs(found.low) + abs(found.high)


def _interval_of_mean() -> float:
    """Width of the interval of a mean of 400 normal numbers, relative to 2 · 1.96 s / √400."""
    values = np.random.default_rng(0).standard_normal(400)
    found = ratio(values)
    assert found is not None and found.low is not None and found.high is not None
    return float((found.high - found.low) / (2 * 1.959964 * values.std() / 20))


INTERVALS = [
    KnownAnswer("intervals", "a system minus itself", _interval_of_equals, 0, 0, "identity"),
    KnownAnswer("intervals", "width for 400 normals / theory", _interval_of_mean, 1, 0.06, "± 1.96 s/√n"),
]


# ---- recordings that others publish --------------------------------------------------------------------------------
def recordings(folder: Path) -> list[KnownAnswer]:
    """Answers on ``speech.wav`` and ``speech_bab_0dB.wav`` of github.com/ludlows/PESQ (folder ``audio``), 16 kHz."""

    @cache
    def pair() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return read_audio(folder / "speech.wav", RATE), read_audio(folder / "speech_bab_0dB.wav", RATE)

    def swapped() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return pair()[1], pair()[0]

    def spoken() -> float:
        with Sphinx(processes=1) as judge:
            return float(judge.transcribe([pair()[0]], RATE) == ["the birch canoe slid on the smooth planks"])

    clips, source = "PESQ's clips", "packages pesq and pystoi"
    return [
        KnownAnswer(clips, "PESQ-WB", lambda: pesq_score("wb", *pair()), 1.0832337141, 1e-9, source, ("pesq",)),
        KnownAnswer(
            clips, "PESQ-NB of 16 kHz", lambda: _raw_pesq("nb", *pair()), 1.6072081327, 1e-9, source, ("pesq",)
        ),
        KnownAnswer(clips, "PESQ-WB, swapped", lambda: pesq_score("wb", *swapped()), 1.0445, 5e-5, source, ("pesq",)),
        KnownAnswer(clips, "STOI", lambda: stoi(*pair(), RATE), 0.6739178, 1e-6, source, ("pystoi",)),
        KnownAnswer(clips, "ESTOI", lambda: stoi(*pair(), RATE, True), 0.3904500, 1e-6, source, ("pystoi",)),
        KnownAnswer(clips, "STOI, swapped", lambda: stoi(*swapped(), RATE), 0.5263, 5e-5, source, ("pystoi",)),
        KnownAnswer(clips, "pocketsphinx' words", spoken, 1, 0, "Harvard sentence", ("pocketsphinx",), True),
    ]


def _raw_pesq(mode: str, reference: NDArray[np.float32], degraded: NDArray[np.float32]) -> float:
    """Narrow-band PESQ of 16 kHz audio as the package's own test calls it; our metric resamples to 8 kHz first."""
    import pesq

    return float(pesq.pesq(RATE, reference, degraded, mode))


ANSWERS = [*FRECHET, *DIVERGENCE, *SIGNAL, *WORDS, *CAPTIONS, *INTERVALS]

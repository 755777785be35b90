"""A codec's delay is found and taken out; where there is none, nothing is."""

import numpy as np
import pytest

from eval.harness.report import Report
from eval.harness.scored import ScoredClip
from eval.known_answers import speechlike
from eval.metrics.delay import clip_delay, find_delay, undelayed
from eval.metrics.signal import stoi
from eval.reconstruction import compare

RATE = 16_000


def late(wav: np.ndarray, samples: int) -> np.ndarray:
    return np.concatenate([np.zeros(max(0, samples)), wav, np.zeros(max(0, -samples))])[
        max(0, -samples) : max(0, -samples) + len(wav)
    ].astype(np.float32)


@pytest.mark.parametrize("shift", [0, 1, 160, 800, -37])
def test_found_through_noise_and_another_level(shift: int) -> None:
    generator = np.random.default_rng(0)
    clips = [generator.standard_normal(8000).astype(np.float32) for _ in range(5)]
    pairs = [(wav, 0.3 * late(wav, shift) + 0.2 * generator.standard_normal(8000).astype(np.float32)) for wav in clips]
    assert [clip_delay(*pair, RATE) for pair in pairs] == [shift] * 5
    found = find_delay(pairs, RATE)
    assert (found.samples, found.agreement) == (shift, 1.0) and found.seconds == shift / RATE
    left, right = undelayed(*pairs[0], found.seconds, RATE)
    assert len(left) == len(right) == 8000 - abs(shift)
    assert np.corrcoef(left, right)[0, 1] > 0.7


def test_not_believed_without_agreement() -> None:
    generator = np.random.default_rng(0)
    waves = [generator.standard_normal(8000).astype(np.float32) for _ in range(10)]
    unlike = find_delay(list(zip(waves[::2], waves[1::2], strict=True)), RATE)
    assert unlike.samples == 0 and "0 clips are like" in unlike.reason
    # half of them late, half of them not: no majority
    split = find_delay([(wav, late(wav, 200 * (n % 2))) for n, wav in enumerate(waves)], RATE)
    assert split.samples == 0 and "do not agree" in split.reason


@pytest.mark.parametrize("clips", [1, 2, 4])
def test_few_clips_find_no_delay_and_five_do(clips: int) -> None:
    pairs = [(speechlike(1.0, seed=n), late(speechlike(1.0, seed=n), 448)) for n in range(5)]
    few = find_delay(pairs[:clips], RATE)
    assert few.samples == 0 and f"{clips} clips are like their reference, 5 are needed" in few.reason
    assert find_delay(pairs, RATE).samples == 448


def test_silence_has_no_delay() -> None:
    silent = np.zeros(100, np.float32)
    assert "0 clips are like their reference" in find_delay([(silent, silent)], RATE).reason
    assert find_delay([], RATE).samples == 0 and clip_delay(silent[:0], silent, RATE) is None


def test_ten_milliseconds_are_not_distortion() -> None:
    clip = speechlike(2.0)
    output = late(clip, 160)
    rows = [[ScoredClip("a", row, "", wav, RATE)] for row, wav in (("reference", clip), ("resynthesis", output))]
    plain, compensated = Report({}, ["resynthesis"]), Report({}, ["resynthesis"])
    compare(plain, ["stoi"], rows[0], rows[1], 0)
    compare(compensated, ["stoi"], rows[0], rows[1], 0, delay=find_delay([(clip, output)] * 5, RATE).seconds)
    worse, better = (r.results()["rows"]["resynthesis"]["stoi"]["value"] for r in (plain, compensated))
    assert worse < 0.95 < 0.999 < better == pytest.approx(stoi(clip[:-160], clip[:-160], RATE))

"""Synthesised sounds: captions, splits, and whether each class sounds like what it is called."""

from collections import Counter

import numpy as np
import pytest

from mini_corpus import sounds
from mini_corpus.sounds import CLASSES
from mini_corpus.synthesis import SAMPLE_RATE

SEED = 7


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return list(sounds.plan(SEED))


def test_more_takes_leave_the_clips_as_they_are_and_the_held_out_pairs_out(rows: list[dict]) -> None:
    more = list(sounds.plan(SEED, 3))
    by_id = {row["id"]: row for row in more}
    assert len(by_id) == len(more) and all(by_id[row["id"]] == row for row in rows)
    count = Counter(row["split"] for row in rows)
    assert Counter(row["split"] for row in more) == {**count, "train": 3 * count["train"]}
    train = {frozenset(row["classes"]) for row in more if row["split"] == "train" and len(row["classes"]) == 2}
    held = {frozenset(row["classes"]) for row in more if row["split"] != "train" and len(row["classes"]) == 2}
    assert len(train) == 96 and not train & held
    takes = [by_id[f"sound-train-dog-{number:02d}"] for number in (0, 13, 26)]
    assert len({sounds.render(row, SEED)[:24_000].tobytes() for row in takes}) == 3


def clip(name: str, variant: str, number: int = 0) -> np.ndarray:
    rng = np.random.default_rng([number, len(name), len(variant)])
    return CLASSES[name].generate(rng, 5.0, variant)


def spectrogram(signal: np.ndarray, size: int = 1024, hop: int = 240) -> np.ndarray:
    """Power, [frames, bins]."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, size)[::hop] * np.hanning(size)
    return np.abs(np.fft.rfft(frames)) ** 2


def frequencies(size: int = 1024) -> np.ndarray:
    return np.fft.rfftfreq(size, 1 / SAMPLE_RATE)


def share_below(signal: np.ndarray, limit: float) -> float:
    power = spectrogram(signal).mean(0)
    return float(power[frequencies() < limit].sum() / power.sum())


def centroid(signal: np.ndarray) -> float:
    power = spectrogram(signal).mean(0)
    return float((frequencies() * power).sum() / power.sum())


def strokes_per_second(signal: np.ndarray) -> float:
    """Onsets: a rise by a factor of four in power over 20 ms that stands out from the clip's loudest."""
    power = np.convolve(signal**2, np.ones(240), "same")[::120]
    rise = (power[4:] > 4 * power[:-4]) & (power[4:] > 0.02 * power.max())
    onsets = np.flatnonzero(rise)
    apart = np.diff(onsets, prepend=-100) > 10  # 50 ms
    return float(apart.sum()) / (len(signal) / SAMPLE_RATE)


def modulation_peak(signal: np.ndarray, low: float = 4.0, high: float = 60.0) -> float:
    """Strongest frequency of the envelope in Hz."""
    envelope = np.convolve(np.abs(signal), np.ones(120) / 120, "same")[::120]
    power = np.abs(np.fft.rfft((envelope - envelope.mean()) * np.hanning(len(envelope)))) ** 2
    at = np.fft.rfftfreq(len(envelope), 120 / SAMPLE_RATE)
    inside = (at > low) & (at < high)
    return float(at[inside][np.argmax(power[inside])])


def test_plan_counts(rows: list[dict]) -> None:
    assert len(CLASSES) >= 12
    assert len({row["id"] for row in rows}) == len(rows)
    alone = Counter(row["classes"][0] for row in rows if len(row["classes"]) == 1)
    assert set(alone) == set(CLASSES) and len(set(alone.values())) == 1
    for split in ("train", "valid", "test"):
        found = {name for row in rows if row["split"] == split for name in row["classes"]}
        assert found == set(CLASSES), split
    minutes = sum(row["seconds"] for row in rows) / 60
    assert 35 < minutes < 45
    assert all(4 <= row["seconds"] <= 6 for row in rows)


def test_no_combination_is_in_two_splits(rows: list[dict]) -> None:
    splits: dict[frozenset[str], set[str]] = {}
    for row in rows:
        if len(row["classes"]) == 2:
            splits.setdefault(frozenset(row["classes"]), set()).add(row["split"])
    assert len(splits) == len(CLASSES) * (len(CLASSES) - 1) // 2
    assert all(len(found) == 1 for found in splits.values())


def test_captions_name_their_classes_and_no_other(rows: list[dict]) -> None:
    for row in rows:
        assert len(set(row["caption"])) == sounds.CAPTIONS
        for caption in row["caption"]:
            words = caption.lower().split()
            named = {name for name, kind in CLASSES.items() if kind.keyword in words}
            assert named == set(row["classes"]), caption
            assert all(variant in words for variant in row["variants"]), caption
            assert caption[0].isupper() and "{" not in caption


def test_same_seed_same_samples_other_id_other_samples(rows: list[dict]) -> None:
    for row in (rows[0], rows[-1]):
        assert np.array_equal(sounds.render(row, SEED), sounds.render(row, SEED))
    same_words = {**rows[0], "id": rows[1]["id"]}
    assert not np.array_equal(sounds.render(rows[0], SEED), sounds.render(same_words, SEED))
    assert list(sounds.plan(SEED)) == rows
    assert list(sounds.plan(SEED + 1)) != rows


@pytest.mark.parametrize("name", CLASSES)
def test_clips_are_finite_and_fit_in_sixteen_bits(name: str, rows: list[dict]) -> None:
    for variant in CLASSES[name].variants:
        row = {"id": f"x-{variant}", "classes": [name], "variants": [variant], "seconds": 4.3}
        audio = sounds.render(row, SEED)
        assert len(audio) == round(4.3 * SAMPLE_RATE)
        assert np.isfinite(audio).all()
        assert 0.01 < np.abs(audio).max() < 0.951
        assert abs(audio[0]) < 1e-6 and abs(audio[-1]) < 1e-6


def test_background_is_softer_than_foreground() -> None:
    row = {"id": "mix", "classes": ["clock", "rain"], "variants": ["slow", "steady"], "seconds": 4.0}
    mixed = sounds.render(row, SEED)
    frames = np.sqrt(np.mean(mixed[: 4 * SAMPLE_RATE].reshape(-1, 480) ** 2, axis=1))
    assert frames.max() > 2 * np.median(frames)  # the ticks stand out from the rain


def test_rain_is_broad_and_grows_with_its_weight() -> None:
    power = spectrogram(clip("rain", "heavy")).mean(0)
    inside = power[(frequencies() > 500) & (frequencies() < 9000)]
    assert np.exp(np.log(inside).mean()) / inside.mean() > 0.4  # spectral flatness
    light, heavy = (spectrogram(clip("rain", weight)).sum(1) for weight in ("light", "heavy"))
    assert light.std() / light.mean() > 2 * heavy.std() / heavy.mean()


def test_wind_and_thunder_are_dark() -> None:
    assert share_below(clip("wind", "gentle"), 1000) > 0.85
    assert share_below(clip("thunder", "distant"), 400) > 0.7
    assert centroid(clip("thunder", "loud")) > centroid(clip("thunder", "distant"))


def test_howling_wind_whistles() -> None:
    def peak(variant: str) -> float:
        power = spectrogram(clip("wind", variant), 4096)
        inside = power[:, (frequencies(4096) > 300) & (frequencies(4096) < 1200)]
        return float(np.median(inside.max(1) / np.median(inside, 1)))

    assert peak("howling") > 2 * peak("gentle")


def test_waves_swell() -> None:
    power = spectrogram(clip("waves", "small")).sum(1)
    smooth = np.convolve(power, np.ones(30) / 30, "valid")
    assert smooth.max() > 8 * smooth.min()


def test_siren_is_one_moving_tone() -> None:
    for variant, turns in (("slow", (2, 8)), ("rapid", (15, 45))):
        power = spectrogram(clip("siren", variant), 1024, 120)
        inside = (frequencies() > 300) & (frequencies() < 2200)
        track = frequencies()[inside][power[:, inside].argmax(1)]
        assert track.max() / track.min() > 1.6
        assert np.median(power.max(1) / np.median(power, 1)) > 1000
        side = np.where(track > 1.15 * np.median(track), 1, np.where(track < 0.85 * np.median(track), -1, 0))
        crossings = int((np.diff(side[side != 0]) != 0).sum())
        assert turns[0] <= crossings <= turns[1], (variant, crossings)


def test_alarm_beeps_at_one_pitch() -> None:
    for variant, low, high in (("shrill", 2200, 3400), ("low", 600, 1100)):
        power = spectrogram(clip("alarm", variant))
        loud = power[power.sum(1) > 0.3 * power.sum(1).max()]
        pitches = frequencies()[loud.argmax(1)]
        assert low < np.median(pitches) < high
        assert np.ptp(pitches) < 60
        assert power.sum(1).min() < 0.02 * power.sum(1).max()


def test_size_goes_with_pitch() -> None:
    for name, small, large in (("bell", "small", "large"), ("dog", "small", "big")):
        for number in range(3):
            assert centroid(clip(name, small, number)) > 1.3 * centroid(clip(name, large, number)), name


def test_bell_rings_on_in_few_partials() -> None:
    power = spectrogram(clip("bell", "large"), 4096).mean(0)
    strongest = np.sort(power)[::-1]
    assert strongest[:60].sum() > 0.95 * power.sum()
    assert strokes_per_second(clip("bell", "large")) < strokes_per_second(clip("bell", "small"))


def test_birds_sing_high() -> None:
    for variant in CLASSES["birds"].variants:
        assert share_below(clip("birds", variant), 1800) < 0.1


@pytest.mark.parametrize(
    ("name", "slow", "fast"),
    [
        ("clock", "slow", "fast"),
        ("footsteps", "slow", "brisk"),
        ("typing", "slow", "fast"),
        ("drops", "slow", "quick"),
    ],
)
def test_pace_is_as_the_caption_says(name: str, slow: str, fast: str) -> None:
    for number in range(3):
        rates = [strokes_per_second(clip(name, variant, number)) for variant in (slow, fast)]
        assert 0.3 < rates[0] < rates[1] < 14, (name, rates)
        assert rates[1] > 1.3 * rates[0], (name, rates)


def test_vintage_telephone_has_a_clapper() -> None:
    assert 8 < modulation_peak(clip("telephone", "vintage"), 7, 60) < 50
    power = spectrogram(clip("telephone", "modern")).sum(1)
    assert (power < 0.01 * power.max()).mean() > 0.1  # pauses between the rings


def test_engine_is_a_low_harmonic_hum_that_speeds_up() -> None:
    def fundamental(variant: str) -> float:
        signal = clip("engine", variant)[:SAMPLE_RATE]
        spectrum = np.abs(np.fft.rfft(signal * np.hanning(len(signal)), 4 * SAMPLE_RATE)) ** 2
        correlation = np.fft.irfft(spectrum)
        lags = np.arange(SAMPLE_RATE // 160, SAMPLE_RATE // 20)
        return SAMPLE_RATE / float(lags[np.argmax(correlation[lags])])

    assert share_below(clip("engine", "idling"), 1200) > 0.8
    assert fundamental("racing") > 1.5 * fundamental("idling")


def test_helicopter_blades_pass_ten_to_seventeen_times_a_second() -> None:
    for variant in CLASSES["helicopter"].variants:
        assert 9 < modulation_peak(clip("helicopter", variant), 6, 30) < 18
    assert centroid(clip("helicopter", "nearby")) > centroid(clip("helicopter", "distant"))

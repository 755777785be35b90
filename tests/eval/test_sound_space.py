"""Walks and transfers: endpoints, lengths, a planted linear decoder, planted effects, and the script on 24 notes."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from json_files import read_json, read_lines
from tiny_notes import RATE, build, evaluate

from codec.corpus import Clip
from codec.load import load
from eval.harness.audio import CannotScore
from eval.space import heard, moves, walks
from eval.space.heard import Heard
from eval.space.recordings import Recording

LABELS = ["instrument", "note", "octave"]


def recording(instrument: str, midi: int, split: str = "train", take: int = 0) -> Recording:
    name = f"{instrument}-{midi}-{split}-{take}"
    labels = {"instrument": instrument, "note": "CDEFGAB"[midi % 7], "octave": str(midi // 12 - 1)}
    return Recording(Clip(name, Path(name)), split, labels, name, midi, None)


def tone(hertz: float, seconds: float = 1.0, harmonics: int = 4) -> np.ndarray:
    t = np.arange(int(RATE * seconds)) / RATE
    return sum(0.2 * np.sin(2 * np.pi * k * hertz * t) / k for k in range(1, harmonics + 1)).astype(np.float32)


# ---- walks ----
def test_a_walk_stands_at_its_way_points_and_goes_straight_between() -> None:
    path = walks.walk(3, 12.5)
    stand, go = 6, 19
    assert path.holds(12.5) == [(0.0, 0.48), (2.0, 2.48), (4.0, 4.48)]
    assert len(path.place) == 3 * stand + 2 * go and path.legs == 2 and path.held.sum() == 3 * stand
    points = np.array([[0, 0], [1, 2], [5, 2]], np.float32)
    along = path.vectors(points)
    for k, start in enumerate((0, stand + go, 2 * (stand + go))):
        assert np.array_equal(along[start : start + stand], np.tile(points[k], (stand, 1)))
    steps = np.diff(along[stand - 1 : stand + go + 1], axis=0)
    np.testing.assert_allclose(steps, np.tile(points[1:2] / (go + 1), (go + 1, 1)), atol=1e-6)
    # through a decoder whose pitch is linear in z the glide is linear in cents
    cents = along @ np.array([100.0, 50.0])
    assert np.allclose(np.diff(cents[stand - 1 : stand + go + 1], 2), 0, atol=1e-3)
    noted = walks.with_notes(path, along, [np.ones((4, 2), np.float32) * [[1], [0], [0], [0]]] * 3)
    assert np.allclose(noted[0] - along[0], 1) and np.allclose(noted[stand + go] - along[stand + go], 1)
    assert np.array_equal(noted[stand:stand + go], along[stand : stand + go])  # fmt: skip


def test_way_points_are_found_or_the_nearest_are_named(refusal: Callable[..., str]) -> None:
    own = [recording(i, m) for i in ("flute", "music box") for m in (60, 62)]
    own[0].labels.update(note="C", octave="5")
    assert walks.find("flute C5", LABELS, own) == own[:1] == walks.find("flute C 5", LABELS, own)
    assert walks.find("flute", LABELS, own) == own[:2]
    for text, reason in (
        ("oboe", "its instrument can be flute, music box"), ("flute X9", "'flute X9': its note can be "),
        ("flute C 5 2", "is no way-point"),
    ):  # fmt: skip
        assert reason in refusal(walks.find, text, LABELS, own)
    assert "at least two way-points" in refusal(walks.walk, 1, 12.5)


def test_scores_of_a_glide_and_of_a_cross_fade() -> None:
    """The control is smooth and has two pitches half-way; a glide has one all along."""
    path = walks.walk(2, 12.5)
    samples = len(path.place) * 1920
    place = np.interp(np.arange(samples) / 1920, np.arange(len(path.place)) + 0.5, path.place)
    glide = (0.3 * np.sin(2 * np.pi * np.cumsum(220 * 2 ** (place * 8 / 12)) / RATE)).astype(np.float32)
    fade = walks.cross_fade(path, [tone(220.0), tone(220 * 2 ** (8 / 12))], samples)
    noise = np.random.default_rng(0).standard_normal((6, RATE)).astype(np.float32)
    known = [Heard(wav, RATE) for wav in (*(tone(h) for h in (220, 300, 400)), *noise[:3])]
    probe = heard.ClassProbe(known, ["tone"] * 3 + ["noise"] * 3)
    ends = [220.0, 220 * 2 ** (8 / 12)]
    scores = [heard.score_walk(Heard(wav, RATE), path, ["tone", "tone"], ends, probe) for wav in (glide, fade)]
    assert scores[0]["waypoint-cents"] < 5 and scores[1]["waypoint-cents"] < 15
    assert scores[0]["pitch-between"] > 0.9 and scores[1]["pitch-between"] < 0.1, "two pitches are none between"
    assert scores[0]["periodic-halfway"] > 0.9
    assert all(score["path-ratio"] >= 1 and score["largest-jump"] >= 1 for score in scores)
    assert len(fade) == samples and np.abs(np.diff(fade)).max() < 0.3, "no clicks"


# ---- what is heard ----
def test_pitch_onsets_and_classes() -> None:
    for hertz in (110.0, 440.0, 1760.0):
        higher, own = (Heard(tone(h), RATE) for h in (hertz * 2 ** (30 / 1200), hertz))
        assert heard.cents_apart(higher, own)[0] == pytest.approx(30, abs=6)
    assert own.pitch is own.pitch and own.frames is own.frames, "found once"
    noise = Heard(np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1, RATE)
    with pytest.raises(CannotScore, match="no pitch in the source"):
        heard.cents_apart(own, noise)
    with pytest.raises(CannotScore, match="no pitch where the source has one"):
        heard.cents_apart(noise, own)
    wav = tone(300) * (np.arange(RATE) % 6000 > 3000)
    beats, softer, even = (Heard(part, RATE) for part in (wav, wav * 0.5, tone(300)))
    assert heard.onsets_alike(beats, softer) > 0.9 > 0.5 > heard.onsets_alike(even, beats)


# ---- transfers ----
def planted() -> tuple[moves.Fit, list[Recording], dict[str, np.ndarray], dict[str, np.ndarray]]:
    generator = np.random.default_rng(0)
    u = {name: generator.standard_normal(6) for name in ("flute", "cello", "bass")}
    v = {midi: 4 * generator.standard_normal(6) for midi in range(60, 72)}
    own = [recording(i, m, take=t) for i in u for m in v for t in range(2)]
    z = {r.id: 1 + u[r.labels["instrument"]] + v[int(r.midi or 0)] for r in own}
    return moves.fit_of(own, z, "instrument", [5 + np.zeros(6)]), own, z, u


def test_moving_changes_the_class_and_leaves_pitch_where_it_is() -> None:
    fit, own, z, u = planted()
    held = own[0]
    shift = fit.shift("additive", "flute", "cello", held, z[held.id])
    np.testing.assert_allclose(shift, u["cello"] - u["flute"], atol=1e-3)
    clip = fit.shift("clip", "flute", "cello", held, z[held.id])
    assert np.linalg.norm(clip - shift) > 1, "the reproduction's way moves the pitch too"
    assert np.linalg.norm(moves.random_like(shift, np.random.default_rng(0))) == pytest.approx(np.linalg.norm(shift))
    speech = fit.shift("additive", moves.SPEECH, "cello", None, np.zeros(6))
    assert np.isfinite(speech).all() and fit.classes.count(moves.SPEECH) == 1


def test_what_is_moved_is_not_in_the_fit() -> None:
    """Neither its group, nor its pitch by its class: changing those vectors changes nothing."""
    fit, own, z, _ = planted()
    held = own[0]
    before = fit.shift("additive", "flute", "cello", held, z[held.id])
    changed = fit.vectors.copy()
    for row, r in enumerate(own):
        if r.labels["instrument"] == "flute" and r.midi == held.midi:
            changed[row] += 100
    other = moves.Fit(changed, fit.classes, fit.pitches, fit.groups)
    np.testing.assert_array_equal(other.shift("additive", "flute", "cello", held, z[held.id]), before)
    assert not np.allclose(other.shift("additive", "flute", "cello", own[5], z[own[5].id]), before)


# ---- the script ----
def run(folder: Path, *changes: str) -> dict:
    few = ["walks=[[flute A3, cello E4]]", "random_walks=2", "transfers=3", "transfer=[]", "to=[]", "shown=2"]
    return evaluate("eval_sound_space", folder, *few, "speech=null", *changes)


@pytest.mark.slow
def test_the_script(tmp_path: Path) -> None:
    """slow: five walks and transfers in all rows."""
    folder = build(tmp_path)
    soundfile.write(folder / "voice.wav", 0.05 * np.random.default_rng(0).standard_normal(RATE), RATE)
    found = run(folder, f"transfer=[{folder}/voice.wav]", "to=[cello]")
    rows = found["rows"]
    assert rows["cross-fade"]["walk-periodic-halfway"]["n"] == 2 and rows["untrained"]["walk-path-ratio"]["n"] == 2
    assert 0 < rows["requantised"]["walk-distinct-codes"]["value"] <= 1
    for row in ("reference", "continuous", "requantised", "unmoved", "random", "target"):
        assert rows[row]["transfer-posterior-target"]["n"] == 3, row
    assert {"transfer-posterior-target@0.5", "transfer-posterior-target@1.5"} <= set(rows["requantised"])
    assert rows["reference"]["transfer-pitch-cents"]["value"] == 0
    lines = read_lines(folder / "out/items.jsonl")
    assert all((folder / "out" / line["audio"]).is_file() for line in lines)
    kinds = {line["kind"] for line in lines}
    assert {"walk", "transfer"} <= kinds and len({line["id"] for line in lines}) == 4
    grid = read_json(folder / "out/grid.json")
    assert [(cell["source"], cell["target"]) for cell in grid["cells"]] == [("cello", "flute"), ("flute", "cello")]
    for cell in grid["cells"]:
        steps = [step for row in ("requantised", "continuous") for step in cell["moved"][row]]
        assert len(steps) == 8 and all((folder / "out" / part["audio"]).is_file() for part in (cell, *steps))
    codec = load(f"{folder}/codec")
    cell = grid["cells"][0]  # a = 0 changes nothing: what comes out is the recording through the codec
    for row, requantise in (("requantised", True), ("continuous", False)):
        wav = torch.from_numpy(soundfile.read(folder / "out" / cell["audio"], dtype="float32")[0])[None]
        same = codec.from_latents(codec.to_latents(wav), requantise)[0, : wav.shape[1]].numpy()
        found_wav = soundfile.read(folder / "out" / cell["moved"][row][0]["audio"], dtype="float32")[0]
        assert np.abs(same - found_wav).max() < 2e-3 and np.abs(same).max() > 0.01
    assert all(len(line["holds"]) == (2 if line["kind"].endswith("walk") else 0) for line in lines)
    unvoiced = [line for line in lines if line["kind"] == "transfer" and line["row"] == "requantised"][0]
    assert unvoiced["failures"]["pitch-cents"] == "no pitch in the source"
    assert run(folder, f"transfer=[{folder}/voice.wav]", "to=[cello]")["rows"] == rows, "the same digits again"


@pytest.mark.slow
def test_what_cannot_be_walked_or_moved_is_refused(tmp_path: Path, refusal: Callable[..., str]) -> None:
    """slow: begins four runs."""
    folder = build(tmp_path)
    shutil.copy(folder / "notes/metadata.jsonl", folder / "no.wav")
    table = {
        ("walks=[[flute A3]]",): "list two way-points or more",
        ("walks=[[flute A3, oboe]]",): "there is no recording of 'oboe': its instrument can be cello, flute",
        ("to=[oboe]",): "to: there is no instrument 'oboe'; choose from cello, flute",
        (f"transfer=[{folder}/no.wav]",): "transfer: ",
    }
    for changes, reason in table.items():
        assert reason in refusal(run, folder, *changes)

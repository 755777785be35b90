"""The CTC recogniser: its rules, its independence of batches, and the one that ships."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from codec.corpus import read_audio, read_corpus
from codec.network.ctc import CTCConfig, CTCRecogniser, ids_to_text, text_to_ids
from eval.judges.augmentation import augment, coloured_noise
from eval.judges.judging import load_recogniser
from eval.judges.recognisers.ctc import GreedyCTC
from eval.judges.recognisers.interface import RecogniserError
from eval.metrics.wer import ErrorRate
from training.config import REPOSITORY

SHIPPED = REPOSITORY / "checkpoints/ctc-mini"
MINI = REPOSITORY / "data/mini"


@pytest.fixture(scope="module")
def tiny() -> CTCRecogniser:
    torch.manual_seed(0)
    return CTCRecogniser(CTCConfig(width=16, blocks=2)).eval()


def test_texts_and_ids() -> None:
    ids = text_to_ids("the bee's knees")
    with_blanks = [i for pair in zip(ids, [0] * len(ids), strict=True) for i in pair]
    assert ids_to_text(with_blanks) == "the bee's knees"
    assert ids_to_text(ids) == "the be's knes"  # without a blank between them, repeats are one
    assert ids_to_text([0, 0]) == ""
    with pytest.raises(ValueError, match="no '3'"):
        text_to_ids("3 bees")


def not_finite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    next(iter(weights.values())).view(-1)[0] = float("nan")
    save_file(weights, folder / "model.safetensors")


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (not_finite, "holds values that are NaN or infinite"),
        (lambda f: (f / "model.safetensors").write_bytes(b"half"), "cannot be loaded"),
        (lambda f: (f / "config.json").write_text("{"), "cannot be loaded"),
        (lambda f: (f / "config.json").write_text("[]"), "cannot be loaded"),
        (lambda f: (f / "config.json").write_text('{"alphabet": "x"}'), "describes another network or alphabet"),
    ],
)
def test_a_damaged_folder_is_refused(damage: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    shutil.copytree(SHIPPED, tmp_path / "ctc")
    damage(tmp_path / "ctc")
    with pytest.raises(RecogniserError, match=f"{reason}.* Train it again"):
        GreedyCTC(tmp_path / "ctc")


def test_a_clip_alone_and_in_a_batch(tiny: CTCRecogniser) -> None:
    generator = torch.Generator().manual_seed(0)
    clips = [torch.randn(n, generator=generator) * 0.1 for n in (7000, 16000, 33333)]
    lengths = torch.tensor([len(clip) for clip in clips])
    batch = torch.zeros(3, 40000)
    for row, clip in zip(batch, clips, strict=True):
        row[: len(clip)] = clip
    with torch.inference_mode():
        together, frames = tiny(batch, lengths)
        for number, clip in enumerate(clips):
            alone, count = tiny(clip[None], torch.tensor([len(clip)]))
            assert int(count[0]) == int(frames[number]) == alone.shape[1]
            torch.testing.assert_close(together[number, : alone.shape[1]], alone[0], atol=1e-4, rtol=1e-4)


def test_level_cancels(tiny: CTCRecogniser) -> None:
    wav = torch.randn(1, 16000, generator=torch.Generator().manual_seed(1)) * 0.1
    with torch.inference_mode():
        scores = [tiny(gain * wav, torch.tensor([16000]))[0] for gain in (1.0, 0.01)]
    torch.testing.assert_close(scores[0], scores[1], atol=1e-3, rtol=1e-3)


def test_silence_and_crumbs_do_not_crash(tiny: CTCRecogniser) -> None:
    wav = torch.zeros(2, 4000)
    assert len(tiny.transcribe(wav, torch.tensor([4000, 1]))) == 2


def test_save_and_load(tiny: CTCRecogniser, tmp_path: Path) -> None:
    tiny.save(tmp_path)
    again = CTCRecogniser.load(tmp_path)
    wav, lengths = torch.randn(1, 16000), torch.tensor([16000])
    with torch.inference_mode():
        assert torch.equal(tiny(wav, lengths)[0], again(wav, lengths)[0])
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(RecogniserError, match=r"model.safetensors is missing.*train_recogniser"):
        GreedyCTC(tmp_path)


def test_augmentation_is_a_function_of_the_seed() -> None:
    wav = coloured_noise(16000, 1.0, np.random.default_rng(0)) * 0.1
    for seed in range(20):
        first, second = (augment(wav, 16_000, np.random.default_rng(seed), other=wav) for _ in range(2))
        assert np.array_equal(first, second) and first.dtype == np.float32
        assert np.isfinite(first).all() and 0.03 < np.abs(first).max() <= 1.0
        assert 0.9 < len(first) / len(wav) < 1.1
    assert np.isfinite(augment(np.zeros(8000, np.float32), 16_000, np.random.default_rng(0))).all()


def test_unknown_recognisers_are_refused() -> None:
    with pytest.raises(RecogniserError, match="choose from pocketsphinx"):
        load_recogniser("no-such", MINI, SHIPPED)


def test_the_shipped_recogniser_reads_the_test_split() -> None:
    """Speech it never saw: at most 5 % word errors, also 20 dB down with noise, and at another sample rate."""
    clips = [clip for clip in read_corpus(MINI)[0] if clip.split == "test" and clip.domain == "speech"][:24]
    judge = GreedyCTC(SHIPPED)
    generator = np.random.default_rng(0)
    for rate, gain, noise in ((16_000, 1.0, 0.0), (24_000, 0.1, 3e-4)):
        waves = [gain * read_audio(clip.path, rate) for clip in clips]
        waves = [w + noise * generator.standard_normal(len(w)).astype(np.float32) for w in waves]
        metric = ErrorRate()
        metric.update(judge.transcribe(waves, rate), [clip.text or "" for clip in clips])
        assert float(metric.compute()) <= 0.05
    assert judge.transcribe([np.zeros(0, np.float32), waves[0]], 24_000)[0] == ""
    assert len(str(judge.how()["sha256"])) == 64

"""The listener: Whisper's own features and hidden states, frozen, with a gradient for what it hears."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import train
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperModel

from codec.objectives.adversarial import Adversary
from codec.objectives.hearing import Listener, hearing_loss
from codec.recipe.options import check_options
from training.config import compose


def tones(rate: int, seconds: float) -> torch.Tensor:
    """A sound without anything above 7 kHz, the same at every rate."""
    time = np.arange(int(rate * seconds)) / rate
    wave = sum(np.sin(2 * np.pi * hz * time + hz) / (1 + n) for n, hz in enumerate((150, 440, 1210, 3300, 6800)))
    return torch.tensor(0.2 * wave * (1 + np.sin(2 * np.pi * 3 * time)), dtype=torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    sizes = dict(d_model=16, encoder_layers=3, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2)
    config = WhisperConfig(**sizes, encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=100, pad_token_id=0)
    path = tmp_path_factory.mktemp("whisper")
    WhisperModel(config).eval().save_pretrained(path)
    return path


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_its_features_are_whisper_s_without_resampling(folder: Path, rate: int) -> None:
    expected = WhisperFeatureExtractor()(tones(16_000, 2.0).numpy(), sampling_rate=16_000, return_tensors="pt")
    found = Listener(str(folder), 1, rate).log_mel(tones(rate, 2.0)[None])[0]
    wanted = expected.input_features[0, :, :200]
    assert found.shape == wanted.shape
    # away from the ends, where one sees padding and the other the reflected sound
    assert (found - wanted)[:, 3:-3].abs().mean() < (1e-4 if rate == 16_000 else 1e-2)


def test_its_states_are_those_of_the_encoder(folder: Path) -> None:
    heard = tones(16_000, 30.0)
    listener = Listener(str(folder), 2, 16_000)
    encoder = WhisperModel.from_pretrained(folder).eval().get_encoder()
    with torch.no_grad():
        expected = encoder(listener.log_mel(heard[None]), output_hidden_states=True).hidden_states[1:3]
        for found, wanted in zip(listener(heard[None]), expected, strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


def test_the_sound_learns_and_the_listener_does_not(folder: Path) -> None:
    listener = Listener(str(folder), 2, 24_000).train()
    assert not listener.training and not any(p.requires_grad for p in listener.parameters())
    source = tones(24_000, 1.0)[None]
    output = (source + 0.05 * torch.randn(source.shape, generator=torch.Generator().manual_seed(0))).requires_grad_()
    loss = hearing_loss(listener(output), listener(source))
    loss.backward()
    assert float(loss.detach()) > 0 and output.grad is not None and output.grad.abs().sum() > 0
    assert float(hearing_loss(listener(source), listener(source))) == 0.0


@pytest.mark.parametrize(
    ("keys", "reason"),
    [
        (["loss.hearing=1"], "loss.hearing needs a listener"),
        (["hearing.encoder=x"], "hearing.encoder is not used"),
        (["hearing.encoder=x", "loss.hearing=1", "trainer.crop_seconds=31"], "hears at most 30 s"),
        (["hearing.layers=0"], "hearing.layers=0"),
    ],
)
def test_options_that_cannot_work_are_one_sentence(keys: list[str], reason: str, refusal: Callable[..., str]) -> None:
    assert reason in refusal(lambda: check_options(compose("codec_train", keys)))


@pytest.mark.parametrize(
    ("path", "layers", "rate", "reason"),
    [
        ("nowhere", 1, 24_000, "is no Whisper checkpoint"),
        (None, 4, 24_000, "has layers 1 to 3"),
        (None, 1, 8_000, "8000 Hz cannot be heard"),
    ],
)
def test_a_listener_that_cannot_hear_is_one_sentence(
    folder: Path, path: str | None, layers: int, rate: int, reason: str, refusal: Callable[..., str]
) -> None:
    assert reason in refusal(Listener, path or str(folder), layers, rate)


@pytest.mark.slow
@pytest.mark.parametrize("listens", [False, True])
def test_discriminators_learn_from_all_batches_of_a_step_beside_a_listener(
    folder: Path, listens: bool, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the listener hears and what the discriminators hear are two things."""
    judged: list[list[tuple[torch.Size, torch.Size]]] = []
    learn = Adversary.train

    def noted(self: Adversary, heard: list, *arguments: object) -> dict[str, float]:
        judged.append([(output.shape, source.shape) for output, source in heard])
        return learn(self, heard, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Adversary, "train", noted)
    keys = ["trainer.max_steps=2", "trainer.accumulate=3", "gan.start=0"]
    keys += ["gan.sizes=[64]", "gan.channels=[4]", "trainer.quantize_from=0"]
    keys += [f"hearing.encoder={folder}", "hearing.layers=2", "loss.hearing=1"] if listens else []
    train("run", *keys)
    assert [len(batches) for batches in judged] == [3, 3]
    assert all(output == source and len(output) == 2 for batches in judged for output, source in batches)
    line = json.loads((place / "runs/run/log.jsonl").read_text(encoding="utf-8").splitlines()[-2])
    assert ("hearing" in line) == listens

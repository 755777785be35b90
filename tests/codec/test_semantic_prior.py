"""Fitting semantic centres: from a transformers encoder saved locally, and from a codec."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch
from json_files import write_lines
from omegaconf import DictConfig, OmegaConf
from programs import run_program
from safetensors.torch import load_file, save_file
from tiny_encoders import save_ast, save_wav2vec
from tiny_models import tiny_codec
from tiny_training import train, write_corpus

from codec.corpus import read_corpus
from codec.model import ALMTokenizer
from codec.network.audio_encoders import load_encoder
from codec.network.quantizer import ResidualQuantizer
from codec.objectives.auxiliary import MaskedAutoencoder
from codec.semantic_prior import Source, fit_map, join_sources
from training.config import ConfigError


def settings(**changes: object) -> DictConfig:
    """The keys of configs/codec_semantic_prior.yaml that a `Source` reads."""
    values = {"seed": 0, "piece_seconds": 1.0, "hours": 1.0, "scale_hours": 1.0, "window_seconds": 0, "device": "cpu"}
    return OmegaConf.create({**values, **changes})


def test_centres_of_two_sources_are_normalised_and_kept_apart(tmp_path: Path) -> None:
    save_wav2vec(tmp_path / "encoder")
    tiny_codec().save_pretrained(tmp_path / "codec")
    clips = read_corpus(write_corpus(tmp_path / "corpus"))[0]
    cfg = settings(piece_seconds=0.5)
    parts = []
    for number, (name, layer) in enumerate((("encoder", 1), ("codec", 0))):
        source = {"encoder": str(tmp_path / name), "layer": layer, "count": 6, "domains": ["speech"]}
        parts.append(Source(OmegaConf.create(source), clips, cfg, number).fit())
    joint = join_sources(parts)
    assert joint.shape == (12, 16 + 16)
    torch.testing.assert_close(joint.norm(dim=1), torch.ones(12))
    assert (joint[:6, 16:] == 0).all() and (joint[6:, :16] == 0).all()
    assert torch.pdist(joint).min() > 1e-3, "no two centres are the same"
    again = Source(OmegaConf.create(source), clips, cfg, 1).fit()
    assert torch.equal(again, parts[1])


def test_a_fitted_map_leads_from_a_window_s_centre_to_its_latent(tmp_path: Path) -> None:
    torch.manual_seed(0)
    codec = tiny_codec()
    codec.save_pretrained(tmp_path / "codec")
    clips = read_corpus(write_corpus(tmp_path / "corpus"))[0]
    cfg = settings(piece_seconds=1.0, window_seconds=0.08)
    source = {"encoder": str(tmp_path / "codec"), "layer": 0, "count": 6, "domains": ["speech"]}
    sources = [Source(OmegaConf.create(source), clips, cfg, number) for number in (0, 1)]
    # features that say exactly which of six latents a window has: then least squares must find those latents
    latents = torch.randn(6, codec.config.code_dim)

    def told(wav: torch.Tensor, windows: int | None = None) -> torch.Tensor:
        return torch.eye(6)[torch.arange(windows or 1) % 6]

    centres = [torch.eye(6), torch.eye(6)]
    for one in sources:
        one.features, one.mean, one.deviation = told, torch.zeros(()), torch.ones(())  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        spoken = lambda self, wav, window: latents[torch.arange(wav.shape[1] // (window * 320)) % 6][None]  # noqa: E731
        patch.setattr(ALMTokenizer, "encode_latents", spoken)
        patch.setattr(ResidualQuantizer, "forward", lambda self, x, bypass: SimpleNamespace(inputs=x))
        found = fit_map(sources, centres, codec, 1.0)
    assert found["weight"].shape == (codec.config.code_dim, 12)
    made = join_sources(centres) @ found["weight"].T + found["bias"]
    torch.testing.assert_close(made, torch.cat((latents, latents)), atol=2e-2, rtol=0)
    assert 0.999 < float(found["explained"]) <= 1.0


def test_a_map_that_came_with_the_centres_is_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    for fitted in (False, True):
        quantizer = ResidualQuantizer(8, 8, 4, (16, 16), 0.99, 0.1, semantic_dim=6)
        weight, bias = torch.randn(4, 6), torch.randn(4)
        quantizer.books[0].set_centres(torch.randn(16, 6), *((weight, bias) if fitted else ()))
        quantizer.initialise(torch.randn(200, 4), 16.0, 3, torch.Generator().manual_seed(0))
        assert torch.equal(quantizer.books[0].map.weight, weight) is fitted


def test_a_training_checkpoint_gives_the_features_of_its_mae_encoder(tmp_path: Path) -> None:
    codec = tiny_codec()
    codec.save_pretrained(tmp_path)
    wav = 0.1 * torch.randn(10_000, generator=torch.Generator().manual_seed(0))
    frames = codec.patchify(wav[None, : 31 * 320])
    plain = load_encoder(str(tmp_path), 0, torch.device("cpu"))
    assert plain.rate == 24000
    with torch.inference_mode():
        assert torch.equal(plain.features(wav), frames[0])
    torch.manual_seed(1)
    mae = MaskedAutoencoder(16, 3, 1, 8, 12).eval()
    state = {f"mae.{name}": value for name, value in mae.state_dict().items()}
    save_file({**state, "ar.level": torch.zeros(1)}, tmp_path / "objectives.safetensors")
    with torch.inference_mode():
        found = load_encoder(str(tmp_path), 0, torch.device("cpu")).features(wav)
        assert torch.equal(found, mae.features(frames)[0])
    assert found.shape == (31, 16) and not torch.allclose(found, frames[0], atol=1e-2)


@pytest.mark.parametrize(
    "damage",
    [
        lambda file: file.write_bytes(file.read_bytes()[:-4]),
        lambda file: save_file({"mae.encoder.blocks": torch.zeros(1)}, file),
        lambda file: save_file({"mae.mask": torch.zeros(1)}, file),
    ],
)
def test_a_damaged_mae_encoder_is_one_sentence(
    tmp_path: Path, damage: Callable[[Path], object], refusal: Callable[..., str]
) -> None:
    tiny_codec().save_pretrained(tmp_path)
    save_file({f"mae.{key}": value for key, value in MaskedAutoencoder(16, 1, 1, 8, 12).state_dict().items()},
              tmp_path / "objectives.safetensors")  # fmt: skip
    damage(tmp_path / "objectives.safetensors")
    said = refusal(load_encoder, str(tmp_path), 0, torch.device("cpu"))
    assert f"the MAE encoder in '{tmp_path}' cannot be loaded (" in said


def test_windows_of_an_encoder_of_fixed_length_are_paired_with_the_latents_of_their_time(tmp_path: Path) -> None:
    torch.manual_seed(0)
    save_ast(tmp_path / "encoder")  # hears 2 s, a feature per 80 ms: the window of the codec
    codec = tiny_codec()
    codec.save_pretrained(tmp_path / "codec")
    (tmp_path / "corpus").mkdir()
    rows, rng = [], np.random.default_rng(0)
    for i in range(6):
        loud = np.repeat(rng.random(70) < 0.5, 1920)  # of 80 ms each, 5.6 s
        soundfile.write(tmp_path / f"corpus/{i}.wav", rng.standard_normal(len(loud)) * np.where(loud, 0.2, 1e-3), 24000)
        rows.append({"file_name": f"{i}.wav", "id": str(i), "domain": "sound", "split": "train"})
    write_lines(tmp_path / "corpus/metadata.jsonl", rows)
    clips = read_corpus(tmp_path / "corpus")[0]
    cfg = settings(piece_seconds=5.6, window_seconds=0.08)
    source = {"encoder": str(tmp_path / "encoder"), "layer": 0, "count": 2, "domains": ["sound"]}
    one = Source(OmegaConf.create(source), clips, cfg, 0)
    centres = one.fit()
    with pytest.MonkeyPatch.context() as patch:
        # latents that say only whether their window is loud: the map explains them if the pairs are of the same time
        spoken = lambda self, wav, window: (wav.view(1, -1, window * 320).std(2) > 0.05)[..., None].float().tile(4)  # noqa: E731
        patch.setattr(ALMTokenizer, "encode_latents", spoken)
        patch.setattr(ResidualQuantizer, "forward", lambda self, x, bypass: SimpleNamespace(inputs=x))
        found = fit_map([one], [centres], codec, 1.0)
    assert float(found["explained"]) > 0.9


@pytest.mark.slow
def test_the_command_fits_centres_to_a_stage_one_run(place: Path, capsys: pytest.CaptureFixture) -> None:
    train("one", "stage=1", "loss.mae=1", "trainer.max_steps=4", "codec.semantic_dim=16")
    options = ["data.root=corpus", "sources=[{encoder: runs/one, layer: 0, count: 5, domains: [speech]}]", "device=cpu"]
    run_program("codec_semantic_prior", *options, "out=one.safetensors")
    assert "codec.semantic_dim=16 and 5 codes first" in capsys.readouterr().out
    centres = load_file("one.safetensors")["centres"]
    torch.testing.assert_close(centres.norm(dim=1), torch.ones(5))
    # without the MAE encoder the same run gives other centres
    Path("runs/one/checkpoints/step_0000004/objectives.safetensors").unlink()
    run_program("codec_semantic_prior", *options, "out=plain.safetensors")
    assert not torch.allclose(load_file("plain.safetensors")["centres"], centres, atol=1e-2)


SOURCE = "{encoder: somewhere, layer: 0, count: 4, domains: [speech]}"


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        ([], "sources=[] names no encoder"),
        (
            [f"sources=[{SOURCE.replace('}', ', trust: true}')}]"],
            "source 0 has a key 'trust', and its keys are encoder,",
        ),
        (["sources=[{encoder: somewhere}]"], "source 0 has no layer: write sources="),
        (["sources=[somewhere]"], "source 0 is somewhere: write sources="),
        (["sources=[5]"], "source 0 is 5: write sources="),
        (["sources=[null]"], "source 0 is null: write sources="),
        ([f"sources=[{SOURCE},[1,2]]"], "source 1 is [1, 2]: write sources="),
        ([f"sources=[{SOURCE.replace('somewhere', '5')}]"], "source 0: encoder=5 must be a folder or a hub id."),
        ([f"sources=[{SOURCE.replace('[speech]', '5')}]"], "source 0: domains=5 must be a list"),
        ([f"sources=[{SOURCE},{SOURCE.replace('4', '1')}]"], "count=1 must be at least 2."),
        ([f"sources=[{SOURCE}]", "hours=0"], "hours=0 must be at least 0.0001."),
        ([f"sources=[{SOURCE}]", "piece_seconds=0"], "piece_seconds=0 must be at least 0.25."),
        ([f"sources=[{SOURCE}]", "data.root=/nowhere"], "corpus folder /nowhere does not exist"),
        ([f"sources=[{SOURCE}]", "map_to=nowhere"], "no codec checkpoint at 'nowhere'"),
    ],
)
def test_what_cannot_be_fitted_is_one_sentence(
    place: Path, refusal: Callable[..., str], overrides: list[str], reason: str
) -> None:
    assert reason in refusal(run_program, "codec_semantic_prior", "data.root=corpus", *overrides)


@pytest.mark.parametrize(("count", "reason"), [(4, "no clip of source"), (100_000, "at least as many latents")])
def test_too_little_audio_is_one_sentence(place: Path, capsys: pytest.CaptureFixture, count: int, reason: str) -> None:
    tiny_codec().save_pretrained(place / "codec")
    if count == 4:
        for path in place.glob("corpus/*.wav"):
            path.write_bytes(b"RIFF and no more")
    source = f"sources=[{{encoder: codec, layer: 0, count: {count}, domains: [speech]}}]"
    with pytest.raises(ConfigError):
        run_program("codec_semantic_prior", "data.root=corpus", "device=cpu", source)
    captured = capsys.readouterr()
    assert reason in captured.err.splitlines()[-1]
    assert (captured.out.count("skipped:") > 1) is (count == 4), "every broken file is named"

"""Fitting semantic centres: from a transformers encoder saved locally, and from a codec."""

import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from tiny_models import tiny_codec
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from codec.corpus import read_corpus
from codec.model import ALMTokenizer
from codec.quantizer import ResidualQuantizer
from codec.semantic_prior import Source, fit_map, join_sources

sys.path.insert(0, str(Path(__file__).parent))
from test_train import write_corpus  # noqa: E402


def test_centres_of_two_sources_are_normalised_and_kept_apart(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8, 8),
        conv_kernel=(10, 8),
        conv_stride=(20, 16),
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    Wav2Vec2Model(config).save_pretrained(tmp_path / "encoder")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "encoder")
    tiny_codec().save_pretrained(tmp_path / "codec")
    clips = read_corpus(write_corpus(tmp_path / "corpus"))[0]
    cfg = OmegaConf.create({"seed": 0, "piece_seconds": 0.5, "hours": 1.0, "scale_hours": 1.0, "window_seconds": 0})
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
    cfg = OmegaConf.create({"seed": 0, "piece_seconds": 1.0, "hours": 1.0, "scale_hours": 1.0, "window_seconds": 0.08})
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
        patch.setattr(ResidualQuantizer, "forward", lambda self, x, bypass: (None, x))
        found = fit_map(sources, centres, tmp_path / "codec", 1.0)
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
    with pytest.raises(ValueError, match="code_dim"):
        quantizer.books[0].set_centres(torch.randn(16, 6), torch.randn(5, 6), torch.randn(5))

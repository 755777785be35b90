"""Fitting semantic centres: from a transformers encoder saved locally, and from a codec."""

import sys
from pathlib import Path

import torch
from omegaconf import OmegaConf
from tiny_models import tiny_codec
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

from codec.corpus import read_corpus
from codec.semantic_prior import fit_source, join_sources

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
    cfg = OmegaConf.create({"seed": 0, "piece_seconds": 0.5, "hours": 1.0, "scale_hours": 1.0})
    parts = []
    for number, (name, layer) in enumerate((("encoder", 1), ("codec", 0))):
        source = {"encoder": str(tmp_path / name), "layer": layer, "count": 6, "domains": ["speech"]}
        parts.append(fit_source(OmegaConf.create(source), clips, cfg, number))
    joint = join_sources(parts)
    assert joint.shape == (12, 16 + 16)
    torch.testing.assert_close(joint.norm(dim=1), torch.ones(12))
    assert (joint[:6, 16:] == 0).all() and (joint[6:, :16] == 0).all()
    assert torch.pdist(joint).min() > 1e-3, "no two centres are the same"
    again = fit_source(OmegaConf.create(source), clips, cfg, 1)
    assert torch.equal(again, parts[1])

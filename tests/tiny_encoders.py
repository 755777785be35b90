"""Folders of audio encoders of some thousand random parameters."""

from pathlib import Path

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

ATTENTION = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}


def save_whisper(folder: Path, seconds: int = 2) -> None:
    """An encoder of ``seconds`` at 50 features per second."""
    torch.manual_seed(0)
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    tokens = {"vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}
    sizes = {"num_mel_bins": 16, "d_model": 16, "encoder_layers": 2, "decoder_layers": 1}
    WhisperModel(WhisperConfig(max_source_positions=50 * seconds, **sizes, **heads, **tokens)).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=seconds).save_pretrained(folder)


def save_ast(folder: Path) -> None:
    """12 features per second (patches of 8 frames of 10 ms every 8), 25 of them per window of 2 s, in four rows."""
    torch.manual_seed(0)
    patches = {"patch_size": 8, "frequency_stride": 8, "time_stride": 8, "max_length": 200, "num_mel_bins": 32}
    ASTModel(ASTConfig(hidden_size=16, **patches, **ATTENTION)).save_pretrained(folder)
    ASTFeatureExtractor(max_length=200, num_mel_bins=32).save_pretrained(folder)


def save_wav2vec(folder: Path) -> None:
    """With dropout, layer drop and masking, which a frozen expert must not have."""
    torch.manual_seed(0)
    convolutions = {"conv_dim": (8, 8), "conv_kernel": (10, 8), "conv_stride": (20, 16), "num_feat_extract_layers": 2}
    random = {"hidden_dropout": 0.5, "layerdrop": 0.5, "mask_time_prob": 0.5, "mask_time_length": 2}
    positions = {"feat_extract_norm": "layer", "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    Wav2Vec2Model(Wav2Vec2Config(hidden_size=16, **ATTENTION, **convolutions, **random, **positions)).save_pretrained(
        folder
    )
    Wav2Vec2FeatureExtractor().save_pretrained(folder)

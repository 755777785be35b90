"""Networks of the public classes with random weights, saved in the published layout: small enough for tests."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    AddedToken,
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    EncodecConfig,
    EncodecModel,
    HubertConfig,
    HubertForCTC,
    HubertModel,
    PreTrainedTokenizerFast,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
    WavLMConfig,
    WavLMForXVector,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

SSL = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24,
    "conv_dim": [16] * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip


def wav2vec2_config() -> Wav2Vec2Config:
    """The shape of wav2vec 2.0 base, narrow."""
    return Wav2Vec2Config(**SSL)


def utmos_checkpoint(path: Path) -> list[str]:
    """A checkpoint with the key names of utmos22_strong_step7459_v1.pt; returns the names.

    The names are written out here and not derived from our network, so that a wrong renaming is found.
    """
    from eval.metrics.utmos import UTMOS22

    torch.manual_seed(0)
    ours = UTMOS22(wav2vec2_config(), lstm=8, hidden=12).state_dict()
    published = {}
    convolutions = "wav2vec2.feature_extractor.conv_layers"
    encoder, projection = "wav2vec2.encoder", "wav2vec2.feature_projection"
    pairs = {
        "domain_emb": "domain_emb",
        "judge_emb": "judge_emb",
        "wav2vec2.mask_emb": "wav2vec2.masked_spec_embed",
        f"{convolutions}.0.2.weight": f"{convolutions}.0.layer_norm.weight",
        f"{convolutions}.0.2.bias": f"{convolutions}.0.layer_norm.bias",
        "wav2vec2.layer_norm.weight": f"{projection}.layer_norm.weight",
        "wav2vec2.layer_norm.bias": f"{projection}.layer_norm.bias",
        "wav2vec2.post_extract_proj.weight": f"{projection}.projection.weight",
        "wav2vec2.post_extract_proj.bias": f"{projection}.projection.bias",
        f"{encoder}.pos_conv.0.bias": f"{encoder}.pos_conv_embed.conv.bias",
        f"{encoder}.pos_conv.0.weight_g": f"{encoder}.pos_conv_embed.conv.parametrizations.weight.original0",
        f"{encoder}.pos_conv.0.weight_v": f"{encoder}.pos_conv_embed.conv.parametrizations.weight.original1",
        f"{encoder}.layer_norm.weight": f"{encoder}.layer_norm.weight",
        f"{encoder}.layer_norm.bias": f"{encoder}.layer_norm.bias",
    }
    for layer in range(7):
        pairs[f"{convolutions}.{layer}.0.weight"] = f"{convolutions}.{layer}.conv.weight"
    parts = {
        "self_attn.k_proj": "attention.k_proj",
        "self_attn.v_proj": "attention.v_proj",
        "self_attn.q_proj": "attention.q_proj",
        "self_attn.out_proj": "attention.out_proj",
        "self_attn_layer_norm": "layer_norm",
        "fc1": "feed_forward.intermediate_dense",
        "fc2": "feed_forward.output_dense",
        "final_layer_norm": "final_layer_norm",
    }
    for layer in range(2):
        for theirs, mine in parts.items():
            for kind in ("weight", "bias"):
                pairs[f"{encoder}.layers.{layer}.{theirs}.{kind}"] = f"{encoder}.layers.{layer}.{mine}.{kind}"
    for name in ours:
        if name.startswith(("blstm.", "projection.")):
            pairs[name] = name
    published = {theirs: ours[mine] for theirs, mine in pairs.items()}
    assert len(published) == len(ours)
    torch.save(published, path)
    return list(published)


def speaker_network(folder: Path) -> None:
    """WavLMForXVector."""
    torch.manual_seed(0)
    config = WavLMConfig(
        **SSL, tdnn_dim=[16, 16, 16], tdnn_kernel=[3, 3, 1], tdnn_dilation=[1, 2, 1], xvector_output_dim=8
    )
    WavLMForXVector(config).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def ssl_network(folder: Path) -> None:
    """HubertModel."""
    torch.manual_seed(0)
    HubertModel(HubertConfig(**SSL)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(folder)


def ctc_network(folder: Path) -> None:
    """HubertForCTC with a character vocabulary."""
    torch.manual_seed(0)
    characters = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(characters)}))
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(do_normalize=True), tokenizer).save_pretrained(folder)
    HubertForCTC(HubertConfig(**SSL, vocab_size=len(characters), pad_token_id=0)).save_pretrained(folder)


def whisper_network(folder: Path) -> None:
    """A multilingual WhisperForConditionalGeneration with a byte vocabulary."""
    torch.manual_seed(0)
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>",
               "<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]  # fmt: skip
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *special]
    tokenizer = WhisperTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": [AddedToken(token, special=True) for token in special]})
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in special}
    config = WhisperConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_target_positions=24, num_mel_bins=80,
        pad_token_id=ids["<|endoftext|>"], bos_token_id=ids["<|endoftext|>"], eos_token_id=ids["<|endoftext|>"],
        decoder_start_token_id=ids["<|startoftranscript|>"],
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)
    generation = model.generation_config
    generation.is_multilingual = True
    generation.lang_to_id = {token: ids[token] for token in ("<|en|>", "<|de|>")}
    generation.task_to_id = {"transcribe": ids["<|transcribe|>"], "translate": ids["<|translate|>"]}
    generation.no_timestamps_token_id = ids["<|notimestamps|>"]
    generation.max_length = 20
    model.save_pretrained(folder)
    WhisperProcessor(WhisperFeatureExtractor(), tokenizer).save_pretrained(folder)


def word_tokenizer(words: str, folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer over whole words, with the special tokens of RoBERTa."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *words.split()]
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.decoder = decoders.WordPiece()
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )
    tokenizer.save_pretrained(folder)
    return tokenizer


def clap_network(folder: Path, fused: bool = False) -> None:
    """ClapModel at its own 48 kHz and 64 mel bands."""
    torch.manual_seed(0)
    tokenizer = word_tokenizer("rain falls on the roof a dog barks loudly", folder)
    config = ClapConfig(
        text_config={
            "vocab_size": len(tokenizer), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "projection_dim": 12, "pad_token_id": 1,
        },
        audio_config={
            "hidden_size": 32, "patch_embeds_hidden_size": 4, "depths": [1, 1, 1, 1],
            "num_attention_heads": [1, 1, 2, 2], "projection_dim": 12, "enable_fusion": fused,
        },
        projection_dim=12,
    )  # fmt: skip
    ClapModel(config).save_pretrained(folder)
    extractor = ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc", padding="repeatpad")
    extractor.save_pretrained(folder)


def encodec_network(folder: Path) -> None:
    """EncodecModel, 24 kHz, mono."""
    torch.manual_seed(0)
    config = EncodecConfig(num_filters=2, hidden_size=8, codebook_dim=8, codebook_size=16, num_lstm_layers=1)
    EncodecModel(config).save_pretrained(folder)


def ast_network(folder: Path) -> None:
    """ASTForAudioClassification with five classes."""
    torch.manual_seed(0)
    config = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=5,
        max_length=1024, num_mel_bins=128,
    )  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(folder)
    ASTFeatureExtractor().save_pretrained(folder)

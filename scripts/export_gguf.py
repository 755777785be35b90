"""A language model as one GGUF file, for llama.cpp and everything that builds on it.

    python scripts/export_gguf.py checkpoints/lm-tts-mini runs/lm-tts-mini.gguf            # fp32
    python scripts/export_gguf.py checkpoints/lm-tts-mini runs/lm-tts-mini.gguf --type f16

Needs `pip install -e ".[gguf]"`. For models whose text tokenizer was trained here (`lm/sequences/text_tokenizer.py`).
A model that extends a published one (Llama 3, Qwen) has that one's tokenizer: llama.cpp's own `convert_hf_to_gguf.py`
reads it. See docs/serving.md.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lm.model import ModelError, load_vocabulary
from lm.network.depth import CONFIG_NAME
from lm.sequences.vocabulary import AudioVocabulary, VocabularyError
from training.checkpoint import write_atomically
from training.config import ConfigError, ending_plainly, refusing
from training.lock import hold

NORMAL, UNKNOWN, CONTROL, UNUSED, BYTE = 1, 2, 3, 5, 6  # token types of GGUF


def token_table(folder: Path, vocabulary: AudioVocabulary) -> tuple[list[bytes], list[float], list[int]]:
    """(pieces, scores, types) of all rows: text, control tokens, codes, unused rows.

    Raises:
        ConfigError: a text tokenizer that is not sentencepiece BPE.
    """
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = tokenizer["model"]
    if model.get("type") != "BPE" or not model.get("byte_fallback"):
        raise ConfigError(f"{folder}: its text tokenizer was not trained here; use llama.cpp's convert_hf_to_gguf.py.")
    pieces = sorted(model["vocab"], key=model["vocab"].__getitem__)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    types = []
    for piece in pieces:
        is_byte = len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">")
        types.append(
            UNKNOWN if piece == model["unk_token"] else CONTROL if piece in special else BYTE if is_byte else NORMAL
        )
    # sentencepiece numbers its pieces in the order of their scores: −1 for the first merge, and so on.
    first = types.index(NORMAL)
    scores = [float(first - number) if kind == NORMAL else 0.0 for number, kind in enumerate(types)]
    names = [*vocabulary.control]
    for level, size in enumerate(vocabulary.codebook_sizes):
        names += [f"<|audio_{level + 1}_{code}|>" for code in range(size)]
    unused = [f"<|unused_{number}|>" for number in range(vocabulary.size - vocabulary.used)]
    # Control tokens of GGUF are never read out of a text, whatever it contains.
    types += [CONTROL] * len(names) + [UNUSED] * len(unused)
    scores += [0.0] * (len(names) + len(unused))
    return [piece.encode("utf-8") for piece in [*pieces, *names, *unused]], scores, types


def interleaved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of a query or key projection, from transformers' order (halves of a head) to llama.cpp's (pairs)."""
    rows, columns = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def export(folder: Path, target: Path, kind: str = "f32") -> None:
    """Write the model of ``folder`` to ``target``.

    Args:
        kind: f32 or f16; norms stay f32.

    Raises:
        ConfigError: a model that is no LLaMA, or of the depth variant.
    """
    import gguf

    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if (folder / CONFIG_NAME).is_file():
        raise ConfigError(f"{folder} is of the depth variant, which llama.cpp does not know: train lm.variant=flat.")
    rope = config.get("rope_parameters") or {}
    if config["model_type"] != "llama" or rope.get("rope_type", "default") != "default" or config.get("attention_bias"):
        raise ConfigError(f"{folder} is no plain LLaMA: use llama.cpp's convert_hf_to_gguf.py.")
    vocabulary = AudioVocabulary.load(folder)
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    writer = gguf.GGUFWriter(str(target), "llama")
    writer.add_name(folder.name)
    writer.add_vocab_size(vocabulary.size)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_key_length(dim)
    writer.add_value_length(dim)
    writer.add_rope_dimension_count(dim)
    writer.add_rope_freq_base(rope.get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32 if kind == "f32" else gguf.LlamaFileType.MOSTLY_F16)
    pieces, scores, types = token_table(folder, vocabulary)
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_unk_token_id(0)
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(True)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    }  # fmt: skip
    whole = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    weights: dict[str, np.ndarray] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    for name, weight in sorted(weights.items()):
        stem = name.removesuffix(".weight")
        if stem in whole:
            new = whole[stem]
            if new == "output" and config["tie_word_embeddings"]:
                continue  # llama.cpp takes the embedding then
        else:
            number, part = stem.removeprefix("model.layers.").split(".", 1)
            new = f"blk.{number}.{names[part]}"
            if part.endswith(("q_proj", "k_proj")):
                weight = interleaved(weight, heads if part.endswith("q_proj") else kv_heads)
        precise = weight.ndim == 1 or kind == "f32"
        writer.add_tensor(f"{new}.weight", np.ascontiguousarray(weight.astype(np.float32 if precise else np.float16)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@ending_plainly()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of a language model")
    parser.add_argument("target", type=Path, help="GGUF file to write")
    parser.add_argument("--type", choices=("f32", "f16"), default="f32", help="of the matrices")
    options = parser.parse_args(arguments)
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise ConfigError('GGUF files need a package: pip install -e ".[gguf]".') from None
    hold(options.target, "target", is_file=True)
    with refusing(ModelError, VocabularyError):
        load_vocabulary(options.model)
    with refusing(SafetensorError, key=f"the weights in {options.model} are damaged"):
        write_atomically(options.target, lambda file: export(options.model, file, options.type))
    print(f"{options.target}: {options.target.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()

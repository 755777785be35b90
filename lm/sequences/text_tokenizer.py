"""A small text tokenizer: sentencepiece BPE with byte fallback, trained on a corpus' text.

It is saved as an ordinary Hugging Face folder, so that stock `AutoTokenizer` loads it; `tokenizer.model` lies
beside it for tools that read sentencepiece. Byte fallback makes every text representable: encode, then decode
is identity.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from training.pretrained import PretrainedError, load_part

MODEL_FILE = "tokenizer.model"


class TextTokenizerError(ValueError):
    """A text tokenizer that cannot be trained or loaded, with the cure."""


def train_text_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path) -> PreTrainedTokenizerBase:
    """Train on ``texts`` and write a tokenizer folder.

    Args:
        texts: what the model will read, prompts included (speaker names, punctuation).
        vocab_size: wanted number of rows; fewer result when the corpus has fewer distinct merges.

    Raises:
        TextTokenizerError: no text, or ``vocab_size`` too small for 256 bytes and the corpus' letters.
    """
    # Sorted and unique: the same corpus gives the same tokenizer in whatever order its shards list the clips.
    sentences = sorted({text for text in texts if text.strip()})
    if not sentences:
        raise TextTokenizerError(
            "there is no text to train a text tokenizer on: the corpus has neither text nor captions."
        )
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            model_type="bpe",
            vocab_size=vocab_size,
            hard_vocab_limit=False,
            byte_fallback=True,
            character_coverage=1.0,
            normalization_rule_name="identity",  # the round trip is exact, also for capitals and accents
            remove_extra_whitespaces=False,
            unk_id=0,
            bos_id=1,
            eos_id=2,
            pad_id=-1,
            num_threads=1,
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        raise TextTokenizerError(
            f"sentencepiece cannot make {vocab_size} rows from this text ({error}): "
            "change lm.text_tokenizer.vocab_size."
        ) from None
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODEL_FILE).write_bytes(model.getvalue())
    tokenizer = from_sentencepiece(model.getvalue())
    tokenizer.save_pretrained(folder)
    return load_text_tokenizer(folder)


def from_sentencepiece(model: bytes) -> PreTrainedTokenizerBase:
    """A BPE sentencepiece model as a Hugging Face tokenizer with the same ids."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    vocabulary = {processor.id_to_piece(i): i for i in range(processor.get_piece_size())}
    scores = {piece: processor.get_score(i) for piece, i in vocabulary.items()}
    plain = {
        p
        for p, i in vocabulary.items()
        if not (processor.is_control(i) or processor.is_byte(i) or processor.is_unknown(i))
    }
    merges = []
    for piece in plain:
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in plain and right in plain:
                merges.append((scores[piece], vocabulary[left], vocabulary[right], left, right))
    # sentencepiece joins the pair whose result has the highest score first; a merge list says the same by
    # order.
    merges.sort(key=lambda merge: (-merge[0], merge[1], merge[2]))
    backend = Tokenizer(
        BPE(
            vocab=vocabulary,
            merges=[(left, right) for *_, left, right in merges],
            byte_fallback=True,
            fuse_unk=True,
            unk_token="<unk>",
        )
    )
    # LlamaTokenizer would read " word" and "word" alike; sentencepiece puts its mark before every text.
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def load_text_tokenizer(folder: str | Path) -> Any:
    """Load a tokenizer folder (or a hub id) with stock `AutoTokenizer`.

    Raises:
        TextTokenizerError: there is none, or one without tokens.
    """
    try:
        tokenizer = load_part(AutoTokenizer, folder)
    except PretrainedError as error:
        raise TextTokenizerError(f"no text tokenizer: {error}") from None
    # transformers makes one of nothing where files lack
    if set(tokenizer("a", add_special_tokens=False).input_ids) <= set(tokenizer.all_special_ids):
        raise TextTokenizerError(f"no text tokenizer: '{folder}' has none of its files, as tokenizer.json.")
    return tokenizer

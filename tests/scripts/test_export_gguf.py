"""A GGUF file holds the model; through llama.cpp, where it is installed, it says the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from json_files import read_json

from lm.generation.frames import generate
from lm.generation.legality import Legality
from lm.generation.sampling import Sampling
from lm.model import load_lm
from lm.sequences.documents import render
from tasks.base import Request
from tasks.tts import TTS
from training.config import REPOSITORY

MODEL = REPOSITORY / "checkpoints/lm-tts-mini"
gguf = pytest.importorskip("gguf")

import export_gguf  # noqa: E402
import gguf_speak  # noqa: E402


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    target = tmp_path_factory.mktemp("gguf") / "model.gguf"
    export_gguf.main([str(MODEL), str(target)])
    return target


def test_the_file_holds_every_weight_and_every_row(exported):
    model, vocabulary, tokenizer = load_lm(MODEL)
    reader = gguf.GGUFReader(exported)
    tensors = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    assert np.array_equal(tensors["token_embd.weight"], model.get_input_embeddings().weight.detach().numpy())
    assert "output.weight" not in tensors  # tied
    assert sum(tensor.size for tensor in tensors.values()) == sum(p.numel() for p in model.parameters())
    pieces = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(pieces) == vocabulary.size == len(set(pieces))
    assert pieces[: len(tokenizer)] == tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert pieces[vocabulary.control_id("<audio>")] == "<audio>"
    assert pieces[vocabulary.block(1).start + 7] == "<|audio_2_7|>"
    assert reader.fields["tokenizer.ggml.eos_token_id"].contents() == vocabulary.control_id("</audio>")


def test_queries_and_keys_meet_as_before():
    """Products of rotated queries and keys: halves of a head rotate in transformers, pairs in llama.cpp."""
    random = np.random.default_rng(0)
    heads, dim, width = 3, 8, 12
    query, key = random.normal(size=(2, heads * dim, width))
    angles = np.outer([3, 7], 10000.0 ** (-np.arange(0, dim, 2) / dim))  # of two positions
    state = random.normal(size=(2, width))

    def by_halves(x, angle):
        a, b = x[..., : dim // 2], x[..., dim // 2 :]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)

    def by_pairs(x, angle):
        a, b = x[..., ::2], x[..., 1::2]
        rotated = np.stack([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)
        return rotated.reshape(x.shape)

    def products(q, k, rotate):
        ours, theirs = ((w @ state[i]).reshape(heads, dim) for i, w in enumerate((q, k)))
        return (rotate(ours, angles[0]) * rotate(theirs, angles[1])).sum(-1)

    moved = [export_gguf.interleaved(weight, heads) for weight in (query, key)]
    np.testing.assert_allclose(products(*moved, by_pairs), products(query, key, by_halves))


def test_models_without_a_gguf_form_are_refused(tmp_path):
    for change, message in (({"model_type": "qwen2"}, "no plain LLaMA"), ({}, "depth variant")):
        folder = tmp_path / message.replace(" ", "-")
        folder.mkdir()
        config = read_json(MODEL / "config.json") | change
        (folder / "config.json").write_text(json.dumps(config))
        if not change:
            (folder / "depth.json").write_text("{}")
        with pytest.raises(SystemExit, match=message):
            export_gguf.export(folder, tmp_path / "x.gguf")


def test_what_is_no_model_leaves_what_was_there(tmp_path, refusal):
    shutil.copytree(MODEL, tmp_path / "cut")
    weights = tmp_path / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    (tmp_path / "x.gguf").write_text("as it was")
    for folder, sentence in (("nowhere", "no language model at"), ("cut", "cut are damaged")):
        assert sentence in refusal(export_gguf.main, [str(tmp_path / folder), str(tmp_path / "x.gguf")])
        assert (tmp_path / "x.gguf").read_text() == "as it was" and not list(tmp_path.glob("*.tmp"))


@pytest.fixture
def engine(exported):
    llama_cpp = pytest.importorskip("llama_cpp")
    f32 = llama_cpp.GGML_TYPE_F32  # its cache would be f16
    return llama_cpp.Llama(
        str(exported), n_ctx=512, n_threads=1, type_k=f32, type_v=f32, logits_all=True, verbose=False
    )


def test_llama_cpp_generates_the_same_greedy_clips(engine):
    model, vocabulary, tokenizer = load_lm(MODEL)
    for text, speaker in (("peter carried the purple ladder", "slt"), ("the guitar is beautiful", "rms")):
        request = Request("x", text=text, speaker=speaker)
        prompt = render(TTS().document(request, with_target=False), vocabulary, tokenizer).ids
        ours = generate(model, vocabulary, [prompt], 40, sampling=Sampling(temperature=0))[0]
        ids = gguf_speak.generate_ids(engine, Legality(vocabulary, 1, 40), prompt.tolist())
        assert Legality(vocabulary).codes(ids) == ours.codes.tolist()


def test_llama_cpp_reads_texts_and_computes_logits_as_we_do(engine):
    model, vocabulary, tokenizer = load_lm(MODEL)
    for text in ("slt: peter carried the purple ladder", "rms: <audio> Äpfel </s>"):
        ours = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert engine.tokenize(text.encode("utf-8"), add_bos=False, special=False) == ours
    ids = [vocabulary.control_id("<|tts|>"), vocabulary.control_id("<text>"), *ours, vocabulary.block(1).start]
    engine.reset()
    engine.eval(ids)
    with torch.no_grad():
        expected = model(input_ids=torch.tensor([ids])).logits[0, -1]
    found = torch.tensor(np.array(engine.scores[engine.n_tokens - 1]))
    torch.testing.assert_close(found, expected, atol=2e-2, rtol=1e-3)

"""Our ports of SpeechTokenizer, WavTokenizer and StableCodec against the published implementations.

``golden/*.npz`` holds what those computed: the checkpoint's keys and shapes, codebooks, codes of ``seeded_wav`` and the
first 3,000 and last 500 samples decoded from the codes; all other weights are ``seeded_state``. Sizes are small, names
are the published ones.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from seeded_weights import seeded_state, seeded_wav
from tiny_baselines import tiny_xcodec2

from codec.baselines import speechtokenizer, stablecodec, wavtokenizer
from codec.baselines.baseline import BaselineTokenizer
from codec.baselines.taae import banded_attention
from codec.interface import Codes, TokenizerError

GOLDEN = Path(__file__).parent / "golden"
SAMPLES = {"speechtokenizer-elu": 16_123, "speechtokenizer-snake": 16_123, "wavtokenizer": 24_001}


def checkpoint(golden: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """The published layout with seeded weights and the stored codebooks."""
    state = seeded_state(json.loads(str(golden["shapes"])))
    for level, book in enumerate(golden["codebooks"]):
        key = next(key for key in state if key.endswith(f"vq.layers.{level}._codebook.embed"))
        state[key] = torch.tensor(book)
    return state


def write(name: str, state: dict[str, torch.Tensor], config: dict[str, object], folder: Path) -> None:
    """The files as they are published."""
    if name == "wavtokenizer":
        torch.save({"state_dict": state, "epoch": 1}, folder / "model.ckpt")
    else:
        (folder / "config.json").write_text(json.dumps(config))
        torch.save(state, folder / "SpeechTokenizer.pt")


def load(name: str, config: dict[str, object], folder: Path) -> BaselineTokenizer:
    if name == "wavtokenizer":
        tokenizer = wavtokenizer.load(str(folder))
        found = tokenizer.model.config  # read off the shapes
        assert {key: getattr(found, key) for key in config} == config
        return tokenizer
    return speechtokenizer.load(str(folder), levels=config["n_q"])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SAMPLES)
def test_equals_the_published_implementation(name: str, tmp_path: Path) -> None:
    golden = dict(np.load(GOLDEN / f"{name}.npz"))
    config = json.loads(str(golden["config"]))
    write(name, checkpoint(golden), config, tmp_path)
    tokenizer = load(name, config, tmp_path)
    codes = tokenizer.encode(seeded_wav(SAMPLES[name])).codes[0].numpy()
    assert (codes == golden["codes"]).all()
    assert len(np.unique(codes)) > 4
    stored = torch.tensor(golden["codes"].astype(np.int64))[None]
    wav = tokenizer.decode(Codes(stored, torch.tensor([stored.shape[2]])))[0].numpy()
    scale = float(np.abs(golden["wav"]).max())
    np.testing.assert_allclose(wav[:3000], golden["wav"], atol=2e-5 * scale)
    np.testing.assert_allclose(wav[-500:], golden["tail"], atol=2e-5 * scale)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
@pytest.mark.parametrize("name", ["speechtokenizer-elu", "wavtokenizer"])
def test_every_key_of_the_checkpoint_is_accounted_for(name: str, change: str, tmp_path: Path) -> None:
    golden = dict(np.load(GOLDEN / f"{name}.npz"))
    state, config = checkpoint(golden), json.loads(str(golden["config"]))
    key = next(key for key in state if key.endswith("model.0.conv.conv.bias"))
    value = state.pop(key)
    if change == "unknown":
        state |= {key: value, key.replace("bias", "novelty"): value}
    elif change == "shape":
        state[key] = torch.cat([value, value])
    write(name, state, config, tmp_path)
    wanted = {"missing": "no value for", "unknown": "unknown key", "shape": "has shape"}[change]
    with pytest.raises(TokenizerError, match=wanted):
        load(name, config, tmp_path)


def write_stablecodec(content: object, folder: Path) -> None:
    (folder / "model_config.json").write_text(str(np.load(GOLDEN / "stablecodec-band.npz")["config"]))
    torch.save(content, folder / "model.ckpt")


# name: how its file is written, and loaded
FILES = {
    "speechtokenizer-elu": (
        lambda content, folder: write(
            "speechtokenizer", content, json.loads(str(np.load(GOLDEN / "speechtokenizer-elu.npz")["config"])), folder
        ),
        speechtokenizer.load,
    ),
    "wavtokenizer": (lambda content, folder: torch.save(content, folder / "model.ckpt"), wavtokenizer.load),
    "stablecodec": (write_stablecodec, stablecodec.load),
}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([1], "holds a list and not a dictionary of tensors"),
        ({"state_dict": [1]}, "'state_dict' is no dictionary"),
        ({"state_dict": {"epoch": 5}}, "no value for"),
        (b"half", "is not a plain checkpoint of tensors"),
        (Path("code"), "is not a plain checkpoint of tensors"),
    ],
)
@pytest.mark.parametrize("name", FILES)
def test_a_damaged_checkpoint_is_one_sentence(name: str, content: object, reason: str, tmp_path: Path) -> None:
    write_file, load_file = FILES[name]
    write_file(content, tmp_path)
    if content == b"half":
        (file,) = (file for file in tmp_path.iterdir() if file.suffix in (".pt", ".ckpt"))
        file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(TokenizerError, match=reason) as refused:
        load_file(str(tmp_path))
    assert str(tmp_path) in str(refused.value) and "\n" not in str(refused.value)


# ---- StableCodec -----------------------------------------------------------------------------------------------


def stablecodec_folder(name: str, folder: Path, **change: torch.Tensor | None) -> dict[str, np.ndarray]:
    """Files as they are published, with seeded weights; returns the golden values. ``change``: keys to set or drop."""
    golden = dict(np.load(GOLDEN / f"stablecodec-{name}.npz"))
    state = seeded_state(json.loads(str(golden["shapes"])))
    state[str(golden["gain_key"])] *= float(golden["gain"])  # latents of the size that tanh wants
    state["proj_head.0.weight"] = torch.zeros(3, 4)
    for key in [key for key in state if key.endswith("rope.inv_freq")]:  # a constant, not seeded
        state[key] = 10000.0 ** (-torch.arange(len(state[key])) / len(state[key]))
    for key, value in change.items():
        state.pop(key, None)
        if value is not None:
            state[key] = value
    (folder / "model_config.json").write_text(str(golden["config"]))
    save_file(state, folder / "model.safetensors")
    return golden


@pytest.mark.slow
@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("name", ["band", "snake"])
def test_stablecodec_equals_the_published_implementation(name: str, levels: int, tmp_path: Path) -> None:
    """``band``: patches, a sliding window of 3 + 1 + 4 positions, conformer; ``snake``: odd strides, dilated units."""
    golden = stablecodec_folder(name, tmp_path)
    tokenizer = stablecodec.load(str(tmp_path), levels, normalise=False)
    wav = seeded_wav(9000)
    codes = tokenizer.encode(wav)
    stored = torch.tensor(golden[f"codes{levels}"].astype(np.int64))
    assert torch.equal(codes.codes[0], stored)
    assert all(len(level.unique()) > 4 for level in stored)
    padded = torch.nn.functional.pad(wav, (0, -wav.shape[1] % tokenizer.samples_per_frame))
    with torch.inference_mode():
        np.testing.assert_allclose(tokenizer.model.encode(padded)[0], golden["latents"], atol=1e-5)
        out = tokenizer.model.decode(tokenizer.bottleneck.decode(stored[None]))[0].numpy()
    scale = float(np.abs(golden[f"wav{levels}"]).max())
    np.testing.assert_allclose(out[:1500], golden[f"wav{levels}"], atol=2e-5 * scale)
    np.testing.assert_allclose(out[-500:], golden[f"tail{levels}"], atol=2e-5 * scale)


def test_stablecodec_reads_a_pickled_checkpoint_too(tmp_path: Path) -> None:
    stablecodec_folder("band", tmp_path)
    first = stablecodec.load(str(tmp_path)).fingerprint
    torch.save({"state_dict": load_file(tmp_path / "model.safetensors")}, tmp_path / "model.ckpt")
    (tmp_path / "model.safetensors").unlink()
    assert stablecodec.load(str(tmp_path)).fingerprint == first


def test_half_a_safetensors_file_is_one_sentence(tmp_path: Path) -> None:
    stablecodec_folder("band", tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    with pytest.raises(TokenizerError, match="model.safetensors is not a plain checkpoint") as refused:
        stablecodec.load(str(tmp_path))
    assert "\n" not in str(refused.value)


def test_stablecodec_turns_by_the_frequencies_of_the_checkpoint(tmp_path: Path) -> None:
    """As the published code does; a checkpoint saved in half precision has rounded ones."""
    stablecodec_folder("band", tmp_path)
    wav = seeded_wav(9000)
    codes = stablecodec.load(str(tmp_path)).encode(wav).codes
    stablecodec_folder("band", tmp_path, **{"encoder.layers.1.layers.2.1.rope.inv_freq": torch.ones(32)})
    assert not torch.equal(stablecodec.load(str(tmp_path)).encode(wav).codes, codes)


@pytest.mark.slow
def test_stablecodec_accounts_for_every_key(tmp_path: Path) -> None:
    key = "decoder.layers.0.bias"
    for change, wanted in (
        ({key: None}, f"no value for {key}"),
        ({"encoder.layers.7.weight": torch.zeros(2)}, "unknown key encoder.layers.7.weight"),
        ({key: torch.zeros(3)}, rf"{key} has shape \(3,\) and not"),
        ({"encoder.layers.0.weight_v": None}, "weight_g but no encoder.layers.0.weight_v"),
    ):
        stablecodec_folder("band", tmp_path, **change)  # type: ignore[arg-type]
        with pytest.raises(TokenizerError, match=wanted):
            stablecodec.load(str(tmp_path))


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("encoder.type", "oobleck", "of type 'oobleck'"),
        ("encoder.config.rotation", 3, "key 'rotation'"),
        ("encoder.config.strides", [2, 2], "stride|strides"),
        ("pretransform.type", "pqmf", "only the pretransform 'patched'"),
        ("io_channels", 2, "only mono"),
        ("decoder.config.c_mults", [1, 2, 4], "same number of levels"),
    ],
)
def test_stablecodec_refuses_what_it_does_not_have(path: str, value: object, wanted: str, tmp_path: Path) -> None:
    config = json.loads(str(np.load(GOLDEN / "stablecodec-band.npz")["config"]))
    node = config["model"]
    *parents, last = path.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = value
    (tmp_path / "model_config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match=wanted):
        stablecodec.load(str(tmp_path))


@pytest.mark.parametrize("window", [(0, 0), (3, 4), (7, 0), (40, 2), (-1, -1), (-1, 0)])
def test_banded_attention_is_attention_with_a_band_mask(window: tuple[int, int]) -> None:
    q, k, v = torch.randn(3, 2, 2, 29, 8, generator=torch.Generator().manual_seed(0))
    offset = torch.arange(29) - torch.arange(29)[:, None]
    before, after = (29 if side < 0 else side for side in window)
    mask = (offset >= -before) & (offset <= after)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    torch.testing.assert_close(banded_attention(q, k, v, window), expected)


def test_loudness_is_the_published_one() -> None:
    """Against torchaudio's, which StableCodec measures with: loud (its filters clip), quiet, and with a pause."""
    golden = np.load(GOLDEN / "frontends.npz")["loudness"]
    clips = [scale * seeded_wav(20000 * (i + 1))[0].numpy() for i, scale in enumerate((1, 0.1, 0.02))]
    clips[2][20000:40000] *= 1e-4
    np.testing.assert_allclose([stablecodec.loudness(clip, 16000) for clip in clips], golden, atol=1e-3)
    for clip in clips[:2]:
        wav = stablecodec.to_loudness(torch.tensor(clip)[None] * 0.3, 16000)
        peak = float(wav.abs().max())
        assert peak == pytest.approx(0.95) or stablecodec.loudness(wav[0].numpy(), 16000) == pytest.approx(-20, abs=0.1)
    for silent in (torch.zeros(1, 8000), 1e-5 * torch.ones(1, 8000), 0.1 * torch.ones(1, 100), torch.zeros(1, 0)):
        assert torch.equal(stablecodec.to_loudness(silent, 16000), silent)


# ---- X-Codec2 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("samples", [3200, 3333])
def test_xcodec2_sees_what_its_feature_extractor_gives(samples: int) -> None:
    """Against transformers' feature extractor on top of torchaudio's Kaldi spectrogram."""
    golden = np.load(GOLDEN / "frontends.npz")
    heard, seen = tiny_xcodec2().inputs(seeded_wav(samples))
    assert heard.shape[-1] == int(golden[f"heard{samples}"])
    np.testing.assert_allclose(seen[0], golden[f"seen{samples}"], atol=1e-4)

"""Our ports of SpeechTokenizer and WavTokenizer against the published implementations.

``golden/*.npz`` holds what those computed: the checkpoint's keys and shapes, codebooks, codes of ``seeded_wav`` and the
first 3,000 and last 500 samples decoded from the codes; all other weights are ``seeded_state``. Sizes are small, names
are the published ones.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from seeded_weights import seeded_state, seeded_wav

from codec.baselines import speechtokenizer, wavtokenizer
from codec.baselines.baseline import BaselineTokenizer
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
        model = wavtokenizer.WavTokenizerModel(wavtokenizer.WavTokenizerConfig(**config))  # type: ignore[arg-type]
        model.load_checkpoint(folder / "model.ckpt")
        return wavtokenizer.WavTokenizer(model)
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

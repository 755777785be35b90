"""Features of transformers' audio encoders: as many as the clip is long, where the sound is, none of padding."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_encoders import ATTENTION, save_ast, save_whisper
from torch import Tensor
from transformers import (
    ASTFeatureExtractor,
    ASTModel,
    BertConfig,
    BertModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    PreTrainedModel,
    Qwen2AudioConfig,
    Qwen2AudioForConditionalGeneration,
    Wav2Vec2FeatureExtractor,
    WhisperFeatureExtractor,
    WhisperModel,
    dynamic_module_utils,
)

from codec.network.audio_encoders import Encoder, load_encoder

CPU = torch.device("cpu")


def save_qwen2_audio(folder: Path) -> None:
    """Whisper's input and a language model that must not be run."""
    torch.manual_seed(0)
    sizes = {"num_mel_bins": 16, "d_model": 16, "encoder_layers": 2, "max_source_positions": 100}
    audio = {**sizes, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    text = {"model_type": "qwen2", "hidden_size": 16, "vocab_size": 8, "num_key_value_heads": 2, **ATTENTION}
    config = Qwen2AudioConfig(audio_config=audio, text_config=text)
    Qwen2AudioForConditionalGeneration(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=16, chunk_length=2).save_pretrained(folder)


def save_clap(folder: Path) -> None:
    """32 features per second in front of the first block, in windows of 2 s that are folded into four parts."""
    torch.manual_seed(0)
    stages = {"depths": [1, 1], "num_attention_heads": [1, 2], "patch_embeds_hidden_size": 16, "hidden_size": 32}
    audio = {"spec_size": 64, "num_mel_bins": 16, "window_size": 4, **stages}
    text = {"hidden_size": 16, "vocab_size": 8, **ATTENTION}
    ClapModel(ClapConfig(audio_config=audio, text_config=text)).save_pretrained(folder)
    ClapFeatureExtractor(
        feature_size=16,
        sampling_rate=16000,
        frequency_max=8000,
        hop_length=160,
        max_length_s=2,
        truncation="rand_trunc",
    ).save_pretrained(folder)


HEARD = 2  # seconds: the window of all four
# what saves it, features per second of layers 0 and 1
ENCODERS = [
    pytest.param(save_whisper, (50, 50), id="whisper"),
    pytest.param(save_qwen2_audio, (50, 50), id="qwen2-audio"),
    pytest.param(save_ast, (12.5, 12.5), id="ast"),
    pytest.param(save_clap, (32, 16), id="clap"),
]
Save = Callable[[Path], None]
Rates = tuple[float, float]


def noise(seconds: float, seed: int = 0) -> Tensor:
    """Faint noise at 16 kHz."""
    return 0.01 * torch.randn(round(16000 * seconds), generator=torch.Generator().manual_seed(seed))


@torch.inference_mode()
def features(encoder: Encoder, wav: Tensor) -> Tensor:
    return encoder.features(wav)


@pytest.mark.parametrize(("save", "rates"), ENCODERS)
@pytest.mark.parametrize("layer", [0, 1])
def test_there_are_as_many_features_as_the_clip_is_long(tmp_path: Path, save: Save, rates: Rates, layer: int) -> None:
    save(tmp_path)
    encoder = load_encoder(str(tmp_path), layer, CPU)
    assert encoder.rate == 16000 and encoder.step == 16000 / rates[layer]
    # shorter than the window, just the window, a little more, several windows and a rest
    for seconds in (0.4, 1.0, HEARD, HEARD + 0.16, 3 * HEARD + 0.72):
        found = features(encoder, noise(seconds))
        assert len(found) == -(-round(16000 * seconds) // int(encoder.step)), seconds
        assert found.dim() == 2 and found.isfinite().all()
        # two features of noise never are the same: neither padding nor a window heard twice is among them
        assert torch.pdist(found).min() > 1e-6 if len(found) > 1 else True, seconds


@pytest.mark.slow
@pytest.mark.parametrize(("save", "rates"), ENCODERS)
@pytest.mark.parametrize("layer", [0, 1])
@pytest.mark.parametrize("begin", [0.0, 0.64, 1.6, 2.88, 4.4])
def test_a_sound_changes_the_features_of_its_time(
    tmp_path: Path, save: Save, rates: Rates, layer: int, begin: float
) -> None:
    save(tmp_path)
    encoder = load_encoder(str(tmp_path), layer, CPU)
    quiet = noise(4.72)  # two windows and a rest
    loud = quiet.clone()
    loud[round(16000 * begin) : round(16000 * (begin + 0.32))] *= 30
    change = (features(encoder, loud) - features(encoder, quiet)).norm(dim=1)
    # time that a feature stands for; a frame or a patch may begin a little earlier and end a little later
    first = torch.arange(len(change)) * encoder.step / 16000
    within = (first >= begin) & (first + encoder.step / 16000 <= begin + 0.32)
    reach = 0.04 + encoder.step / 16000
    outside = (first + encoder.step / 16000 < begin - reach) | (first > begin + 0.32 + reach)
    assert within.sum() >= 3 and outside.sum() >= 30
    assert change[within].min() > 5 * change[outside].max()


@pytest.mark.parametrize(("save", "rates"), ENCODERS)
def test_a_window_of_a_long_clip_is_heard_as_a_clip_of_its_own(tmp_path: Path, save: Save, rates: Rates) -> None:
    save(tmp_path)
    encoder = load_encoder(str(tmp_path), 1, CPU)
    assert encoder.step is not None
    wav = noise(2 * HEARD + 9 * encoder.step / 16000)
    found, size = features(encoder, wav), 16000 * HEARD
    each = [features(encoder, part) for part in (wav[:size], wav[size : 2 * size], wav[-size:])]
    assert torch.equal(found, torch.cat((each[0], each[1], each[2][-9:]))), "the rest hears what precedes it"


def test_a_step_of_ast_is_the_average_of_its_patches(tmp_path: Path) -> None:
    save_ast(tmp_path)
    encoder = load_encoder(str(tmp_path), 0, CPU)
    model = ASTModel.from_pretrained(tmp_path).eval()
    wav = noise(2.0)
    found = features(encoder, wav)
    with torch.inference_mode():
        mel = ASTFeatureExtractor.from_pretrained(tmp_path)(wav.numpy(), sampling_rate=16000, return_tensors="pt")
        grid = model.embeddings.patch_embeddings.projection(mel["input_values"].transpose(1, 2)[:, None])[0]
    places = model.embeddings.position_embeddings[0, 2:].T.view(16, 4, 25)
    torch.testing.assert_close(found, (grid + places).mean(1).T.detach())


def test_averages_follow_the_clock_where_the_last_feature_reaches_beyond_the_clip() -> None:
    values = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    encoder = Encoder(lambda wav: values, 1000, 100)
    # by brute force: the feature of every sample, averaged over windows of 80
    expected = values.repeat_interleave(100, dim=0)[:960].view(12, 80, 3).mean(1)
    torch.testing.assert_close(encoder.averages(torch.zeros(960), 12), expected)
    spread = Encoder(lambda wav: values, 1000)
    torch.testing.assert_close(spread.averages(torch.zeros(960), 5), values.view(5, 2, 3).mean(1))


def refusal(folder: Path, capsys: pytest.CaptureFixture, **changes: object) -> str:
    with pytest.raises(SystemExit):
        load_encoder(str(folder), **{"layer": 0, "device": CPU, **changes})  # type: ignore[arg-type]
    line = capsys.readouterr().err.splitlines()[-1]  # progress bars of transformers come before
    assert line.startswith("error: ")
    return line


def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "beats"}))
    said = refusal(tmp_path, capsys)
    assert "model type `beats`" in said and "BEATs is not part of transformers" in said

    text = {"hidden_size": 16, "vocab_size": 8, **ATTENTION}
    BertModel(BertConfig(**text)).save_pretrained(tmp_path)
    said = refusal(tmp_path, capsys)
    assert "(bert) gives no features of audio alone" in said

    save_whisper(tmp_path / "whisper")
    assert "has layers 0 to 2" in refusal(tmp_path / "whisper", capsys, layer=3)


OWN_CODE = """
import torch
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

class OwnConfig(PretrainedConfig):
    model_type = "own"

class OwnModel(PreTrainedModel):
    config_class = OwnConfig

    def __init__(self, config):
        super().__init__(config)
        self.layer = torch.nn.Linear(320, 4)
        self.post_init()

    def forward(self, input_values, output_hidden_states=False):
        wav = input_values[:, :{samples}]
        hidden = self.layer(wav.unfold(1, 320, 320))
        return BaseModelOutput(last_hidden_state=hidden, hidden_states=(hidden,))
"""


def save_own(folder: Path, samples: int) -> None:
    """A model with code of its own: a feature per 20 ms of the first ``samples``."""
    folder.mkdir()
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    (folder / "own.py").write_text(OWN_CODE.replace("{samples}", str(samples)))
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(own))
    torch.save({"layer.weight": torch.randn(4, 320), "layer.bias": torch.zeros(4)}, folder / "pytorch_model.bin")


def test_code_that_comes_with_a_model_is_run_on_request_only(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    save_own(tmp_path / "own", 16000 * 60)
    assert "needs trust_remote_code: true" in refusal(tmp_path / "own", capsys)
    encoder = load_encoder(str(tmp_path / "own"), 0, CPU, trust_remote_code=True)
    assert features(encoder, noise(1.0)).shape == (50, 4)
    # one of unknown kind that gives the same however long the clip is
    save_own(tmp_path / "fixed", 16000)
    said = refusal(tmp_path / "fixed", capsys, trust_remote_code=True)
    assert "[1, 50, 4] for 2 s and [1, 50, 4] for 4 s" in said and "cannot be aligned with time" in said


def test_the_device_is_where_the_encoder_runs(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    # a device without memory: what ran on it cannot come back
    save_whisper(tmp_path)
    assert "meta tensor" in refusal(tmp_path, capsys, device=torch.device("meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize(("save", "rates"), ENCODERS)
def test_a_gpu_gives_the_features_of_the_cpu(tmp_path: Path, save: Save, rates: Rates) -> None:
    save(tmp_path)
    both = [features(load_encoder(str(tmp_path), 1, torch.device(d)), noise(3.0)) for d in ("cpu", "cuda")]
    torch.testing.assert_close(both[0], both[1], atol=1e-2, rtol=1e-2)


def test_half_precision_checkpoints_run_in_float32(tmp_path: Path) -> None:
    save_whisper(tmp_path)
    model: PreTrainedModel = WhisperModel.from_pretrained(tmp_path).half()
    model.save_pretrained(tmp_path)
    assert features(load_encoder(str(tmp_path), 1, CPU), noise(1.0)).dtype == torch.float32

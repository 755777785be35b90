"""Options of the codec that cannot be carried out, each refused in one sentence."""

import pytest

from codec.network.architecture import ALMTokenizerConfig, check_architecture
from codec.recipe.options import check_crop, check_options
from training.config import ConfigError, compose
from training.launch import pick_device


def sentence(capsys: pytest.CaptureFixture, override: str, *more: str) -> str:
    """What `codec/train.py` says of this configuration."""
    three = ["stage=3", "init=x"] if "flow" in override or override in ("gan.start=0", "semantic_centres=x") else []
    with pytest.raises(ConfigError) as refused:
        cfg = compose("codec_train", [*three, override, *more])
        check_options(cfg)
        check_crop(cfg, cfg.codec.sample_rate, cfg.codec.hop)
    assert refused.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("error: ")


@pytest.mark.slow
def test_the_defaults_pass() -> None:
    for preset in ("mini", "mini_8", "mini_causal", "mini_conv", "small", "base", "paper", "mini_experts"):
        cfg = compose("codec_train", [f"codec={preset}"])
        assert compose("codec_train", [f"codec={preset}", "gan.start=null"]).gan.start is None
        check_options(cfg)
        check_crop(cfg, cfg.codec.sample_rate, cfg.codec.hop)
    assert pick_device("cpu") == "cpu"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("device=gpu", "device=gpu is unknown; choose one of auto, cpu, cuda."),
        ("precision=fp7", "precision=fp7 is unknown; choose one of null, no, bf16."),
        ("stage=4", "stage=4 is unknown; choose one of null, 1, 2, 3."),
        ("stage=3", "stage=3 needs init=FOLDER of a trained codec, whose codes it decodes."),
        ("flow.regression_steps=0", "flow.prior=regression needs its head: flow.regression_steps=0 must be above 0"),
        ("flow.regression_steps=2500", "must be above 0 and below trainer.max_steps=2500, or give flow.prior=zero."),
        ("flow.target=latent", "flow.target=latent needs flow.autoencoder=FOLDER"),
        ("flow.autoencoder=x", "other targets have none."),
        ("flow.target=sq", "flow.target=sq is unknown; choose one of partials, gains, latent."),
        ("flow.draws=0", "flow.draws=0 must be at least 1."),
        ("gan.start=0", "stage=3 makes no waveform while it learns: give gan.start=null"),
        ("semantic_centres=x", "semantic_centres: stage=3 changes no code"),
        ("loss={flow: 0, regression: 0}", "loss: all weights that count are"),
        ("stage=2", "stage=2 needs init=FOLDER"),
        ("reopen=0.5", "reopen needs init=FOLDER of a trained codec, and no stage."),
        ("reopen=1.5", "reopen=1.5 must be from 0 to 1 or null."),
        ("trainer.max_steps=null", "trainer.max_steps=null must be a whole number, at least 1."),
        ("trainer.learning_rate=nan", "trainer.learning_rate=nan must be above 0."),
        ("trainer.domain_weights.speech=-1", "trainer.domain_weights.speech=-1 must be at least 0."),
        ("loss.mel=-1", "loss.mel=-1 must be at least 0."),
        (
            "loss={mel: 0, convergence: 0, commitment: 0, pitch: 0, tones: 0, prior: 0}",
            "loss: all weights that count are",
        ),
        (
            "trainer.domain_weights={speech: 0, sound: 0, music: 0}",
            "trainer.domain_weights: all weights that count are",
        ),
        ("trainer.betas=[0.9]", "trainer.betas=[0.9] must be two numbers, at least 0 and below 1."),
        ("mae.share=[0.5,0.2]", "mae.share=[0.5, 0.2] must be two numbers, the smaller first, from 0 to 1."),
        ("trainer.gain_db=[4,-8]", "the smaller first."),
        ("loss.resolutions=[[256]]", "must be pairs [window samples, mel bands]."),
        ("loss.resolutions=[]", "must be pairs"),
        ("loss.resolutions=[256,32]", "must be pairs"),
        ("loss.resolutions=[[a,b]]", "must be pairs"),
        ("gan.channels=[8]", "gan.sizes has 6 entries, gan.channels 1: give one per size."),
        ("loss.draw=5", "loss.draw=5 is more than the 4 of loss.resolutions."),
        ("trainer.crop_seconds=0.1", "trainer.crop_seconds=0.1 must be at least 0.170667."),
    ],
)
def test_what_cannot_work_is_refused(override: str, reason: str, capsys: pytest.CaptureFixture) -> None:
    assert reason in sentence(capsys, override)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (["stage=2"], "and no stage."),
        (["codec.whiten=true"], "has a form of its own."),
        (["codec.code_dim=129"], "codec.code_dim=129 must be at most codec.encoder_dim=128"),
        (["codec.code_dim=1", "loss.pitch_axis=1"], "and above the axis of loss.pitch_axis."),
        (["trainer.max_steps=250"], "trainer.quantize_from=250: trainer.max_steps=250 must be above it."),
    ],
)
def test_a_space_that_cannot_be_opened_is_refused(
    changes: list[str], reason: str, capsys: pytest.CaptureFixture
) -> None:
    assert reason in sentence(capsys, "reopen=0.5", "init=x", *changes)


@pytest.mark.parametrize("precision", ["null", "no", "bf16"])
@pytest.mark.parametrize("launched", ["no", "bf16", "fp16", "fp8"])
def test_the_launchers_precision_counts_where_none_is_named(
    precision: str, launched: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", launched)
    if precision == "null" and launched.startswith("fp"):
        assert f"leaves accelerate launch its {launched}" in sentence(capsys, f"precision={precision}")
    else:
        check_options(compose("codec_train", [f"precision={precision}"]))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"window": 11}, "window=11 is outside 2…10"),
        ({"patchify": "wavelet"}, "patchify=wavelet is unknown; choose one of stft, conv, experts."),
        ({"bottleneck": "none"}, "bottleneck=none is unknown; choose one of queries, strided."),
        ({"hop": 0}, "hop=0 must be from 1 to 1000000."),
        ({"encoder_layers": 0}, "encoder_layers=0 must be from 1 to 1000."),
        ({"span": 0}, "span=0 must be from 1 to 1000000."),
        ({"codebook_decay": 1}, "codebook_decay=1 must be at least 0 and below 1."),
        ({"codebook_sizes": []}, "give at least one level"),
        ({"codebook_sizes": [2048, 1]}, "codebook_sizes=[2048, 1] must be from 2 to 1000000."),
        ({"head_dim": 63}, "head_dim=63 must be even"),
        ({"analysis_ffts": []}, "give the window of at least one spectrum"),
        ({"synthesis_fft": 318}, "synthesis_fft=318 must be even and at least the hop of 320."),
        ({"pitch_low": 500.0}, "pitch_low=500 and pitch_high=500 must rise"),
        ({"pitch_high": 12_000.0}, "must rise between 0 Hz and half the sample rate of 24000 Hz."),
    ],
)
def test_a_codec_that_cannot_be_is_refused(changes: dict, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        check_architecture(ALMTokenizerConfig(**changes))
    assert reason in str(refused.value)


def test_keys_of_another_kind_of_patchify_are_not_looked_at() -> None:
    check_architecture(ALMTokenizerConfig(patchify="conv", synthesis_fft=0, analysis_ffts=(), pitch_low=0.0))
    check_architecture(ALMTokenizerConfig(excitation=False, pitch_low=0.0))

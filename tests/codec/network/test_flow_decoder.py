"""The flow decoder behind the codec's contract: same codes, other sound; batches, pieces, streams, reach."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import tiny_codec, tiny_flow_codec

from codec.interface import Codes
from codec.load import load
from codec.model import ALMTokenizer
from codec.network.flow import Sampling
from codec.network.flow_decoder import FADE, PIECE, FlowConfig
from codec.network.patchify import overlap_add, spectrum
from codec.shards import Row, ShardWriter, TokenizerInfo, check_shard, read_index, shard_name

KINDS: dict[str, dict[str, Any]] = {
    "partials": {"excitation": False},
    "gains": {"excitation": False},
    "latent": {"excitation": False, "tonal": True},
}


def flow_codec(kind: str = "partials", **flow: object) -> ALMTokenizer:
    more = {"latent": 8} if kind == "latent" else {}
    return tiny_flow_codec({"target": kind, **more, **flow}, **KINDS[kind])


def codes_of(codec: ALMTokenizer, windows: int, batch: int = 1) -> Codes:
    codes = torch.randint(32, (batch, codec.levels, windows), generator=torch.Generator().manual_seed(1))
    return Codes(codes, torch.full((batch,), windows))


def test_codes_and_their_fingerprint_stay_and_the_sound_has_another(tmp_path: Path) -> None:
    base, codec = tiny_codec(), tiny_flow_codec()
    wav = 0.1 * torch.randn(2, 30_000)
    codes = base.encode(wav)
    assert torch.equal(codec.encode(wav).codes, codes.codes)
    with ShardWriter(tmp_path, TokenizerInfo.of(base)) as writer:
        writer.add(Row(id="a", codes=codes.codes[0].T.numpy(), duration=1.25))
    assert read_index(tmp_path).is_of(codec), "shards of the codec are shards of the one with a flow decoder"
    check_shard(tmp_path / shard_name(0), TokenizerInfo.of(codec))  # so that an encoding goes on into the same folder
    assert codec.fingerprint == base.fingerprint == base.decoder_fingerprint
    assert codec.decoder_fingerprint != base.fingerprint
    assert not torch.allclose(codec.decode(codes), base.decode(codes))
    with codec.without_flow():
        assert torch.equal(codec.decode(codes), base.decode(codes))
    seen = {codec.decoder_fingerprint}
    assert codec.flow is not None
    codec.flow.choose(Sampling(steps=4))
    seen.add(codec.decoder_fingerprint)
    with torch.no_grad():
        codec.flow.network.leave.bias += 1e-3
    assert codec.decoder_fingerprint not in seen and codec.fingerprint == base.fingerprint
    assert codec.describe()["flow"] == {
        "steps": 4, "solver": "midpoint", "guidance": 1.0, "temperature": 1.0, "seed": 0
    } and "flow" not in base.describe()  # fmt: skip


@pytest.mark.slow
def test_it_is_saved_and_loaded_and_takes_its_options(tmp_path: Path) -> None:
    codec = tiny_flow_codec()
    codec.save_pretrained(tmp_path / "flow")
    codes = codes_of(codec, 20)
    loaded = load(tmp_path / "flow", flow={"steps": 8})
    assert torch.equal(loaded.decode(codes), codec.decode(codes))
    assert loaded.decoder_fingerprint == codec.decoder_fingerprint
    heard = {str(how): load(tmp_path / "flow", flow=how).decode(codes) for how in (
        {"steps": 2}, {"seed": 1}, {"guidance": 2.0}, {"guidance": 0.0}, {"temperature": 0.5}, {"solver": "euler"},
        {"solver": "regression"}, {},
    )}  # fmt: skip
    for name, wav in heard.items():
        others = [other for key, other in heard.items() if key != name]
        assert not any(torch.allclose(wav, other, atol=1e-5) for other in others), name


@pytest.mark.parametrize(
    ("flow", "how", "reason"),
    [
        (None, {"step": 4}, "tokenizer.flow={'step': 4}: "),
        ({"prior": "zero"}, {"solver": "regression"}, "this decoder has no regression head (flow.prior=zero)."),
    ],
)
def test_options_that_it_cannot_follow_are_refused(flow: dict | None, how: dict, reason: str, tmp_path: Path) -> None:
    tiny_flow_codec(flow).save_pretrained(tmp_path / "flow")
    with pytest.raises(ValueError) as refused:
        load(tmp_path / "flow", flow=how)
    assert reason in str(refused.value)


def test_a_codec_without_a_flow_refuses_its_options(tmp_path: Path) -> None:
    tiny_codec().save_pretrained(tmp_path / "codec")
    load(tmp_path / "codec", flow={"steps": 8, "guidance": 1.0})
    with pytest.raises(ValueError, match="has no flow decoder to sample"):
        load(tmp_path / "codec", flow={"steps": 4})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"target": "mel"}, "flow.target=mel is unknown; choose one of partials, gains, latent."),
        ({"prior": "one"}, "flow.prior=one is unknown; choose one of regression, zero."),
        ({"latent": 8}, "flow.latent=8 does not fit flow.target=partials."),
        ({"target": "latent"}, "flow.latent=0 does not fit flow.target=latent."),
        ({"span": 33}, "flow.span=33 must divide 192"),
        ({"dim": 20}, "flow.dim=20 must be a multiple of head_dim=8."),
        ({"widht": 1}, "is no flow decoder's configuration"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused(changes: dict, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        tiny_flow_codec(changes)
    assert reason in str(refused.value)


def test_spectral_targets_need_spectra() -> None:
    with pytest.raises(ValueError, match=r"flow.target=partials needs the spectra of patchify=stft"):
        tiny_codec(patchify="conv", conv_filters=2, excitation=False, flow={"target": "partials", "dim": 16})
    assert FlowConfig.of({"target": "latent", "latent": 4}).latent == 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "samples",
    [1, 319, 320, 1919, 24_017, *(pytest.param(n, marks=pytest.mark.slow) for n in (307_199, 307_201, 960_000))],
)
def test_a_clip_alone_and_in_a_batch_with_its_exact_length(kind: str, samples: int) -> None:
    codec = flow_codec(kind)
    most = max(samples, 30_000)
    lengths = torch.tensor([samples, most])
    wav = 0.1 * torch.randn(2, most, generator=torch.Generator().manual_seed(0))
    together = codec.decode(codec.encode(wav, lengths))
    alone = codec.decode(codec.encode(wav[:1, :samples]))
    assert alone.shape == (1, samples) and not together[0, samples:].any()
    torch.testing.assert_close(together[0, :samples], alone[0], atol=1e-4, rtol=0)
    assert torch.equal(alone, codec.decode(codec.encode(wav[:1, :samples])))


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_streams_and_long_clips_run_on_the_same_grid(kind: str) -> None:
    """Over edges of its pieces, at which the sound of both sides is mixed."""
    codec = flow_codec(kind)
    assert codec.flow is not None
    for windows in (PIECE // 6, PIECE // 6 + 1, 2 * PIECE // 6 + 40):
        codes = codes_of(codec, windows)
        whole = codec.decode(codes)
        assert whole.shape == (1, windows * codec.samples_per_frame) and torch.isfinite(whole).all()
        state, parts = None, []
        for start in range(0, windows, 37):
            part = codes.codes[:, :, start : start + 37]
            sound, state = codec.decode_stream(part, state, last=start + 37 >= windows)
            parts.append(sound)
        torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-4, rtol=0)
        pair = Codes(codes.codes.repeat(2, 1, 1), torch.tensor([windows, windows - 3]))
        torch.testing.assert_close(codec.decode(pair)[0], whole[0], atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["partials", "gains"])
def test_a_minute_of_clicks_keeps_its_places_and_shows_no_seam(kind: str) -> None:
    """A click: another code for one window, every two seconds; the pieces of the grid meet at 12.8, 25.6 … s."""
    codec, windows, every = flow_codec(kind), 750, 25
    assert codec.flow is not None
    codec.flow.choose(Sampling(temperature=0.0))
    clicks = torch.zeros(1, codec.levels, windows, dtype=torch.long)
    clicks[:, :, every // 2 :: every] = 5
    length = torch.tensor([windows])
    levels = [
        spectrum(codec.decode(Codes(codes, length)), 640, 320).abs().clamp(min=1e-6).log()[0]
        for codes in (clicks, torch.zeros_like(clicks))
    ]
    heard = (levels[0] - levels[1]).abs().mean(1).view(-1, every * codec.window)  # [clicks, frames of two seconds]
    places = (heard * torch.arange(heard.shape[1])).sum(1) / heard.sum(1)
    if kind == "gains":  # phases of partials are sums over all frames before, and differ from the first click on
        assert heard.amax(1).min() > 0.05 and (places - places.median()).abs().max() < 1
    assert heard[0, : every // 2 * codec.window - 60].max() < 1e-3, "nothing is heard long before the first"
    codec.flow.choose(Sampling())
    level = spectrum(codec.decode(codes_of(codec, windows)), 640, 320).abs().clamp(min=1e-6).log()[0]
    flux = level.diff(dim=0).abs().mean(1)  # [frames - 1], from each to the next
    seams = torch.zeros(len(flux), dtype=torch.bool)
    for edge in range(PIECE, windows * codec.window, PIECE):
        seams[edge - FADE // 2 - 1 : edge + FADE // 2] = True
    assert seams.sum() == 4 * (FADE + 1)
    assert (flux[seams] > flux[~seams].quantile(0.99)).float().mean() < 0.05, "of any frames it were 0.01"


@pytest.mark.slow
def test_the_stated_latency_is_the_real_one() -> None:
    codec = flow_codec()
    codes, worst, made, state = codes_of(codec, 400).codes, 0, 0, None
    for window in range(400):
        sound, state = codec.decode_stream(codes[:, :, window : window + 1], state)
        if sound.shape[1]:  # the codes of the first sample's window had arrived so long before
            arrived = (window + 1) * codec.config.window
            worst = max(worst, arrived - codec.config.window - made // codec.config.hop)
            made += sound.shape[1]
    stated = codec.stream_latency.decode / (1000 * codec.config.hop / codec.sample_rate)
    assert stated - codec.config.window <= worst <= stated


def test_a_window_depends_on_its_codes_and_on_nothing_beyond_the_reach() -> None:
    """Of gains: the phases of partials are sums over all frames before."""
    codec = flow_codec("gains")
    codes = codes_of(codec, 400)
    changed = codes.codes.clone()
    changed[0, 0, 20] = (changed[0, 0, 20] + 7) % 32
    difference = (codec.decode(Codes(changed, codes.lengths)) - codec.decode(codes))[0].abs()
    difference = difference.view(400, -1).amax(1)
    assert difference[20] > 1e-4
    reach = codec.flow.sampling.steps * codec.flow.config.layers * codec.flow.config.span // 6
    assert difference[20 + reach + 8 :].max() < 1e-4 and reach + 28 < 160, "within one piece, too"


def test_regression_of_nothing_is_the_zero_prior() -> None:
    zero, regression = flow_codec(prior="zero"), flow_codec(prior="regression")
    shared = {k: v for k, v in zero.state_dict().items()}
    assert not regression.load_state_dict(shared, strict=False).unexpected_keys
    with torch.no_grad():
        for parameter in regression.flow.regression.parameters():
            parameter.zero_()
        regression.flow.residual.fill_(1.0)
        zero.flow.residual.fill_(1.0)
    codes = codes_of(zero, 12)
    assert torch.equal(zero.decode(codes), regression.decode(codes))


@pytest.mark.parametrize("kind", KINDS)
def test_padding_of_any_content_changes_nothing(kind: str) -> None:
    codec = flow_codec(kind)
    condition = torch.randn(2, 30, codec.config.decoder_dim, generator=torch.Generator().manual_seed(0))
    valid = torch.arange(30) < torch.tensor([[30], [17]])
    found = [codec.flow.sample(torch.where(valid[..., None], condition, x), valid) for x in (0.0, float("nan"))]
    assert torch.equal(found[0][valid], found[1][valid]) and torch.isfinite(found[0][valid]).all()


def test_true_partials_sound_like_the_recording() -> None:
    """The ceiling: two tones and a swell, rendered from magnitudes and frequencies alone."""
    codec = flow_codec()
    t = torch.arange(24_000 // 320 * 320) / 24_000
    wav = (0.2 * torch.sin(2 * torch.pi * 440 * t) + 0.1 * torch.sin(2 * torch.pi * 1012.5 * t) * t)[None]
    target = codec.flow.target
    values = target.measure(wav)
    assert values.shape == (1, 75, target.dim)
    made = target.render(values, torch.zeros(1, 75, 16), codec.unpatchify).wav
    a, b = (spectrum(x, 640, 320).abs()[0, 4:-4] for x in (made, wav))
    assert ((a - b).square().sum() / b.square().sum()).sqrt() < 0.1
    assert overlap_add(spectrum(wav, 640, 320), 640, 320).shape == wav.shape


def test_true_gains_have_the_magnitudes_of_the_recording() -> None:
    """In bands: of single bins the phases, which stay those of the codec, have their say."""
    codec = tiny_flow_codec({"target": "gains"}, excitation=True)
    wav = 0.01 * torch.randn(1, 320 * 60, generator=torch.Generator().manual_seed(0))  # within the greatest gain
    frames = torch.randn(1, 60, 16, generator=torch.Generator().manual_seed(1))
    now = codec.unpatchify(frames).wav
    made = codec.flow.target.render(codec.flow.target.measure(wav), frames, codec.unpatchify).wav
    assert made.shape == wav.shape
    bands = [torch.nn.functional.avg_pool2d(spectrum(x, 640, 320).abs(), (3, 16)).log() for x in (made, now, wav)]
    assert (bands[0] - bands[2]).abs().mean() < 0.2 * (bands[1] - bands[2]).abs().mean()

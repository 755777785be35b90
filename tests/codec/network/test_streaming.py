"""Streams and long clips: pieces give what one pass gives; the stated latency is the real one; memory is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile
import torch
from tiny_models import STRIDED, tiny_codec

from codec.interface import Codes
from codec.model import ALMTokenizer
from codec.reconstruct import reconstruct_files

CAUSAL = {"encoder_block_causal": True, "decoder_block_causal": True}
CAUSAL_STFT = {**CAUSAL, "stft_causal": True}
KINDS = {
    "causal stft": {**CAUSAL_STFT, "analysis_ffts": (640, 1920), "synthesis_fft": 960},
    "causal stft, direct": {**CAUSAL_STFT, "excitation": False},
    "causal stft, tonal": {**CAUSAL_STFT, "tonal": True},
    "causal stft, pitch": {**CAUSAL_STFT, "pitch_input": True},
    "centred stft": {**CAUSAL, "analysis_ffts": (640, 1920)},
    "query first": {**CAUSAL, "decoder_query_first": True},
    "causal conv": {**CAUSAL, "patchify": "conv", "conv_filters": 2, "conv_causal": True, "excitation": False},
    "bidirectional": {"analysis_ffts": (640, 1920), "synthesis_fft": 960},
    "bidirectional, pitch": {"analysis_ffts": (640,), "pitch_input": True},
    "bidirectional conv": {"patchify": "conv", "conv_filters": 2, "excitation": False},
    "strided": STRIDED,
    "strided causal": {**STRIDED, **CAUSAL_STFT, "excitation": False},
}


def audio(batch: int, samples: int, seed: int = 0) -> torch.Tensor:
    """Noise whose loudness wanders, so that many codes occur, over a quiet tone, so that some frames have a pitch."""
    generator = torch.Generator().manual_seed(seed)
    loudness = torch.rand(batch, 1, samples // 4000 + 2, generator=generator)
    loudness = torch.nn.functional.interpolate(loudness, samples, mode="linear")[:, 0]
    tone = 0.1 * torch.cos(torch.arange(samples) * (2 * torch.pi * 200 / 24_000))
    return torch.randn(batch, samples, generator=generator) * loudness * 0.3 + tone


def agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far their difference lies below ``b``, in dB."""
    return 10 * float(torch.log10(b.square().sum() / (a - b).square().sum().clamp(min=1e-20)))


def stream(codec: ALMTokenizer, wav: torch.Tensor, sizes: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and waveform of ``wav`` sent through both streams in pieces of the given sizes (repeated)."""
    encoder = decoder = None
    all_codes, sound, start, turn = [], [], 0, 0
    while start < wav.shape[1]:
        end = start + sizes[turn % len(sizes)]
        codes, encoder = codec.encode_stream(wav[:, start:end], encoder, last=end >= wav.shape[1])
        piece, decoder = codec.decode_stream(codes, decoder, last=end >= wav.shape[1])
        all_codes.append(codes)
        sound.append(piece)
        start, turn = end, turn + 1
    return torch.cat(all_codes, dim=2), torch.cat(sound, dim=1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("window", [6, 3])
def test_streamed_equals_offline(kind: str, window: int) -> None:
    codec = tiny_codec(**KINDS[kind], window=window)
    wav = audio(2, 30_111)
    offline = codec.encode(wav)
    assert len(offline.codes.unique()) > 8
    for sizes in ([1920], [100, 7_000, 1, 333]):
        codes, sound = stream(codec, wav, sizes)
        assert torch.equal(codes, offline.codes)
        # pulses are steep: where pitch is rounded differently single samples move
        assert agreement(sound[:, : wav.shape[1]], codec.decode(offline)) > (50 if codec.config.excitation else 110)


def test_a_stream_is_coded_in_the_precision_of_the_weights_whatever_its_caller_computes_in() -> None:
    codec, wav = tiny_codec(**KINDS["bidirectional"]), audio(1, 30_000)
    codes = codec.encode_stream(wav, last=True)[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(codec.encode_stream(wav, last=True)[0], codes)
        again = codec.decode_stream(codes, last=True)[0]
    assert torch.equal(again, codec.decode_stream(codes, last=True)[0])


def test_a_stream_leaves_the_state_it_was_given_alone() -> None:
    codec = tiny_codec(**KINDS["causal stft"])
    wav = audio(1, 30_000)
    _, state = codec.encode_stream(wav[:, :20_000])
    a, _ = codec.encode_stream(wav[:, 20_000:], state, last=True)
    b, _ = codec.encode_stream(wav[:, 20_000:], state, last=True)
    assert a.shape[2] > 0 and torch.equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_state_does_not_grow(kind: str) -> None:
    codec = tiny_codec(**KINDS[kind])

    def size(state: object) -> int:
        if isinstance(state, torch.Tensor):
            return state.untyped_storage().nbytes()
        values = vars(state).values() if hasattr(state, "__dataclass_fields__") else state
        return sum(size(v) for v in values) if isinstance(values, (list, tuple, type({}.values()))) else 0

    encoder = decoder = None
    sizes = []
    for piece in audio(1, 1920 * 64).split(1920, dim=1):
        codes, encoder = codec.encode_stream(piece, encoder)
        _, decoder = codec.decode_stream(codes, decoder)
        sizes.append(size(encoder) + size(decoder))
    assert max(sizes[40:]) <= max(sizes[:40])


@pytest.mark.parametrize("kind", KINDS)
def test_the_ends_reach_exactly_as_far_as_they_say(kind: str) -> None:
    """Gradients of one frame vanish outside the reach; a frame further in, they do not."""
    codec = tiny_codec(**KINDS[kind])
    hop, middle = codec.config.hop, 20
    tone = torch.cos(torch.arange(hop * 41) * (2 * torch.pi * 200 / codec.sample_rate))
    wav = (audio(1, hop * 41) / 10 + tone).requires_grad_()  # noise alone has no pitch that anything could depend on
    codec.patchify(wav)[:, middle].square().sum().backward()
    assert wav.grad is not None
    touched = wav.grad.view(41, hop).abs().amax(1).nonzero()[:, 0]
    before, after = codec.patchify.reach
    assert (middle - int(touched.min()), int(touched.max()) - middle) == (before, after)

    frames = torch.randn(1, 41, codec.config.decoder_dim)
    before, after = codec.unpatchify.reach
    reference = codec.unpatchify(frames).wav.view(41, hop)[middle]
    for place, inside in ((middle + after, True), (middle + after + 1, False)):
        changed = frames.clone()
        changed[:, place] += 1.0
        assert (codec.unpatchify(changed).wav.view(41, hop)[middle] - reference).abs().max().item() == 0 or inside


@pytest.mark.slow
@pytest.mark.parametrize("window", [2, 6])
@pytest.mark.parametrize(
    "kind",
    ["causal stft", "causal stft, direct", "causal conv", "centred stft", "bidirectional", "strided", "strided causal"],
)
def test_latency_is_as_stated(kind: str, window: int) -> None:
    """Frame by frame: the longest time from a sample's arrival to its codes, and to its sound."""
    codec = tiny_codec(**KINDS[kind], window=window)
    hop = codec.config.hop
    encoder = decoder = None
    windows = samples = 0
    worst_codes = worst_sound = 0
    for number, piece in enumerate(audio(1, hop * 150).split(hop, dim=1)):
        codes, encoder = codec.encode_stream(piece, encoder)
        sound, decoder = codec.decode_stream(codes, decoder)
        arrived = (number + 1) * hop
        if codes.shape[2]:
            worst_codes = max(worst_codes, arrived - windows * codec.samples_per_frame)
            windows += codes.shape[2]
        if sound.shape[1]:
            worst_sound = max(worst_sound, arrived - samples)
            samples += sound.shape[1]
    stated = codec.stream_latency
    assert worst_codes / 24 == pytest.approx(stated.encode)
    assert worst_sound / 24 == pytest.approx(stated.encode + stated.decode)


def test_the_causal_preset_needs_a_window_and_40_ms() -> None:
    codec = tiny_codec(**KINDS["causal stft"])
    assert (codec.stream_latency.encode, codec.stream_latency.decode) == pytest.approx((80, 40))
    assert codec.causal


@pytest.mark.parametrize("kind", KINDS)
def test_causal_is_what_the_sound_says(kind: str) -> None:
    """Codes wait for no sample after their frame, and sound for no frame after the next: measured."""
    codec, frame, cut = tiny_codec(**KINDS[kind]), 1_920, 20
    wav = audio(1, frame * 30)
    changed = torch.cat((wav[:, : cut * frame], audio(1, frame * 10, seed=1)), dim=1)
    with torch.no_grad():
        a, b = (codec.encode_latents(x, codec.window) for x in (wav, changed))
        early = (a - b)[0, :cut].abs().max() > 1e-5
        b[:, :cut] = a[:, :cut]
        a, b = (codec.quantizer.project_out(codec.quantizer.project_in(x)) for x in (a, b))
        first, second = (codec.decode_latents(x, codec.window).wav for x in (a, b))
    late = (first - second)[0, : (cut - 1) * frame].abs().max() > 1e-5
    assert codec.causal == (not early and not late)
    assert codec.describe()["causal"] is codec.causal


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bidirectional", "causal stft", "bidirectional conv", "strided", "strided causal"])
def test_long_clips_in_pieces_equal_one_pass(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("codec.network.streaming.PIECE_SECONDS", 4.0)
    codec = tiny_codec(**KINDS[kind])
    codec.one_pass_seconds = 5.0
    wav = audio(2, 240_777)
    lengths = torch.tensor([wav.shape[1], 50_000])
    pieces = codec.encode(wav, lengths)
    sound = codec.decode(pieces)
    codec.one_pass_seconds = 1e9
    whole = codec.encode(wav, lengths)
    assert torch.equal(pieces.codes, whole.codes)
    assert torch.equal(pieces.lengths, whole.lengths) and torch.equal(pieces.samples, whole.samples)
    reference = codec.decode(whole)
    assert sound.shape == reference.shape and (sound[1, 50_000:] == 0).all()
    assert agreement(sound, reference) > 50
    torch.testing.assert_close(codec.decode(Codes(whole.codes, whole.lengths))[:, :1000], reference[:, :1000])


def test_a_long_file_goes_through_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At another rate, in stereo: the file is as long as, and sounds like, what one pass over all of it gives."""
    monkeypatch.setattr("codec.audio.files.BLOCK_FRAMES", 20_000)
    codec = tiny_codec(**KINDS["causal conv"])
    soundfile.write(tmp_path / "a.wav", audio(2, 100_001).clamp(-1, 1).T.numpy(), 16_000)
    (whole,), refused = reconstruct_files(tmp_path / "a.wav", tmp_path / "whole", codec, "wav")
    codec.one_pass_seconds = 2.0
    pieces: list[int] = []
    encode = codec.encode_stream
    monkeypatch.setattr(
        codec, "encode_stream", lambda wav, *a, **k: (pieces.append(wav.shape[1]), encode(wav, *a, **k))[1]
    )
    (parts,), _ = reconstruct_files(tmp_path / "a.wav", tmp_path / "parts", codec, "wav")
    assert not refused and len(pieces) >= 5 and max(pieces) < 40_000
    assert (parts.seconds, parts.frames) == (whole.seconds, whole.frames)
    a, b = (soundfile.read(r.output, dtype="int16")[0] for r in (whole, parts))
    assert a.shape == b.shape and abs(a.astype(int) - b).max() <= 1


def test_wrong_pieces_are_refused() -> None:
    codec = tiny_codec()
    with pytest.raises(ValueError, match="batch, samples"):
        codec.encode_stream(torch.zeros(5))
    with pytest.raises(ValueError, match="do not fit"):
        codec.decode_stream(torch.full((1, 3, 2), 32))
    with pytest.raises(ValueError, match="block-causal"):
        codec.encoder.extend(torch.zeros(1, 7, 16), None, 6, 0)

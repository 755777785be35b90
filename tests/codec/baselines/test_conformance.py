"""The promises of AudioTokenizer, kept by every tokenizer: the same tests run over ours and each baseline."""

import importlib.util
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from tiny_baselines import TINY, noise
from tiny_models import tiny_codec, tiny_flow_codec

from codec.interface import AudioTokenizer, Codes, HasLatents
from training.config import REPOSITORY

EXAMPLE = REPOSITORY / "docs/examples/tone_codec.py"


def example_of_the_docs() -> AudioTokenizer:
    """The tokenizer that docs/tokenizers.md shows."""
    spec = importlib.util.spec_from_file_location("tone_codec", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ToneCodec()


def strided(seed: int = 0) -> AudioTokenizer:
    """Ours with plain convolutions for queries; without pulses, whose flanks move where pitch is rounded."""
    return tiny_codec(seed, bottleneck="strided", excitation=False)


def flow(seed: int = 0) -> AudioTokenizer:
    """Ours with a flow decoder."""
    return tiny_flow_codec(seed=seed, excitation=False)


def experts(seed: int = 0) -> AudioTokenizer:
    """Ours that hears by experts, here by log-mels alone."""
    heard = [{"encoder": "log-mel", "role": "acoustic", "dim": 80}]
    return tiny_codec(seed=seed, patchify="experts", experts=heard, excitation=False)


OURS: dict[str, Callable[..., AudioTokenizer]] = {
    "almtokenizer": tiny_codec, "strided": strided, "flow": flow, "experts": experts,
}  # fmt: skip
MAKERS = {**OURS, **TINY}
ALL: dict[str, Callable[..., AudioTokenizer]] = {**MAKERS, "example": example_of_the_docs}
# Decoded sound alone against in a batch, of full scale 1. Baselines run one clip at a time: no difference at all.
TOLERANCE = {"almtokenizer": 1e-3}
CAUSAL = {"encodec": True, "mimi": True}


@pytest.fixture(scope="module", params=ALL)
def tokenizer(request: pytest.FixtureRequest) -> AudioTokenizer:
    """Each tokenizer in turn, made once."""
    return ALL[request.param]()


def lengths_of(tokenizer: AudioTokenizer) -> list[int]:
    """Lengths in samples around the frame: less than one, exact multiples, one more and one less."""
    frame = tokenizer.samples_per_frame
    return [frame * 7 + 11, frame * 3, frame * 3 - 1, frame + 1, 5]


@pytest.fixture(scope="module")
def batch(tokenizer: AudioTokenizer) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips ``[batch, samples]`` of those lengths, padded with zeros."""
    lengths = torch.tensor(lengths_of(tokenizer))
    wav = noise(int(lengths.max()), seed=3, rows=len(lengths))
    return wav * (torch.arange(wav.shape[1]) < lengths[:, None]), lengths


def test_shapes_and_lengths(tokenizer: AudioTokenizer, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    wav, lengths = batch
    codes = tokenizer.encode(wav, lengths)
    frames = (lengths + tokenizer.samples_per_frame - 1) // tokenizer.samples_per_frame
    assert codes.codes.dtype == torch.int64
    assert codes.codes.shape == (len(wav), tokenizer.levels, int(frames.max()))
    assert codes.lengths.tolist() == frames.tolist()
    assert codes.samples is not None and codes.samples.tolist() == lengths.tolist()
    for level, size in enumerate(tokenizer.codebook_sizes):
        assert 0 <= int(codes.codes[:, level].min()) and int(codes.codes[:, level].max()) < size
    padding = torch.arange(codes.codes.shape[2]) >= frames[:, None]
    assert not codes.codes.transpose(1, 2)[padding].any()
    decoded = tokenizer.decode(codes)
    assert decoded.shape == wav.shape and decoded.dtype == torch.float32
    assert torch.isfinite(decoded).all()
    assert not decoded[torch.arange(wav.shape[1]) >= lengths[:, None]].any()


def test_rates(tokenizer: AudioTokenizer) -> None:
    bits = sum(torch.tensor(tokenizer.codebook_sizes).double().log2())
    assert tokenizer.levels == len(tokenizer.codebook_sizes) >= 1
    assert tokenizer.frame_rate == pytest.approx(tokenizer.sample_rate / tokenizer.samples_per_frame)
    assert tokenizer.bitrate == pytest.approx(float(bits) * tokenizer.frame_rate)
    assert len(tokenizer.fingerprint) == 64 and tokenizer.name


def test_codes_are_not_dead(tokenizer: AudioTokenizer) -> None:
    codes = tokenizer.encode(noise(tokenizer.samples_per_frame * 60, seed=5))
    for level in range(tokenizer.levels):
        assert len(codes.codes[0, level].unique()) > 2, f"level {level}"


def test_a_clip_alone_and_in_a_padded_batch(
    tokenizer: AudioTokenizer, batch: tuple[torch.Tensor, torch.Tensor]
) -> None:
    wav, lengths = batch
    together = tokenizer.encode(wav, lengths)
    decoded = tokenizer.decode(together)
    for row, length in enumerate(lengths.tolist()):
        alone = tokenizer.encode(wav[row : row + 1, :length])
        assert torch.equal(alone.clip(0), together.clip(row))
        torch.testing.assert_close(
            tokenizer.decode(alone)[0], decoded[row, :length], rtol=0, atol=TOLERANCE.get(tokenizer.name, 0)
        )


def test_determinism(tokenizer: AudioTokenizer, batch: tuple[torch.Tensor, torch.Tensor]) -> None:
    codes = tokenizer.encode(*batch)
    assert torch.equal(codes.codes, tokenizer.encode(*batch).codes)
    assert torch.equal(tokenizer.decode(codes), tokenizer.decode(codes))


def test_generated_codes_have_whole_frames(tokenizer: AudioTokenizer) -> None:
    generator = torch.Generator().manual_seed(1)
    clips = [
        torch.stack([torch.randint(size, (n,), generator=generator) for size in tokenizer.codebook_sizes], 1)
        for n in (5, 2)
    ]
    wav = tokenizer.decode(Codes.from_clips(clips))
    assert wav.shape == (2, 5 * tokenizer.samples_per_frame)
    assert not wav[1, 2 * tokenizer.samples_per_frame :].any()
    assert wav[1].any()


def test_codes_matter(tokenizer: AudioTokenizer) -> None:
    """Each level's codes reach the waveform."""
    codes = tokenizer.encode(noise(tokenizer.samples_per_frame * 8, seed=2))
    before = tokenizer.decode(codes)
    for level, size in enumerate(tokenizer.codebook_sizes):
        changed = codes.codes.clone()
        changed[:, level] = (changed[:, level] + size // 2) % size
        assert not torch.allclose(tokenizer.decode(Codes(changed, codes.lengths, codes.samples)), before)


WITH_LATENTS: dict[str, Callable[[], AudioTokenizer]] = {
    "whitened": lambda: tiny_codec(whiten=True),
    "warm-up": lambda: tiny_codec(window=3),
    **{name: ALL[name] for name in ("almtokenizer", "strided", "encodec", "dac", "mimi")},
    "one level of mimi": lambda: TINY["mimi"](levels=1),
}


@pytest.mark.parametrize("name", WITH_LATENTS)
def test_latents_lead_where_codes_lead(name: str) -> None:
    """To the same codes and the same sound, from a whole number of frames or not; and elsewhere without quantising."""
    tokenizer = WITH_LATENTS[name]()
    assert isinstance(tokenizer, HasLatents)
    for samples in (tokenizer.samples_per_frame * 7, tokenizer.samples_per_frame * 5 + 11, 3):
        wav = noise(4 * tokenizer.samples_per_frame * 8, seed=5)[:, :samples]
        codes = tokenizer.encode(wav)
        z = tokenizer.to_latents(wav)
        assert z.shape[0] == codes.codes.shape[2] and z.dtype == torch.float32
        assert torch.equal(tokenizer.quantise(z).cpu(), codes.clip(0))
        heard = tokenizer.from_latents(z, requantise=True)
        assert heard.shape == (1, len(z) * tokenizer.samples_per_frame)
        assert torch.equal(heard[:, :samples], tokenizer.decode(codes))
        assert not torch.allclose(tokenizer.from_latents(z, requantise=False)[:, :samples], tokenizer.decode(codes))
        exact = tokenizer.vectors(codes.clip(0))
        assert torch.equal(tokenizer.from_latents(exact, requantise=False), heard)
    assert tokenizer.levels == 1 or not torch.equal(tokenizer.vectors(codes.clip(0)[:, :1]), exact)


IMPOSSIBLE_LATENTS: dict[str, tuple[Any, str]] = {
    "an array": (torch.zeros(3, 8).numpy(), "latents must be a torch.Tensor, got ndarray"),
    "no frame": (torch.zeros(0, 8), "at least one frame"),
    "a batch": (torch.zeros(1, 3, 8), r"\[frames, d\]"),
    "NaN": (torch.full((3, 8), math.nan), "finite"),
}


def test_latents_that_are_none_are_refused() -> None:
    tokenizer = tiny_codec()
    for z, reason in IMPOSSIBLE_LATENTS.values():
        with pytest.raises(ValueError, match=reason):
            tokenizer.from_latents(z, requantise=True)
    for wav, reason in ((SOUND, "one clip"), (SOUND[:1, :0], "one clip"), (SOUND[0], r"\[batch, samples\]")):
        with pytest.raises(ValueError, match=reason):
            tokenizer.to_latents(wav)


SOUND = noise(4000, seed=9, rows=2)
IMPOSSIBLE_SOUNDS: dict[str, tuple[Any, torch.Tensor | None, str]] = {
    "an array": (SOUND.numpy(), None, "wav must be a torch.Tensor, got ndarray: torch.as_tensor makes one"),
    "a list": (SOUND.tolist(), None, "wav must be a torch.Tensor, got list"),
    "one clip without a batch": (SOUND[0], None, r"must be \[batch, samples\]"),
    "channels": (SOUND[None], None, r"must be \[batch, samples\]"),
    "16-bit samples": ((SOUND * 32767).short(), None, "must be floating-point in -1…1, got torch.int16"),
    "16-bit samples as floats": ((SOUND * 32767).round(), None, "clip 0 of wav reaches .* where full scale is 1"),
    "NaN": (SOUND.masked_fill(torch.arange(4000) == 99, math.nan), None, "clip 0 of wav holds samples that are NaN"),
    "infinite": (SOUND.index_fill(1, torch.tensor(9), -math.inf), None, "NaN or infinite"),
    "longer than the waveform": (SOUND, torch.tensor([4000, 4001]), r"lengths \[4000, 4001\] do not fit"),
    "negative length": (SOUND, torch.tensor([-1, 4000]), r"lengths \[-1, 4000\] do not fit"),
    "a length too few": (SOUND, torch.tensor([4000]), r"lengths must be \[batch\] = 2"),
    "a length for all": (SOUND, torch.tensor(4000), r"lengths must be \[batch\] = 2"),
    "seconds": (SOUND, torch.tensor([0.1, 0.2]), "2 whole numbers, got torch.float32"),
}


@pytest.mark.parametrize("wrong", IMPOSSIBLE_SOUNDS)
def test_impossible_sounds_are_refused(tokenizer: AudioTokenizer, wrong: str) -> None:
    wav, lengths, reason = IMPOSSIBLE_SOUNDS[wrong]
    with pytest.raises(ValueError, match=reason):
        tokenizer.encode(wav, lengths)


IMPOSSIBLE_CODES: dict[str, tuple[Callable[[AudioTokenizer], tuple], str]] = {
    "beyond the codebook": (lambda t: (codes_of(t, value=max(t.codebook_sizes)), [3, 3]), "do not fit"),
    "negative": (lambda t: (codes_of(t, value=-1), [3, 3]), "do not fit"),
    "too many levels": (lambda t: (codes_of(t, more=1), [3, 3]), "do not fit"),
    "no level": (lambda t: (codes_of(t)[:, :0], [3, 3]), "do not fit"),
    "fractions": (lambda t: (codes_of(t) + 0.5, [3, 3]), "codes must be whole numbers, got torch.float32"),
    "longer than the codes": (lambda t: (codes_of(t), [3, 4]), r"lengths \[3, 4\] do not fit"),
    "negative length": (lambda t: (codes_of(t), [-1, 3]), r"lengths \[-1, 3\] do not fit"),
    "more samples than frames": (lambda t: (codes_of(t), [3, 3], [3 * t.samples_per_frame + 1, 0]), "more than"),
    "negative samples": (lambda t: (codes_of(t), [3, 3], [-1, 0]), "samples"),
    "an array": (lambda t: (codes_of(t).numpy(), [3, 3]), "codes must be a torch.Tensor, got ndarray"),
}


def codes_of(tokenizer: AudioTokenizer, value: int = 0, more: int = 0) -> torch.Tensor:
    """``[2, levels + more, 3]``, zero but for one ``value``."""
    codes = torch.zeros(2, tokenizer.levels + more, 3, dtype=torch.long)
    codes[1, 0, 1] = value
    return codes


@pytest.mark.parametrize("wrong", IMPOSSIBLE_CODES)
def test_what_no_encoder_makes_is_not_decoded(tokenizer: AudioTokenizer, wrong: str) -> None:
    make, reason = IMPOSSIBLE_CODES[wrong]
    codes, *rest = make(tokenizer)
    with pytest.raises(ValueError, match=reason):
        tokenizer.decode(Codes(codes, *map(torch.tensor, rest)))


def test_codes_alone_are_not_decoded(tokenizer: AudioTokenizer) -> None:
    with pytest.raises(ValueError, match="decode takes Codes, got Tensor"):
        tokenizer.decode(codes_of(tokenizer))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="each clip must be a torch.Tensor, got ndarray"):
        Codes.from_clips([codes_of(tokenizer)[0].T.numpy()])  # type: ignore[list-item]


def test_clips_without_samples_have_no_frames_and_no_sound(tokenizer: AudioTokenizer) -> None:
    """Alone and among others; the others are as they are without them."""
    wav = noise(tokenizer.samples_per_frame * 3, seed=4, rows=3)
    for empty in (wav[:, :0], wav[:0], wav[:0, :0]):
        codes = tokenizer.encode(empty)
        assert codes.codes.shape == (len(empty), tokenizer.levels, 0) and not codes.lengths.any()
        assert tokenizer.decode(codes).shape == (len(empty), 0)
    whole = wav.shape[1]
    codes = tokenizer.encode(wav, torch.tensor([whole, 0, whole - 7]))
    assert codes.lengths.tolist() == [3, 0, 3] and codes.samples is not None and codes.samples.tolist()[1] == 0
    others = tokenizer.encode(wav[[0, 2]], torch.tensor([whole, whole - 7]))
    assert torch.equal(codes.codes[[0, 2]], others.codes) and not codes.codes[1].any()
    sound = tokenizer.decode(codes)
    assert torch.isfinite(sound).all() and not sound[1].any()
    assert torch.equal(sound[[0, 2]], tokenizer.decode(others))


def test_a_language_model_that_said_nothing_is_silent(tokenizer: AudioTokenizer) -> None:
    said, nothing = torch.ones(2, tokenizer.levels, dtype=torch.long), torch.ones(0, tokenizer.levels, dtype=torch.long)
    assert tokenizer.decode(Codes.from_clips([nothing])).shape == (1, 0)
    wav = tokenizer.decode(Codes.from_clips([nothing, said]))
    assert wav.shape == (2, 2 * tokenizer.samples_per_frame) and not wav[0].any()
    assert torch.equal(wav[1:], tokenizer.decode(Codes.from_clips([said])))


def test_padding_may_hold_what_is_no_sound_and_no_code(tokenizer: AudioTokenizer) -> None:
    wav, lengths = noise(4000, seed=3, rows=2), torch.tensor([4000, 2500])
    padded = torch.where(torch.arange(4000) < lengths[:, None], wav, math.nan)
    codes = tokenizer.encode(wav, lengths)
    assert torch.equal(tokenizer.encode(padded, lengths).codes, codes.codes)
    beyond = torch.where(torch.arange(codes.codes.shape[2]) < codes.lengths[:, None, None], codes.codes, -1)
    decoded = tokenizer.decode(Codes(beyond, codes.lengths, codes.samples))
    assert torch.equal(decoded, tokenizer.decode(codes))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", MAKERS)
def test_weights_kept_in_half_precision_encode_in_float32(name: str, dtype: torch.dtype) -> None:
    """The codes of the rounded weights; and they can be trained on afterwards."""
    tokenizer, same = MAKERS[name]().to(dtype), MAKERS[name]().to(dtype).float()
    fingerprint = tokenizer.fingerprint
    wav = noise(tokenizer.samples_per_frame * 4, seed=4)
    codes = tokenizer.encode(wav.to(dtype).float())
    assert torch.equal(codes.codes, same.encode(wav.to(dtype)).codes), "sound in half precision is brought up, too"
    assert torch.equal(tokenizer.decode(codes), sound := same.decode(codes))
    with torch.autocast("cpu", dtype):
        assert torch.equal(same.encode(wav.to(dtype)).codes, codes.codes) and torch.equal(same.decode(codes), sound)
    assert tokenizer.fingerprint == fingerprint == same.fingerprint
    assert not any(p.is_inference() for p in tokenizer.parameters())


@pytest.mark.parametrize("name", MAKERS)
def test_the_fingerprint_follows_the_weights(name: str) -> None:
    tokenizer = MAKERS[name]()
    fingerprint = tokenizer.fingerprint
    assert MAKERS[name]().fingerprint == fingerprint
    assert MAKERS[name](seed=1).fingerprint != fingerprint
    with torch.no_grad():
        next(tokenizer.parameters()).view(-1)[0].add_(1e-3)
    assert tokenizer.fingerprint != fingerprint


@pytest.mark.parametrize("name", [name for name in TINY if name in ("encodec", "dac", "mimi", "speechtokenizer")])
def test_the_first_levels_are_those_of_more_levels(name: str) -> None:
    wav = noise(20000, seed=4)
    three, two = TINY[name](levels=3), TINY[name](levels=2)
    codes = three.encode(wav)
    assert torch.equal(two.encode(wav).codes, codes.codes[:, :2])
    assert two.bitrate == pytest.approx(three.bitrate * 2 / 3)
    assert two.fingerprint != three.fingerprint
    # Fewer levels decode too, for example what a model generated of them.
    first = Codes(codes.codes[:, :2], codes.lengths, codes.samples)
    assert torch.equal(two.decode(first), three.decode(first))


@pytest.mark.parametrize("name", TINY)
def test_causality_is_what_is_claimed(name: str) -> None:
    """Later samples change earlier codes and earlier sound if, and only if, the tokenizer is not causal."""
    tokenizer = TINY[name]()
    assert tokenizer.causal == CAUSAL.get(name, False)
    frame, first = tokenizer.samples_per_frame, 14  # the first frames may see their reflection
    wav = noise(frame * 24, seed=6)
    changed = wav.clone()
    changed[:, frame * 20 :] = noise(frame * 4, seed=8) * 2
    codes, other = tokenizer.encode(wav), tokenizer.encode(changed)
    assert not torch.equal(codes.codes, other.codes)
    if tokenizer.causal:
        assert torch.equal(codes.codes[:, :, first:19], other.codes[:, :, first:19])
        early, late = tokenizer.decode(codes), tokenizer.decode(other)
        torch.testing.assert_close(early[:, frame * first : frame * 18], late[:, frame * first : frame * 18])


@pytest.mark.parametrize("name", TINY)
def test_wrong_levels_are_refused(name: str) -> None:
    with pytest.raises(RuntimeError, match=rf"{name}: .*levels=99"):
        TINY[name](levels=99)

"""Experts in front of the queries: each kind from a tiny folder, aligned, frozen, alone as in batches and streams."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_encoders import save_ast, save_wav2vec, save_whisper
from tiny_models import tiny_codec

from codec.load import load
from codec.model import ALMTokenizer
from codec.network import experts as module
from codec.network.audio_encoders import Encoder, load_encoder
from codec.network.ctc import CTCConfig, CTCRecogniser
from codec.network.experts import CONTEXT, PIECE, Expert, ExpertPatchify
from training.config import ConfigError

RATE, HOP = 24_000, 320


def save_ctc(folder: Path) -> None:
    torch.manual_seed(0)
    CTCRecogniser(CTCConfig(mels=16, width=24, blocks=1)).save(folder)


KINDS: dict[str, Callable[[Path], None]] = {
    "wav2vec": save_wav2vec,
    "whisper": save_whisper,
    "ast": save_ast,
    "ctc": save_ctc,
    "codec": lambda folder: tiny_codec().save_pretrained(folder),
    "log-mel": lambda folder: None,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny random folder of each kind."""
    place = tmp_path_factory.mktemp("experts")
    for name, save in KINDS.items():
        save(place / name)
    return {name: name if name == "log-mel" else str(place / name) for name in KINDS}


def experts(*kinds_and_roles: tuple[str, str]) -> list[dict]:
    return [asdict(Expert(kind, role, 1 if "wav2vec" in kind else 0).known()) for kind, role in kinds_and_roles]


@pytest.fixture
def codec(folders: dict[str, str]) -> ALMTokenizer:
    chosen = experts((folders["wav2vec"], "phone"), (folders["ctc"], "phone"), (folders["codec"], "semantic"),
                     ("log-mel", "acoustic"))  # fmt: skip
    return tiny_codec(patchify="experts", experts=chosen, excitation=False)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_where_the_sound_is(folders: dict[str, str], kind: str) -> None:
    """What follows a burst is at the frame of the burst, though each kind has a rate of its own."""
    patchify = ExpertPatchify([Expert(folders[kind], "acoustic", 0).known()], 16, HOP, RATE)  # before any attention
    wav = torch.randn(1, 300 * HOP, generator=torch.Generator().manual_seed(0)) * 1e-3
    places = []
    for frame in (100, 200):
        burst = wav.clone()
        burst[:, frame * HOP : frame * HOP + 4 * HOP] += 0.5 * torch.randn(1, 4 * HOP)
        change = (patchify.features(burst) - patchify.features(wav))[0].abs().sum(1)
        places.append(int(change.argmax()))
    near = 8 if kind == "ast" else 4  # frames; AST hears 10 times per second
    assert [abs(place - frame - 2) <= near for place, frame in zip(places, (100, 200), strict=True)] == [True] * 2, (
        places
    )


@pytest.mark.slow
def test_codes_are_the_same_alone_in_a_batch_and_as_a_stream(
    codec: ALMTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 96)  # so that a few seconds have several pieces
    monkeypatch.setattr(module, "CONTEXT", 24)
    wav = 0.1 * torch.randn(2, 5 * RATE + 17, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([wav.shape[1], 3 * RATE - 5])
    together = codec.encode(wav, lengths)
    for row, length in enumerate(lengths.tolist()):
        alone = codec.encode(wav[row : row + 1, :length])
        windows = int(alone.lengths[0])
        assert torch.equal(together.codes[row, :, :windows], alone.codes[0])
        for window in (6, 7):
            codec.set_window(window)
            whole, state, parts = codec.encode(wav[row : row + 1, :length]).codes, None, []
            for start in range(0, length, 7001):
                piece = wav[row : row + 1, start : min(length, start + 7001)]
                codes, state = codec.encode_stream(piece, state, last=start + 7001 >= length)
                parts.append(codes)
            assert torch.equal(torch.cat(parts, dim=2), whole)
        codec.set_window(6)
    assert len(together.codes[0].unique(dim=1).T) > 3, "a test on one code would pass on a dead quantiser"


def test_experts_stay_frozen_and_unmasked_in_training(codec: ALMTokenizer) -> None:
    wav = 0.1 * torch.randn(1, 60 * HOP)
    before = codec.patchify.features(wav)
    codec.train()
    codec.encode_latents(wav, 6).sum().backward()
    assert torch.equal(codec.patchify.features(wav), before)
    names = {name for name, _ in codec.named_parameters() if name.startswith("patchify.")}
    assert names == {f"patchify.{part}.{kind}" for kind in ("weight", "bias")
                     for part in ("roles.phone", "roles.semantic", "roles.acoustic", "fuse")}  # fmt: skip
    assert all(codec.get_parameter(name).grad.abs().sum() > 0 for name in names)


def test_it_is_saved_with_its_experts_by_name_and_refuses_others(
    codec: ALMTokenizer, folders: dict[str, str], tmp_path: Path
) -> None:
    codec.save_pretrained(tmp_path / "codec")
    wav = 0.1 * torch.randn(1, RATE)
    again = load(tmp_path / "codec")
    assert torch.equal(again.encode(wav).codes, codec.encode(wav).codes) and again.fingerprint == codec.fingerprint
    assert codec.config.experts[0]["dim"] == 16 and len(codec.config.experts[0]["sha256"]) == 64
    other = Path(folders["ctc"], "model.safetensors")
    kept = other.read_bytes()
    try:
        torch.manual_seed(1)
        CTCRecogniser(CTCConfig(mels=16, width=24, blocks=1)).save(Path(folders["ctc"]))
        with pytest.raises(ConfigError):
            load(tmp_path / "codec").encode(wav)
    finally:
        other.write_bytes(kept)
    assert torch.equal(load(tmp_path / "codec").encode(wav).codes, codec.encode(wav).codes)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ([], "patchify=experts and 0 experts: give both, or neither."),
        ([{"encoder": "log-mel", "role": "words"}], "experts.role=words is unknown; choose one of phone, semantic,"),
        ([{"encoder": "log-mel"}], "give encoder, layer and role."),
        ([{"encoder": "log-mel", "role": "acoustic", "dim": 80}] * 2, "log-mel, layer 0, has the role acoustic twice."),
        ([{"encoder": "log-mel", "role": "acoustic"}], "dim of log-mel is not known"),
    ],
)
def test_experts_that_cannot_be_are_refused(values: list, reason: str) -> None:
    with pytest.raises(ValueError) as refused:
        tiny_codec(patchify="experts", experts=values)
    assert reason in str(refused.value)


def damage(folder: Path, weight: str, value: float = float("nan")) -> None:
    """Fill a ``weight`` of the network in ``folder``."""
    weights = load_file(folder / "model.safetensors")
    weights[weight].fill_(value)
    save_file(weights, folder / "model.safetensors")


def change_rate(folder: Path, before: str = "16000", after: str = "8000") -> None:
    config = folder / "preprocessor_config.json"
    config.write_text(config.read_text().replace(before, after))


ANOTHER = "is another one than this codec was trained with (its files have SHA-256 "


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "when", "change", "reason"),
    [
        ("wav2vec", "trained", change_rate, ANOTHER),
        ("ctc", "trained", lambda folder: damage(folder, "down.0.weight"), ANOTHER),
        ("ctc", "untrained", lambda folder: damage(folder, "down.0.weight"), "down.0.weight holds values that are NaN"),
        ("log-mel", "trained", lambda folder: damage(folder.with_name("own"), "quantizer.project_in.weight", 3e38),
         "the codec's encoder gives latents that are NaN or infinite, so there are no codes"),
    ],
    ids=["another rate", "other weights", "NaN weights", "infinite latents"],
)  # fmt: skip
@pytest.mark.parametrize("door", ["encode", "stream"])
def test_what_would_make_other_codes_is_refused(
    kind: str, when: str, change: Callable[[Path], None], reason: str, door: str, folders: dict[str, str],
    tmp_path: Path, refusal: Callable[..., str],
) -> None:  # fmt: skip
    """An expert that changes before or after its codec is trained, and a codec that is damaged itself."""
    place, own = tmp_path / kind, tmp_path / "own"
    if kind != "log-mel":
        shutil.copytree(folders[kind], place)

    def encode() -> None:
        if when == "untrained":
            change(place)
        heard = experts((kind if kind == "log-mel" else str(place), "phone"))
        tiny_codec(patchify="experts", experts=heard).save_pretrained(own)
        if when == "trained":
            change(place)
        codec, wav = load(own), 0.1 * torch.randn(1, RATE)
        codec.encode(wav) if door == "encode" else codec.encode_stream(wav, None, last=True)

    assert reason in refusal(encode)


def test_an_expert_of_two_roles_is_loaded_and_heard_once(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    roles = [(folders["ctc"], "phone"), ("log-mel", "acoustic"), (folders["ctc"], "semantic")]
    patchify = ExpertPatchify([Expert(kind, role).known() for kind, role in roles], 16, HOP, RATE)
    loaded, heard = [], []

    def load_counted(path: str, layer: int, device: torch.device) -> Encoder:
        encoder = load_encoder(path, layer, device)
        loaded.append(Path(path).name)
        return replace(encoder, features=lambda wav: (heard.append(Path(path).name), encoder.features(wav))[1])

    monkeypatch.setattr(module, "load_encoder", load_counted)
    features = patchify.features(0.1 * torch.randn(1, RATE // HOP * HOP))
    assert loaded == heard == ["ctc", "log-mel"]
    assert torch.equal(features[..., :24], features[..., 24:48]), "phone and semantic experts lie side by side"
    assert features[..., 48:].shape[2] == 80 and features.std() > 0


def test_an_expert_that_is_not_there_or_of_another_width_is_named(
    folders: dict[str, str], refusal: Callable[..., str]
) -> None:
    assert "the expert '/nowhere' is neither a folder nor a hub id" in refusal(
        Expert("/nowhere", "phone", sha256="a").hash
    )
    wrong = Expert(folders["ctc"], "phone", dim=7)
    assert "has 24 numbers per feature, and not dim: 7" in refusal(wrong.known)
    deaf = tiny_codec(patchify="experts", experts=experts(("log-mel", "acoustic")))
    assert deaf.stream_latency.encode > 1000 * PIECE * HOP / RATE and CONTEXT < PIECE
    assert load_encoder("log-mel", 0, torch.device("cpu")).features(torch.zeros(16_000)).shape == (100, 80)

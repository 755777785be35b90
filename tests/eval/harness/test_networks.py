"""Networks that read public checkpoints, with random weights in the published layout: all keys used, none made up."""

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from transformers import (
    ASTForAudioClassification,
    ClapModel,
    EncodecModel,
    HubertForCTC,
    HubertModel,
    WavLMForXVector,
    WhisperForConditionalGeneration,
)

from eval.embedders import load_embedder
from eval.embedders.clap import Clap, windows
from eval.embedders.log_mel import LogMel
from eval.harness.networks import NetworkError, load_network, weights_hash
from eval.judges.judging import load_recogniser
from eval.judges.recognisers.interface import Recogniser, RecogniserError
from eval.known_answers import speechlike
from eval.metrics.clap import ClapScore, retrieval
from eval.metrics.classifier import AudioClassifier
from eval.metrics.speaker import SpeakerSimilarity
from eval.metrics.utmos import UTMOS, UTMOS22, our_name
from tests.eval import tiny_networks

RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("networks")


def noise(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(int(seconds * rate))).astype(np.float32)


# ---- loading -------------------------------------------------------------------------------------------------------
def test_missing_weights_are_refused(folder: Path) -> None:
    place = folder / "ssl-damaged"
    tiny_networks.ssl_network(place)
    kept = {k: v for k, v in safetensors.torch.load_file(place / "model.safetensors").items() if "layers.1" not in k}
    safetensors.torch.save_file(kept, place / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(NetworkError, match="lacks weights of HubertModel"):
        load_network(HubertModel, str(place), what="ssl")
    with pytest.raises(NetworkError, match="ssl=.*cannot be loaded"):
        load_network(HubertModel, str(folder / "nowhere"), what="ssl")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("speaker", WavLMForXVector), ("ssl", HubertModel), ("ctc", HubertForCTC), ("clap", ClapModel),
        ("whisper", WhisperForConditionalGeneration), ("encodec", EncodecModel), ("ast", ASTForAudioClassification),
    ],
)  # fmt: skip
def test_every_key_is_consumed_and_none_is_missing(tmp_path: Path, name: str, kind: type) -> None:
    getattr(tiny_networks, f"{name}_network")(tmp_path)
    network = load_network(kind, str(tmp_path))
    assert network.unused_keys == []
    stored = safetensors.torch.load_file(tmp_path / "model.safetensors")
    loaded = network.state_dict()
    assert all(torch.equal(value, loaded[key]) for key, value in stored.items() if key in loaded)
    # a key too many is recorded, a key too few is refused
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file({**stored, "of.another.network": torch.zeros(2)}, file, metadata={"format": "pt"})
    assert load_network(kind, str(tmp_path)).unused_keys == ["of.another.network"]
    names = [key for key in stored if "weight" in key]
    for gone in (names[len(names) // 3], names[-1]):
        safetensors.torch.save_file({k: v for k, v in stored.items() if k != gone}, file, metadata={"format": "pt"})
        with pytest.raises(NetworkError, match="lacks weights of"):
            load_network(kind, str(tmp_path))


def test_the_hash_follows_the_weights() -> None:
    torch.manual_seed(0)
    first, second = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before = weights_hash(first)
    assert before != weights_hash(second)
    second.load_state_dict(first.state_dict())
    assert before == weights_hash(second)


# ---- UTMOS ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def utmos(folder: Path) -> UTMOS:
    path = folder / "utmos.pt"
    tiny_networks.utmos_checkpoint(path)
    return UTMOS(path, network=UTMOS22.load(path, tiny_networks.wav2vec2_config(), lstm=8, hidden=12))


@pytest.mark.slow
def test_utmos_reads_the_published_layout(folder: Path, utmos: UTMOS) -> None:
    names = tiny_networks.utmos_checkpoint(folder / "again.pt")
    assert sorted(map(our_name, names)) == sorted(utmos.network.state_dict())
    published = torch.load(folder / "again.pt", weights_only=True)
    for broken in ({k: v for k, v in published.items() if k != "judge_emb"}, {**published, "more": torch.zeros(1)}):
        torch.save(broken, folder / "broken.pt")
        with pytest.raises(NetworkError, match="no UTMOS22-strong checkpoint"):
            UTMOS22.load(folder / "broken.pt", tiny_networks.wav2vec2_config(), lstm=8, hidden=12)
    (folder / "broken.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(NetworkError, match="no UTMOS22-strong checkpoint"):
        UTMOS22.load(folder / "broken.pt")
    with pytest.raises(NetworkError, match="utmos22_strong_step7459_v1.pt"):
        UTMOS22.load(folder / "nowhere.pt")


def test_the_full_size_network_has_the_published_shapes() -> None:
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in UTMOS22().state_dict().items()}
    assert len(shapes) == 225
    assert shapes[our_name("wav2vec2.encoder.pos_conv.0.weight_v")] == (768, 48, 128)
    assert shapes[our_name("wav2vec2.encoder.pos_conv.0.weight_g")] == (1, 1, 128)
    assert shapes[our_name("wav2vec2.encoder.layers.11.fc1.weight")] == (3072, 768)
    assert shapes["blstm.weight_ih_l0"] == (2048, 1024) and shapes["projection.2.weight"] == (1, 2048)


def test_utmos_is_mask_safe_and_unclamped(utmos: UTMOS) -> None:
    clips = [noise(0.5), noise(1.3, seed=1)]
    utmos.update(clips, sample_rate=RATE)
    alone = [utmos.rate(clip, RATE) for clip in clips]
    assert utmos.values().tolist() == alone and float(utmos.compute()) == pytest.approx(np.mean(alone))
    with torch.no_grad():
        utmos.network.projection[2].bias += 100  # a score far outside 1 … 5 stays as it is
        assert utmos.rate(clips[0], RATE) == pytest.approx(alone[0] + 200, rel=1e-4)
        utmos.network.projection[2].bias -= 100
    assert np.isfinite(utmos.rate(np.zeros(RATE, np.float32), RATE)) and utmos.how()["clamped"] is False


# ---- speakers ------------------------------------------------------------------------------------------------------
def test_speaker_similarity(folder: Path) -> None:
    tiny_networks.speaker_network(folder / "speaker")
    metric = SpeakerSimilarity(str(folder / "speaker"))
    clip, other = speechlike(2.0), noise(1.0)
    assert metric.similarity(clip, clip, RATE) == pytest.approx(1.0, abs=1e-5)
    assert metric.similarity(clip, other, RATE) < 0.99999
    metric.update([clip, np.zeros(RATE, np.float32)], [clip, clip], sample_rate=RATE)
    assert float(metric.compute()) == pytest.approx(1.0, abs=1e-5)
    assert metric.reasons == {"silence has no speaker": 1}
    assert metric.description["network"] == "WavLMForXVector" and len(str(metric.description["weights_sha256"])) == 64


# ---- embeddings ----------------------------------------------------------------------------------------------------
def test_log_mel_needs_nothing() -> None:
    embedder = LogMel()
    assert embedder.embed(noise(3.0), RATE).shape == (5, 128)
    assert embedder.embed(noise(0.975), RATE).shape == (1, 128)
    louder = embedder.embed(10 * noise(3.0), RATE) - embedder.embed(noise(3.0), RATE)
    assert louder[:, :64] == pytest.approx(np.log(10), abs=1e-3) and louder[:, 64:] == pytest.approx(0, abs=1e-3)
    assert np.isfinite(embedder.embed(np.zeros(RATE, np.float32), RATE)).all()


def test_encodec_frames(folder: Path) -> None:
    tiny_networks.encodec_network(folder / "encodec")
    embedder = load_embedder("encodec", str(folder / "encodec"))
    assert embedder.embed(noise(1.0, 24_000), 24_000).shape == (75, 8)


def test_ssl_frames(folder: Path) -> None:
    tiny_networks.ssl_network(folder / "ssl")
    last, first = (load_embedder("ssl", str(folder / "ssl"), layer=layer) for layer in (-1, 0))
    wav = noise(1.0)
    assert last.embed(wav, RATE).shape == first.embed(wav, RATE).shape == (49, 16)
    assert not np.allclose(last.embed(wav, RATE), first.embed(wav, RATE))
    assert len(last.embed(noise(31.0), RATE)) == 2 * 774
    with pytest.raises(NetworkError, match="hidden states 0 to 2"):
        load_embedder("ssl", str(folder / "ssl"), layer=3)


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True])
def test_clap(folder: Path, fused: bool) -> None:
    place = folder / f"clap-{fused}"
    tiny_networks.clap_network(place, fused)
    clap = load_embedder("clap", str(place))
    assert isinstance(clap, Clap)
    long = noise(12.5, 48_000)
    first, second = clap.embed(long, 48_000), clap.embed(long, 48_000)
    assert first.shape == (4, 12) and np.array_equal(first, second)  # at 0, 1, 2 and 2.5 s, and never at random
    assert np.linalg.norm(first, axis=1) == pytest.approx(1.0, abs=1e-5)
    score = ClapScore()
    score.update([first], clap.embed_texts(["a dog barks"]))
    assert -1 <= float(score.compute()) <= 1
    texts = clap.embed_texts(["a dog barks", "rain falls on the roof loudly"])
    # padding changes nothing
    assert clap.embed_texts(["a dog barks"])[0] == pytest.approx(texts[0], abs=1e-5)
    assert "fixed" in clap.how()["windows"]


def test_windows() -> None:
    assert [len(w) for w in windows(np.arange(7), 10, 1)] == [7]
    assert [int(w[0]) for w in windows(np.arange(25), 10, 5)] == [0, 5, 10, 15]
    assert [int(w[0]) for w in windows(np.arange(23), 10, 5)] == [0, 5, 10, 13]


def test_retrieval() -> None:
    items = np.eye(12)
    perfect = retrieval(items, items, range(12))
    assert np.mean(perfect["recall@1"]) == 1.0 and np.mean(perfect["reciprocal-rank"]) == 1.0
    nothing = retrieval(np.ones((12, 2)), np.ones((12, 2)), range(12))
    assert np.mean(nothing["recall@10"]) == 0.0
    # five captions for each of four clips; recall@5 and @10 of four clips would be 1 by themselves
    captions = np.repeat(np.eye(4), 5, axis=0)
    found = retrieval(captions, np.eye(4), [i // 5 for i in range(20)])
    assert set(found) == {"recall@1", "reciprocal-rank"} and np.mean(found["recall@1"]) == 1.0


def test_classifier(folder: Path) -> None:
    tiny_networks.ast_network(folder / "ast")
    judge = AudioClassifier(str(folder / "ast"))
    posterior = judge.posterior(noise(11.0), RATE)
    assert posterior.shape == (5,) and posterior.sum() == pytest.approx(1.0)
    assert judge.how()["classes"] == 5


# ---- recognisers ---------------------------------------------------------------------------------------------------
def open_whisper(folder: Path, language: str | None = "en") -> Recogniser:
    tiny_networks.whisper_network(folder / "whisper")
    return load_recogniser("whisper", folder, folder, weights={"whisper": str(folder / "whisper")}, language=language)


def test_whisper(folder: Path) -> None:
    with open_whisper(folder) as judge:
        clips = [noise(1.0), noise(31.0, seed=1), np.zeros(0, np.float32)]
        texts = judge.transcribe(clips, RATE)
        assert texts == judge.transcribe(clips, RATE) and texts[0] == judge.transcribe(clips[:1], RATE)[0]
        assert "<|" not in "".join(texts)
        assert "greedy" in str(judge.how()["decoding"])


def test_whisper_writes_nothing_where_it_hears_no_speech(folder: Path) -> None:
    with open_whisper(folder) as judge:
        network, tokenizer = judge.network, judge.processor.tokenizer
        assert judge.transcribe([noise(1.0), noise(31.0)], RATE) != ["", ""]
        # whatever it hears, all of its probability is on that token
        norm, words = network.model.decoder.layer_norm, network.proj_out.weight
        norm.weight.data.zero_()
        norm.bias.data.fill_(10.0)
        words.data.zero_()
        words.data[tokenizer.convert_tokens_to_ids("<|nospeech|>")] = 1.0
        assert judge.no_speech(torch.zeros(1, 1500, 16)).item() > 0.6
        assert judge.transcribe([noise(1.0), noise(31.0)], RATE) == ["", ""]
        assert "0.6" in str(judge.how()["no_words"])


@pytest.mark.parametrize(("language", "asked"), [("de", "de"), (None, None)])
def test_the_language_arrives_at_whisper(folder: Path, language: str | None, asked: str | None) -> None:
    with open_whisper(folder, language) as judge:
        heard: list[dict] = []
        network = judge.network
        network.generation_config.is_multilingual = True
        network.generate = lambda *_, **options: heard.append(options) or torch.zeros(1, 1, dtype=torch.long)
        judge.transcribe([noise(1.0)], RATE)
        assert heard[0].get("language") == asked and heard[0]["task"] == "transcribe"
        assert (language or "found out") in str(judge.how()["decoding"])


def test_hubert_ctc(folder: Path) -> None:
    tiny_networks.ctc_network(folder / "ctc")
    with load_recogniser("hubert-ctc", folder, folder, weights={"hubert-ctc": str(folder / "ctc")}) as judge:
        clips = [noise(1.0), noise(0.5, seed=1), np.zeros(10, np.float32)]
        texts = judge.transcribe(clips, RATE)
        assert texts[1] == judge.transcribe(clips[1:2], RATE)[0] and texts[2] == ""
        assert judge.how()["network"] == "HubertForCTC"


def test_recognisers_without_weights(folder: Path) -> None:
    with pytest.raises(RecogniserError, match="weights.whisper=FOLDER"):
        load_recogniser("whisper", folder, folder)
    with pytest.raises(RecogniserError, match="cannot be loaded"):
        load_recogniser("hubert-ctc", folder, folder, weights={"hubert-ctc": str(folder / "nowhere")})

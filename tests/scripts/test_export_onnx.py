"""scripts/export_onnx.py and codec/onnx_codec.py: graphs for clips of any length that say what torch says."""

from training.help import REPOSITORY

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_models import tiny_codec

import export_onnx
from codec.files import Codec
from codec.interface import Codes
from codec.model import ALMTokenizer
from codec.network.real_valued import in_real_arithmetic
from codec.onnx_codec import CARD, OnnxCodec, OnnxCodecError

SAMPLES = 320 * 6


def hearing_codec() -> ALMTokenizer:
    """A tiny codec that makes tones and hears its pitch; the rest as of one that does not."""
    codec = tiny_codec(tonal=True, pitch_input=True)
    codec.load_state_dict(tiny_codec(tonal=True).state_dict(), strict=False)
    return codec


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny codec, saved and exported in both precisions."""
    folder = tmp_path_factory.mktemp("onnx")
    hearing_codec().save_pretrained(folder / "codec")
    command = [folder / "codec", folder / "out", "--int8", "--corpus", REPOSITORY / "data/mini", "--clips", 1]
    assert export_onnx.main([str(word) for word in command]) == 0
    return folder / "out"


@pytest.mark.slow
@pytest.mark.parametrize("windows", [1, 2, 5, 23, 40])
def test_graphs_say_what_torch_says_whatever_the_length(exported: Path, windows: int) -> None:
    codec, onnx = hearing_codec(), OnnxCodec(exported, threads=1)
    wav = torch.randn(1, SAMPLES * windows - 100, generator=torch.Generator().manual_seed(windows)) / 10
    codes = codec.encode(wav)
    voiced = wav + torch.cos(torch.arange(wav.shape[1]) / 20) / 5  # a tone of 191 Hz, so that there is a pitch
    for heard, expected in ((wav, codes), (voiced, codec.encode(voiced))):
        found = onnx.encode(heard[0].numpy())
        assert found.shape == (3, windows) and (found == expected.codes[0].numpy()).mean() > 0.97
    sound = codec.decode(Codes(codes.codes, codes.lengths))[0].numpy()
    np.testing.assert_allclose(onnx.decode(codes.codes[0].numpy()), sound, atol=2e-3 * np.abs(sound).max())
    assert len(onnx.decode(codes.codes[0].numpy(), 100)) == 100
    assert onnx.fingerprint == codec.fingerprint and onnx.sample_rate == 24_000


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 7, 40])
def test_a_stream_is_the_whole_clip_and_torchs_stream(exported: Path, step: int) -> None:
    """With pulses, whose steep flanks follow rounding in the pitch, to 50 dB, as torch's own stream (docs/codec.md)."""
    codec, onnx = hearing_codec(), OnnxCodec(exported, threads=1)
    codes = torch.randint(32, (1, 3, 40), generator=torch.Generator().manual_seed(step))
    state, theirs, parts, given = None, None, [], []
    for start in range(0, 40, step):
        last = start + step >= 40
        piece, following = onnx.decode_stream(codes[0, :, start : start + step].numpy(), state, last)
        again, _ = onnx.decode_stream(codes[0, :, start : start + step].numpy(), state, last)
        np.testing.assert_array_equal(piece, again)  # the state that was given stays as it was
        sound, theirs = codec.decode_stream(codes[:, :, start : start + step], theirs, last)
        state, parts, given = following, [*parts, piece], [*given, sound[0].numpy()]
        assert 0 <= start + step - state.done <= 7 or last  # what it waits for, and no more
        assert state.codes.shape[1] < 16
    stream = np.concatenate(parts)
    for expected in (np.concatenate(given), onnx.decode(codes[0].numpy())):
        assert stream.shape == expected.shape == (40 * SAMPLES // 6 * 6,) and np.abs(expected).max() > 0.1
        assert np.square(stream - expected).sum() < 1e-5 * np.square(expected).sum()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tonal": True},
        {"excitation": False},
        {"decoder_block_causal": True},
        {"patchify": "conv"},
        {"bottleneck": "strided"},
    ],
    ids=str,
)
def test_what_a_graph_computes_of_a_piece_is_that_part_of_the_whole(changes: dict) -> None:
    """Without the runtime, for every kind of ends and stack: the sound between the edges, and the phases after them."""
    codec = tiny_codec(**changes)
    before, after = export_onnx.around(codec)
    graph = export_onnx.DecoderGraph(in_real_arithmetic(codec))
    codes = torch.randint(32, (1, 3, 40), generator=torch.Generator().manual_seed(0))
    start = torch.zeros(1, codec.config.synthesis_fft // 2 + 1, dtype=torch.float64)

    def made(first: int, begin: int, end: int, stop: int, pulse, tones):
        numbers = [torch.tensor(n) for n in ([stop - first], [begin - first, end - first], [first])]
        with torch.inference_mode():
            wav, pulse, tones = graph(codes[:, :, first:stop], *numbers, pulse, tones)
        return wav[0, (begin - first) * SAMPLES : (end - first) * SAMPLES], pulse, tones

    whole = made(0, 0, 40, 40, start[:, 0], start)[0]
    head, *phases = made(0, 0, 20, 20 + after, start[:, 0], start)
    tail = made(20 - before, 20, 40, 40, *phases)[0]
    both = torch.cat((head, tail))
    assert (both - whole).square().sum() < 1e-5 * whole.square().sum()
    if changes.get("excitation") is False or "patchify" in changes:
        torch.testing.assert_close(both, whole, atol=1e-4 * float(whole.abs().max()), rtol=0)
    alone = made(20, 20, 40, 40, *phases)[0]
    assert (alone - whole[20 * SAMPLES :]).square().sum() > 1e-4 * whole.square().sum(), "its context had no say"


@pytest.mark.slow
def test_eight_bits_are_smaller_and_near(exported: Path) -> None:
    small, whole = OnnxCodec(exported, int8=True, threads=1), OnnxCodec(exported, threads=1)
    wav = np.random.default_rng(0).normal(0, 0.1, SAMPLES * 20).astype(np.float32)
    codes = whole.encode(wav)
    assert (small.encode(wav) == codes).mean() > 0.3  # of 32 codes per level: chance is 0.03
    a, b = small.decode(codes), whole.decode(codes)
    assert np.abs(a - b).max() > 0 and np.square(a).sum() == pytest.approx(np.square(b).sum(), rel=0.3)
    assert (exported / "encoder.int8.onnx").stat().st_size < (exported / "encoder.onnx").stat().st_size


@pytest.mark.slow
def test_bad_input_is_one_sentence(exported: Path, tmp_path: Path) -> None:
    codec = OnnxCodec(exported, threads=1)
    good = np.zeros(SAMPLES, np.float32)
    for wav in (good[:0], good[None], good.astype(np.int16), np.full(SAMPLES, np.nan, np.float32)):
        with pytest.raises(OnnxCodecError, match="finite floats"):
            codec.encode(wav)
    for codes in (np.zeros((2, 4), int), np.zeros((3, 0), int), np.zeros((3, 4)), np.zeros(3, int)):
        with pytest.raises(OnnxCodecError, match="integers"):
            codec.decode(codes)
    for code in (-1, 32):
        with pytest.raises(OnnxCodecError, match="level by level"):
            codec.decode(np.full((3, 4), code))
    whole, graph = json.loads((exported / CARD).read_text()), (exported / "encoder.onnx").read_bytes()
    for card, encoder, why in (
        (None, None, "holds no exported codec"),
        ("{", None, "holds no exported codec"),
        ("{}", None, "not of format"),
        (json.dumps({"format": whole["format"]}), None, "codec.json is damaged .*'sample_rate'"),
        (json.dumps({**whole, "around": [1]}), None, "codec.json is damaged"),
        (json.dumps(whole), None, "lacks encoder.onnx"),
        (json.dumps(whole), b"", "encoder.onnx is damaged"),
        (json.dumps(whole), graph[: len(graph) // 2], "encoder.onnx is damaged"),
    ):
        for name, content in ((CARD, card), ("encoder.onnx", encoder)):
            if content is not None:
                (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
        with pytest.raises(OnnxCodecError, match=why):
            OnnxCodec(tmp_path)


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep me")
    tiny_codec().save_pretrained(tmp_path / "codec")
    with pytest.raises(SystemExit, match="holds something else"):
        export_onnx.main([str(tmp_path / "codec"), str(tmp_path)])
    assert (tmp_path / "mine.txt").is_file()


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["nowhere", "out"], "no codec checkpoint at 'nowhere'"),
        (["codec", "out", "--window", "0"], "window=0"),
        (["codec", "out", "--corpus", "nowhere"], "corpus folder nowhere does not exist"),
    ],
)
def test_what_cannot_be_exported_is_one_sentence(
    given: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusal
) -> None:
    tiny_codec().save_pretrained(tmp_path / "codec")
    monkeypatch.chdir(tmp_path)
    assert sentence in refusal(export_onnx.main, given) and not (tmp_path / "out").exists()


def test_the_runtime_imports_no_torch() -> None:
    code = "import sys, codec.onnx_codec; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.slow
def test_files_of_codes_decode_where_there_is_no_torch(exported: Path, tmp_path: Path) -> None:
    codec = Codec(hearing_codec())
    wave = np.random.default_rng(0).normal(0, 0.1, SAMPLES * 7 - 100).astype(np.float32)
    codec.encode(wave).save(tmp_path / "codes/deep/a.safetensors")
    Codec(tiny_codec(tonal=True, seed=1)).encode(wave).save(tmp_path / "codes/other.safetensors")
    codec.encode(wave).save(tmp_path / "codes/two\nlines.safetensors")
    code = "import sys; sys.modules['torch'] = None; from almkit.command import main; main(sys.argv[1:])"

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, "decode", "codes", *words, "--onnx", str(exported)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)

    done = run("-o", "again", "--json")
    first, *faults = map(json.loads, done.stdout.splitlines())
    assert done.returncode == 1 and len(faults) == 2, done.stderr
    assert "has control characters" in faults[0]["error"] and "these codes are of the tok" in faults[1]["error"]
    sound, rate = soundfile.read(tmp_path / "again/deep/a.flac")
    assert first["output"] == "again/deep/a.flac" and (len(sound), rate) == (len(wave), 24_000)
    expected = codec.reconstruct(wave).audio.clip(-1, 1)
    np.testing.assert_allclose(sound, expected, atol=2e-3 * np.abs(expected).max() + 1e-4)
    assert run("-o", "one.wav").returncode == 2  # two clips, one file
    shutil.copytree(tmp_path / "codes", tmp_path / "more")
    twice = run("more", "-o", "both")
    assert twice.returncode == 2 and "would both become '" in twice.stderr and not (tmp_path / "both").exists()

"""Reconstruction of files: their lengths and places, and the command line with paths and options."""

import errno
import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_encoding import LoudnessTokenizer
from tiny_models import tiny_codec

from codec.model import ALMTokenizer
from codec.reconstruct import as_overrides, reconstruct_files, table
from training.config import compose


def test_reconstructed_files_have_the_length_of_their_source(tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    random = np.random.default_rng(0)
    soundfile.write(source / "a.wav", random.uniform(-0.5, 0.5, (44_100, 2)), 44_100)
    soundfile.write(source / "a.flac", random.uniform(-0.5, 0.5, 12_345), 16_000)
    soundfile.write(source / "sub/b.wav", random.uniform(-0.5, 0.5, 777), 16_000)
    (source / "c.wav").write_text("no audio")
    done, refused = reconstruct_files(source, tmp_path / "out", LoudnessTokenizer())
    lengths = {str(r.output.relative_to(tmp_path / "out")): soundfile.info(r.output).frames for r in done}
    assert lengths == {"a.flac.flac": 12_345, "a.wav.flac": 16_000, "sub/b.flac": 777}
    assert len(refused) == 1 and "c.wav is not audio" in refused[0]
    text = table(done, LoudnessTokenizer())
    assert "all (3 files)" in text and "RTF enc" in text
    with pytest.raises(ValueError, match="is the source itself"):
        reconstruct_files(source / "sub/b.wav", source / "sub", LoudnessTokenizer(), audio_format="wav")


def test_one_file_becomes_the_file_that_is_named(tmp_path: Path) -> None:
    wav = np.random.default_rng(0).uniform(-0.5, 0.5, 12_345)
    soundfile.write(tmp_path / "a.wav", wav, 16_000)
    ((one,), _) = reconstruct_files(tmp_path / "a.wav", tmp_path / "new/b.wav", LoudnessTokenizer())
    assert one.output == tmp_path / "new/b.wav" and soundfile.info(one.output).format == "WAV"
    with pytest.raises(ValueError, match="is the source itself"):
        reconstruct_files(tmp_path / "a.wav", tmp_path / "a.wav", LoudnessTokenizer())
    with pytest.raises(ValueError, match="is a file"):
        reconstruct_files(tmp_path, tmp_path / "b.wav", LoudnessTokenizer())


@pytest.fixture
def streaming() -> ALMTokenizer:
    """A codec by which clips of more than half a second go in pieces."""
    codec = tiny_codec()
    codec.one_pass_seconds = 0.5
    return codec


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_long_file_is_whole_or_as_it_was(tmp_path: Path, suffix: str, streaming: ALMTokenizer) -> None:
    """The disk takes no more, or the source ends in the middle: what was there stays, and nothing lies beside it."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 24_000 * 30)
    soundfile.write(tmp_path / "long.wav", noise, 24_000)
    (out := tmp_path / f"out.{suffix}").write_bytes(b"earlier")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, usual[1]))
    try:
        with pytest.raises(OSError) as refused:
            reconstruct_files(tmp_path / "long.wav", out, streaming)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert (refused.value.errno, refused.value.filename) == (errno.EFBIG, str(out))
    assert {path.name for path in tmp_path.iterdir()} == {"long.wav", out.name} and out.read_bytes() == b"earlier"

    soundfile.write(tmp_path / "long.wav", np.append(noise[: 24_000 * 20], np.nan), 24_000, subtype="FLOAT")
    done, said = reconstruct_files(tmp_path / "long.wav", out, streaming)
    assert not done and "NaN" in said[0]
    assert {path.name for path in tmp_path.iterdir()} == {"long.wav", out.name} and out.read_bytes() == b"earlier"

    soundfile.write(tmp_path / "long.wav", noise[:30_000], 24_000)
    ((one,), _) = reconstruct_files(tmp_path / "long.wav", out, streaming)
    assert soundfile.info(out).frames == 30_000 and one.frames == 16


def test_reconstruction_takes_paths_and_options(refusal: Callable[..., str]) -> None:
    found = as_overrides(["in.wav", "out", "--tokenizer", "runs/my codec", "--window=8", "--levels", "2", "device=cpu"])
    assert found == [
        "input='in.wav'",
        "out='out'",
        "tokenizer.path='runs/my codec'",
        "window=8",
        "levels=2",
        "device=cpu",
    ]
    assert as_overrides(["--tokenizer", "mimi", "tokenizer.levels=3", "--help"]) == [
        "tokenizer=mimi",
        "tokenizer.levels=3",
        "--help",
    ]
    assert as_overrides(["--cfg", "job", "in"]) == ["--cfg", "job", "input='in'"]
    for path in ("a b.wav", "it's=here, [1].wav", "back\\slash.wav", "last\\", "\\'"):
        cfg = compose("reconstruct", as_overrides([f"./{path}"]))
        assert cfg.input == f"./{path}", "any path survives Hydra's grammar"
    for arguments, sentence in (
        (["a", "b", "c"], "'c' is one path too many"),
        (["--window"], "--window wants a value"),
    ):
        assert sentence in refusal(as_overrides, arguments)

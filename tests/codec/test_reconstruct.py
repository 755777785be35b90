"""Reconstruction of files: their lengths and places, and the command line with paths and options."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_encoding import LoudnessTokenizer

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

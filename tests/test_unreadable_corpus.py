"""A corpus of which no audio file can be read ends every program that reads it in one sentence."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.eval.tiny_networks import ssl_network
from tests.test_one_writer import CODEC, PROGRAMS, write_corpus

ENCODER = "sources=[{encoder: ssl, layer: 1, count: 2, domains: [speech]}]"
# the programs of the other table that read audio of a corpus, and one that does not wait to be refused there
READING = {
    name: options
    for name, options in PROGRAMS.items()
    if any("corpus" in option for option in options) and name not in ("eval.likelihood", "prepare")
} | {"codec.encode": [CODEC, "data.root=corpus"], "codec.semantic_prior": ["data.root=corpus", ENCODER, "out=out"]}


@pytest.mark.slow
@pytest.mark.parametrize("program", READING)
def test_one_sentence(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused_program: Callable[..., str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_corpus(Path("corpus"))
    for path in Path("corpus").glob("*.wav"):
        path.write_bytes(b"no audio")
    if program == "codec.semantic_prior":
        ssl_network(Path("ssl"))
    said = refused_program(program, READING[program])
    assert re.match(r"error: (none of|no clip of) .* can be (read|used)", said), said

"""pocketsphinx in its two forms: words from speech, nothing carried from clip to clip, clear refusals."""

from pathlib import Path

import pytest

pytest.importorskip("pocketsphinx")

from codec.corpus import read_audio, read_corpus
from eval.judges.recognisers.interface import RecogniserError
from eval.judges.recognisers.sphinx import Sphinx, restricted_dictionary
from eval.metrics.wer import ErrorRate
from training.config import REPOSITORY

MINI = REPOSITORY / "data/mini"


@pytest.mark.slow
def test_the_grammar_variant_reads_the_test_split() -> None:
    clips = [clip for clip in read_corpus(MINI)[0] if clip.split == "test" and clip.domain == "speech"][18:26]
    waves = [read_audio(clip.path, 16_000) for clip in clips]
    with Sphinx(MINI, processes=1) as judge:
        texts = judge.transcribe(waves, 16_000)
        assert judge.transcribe(waves[::-1], 16_000) == texts[::-1]  # these differ if anything carries over
        how = judge.how()
    metric = ErrorRate()
    metric.update(texts, [clip.text or "" for clip in clips])
    assert float(metric.compute()) <= 0.15
    vocabulary = set((MINI / "words.txt").read_text().split())
    assert all(word in vocabulary for text in texts for word in text.split())
    assert judge.name == "pocketsphinx-grammar" and how["language_model"] != how["vocabulary"]


@pytest.mark.slow
def test_the_open_vocabulary_reads_speech() -> None:
    clip = next(c for c in read_corpus(MINI)[0] if c.split == "test" and c.speaker == "rms")
    with Sphinx(processes=1) as judge:
        text = judge.transcribe([read_audio(clip.path, 16_000)], 16_000)[0]
    assert judge.name == "pocketsphinx"
    metric = ErrorRate()
    metric.update([text], [clip.text or ""])
    assert float(metric.compute()) <= 0.5


def test_pronunciations_come_with_their_variants() -> None:
    entries = {line.split()[0] for line in restricted_dictionary({"the", "apples"}).splitlines()}
    assert {"the", "the(2)", "apples"} <= entries and all(e.split("(")[0] in ("the", "apples") for e in entries)
    with pytest.raises(RecogniserError, match="no pronunciation of zzyzxq"):
        restricted_dictionary({"the", "zzyzxq"})


def test_a_corpus_without_grammar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecogniserError, match="grammar.arpa"):
        Sphinx(tmp_path)

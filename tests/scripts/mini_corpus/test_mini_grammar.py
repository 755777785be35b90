"""The grammar of the embedded corpus, and the language model that is estimated on it."""

import math
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest

from mini_corpus.bigram import END, START, Bigram
from mini_corpus.grammar import CLASSES, PATTERNS, sentence_stream, vocabulary

SAMPLE = 12_000
# words that stand in patterns themselves: the, is
SPOKEN = {part for _, pattern in PATTERNS for part in pattern.split()} - CLASSES.keys()


@pytest.fixture(scope="module")
def sentences() -> list[str]:
    return list(islice(sentence_stream(seed=7), SAMPLE))


def pronunciations() -> dict[str, set[str]]:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    path = Path(pocketsphinx.__file__).parent / "model" / "en-us" / "cmudict-en-us.dict"
    found: dict[str, set[str]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        word, *phones = line.split()
        found.setdefault(word.partition("(")[0], set()).add(" ".join(phones))
    return found


def test_stream_is_a_function_of_the_seed_and_never_repeats(sentences: list[str]) -> None:
    assert list(islice(sentence_stream(7), 300)) == sentences[:300]
    assert list(islice(sentence_stream(8), 300)) != sentences[:300]
    assert len(set(sentences)) == SAMPLE


def test_sentences_are_short_and_of_many_kinds(sentences: list[str]) -> None:
    lengths = [len(sentence.split()) for sentence in sentences]
    assert min(lengths) >= 3 and max(lengths) <= 8
    assert 4.8 < sum(lengths) / SAMPLE < 5.8
    slots = ([len(CLASSES.get(part, [part])) for part in pattern.split()] for _, pattern in PATTERNS)
    assert sum(map(math.prod, slots)) >= 200_000


def test_every_word_of_the_vocabulary_is_used_and_no_other(sentences: list[str]) -> None:
    counts = Counter(word for sentence in sentences for word in sentence.split())
    assert set(counts) == set(vocabulary())
    assert 140 <= len(counts) <= 160
    total = sum(counts.values())
    rare = {word: counts[word] / total for word in counts if word not in SPOKEN}
    assert min(rare.values()) > 0.0022  # so that each is heard dozens of times in an hour


def test_no_word_stands_in_two_slots() -> None:
    words = [word for members in CLASSES.values() for word in members]
    assert len(words) == len(set(words))
    assert not set(words) & SPOKEN


def test_words_are_in_cmudict_and_none_sounds_like_another() -> None:
    known = pronunciations()
    words = vocabulary()
    assert [word for word in words if word not in known] == []
    sounds = Counter(sound for word in words for sound in known[word])
    assert [sound for sound, count in sounds.items() if count > 1] == []


def test_bigram_probabilities_sum_to_one_for_every_history(sentences: list[str]) -> None:
    model = Bigram(sentences[:500], vocabulary())
    for previous in [START, *vocabulary()]:
        total = sum(model.probability(word, previous) for word in [*vocabulary(), END])
        assert total == pytest.approx(1.0, abs=1e-9), previous


def test_bigram_known_answer() -> None:
    model = Bigram(["a b", "a c"], ["a", "b", "c", "d"], discount=0.5)
    # unigrams with one added: a 3, b 2, c 2, d 1, </s> 3 of 11; p(b|a) = (1 - .5) / 2
    assert model.probability("b", "a") == pytest.approx(0.25)
    # what a's two followers gave up, 0.5, goes to a, d and </s> as 3 : 1 : 3
    assert model.probability("d", "a") == pytest.approx(0.5 * 1 / 7)
    assert model.probability("d", "d") == pytest.approx(1 / 11)  # nothing was seen after d


def test_bigram_refuses_a_word_outside_the_vocabulary() -> None:
    with pytest.raises(ValueError, match="zebra"):
        Bigram(["a zebra"], ["a"])


def test_arpa_lists_what_it_announces(sentences: list[str]) -> None:
    text = Bigram(sentences[:300], vocabulary()).arpa()
    head, _, rest = text.partition("\\1-grams:\n")
    unigrams, _, bigrams = rest.partition("\\2-grams:\n")
    announced = [int(line.partition("=")[2]) for line in head.splitlines() if line.startswith("ngram")]
    found = [len([line for line in part.splitlines() if line and line[0] == "-"]) for part in (unigrams, bigrams)]
    zero = sum(line.startswith("0.0") for line in bigrams.splitlines())  # a certain follower: log10 1 = 0
    assert announced == [found[0], found[1] + zero]
    assert text.endswith("\\end\\\n")


def test_recogniser_reads_the_language_model(tmp_path: Path, sentences: list[str]) -> None:
    pocketsphinx = pytest.importorskip("pocketsphinx")
    path = tmp_path / "grammar.arpa"
    path.write_text(Bigram(sentences[:300], vocabulary()).arpa())
    model = pocketsphinx.NGramModel.readfile(str(path))
    assert model.prob(["peter"]) < 0 or model.size() == 2

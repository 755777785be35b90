"""A bigram language model in ARPA format, for a recogniser that knows the corpus' words and nothing else.

Absolute discounting with back-off (Ney, Essen & Kneser 1994): a fixed amount is taken from every bigram that
was seen, and what was taken goes to the words that were not seen after it, in proportion to their unigram
probability. Unigrams are smoothed by adding one, so that every word of the vocabulary can follow every other.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

START, END = "<s>", "</s>"
DISCOUNT = 0.5


class Bigram:
    """p(word | previous) over a closed vocabulary and the end of the sentence."""

    def __init__(self, sentences: Iterable[str], words: Sequence[str], discount: float = DISCOUNT) -> None:
        """``words``: the vocabulary; a sentence with another word raises ValueError."""
        known = set(words)
        unigrams: Counter[str] = Counter({word: 1 for word in [*words, END]})
        pairs: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for sentence in sentences:
            spoken = sentence.split()
            if not known.issuperset(spoken):
                raise ValueError(f"{sentence!r} holds words outside the vocabulary: {set(spoken) - known}")
            for previous, word in zip([START, *spoken], [*spoken, END], strict=True):
                pairs[previous][word] += 1
                unigrams[word] += 1
        total = sum(unigrams.values())
        self.unigram = {word: count / total for word, count in sorted(unigrams.items())}
        self.bigram: dict[str, dict[str, float]] = {}
        self.backoff: dict[str, float] = {}
        for previous, followers in sorted(pairs.items()):
            seen = sum(followers.values())
            kept = 0.0 if len(followers) == len(self.unigram) else discount  # nothing unseen to give it to
            freed = kept * len(followers) / seen
            unseen = 1 - sum(self.unigram[word] for word in followers)
            self.bigram[previous] = {word: (n - kept) / seen for word, n in sorted(followers.items())}
            self.backoff[previous] = freed / unseen if kept else 1.0

    def probability(self, word: str, previous: str) -> float:
        """p(word | previous); ``word`` may be END, ``previous`` may be START."""
        followers = self.bigram.get(previous, {})
        if word in followers:
            return followers[word]
        return self.backoff.get(previous, 1.0) * self.unigram[word]

    def arpa(self) -> str:
        """The model as text in ARPA format (log10 probabilities)."""
        count = sum(len(followers) for followers in self.bigram.values())
        lines = ["\\data\\", f"ngram 1={len(self.unigram) + 1}", f"ngram 2={count}", "", "\\1-grams:"]
        lines.append(f"-99 {START} {math.log10(self.backoff.get(START, 1.0)):.4f}")
        for word, p in self.unigram.items():
            lines.append(f"{math.log10(p):.4f} {word} {math.log10(self.backoff.get(word, 1.0)):.4f}")
        lines += ["", "\\2-grams:"]
        for previous, followers in self.bigram.items():
            lines += [f"{math.log10(p):.4f} {previous} {word}" for word, p in followers.items()]
        return "\n".join([*lines, "", "\\end\\", ""])

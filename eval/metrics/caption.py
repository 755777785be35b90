"""Captions against several references: BLEU, ROUGE-L, CIDEr-D, METEOR, SPICE and SPIDEr as COCO's scripts define them.

All take candidates and references as word lists (``eval.metrics.caption_words.words``). Not interchangeable with their
namesakes elsewhere: sacreBLEU is on another scale, ROUGE packages use another β, "CIDEr" of audio captioning papers is
CIDEr-D. CIDEr-D takes its word weights from the evaluated references, so values of different subsets must not be
compared, and a single item has none.

METEOR and SPICE are Java programs (eval/metrics/meteor.py); where they cannot run they are "not computed", and so is
SPIDEr = (CIDEr-D + SPICE) / 2. Nothing stands in for them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

from eval.harness.audio import CannotScore

Words = Sequence[str]
Grams = Counter[tuple[str, ...]]
ORDER = 4
ROUGE_BETA = 1.2
CIDER_SIGMA = 6.0


def check(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> None:
    """Refuse sets that have no score.

    Raises:
        CannotScore: "no items", "numbers of items differ" or "an item without references".
    """
    if len(candidates) != len(references):
        raise CannotScore("numbers of items differ")
    if not candidates:
        raise CannotScore("no items")
    if not all(references) or not all(all(reference) for reference in references):
        raise CannotScore("an item without references, or with an empty one")


def grams(tokens: Words, order: int) -> Grams:
    """Counts of the n-grams of one order."""
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def bleu_statistics(candidate: Words, references: Sequence[Words]) -> list[int]:
    """What BLEU sums over a corpus, of one item: 4 clipped hits, 4 guesses, length, length of the closest reference."""
    hits, guesses = [], []
    for order in range(1, ORDER + 1):
        most: Grams = Counter()
        for text in references:
            most |= grams(text, order)
        counts = grams(candidate, order)
        hits.append(sum((counts & most).values()))
        guesses.append(sum(counts.values()))
    closest = min((abs(len(text) - len(candidate)), len(text)) for text in references)[1]
    return [*hits, *guesses, len(candidate), closest]


def bleu_from(sums: Sequence[float]) -> list[float]:
    """BLEU-1 … BLEU-4 from summed ``bleu_statistics``."""
    length, wanted = float(sums[2 * ORDER]), float(sums[2 * ORDER + 1])
    if length == 0:
        return [0.0] * ORDER
    penalty = 1.0 if length >= wanted else math.exp(1 - wanted / length)
    scores, product = [], 1.0
    for order in range(ORDER):
        product *= (float(sums[order]) + 1e-15) / (float(sums[ORDER + order]) + 1e-9)
        scores.append(product ** (1 / (order + 1)) * penalty)
    return scores


def bleu(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """Corpus BLEU-1 … BLEU-4 (Papineni et al. 2002): clipped counts, reference of closest length."""
    check(candidates, references)
    items = [bleu_statistics(candidate, texts) for candidate, texts in zip(candidates, references, strict=True)]
    return bleu_from([sum(column) for column in zip(*items, strict=True)])


def longest_common(first: Words, second: Words) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for place, other in enumerate(second, 1):
            above = row[place]
            row[place] = diagonal + 1 if word == other else max(above, row[place - 1])
            diagonal = above
    return row[-1]


def rouge_l(candidate: Words, references: Sequence[Words]) -> float:
    """ROUGE-L (Lin 2004) of one item: best precision and best recall over the references, β = 1.2."""
    if not candidate:
        return 0.0
    common = [longest_common(candidate, reference) for reference in references]
    precision = max(common) / len(candidate)
    recall = max(length / len(reference) for length, reference in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + ROUGE_BETA**2) * precision * recall / (recall + ROUGE_BETA**2 * precision)


def cider_d(candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> list[float]:
    """CIDEr-D (Vedantam et al. 2015) of every item, times 10; document frequencies from the given references.

    Raises:
        CannotScore: fewer than two items: every weight would be zero.
    """
    check(candidates, references)
    if len(candidates) < 2:
        raise CannotScore("CIDEr-D needs at least 2 items")
    documents: Grams = Counter()
    for texts in references:
        seen: set[tuple[str, ...]] = set()
        for text in texts:
            for order in range(1, ORDER + 1):
                seen.update(grams(text, order))
        documents.update(seen)
    total = math.log(len(references))

    def weigh(text: Words) -> list[dict[tuple[str, ...], float]]:
        return [
            {gram: count * (total - math.log(max(1, documents[gram]))) for gram, count in grams(text, order).items()}
            for order in range(1, ORDER + 1)
        ]

    def similarity(candidate: Words, text: Words) -> float:
        # the published script measures length in bigrams
        gap = max(0, len(candidate) - 1) - max(0, len(text) - 1)
        penalty = math.exp(-(gap**2) / (2 * CIDER_SIGMA**2))
        cosines = 0.0
        for hypothesis, reference in zip(weigh(candidate), weigh(text), strict=True):
            product = sum(min(weight, reference.get(gram, 0.0)) * reference.get(gram, 0.0)
                          for gram, weight in hypothesis.items())  # fmt: skip
            norms = math.sqrt(sum(w * w for w in hypothesis.values()) * sum(w * w for w in reference.values()))
            cosines += product / norms if norms else product
        return cosines * penalty / ORDER

    return [
        10.0 * sum(similarity(candidate, text) for text in texts) / len(texts)
        for candidate, texts in zip(candidates, references, strict=True)
    ]


Name = Literal["bleu-1", "bleu-2", "bleu-3", "bleu-4", "rouge-l", "cider-d"]


def score(name: Name, candidates: Sequence[Words], references: Sequence[Sequence[Words]]) -> float:
    """The corpus value of the metric ``name``.

    Raises:
        CannotScore: there is none for these captions.
    """
    check(candidates, references)
    if name == "rouge-l":
        values = [rouge_l(candidate, texts) for candidate, texts in zip(candidates, references, strict=True)]
        return sum(values) / len(values)
    if name == "cider-d":
        items = cider_d(candidates, references)
        return sum(items) / len(items)
    return bleu(candidates, references)[int(name[-1]) - 1]

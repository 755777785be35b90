"""Files caption metrics of a row in a report, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eval.harness.audio import CannotScore
from eval.harness.intervals import LEAST, counts
from eval.harness.report import Report
from eval.metrics.caption import ORDER, bleu_from, bleu_statistics, cider_d, rouge_l
from eval.metrics.caption_words import words
from eval.metrics.class_words import Synonyms, named
from eval.metrics.meteor import SPICE_REASON, meteor


def rate_captions(
    report: Report,
    row: str,
    candidates: Mapping[str, str],
    references: Mapping[str, Sequence[str]],
    failures: Mapping[str, str] | None = None,
    with_meteor: bool = True,
) -> dict[str, dict[str, float]]:
    """File BLEU-1 … 4, ROUGE-L, CIDEr-D and METEOR of ``{id: caption}``; SPICE and SPIDEr are filed as not computed.

    ROUGE-L and CIDEr-D are means over clips; BLEU and METEOR are of the set, BLEU's interval resamples clips.

    Args:
        references: ``{id: captions}``.
        failures: ``{id: reason}`` of clips without a caption.

    Returns:
        ``{id: {metric: value}}`` of the metrics that clips have.
    """
    failed = dict(failures or {})
    failed |= {name: "empty reference" for name in candidates if not any(words(text) for text in references[name])}
    names = [name for name in candidates if name not in failed]
    said = [words(candidates[name]) for name in names]
    meant = [[tokens for tokens in map(words, references[name]) if tokens] for name in names]
    items: dict[str, dict[str, float]] = {name: {} for name in names}
    if not names:
        for metric in ("bleu-4", "rouge-l", "cider-d"):
            report.mean(row, metric, {}, failed)
        return items
    statistics = np.array([bleu_statistics(c, r) for c, r in zip(said, meant, strict=True)])  # [items, 10]
    scores = bleu_from(statistics.sum(0))
    sampled = np.array([bleu_from(sums) for sums in counts(len(names)) @ statistics])
    for order in range(ORDER):
        low, high = (float(q) for q in np.percentile(sampled[:, order], [2.5, 97.5]))
        interval = (low, high) if len(names) >= LEAST else None
        report.number(row, f"bleu-{order + 1}", scores[order], len(names), interval, failed)
    rouge = {name: rouge_l(c, r) for name, c, r in zip(names, said, meant, strict=True)}
    report.mean(row, "rouge-l", rouge, failed)
    try:
        cider = dict(zip(names, cider_d(said, meant), strict=True))
        report.mean(row, "cider-d", cider, failed)
    except CannotScore as error:
        cider = {}
        report.mean(row, "cider-d", {}, dict.fromkeys(names, error.reason) | failed)
    if with_meteor:
        try:
            value, each = meteor(said, meant)
            report.number(row, "meteor", value, len(names), None, failed)
            for name, score in zip(names, each, strict=True):
                items[name]["meteor"] = score
        except CannotScore as error:
            report.mean(row, "meteor", {}, dict.fromkeys(names, error.reason))
    for metric in ("spice", "spider"):
        report.mean(row, metric, {}, dict.fromkeys(names, SPICE_REASON))
    for name in names:
        items[name] |= {"rouge-l": rouge[name]} | ({"cider-d": cider[name]} if cider else {})
    return items


def rate_classes_named(
    report: Report,
    row: str,
    candidates: Mapping[str, str],
    classes: Mapping[str, Sequence[str]],
    failures: Mapping[str, str] | None = None,
    synonyms: Synonyms | None = None,
) -> dict[str, list[str]]:
    """File what captions ``{id: caption}`` say about the classes of their clips:

    - ``class-named``: share of captions that name the first class, the foreground;
    - ``class-named-all``: that name every class, where clips have several;
    - ``class-wrong``: that name a class of the corpus which the clip does not have.

    Args:
        classes: ``{id: classes, the foreground first}`` of the whole corpus; clips without any are failures.

    Returns:
        ``{id: the classes that its caption names}``.
    """
    known = sorted({name for found in classes.values() for name in found})
    failed = dict(failures or {}) | {name: "the clip has no class" for name in candidates if not classes.get(name)}
    found = {n: named(text, known, synonyms) for n, text in candidates.items() if n not in failed}
    counts = {name: {"n": 0, "named": 0} for name in known}
    for clip, said in found.items():
        counts[classes[clip][0]]["n"] += 1
        counts[classes[clip][0]]["named"] += int(classes[clip][0] in said)
    first = {clip: float(classes[clip][0] in said) for clip, said in found.items()}
    report.mean(row, "class-named", first, failed, classes=counts)
    if any(len(classes[clip]) > 1 for clip in found):
        report.mean(row, "class-named-all", {c: float(set(classes[c]) <= said) for c, said in found.items()}, failed)
    report.mean(row, "class-wrong", {c: float(bool(said - set(classes[c]))) for c, said in found.items()}, failed)
    return {clip: sorted(said) for clip, said in found.items()}

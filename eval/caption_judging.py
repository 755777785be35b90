"""Files caption metrics of a row in a report, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from eval.intervals import RESAMPLES, SEED
from eval.metrics import CannotScore
from eval.metrics.caption import ORDER, bleu_from, bleu_statistics, cider_d, rouge_l
from eval.metrics.caption_words import words
from eval.metrics.meteor import SPICE_REASON, meteor
from eval.report import Report


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
    draws = np.random.default_rng(SEED).integers(0, len(names), (RESAMPLES, len(names)))
    sampled = np.array([bleu_from(statistics[draw].sum(0)) for draw in draws])
    for order in range(ORDER):
        low, high = (float(q) for q in np.percentile(sampled[:, order], [2.5, 97.5]))
        interval = (low, high) if len(names) > 1 else None
        report.number(row, f"bleu-{order + 1}", scores[order], len(names), interval, failed)
    rouge = {name: rouge_l(c, r) for name, c, r in zip(names, said, meant, strict=True)}
    report.mean(row, "rouge-l", rouge, failed)
    try:
        cider = dict(zip(names, cider_d(said, meant), strict=True))
        report.mean(row, "cider-d", cider, failed)
    except CannotScore as error:
        cider = {}
        report.mean(row, "cider-d", {}, {name: error.reason for name in names} | failed)
    if with_meteor:
        try:
            value, each = meteor(said, meant)
            report.number(row, "meteor", value, len(names), None, failed)
            for name, score in zip(names, each, strict=True):
                items[name]["meteor"] = score
        except CannotScore as error:
            report.mean(row, "meteor", {}, {name: error.reason for name in names})
    for metric in ("spice", "spider"):
        report.mean(row, metric, {}, {name: SPICE_REASON for name in names})
    for name in names:
        items[name] |= {"rouge-l": rouge[name]} | ({"cider-d": cider[name]} if cider else {})
    return items

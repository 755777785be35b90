"""How scores were made: what must be equal before two of them may stand in one column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# what is compared, and what is only reported
FREE = ("model", "tokenizer", "seed", "versions")
# judges: part of the protocol of their own metrics only
JUDGES = (
    "recognisers",
    "dnsmos",
    "utmos",
    "distillmos",
    "speaker",
    "embeddings",
    "clap",
    "classifier",
    "class_judge",
    "classes",
    "voice_encoder",
    "meteor",
    "probe",
    "comparison",
)
JUDGE_OF = {
    "dnsmos": "dnsmos", "utmos": "utmos", "distillmos": "distillmos", "speaker-similarity": "speaker",
    "clap-score": "clap", "retrieval": "clap", "kl": "classifier", "meteor": "meteor",
    **dict.fromkeys(("class-accuracy", "class-accuracy-any"), "class_judge"),
    **dict.fromkeys(("class-named", "class-named-all", "class-wrong"), "classes"),
    **dict.fromkeys(("visqol-audio", "visqol-speech"), "comparison"),
    **dict.fromkeys(("stoi", "estoi", "pesq-wb", "pesq-nb", "si-sdr", "mel-distance", "stft-distance"), "comparison"),
    **dict.fromkeys(("deviation-ratio", "contrast-ratio", "tonality"), "comparison"),
}  # fmt: skip


def protocol(how: Mapping[str, Any], metric: str, cell: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The part of ``how`` that must be equal before two values of ``metric`` stand in one column."""
    common = {key: value for key, value in how.items() if key not in (*FREE, *JUDGES)}
    family, _, name = metric.partition("/")
    if family in ("accuracy", "macro-f1") or name == "ctc-probe":
        common["probe"] = how.get("probe")
    elif family in ("wer", "cer", "wer-original", "cer-original", "repeated-words"):
        common["recogniser"] = how.get("recognisers", {}).get(name)
    elif family in ("fad", "fad-inf"):
        common["embedding"] = how.get("embeddings", {}).get(name)
        common["reference_frames"] = (cell or {}).get("reference_frames")
    elif metric == "speaker-similarity/resemblyzer-ge2e":
        common["voice_encoder"] = how.get("voice_encoder")
    elif family in JUDGE_OF:
        common[JUDGE_OF[family]] = how.get(JUDGE_OF[family])
    return common


def differing(first: Any, second: Any, prefix: str = "") -> list[str]:
    """Dotted keys at which two records differ."""
    if isinstance(first, Mapping) and isinstance(second, Mapping):
        found = []
        for key in sorted({*first, *second}):
            found += differing(first.get(key), second.get(key), f"{prefix}{key}.")
        return found
    return [] if first == second else [prefix.rstrip(".")]

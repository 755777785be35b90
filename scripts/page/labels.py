"""What the demo page calls things: kinds of evaluation, rows, metrics, and the digits of a value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from eval.harness.endings import ENDINGS
from eval.harness.report import is_share


@dataclass(frozen=True)
class Kind:
    """A kind of section.

    Attributes:
        domain: items of other domains belong to another section; None takes all.
        judged: the row whose scores rank the items, and which a reader came for.
        writes: the systems of this kind write text, so that a cell without audio lacks nothing.
        headline: metrics of the summary table, by prefix; the others stand under "All scores".
        rank: metrics that say what best and worst mean; the first that there is.
    """

    name: str
    domain: str | None
    title: str
    question: str
    judged: str
    writes: bool
    headline: tuple[str, ...]
    rank: tuple[str, ...]


SPEECH = ("wer/", "utmos", "distillmos", "dnsmos/p808", "dnsmos/ovrl", "speaker-similarity")
SIGNAL = ("mel-distance", "stft-distance", "si-sdr", "deviation-ratio", "contrast-ratio", "tonality",
          "real-time-factor")  # fmt: skip
AUDIO = ("class-accuracy", "fad/", "clap-score", "kl/", "retrieval")
CAPTIONS = ("class-named", "class-wrong", "cider-d", "rouge-l", "bleu-4", "meteor", "spider", "fense")


def _kinds() -> Iterable[Kind]:
    text = {"speech": "spoken sentences", "sound": "sounds", "music": "music"}
    for domain, what in text.items():
        yield Kind(
            "reconstruction", domain, f"Reconstruction: {domain}", f"What does a tokenizer keep of {what}?",
            "resynthesis", False, (*SPEECH, "pesq-wb", "stoi", *SIGNAL) if domain == "speech" else SIGNAL,
            (*(("pesq-wb", "stoi") if domain == "speech" else ()), "mel-distance", "stft-distance", "wer"),
        )  # fmt: skip
    yield Kind(
        "tts", None, "Text to speech", "Is the sentence that the model speaks understood?",
        "generated", False, (*SPEECH, *ENDINGS, "repeated-words", "duration-ratio", "real-time-factor"),
        ("wer", "utmos", "distillmos", "dnsmos"),
    )  # fmt: skip
    for name, title, question in (
        (
            "voice_prompted_tts",
            "Speech in a given voice",
            "Does it sound like the speaker of the recording that is given?",
        ),
        ("interleaved", "Sentence after sentence", "Does it read on, in the voice of the sentence that is given?"),
        ("continuation", "Continuations", "How does it go on from the beginning that is given?"),
    ):
        yield Kind(
            name, None, title, question, "generated", False,
            (*SPEECH, "class-accuracy", "fad/", *ENDINGS, "repeated-words", "duration-ratio"),
            ("wer", "utmos", "distillmos", "dnsmos"),
        )  # fmt: skip
    for domain in ("sound", "music"):
        yield Kind(
            f"text_to_{domain}", None, f"Text to {domain}", "Does what the model makes of a caption fit it?",
            "generated", False, (*AUDIO, "silent", "limit", "real-time-factor"),
            ("clap", "class-accuracy", "kl"),
        )  # fmt: skip
    yield Kind(
        "asr", None, "Transcripts", "What does the model write when it hears speech?",
        "generated", True, ("wer/", "empty", "limit", "real-time-factor"), ("wer",),
    )  # fmt: skip
    for domain, word in (("sound", "audio"), ("music", "music")):
        yield Kind(
            f"{word}_captioning", None, f"{word.title()} captions", f"What does the model say about {text[domain]}?",
            "generated", True, (*CAPTIONS, "different", "empty"), ("cider-d", "rouge-l", "class-named", "meteor"),
        )  # fmt: skip
    yield Kind(
        "latents", None, "The space that is quantised", "What can be told there, and what does quantising cost?",
        "requantised", False, ("accuracy/", "accuracy-shuffled/"), ("mel-distance",),
    )  # fmt: skip
    yield Kind(
        "sound_space", "walk", "Walks", "Is a sound on its way to another still one sound?", "requantised", False,
        ("walk-pitch-between", "walk-posterior-rank", "walk-path-ratio", "walk-largest-jump", "walk-waypoint-cents",
         "walk-distinct-codes"), ("pitch-between",),
    )  # fmt: skip
    yield Kind(
        "sound_space", "transfer", "Moved sounds", "Does the timbre change, and the pitch stay?", "requantised", False,
        ("transfer-posterior-target", "transfer-pitch-cents", "transfer-pitch-within-50", "transfer-onset-correlation",
         "transfer-distance-to-target", "transfer-level-difference"), ("posterior-target",),
    )  # fmt: skip


def by_characters(kind: Kind) -> Kind:
    """The kind for scripts without spaces between words: error rates are those of characters."""
    headline, rank = (tuple(name.replace("wer", "cer") for name in names) for names in (kind.headline, kind.rank))
    return replace(kind, headline=headline, rank=rank)


KINDS = tuple(_kinds())
NAMES = tuple(dict.fromkeys(kind.name for kind in KINDS))

ROWS = {  # name: title, note; in the order of the columns
    "given": ("Given", "the recording that the model heard first"),
    "reference": ("Reference", "the recording"),
    "reference-at-codec-rate": ("Reference at the codec's rate", "nothing that the codec does can be better"),
    "resynthesis": ("Resynthesis", "the recording through the codec"),
    "generated": ("Generated", "what the language model makes of it"),
    "generated-shuffled": ("Shuffled", "the same model, another item's input"),
    "shuffled": ("Shuffled", "another clip's resynthesis"),
    "true-target": ("True target", "what a flow decoder samples, measured and rendered: its ceiling"),
    "random-codes": ("Random codes", "each as often as in the clips: what the decoder makes without being told"),
    "silence": ("Silence", "what comes of nothing"),
    "target": ("A real note of the target", "at the same pitch, through the codec"),
    "continuous": ("Continuous", "vectors as they are"),
    "requantised": ("Requantised", "the nearest codes: what a language model can express"),
    "cross-fade": ("Cross-fade", "of the recordings: what a walk must beat"),
    "untrained": ("Untrained", "the same codec with random weights"),
    "unmoved": ("Not moved", "through the codec"),
    "random": ("Random direction", "moved as far, nowhere in particular"),
    "other-class": ("Another class", "moved towards a third class"),
    "log-mel": ("Log-mel", "what needs no codec"),
    "duration-and-level": ("Duration and level", "what should tell nothing"),
}
NOTES = {  # where a row means something else
    ("asr", "generated-shuffled"): "the transcript of another clip",
    ("audio_captioning", "generated-shuffled"): "the caption of another clip",
    ("music_captioning", "generated-shuffled"): "the caption of another clip",
    ("text_to_sound", "generated-shuffled"): "the clip of another caption",
    ("text_to_music", "generated-shuffled"): "the clip of another caption",
    ("tts", "generated"): "the language model speaks the text",
    ("tts", "generated-shuffled"): "same voice and seed, another sentence's text",
    ("voice_prompted_tts", "generated-shuffled"): "another speaker's recording was given",
    ("interleaved", "generated-shuffled"): "another speaker's first sentence was given",
    ("continuation", "generated-shuffled"): "another speaker's beginning was given",
    ("asr", "generated"): "the language model writes what it hears",
    ("asr", "silence"): "what the model writes when it hears zeros",
    ("audio_captioning", "reference"): "the first caption against the others",
    ("music_captioning", "reference"): "the first caption against the others",
    ("audio_captioning", "silence"): "what the model writes when it hears zeros",
    ("music_captioning", "silence"): "what the model writes when it hears zeros",
}
CONTROLS = (
    "random-codes",
    "generated-shuffled",
    "shuffled",
    "silence",
    "reference-at-codec-rate",
    "random",
    "other-class",
)

LABELS = {
    "wer": "WER", "cer": "CER", "wer-original": "WER against the text it was not given",
    "cer-original": "CER against the text it was not given",
    "ctc-mini": "CTC", "model": "model", "pocketsphinx-grammar": "pocketsphinx, grammar",
    "dnsmos": "DNSMOS", "ovrl": "overall", "sig": "signal", "bak": "background", "p808": "P.808", "utmos": "UTMOS",
    "distillmos": "DistillMOS", "early-stop": "stopped early", "repeated-codes": "codes for over 3 s again",
    "repeated-words": "three words again", "whisper": "Whisper",
    "limit": "reached the length limit", "legal": "legal tokens only", "silent": "silent clips", "empty": "empty texts",
    "duration-ratio": "length against the recording", "real-time-factor": "real-time factor",
    "different": "different texts", "stoi": "STOI", "estoi": "ESTOI", "pesq-wb": "PESQ-WB", "pesq-nb": "PESQ-NB",
    "si-sdr": "SI-SDR, dB", "mel-distance": "mel distance", "stft-distance": "STFT distance", "fad": "FAD",
    "deviation-ratio": "deviation over time ÷ recording's", "contrast-ratio": "contrast of bands ÷ recording's",
    "tonality": "share of steady tones",
    "fad-inf": "FAD∞", "kl": "KL", "clap": "CLAP", "clap-score": "CLAP score", "cider-d": "CIDEr-D",
    "rouge-l": "ROUGE-L", "bleu-1": "BLEU-1", "bleu-2": "BLEU-2", "bleu-3": "BLEU-3", "bleu-4": "BLEU-4",
    "class-accuracy": "heard as the class asked for", "class-accuracy-any": "heard as one of the classes asked for",
    "class-named": "names the class", "class-named-all": "names all classes", "class-wrong": "names a wrong class",
    "meteor": "METEOR", "spice": "SPICE", "spider": "SPIDEr", "speaker-similarity": "speaker similarity",
}  # fmt: skip
HIGHER_IS_BETTER = (
    "posterior-target", "pitch-between", "walk-pitch-between", "walk-periodic-halfway", "walk-posterior-rank",
    "transfer-posterior-target", "transfer-pitch-within-50", "transfer-onset-correlation",
    "dnsmos", "utmos", "distillmos", "stoi", "estoi", "pesq-wb", "pesq-nb", "si-sdr", "legal", "usage", "accuracy",
    "clap", "clap-score", "cider-d", "rouge-l", "bleu-1", "bleu-2", "bleu-3", "bleu-4", "meteor", "spice", "spider",
    "speaker-similarity", "retrieval", "stoi-pieces", "different", "class-accuracy", "class-accuracy-any",
    "class-named", "class-named-all",
)  # fmt: skip
LOWER_IS_BETTER = (
    "walk-path-ratio", "walk-largest-jump", "walk-waypoint-cents", "transfer-pitch-cents",
    "transfer-distance-to-target",
    "wer", "cer", "limit", "silent", "empty", "mel-distance", "stft-distance", "fad", "fad-inf", "kl",
    "real-time-factor", "class-wrong", "early-stop", "repeated-codes", "repeated-words",
)  # fmt: skip


def label(name: str) -> str:
    """A metric's or recogniser's name for people: ``wer/ctc-mini`` → ``WER · CTC``."""
    return " · ".join(LABELS.get(part, part.replace("_", " ")) for part in name.split("/"))


def direction(metric: str) -> int:
    """1 where more is better, -1 where less is, 0 where that is not known."""
    family = metric.split("/")[0]
    return -1 if family in LOWER_IS_BETTER else 1 if family in HIGHER_IS_BETTER else 0


def arrow(metric: str) -> str:
    """The better direction, empty where none is known."""
    return {1: "↑", -1: "↓", 0: ""}[direction(metric)]


def show(metric: str, value: float | None) -> str:
    """A value with the digits that mean something: percent for shares, else two or three decimals."""
    if value is None or not math.isfinite(value):
        return "–"
    if is_share(metric):
        return f"{100 * value:.1f} %"
    return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}"


def of_family(metric: str, prefix: str) -> bool:
    """Whether ``metric`` is ``prefix`` or one of its family: ``wer`` and ``wer/`` take ``wer/ctc-mini``."""
    return metric == prefix or metric.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


def in_order(metrics: Iterable[str], preferred: Iterable[str]) -> list[str]:
    """The metrics of the ``preferred`` families, in their order."""
    known = list(metrics)
    return list(dict.fromkeys(metric for prefix in preferred for metric in known if of_family(metric, prefix)))

"""Which scores of an evaluation become lines of a comparison, and what they are called there.

Each is (row of the results, start of the metric's name, what it is called, which way is better), in the order of the
table.
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.comparison.collect import DOWN, NEITHER, UP

# of a flow decoder: what its true target is worth, and what it makes of codes that say nothing
BOUNDS = tuple(
    (row, metric, f"{name}, {said}", NEITHER)
    for row, said in (("true-target", "of the true target"), ("random-codes", "of random codes"))
    for metric, name in (("mel-distance", "mel distance"), ("contrast-ratio", "contrast"), ("tonality", "steady tones"))
)
RECONSTRUCTION = (
    ("resynthesis", "bitrate/", "bit/s", NEITHER),
    ("resynthesis", "real-time-factor", "real-time factor, there and back", NEITHER),
    ("resynthesis", "wer/", "WER through the codec", DOWN),
    ("resynthesis", "cer/", "CER through the codec", DOWN),
    ("resynthesis", "speaker-similarity/", "speaker similarity", UP),
    ("resynthesis", "stoi", "STOI", UP), ("resynthesis", "estoi", "ESTOI", UP), ("resynthesis", "pesq", "PESQ", UP),
    ("resynthesis", "mel-distance", "mel distance", DOWN), ("resynthesis", "stft-distance", "STFT distance", DOWN),
    ("resynthesis", "deviation-ratio", "deviation over time, output ÷ recording", NEITHER),
    ("resynthesis", "contrast-ratio", "contrast of bands, output ÷ recording", NEITHER),
    ("resynthesis", "tonality", "share of steady tones", NEITHER),
    *BOUNDS,
    ("resynthesis", "fad-inf/", "FAD∞", DOWN), ("resynthesis", "fad/", "FAD", DOWN),
    ("resynthesis", "si-sdr", "SI-SDR", NEITHER), ("resynthesis", "dnsmos/", "DNSMOS", UP),
    ("resynthesis", "utmos", "UTMOS", UP), ("resynthesis", "distillmos", "DistillMOS", UP),
    ("resynthesis", "perplexity/level-1", "perplexity of level 1", NEITHER),
)  # fmt: skip
SEMANTICS = (("levels", "accuracy/", "probe of all levels", UP), ("levels-1", "accuracy/", "probe of level 1", UP),
             ("levels", "cer/ctc-probe", "CTC probe, CER", DOWN))  # fmt: skip
WORDS = (("levels-1", "cer/ctc-probe", "CTC probe of level 1, CER", DOWN),
         ("levels-1", "wer/ctc-probe", "CTC probe of level 1, WER", DOWN),
         ("levels", "cer/ctc-probe", "CTC probe of all levels, CER", DOWN),
         ("levels", "wer/ctc-probe", "CTC probe of all levels, WER", DOWN),
         ("shuffled-labels", "cer/ctc-probe", "its floor, CER with other clips' texts", NEITHER))  # fmt: skip
SPEECH = (
    ("generated", "wer/", "WER", DOWN), ("resynthesis", "wer/", "its ceiling, WER of the resynthesis", NEITHER),
    ("generated-shuffled", "wer-original/", "its floor, WER against another text", NEITHER),
    ("generated", "dnsmos/p808", "DNSMOS", UP), ("generated", "dnsmos/ovrl", "DNSMOS", UP),
    ("generated", "utmos", "UTMOS", UP), ("generated", "distillmos", "DistillMOS", UP),
    ("generated", "speaker-similarity", "speaker similarity", UP),
    ("generated", "limit", "clips that did not end", NEITHER),
    ("generated", "early-stop", "clips that stopped early", NEITHER),
    ("generated", "repeated-", "clips that go round in circles", NEITHER),
    ("generated", "duration-ratio", "duration, relative", NEITHER),
)  # fmt: skip
SOUND = (
    ("generated", "fad", "Fréchet distance", DOWN), ("resynthesis", "fad", "its ceiling, of the resynthesis", NEITHER),
    ("generated", "clap-score", "CLAP score", UP),
    ("resynthesis", "clap-score", "its ceiling, of the resynthesis", NEITHER),
    ("generated", "retrieval", "retrieval", UP), ("generated", "kl", "KL", DOWN),
)  # fmt: skip
LIKELIHOOD = (
    ("own-condition", "bits-per-second", "bit/s that the model needs", NEITHER),
    ("wrong-condition", "bits-per-second", "with another clip's condition", NEITHER),
    ("unigram", "bits-per-second", "by frequencies of codes alone", NEITHER),
    ("own-condition", "bits-per-token/text", "bits per token of text", DOWN),
    ("wrong-condition", "bits-per-token/text", "with another clip's audio", NEITHER),
)  # fmt: skip
CAPTIONS = tuple(("generated", name, name, UP) for name in ("cider-d", "rouge-l", "bleu-4", "meteor"))
SCORES: dict[str, Sequence[tuple[str, str, str, int]]] = {
    "tts": SPEECH,
    "asr": (("generated", "wer/model", "WER", DOWN),
            ("generated-shuffled", "wer/model", "its floor, other clips", NEITHER)),
    "text_to_sound": SOUND, "text_to_music": SOUND, "audio_captioning": CAPTIONS, "music_captioning": CAPTIONS,
}  # fmt: skip

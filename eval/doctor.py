"""Which metrics can run here now, which cannot and what they lack.

    python eval/doctor.py
    python eval/doctor.py weights.whisper=models/whisper-base.en weights.utmos=models/utmos22_strong_step7459_v1.pt

A network is loaded to find out (all its weights must be there), and its hash is printed as results record it. Nothing
is downloaded unless a hub id is given.
"""

from __future__ import annotations

import training.help  # noqa: F401

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from eval.embedders import load_embedder
from eval.harness.audio import CannotScore
from eval.harness.networks import NetworkError, inside_package, weights_hash
from eval.harness.tables import Table
from eval.judges.judging import load_recogniser
from eval.judges.recognisers.interface import RecogniserError
from eval.metrics.classifier import AudioClassifier
from eval.metrics.distillmos import DistillMOSNetwork, distillmos_path
from eval.metrics.meteor import SPICE_REASON, meteor_jar
from eval.metrics.speaker import SpeakerSimilarity
from eval.metrics.utmos import UTMOS22
from eval.metrics.visqol import ViSQOL
from eval.metrics.voice_encoder import GE2E, voice_encoder_path
from training.config import hydra_entry
from training.identity import file_hash, folder_hash
from training.places import beside_code


@dataclass(frozen=True)
class Finding:
    """One metric: whether it runs, on what, under which licence, with which hash, or what is missing."""

    metric: str
    runs: bool
    on: str
    licence: str = ""
    hash: str = ""


def package(metric: str, name: str, distribution: str, licence: str, file: str = "") -> Finding:
    """A metric that lives in a package, with the weights inside it (``file``, relative to the package)."""
    path = inside_package(name, file or "__init__.py")
    if path is None:
        return Finding(metric, False, f"pip install {distribution}", licence)
    digest = file_hash(path)[:12] if file else ""
    return Finding(metric, True, f"{distribution} {importlib.metadata.version(distribution)}", licence, digest)


def network(
    metric: str, setting: str, path: str | None, licence: str, example: str, load: Callable[[str], str]
) -> Finding:
    """A metric that needs public weights at ``path``; ``load`` returns the hash of what it could load."""
    if not path:
        return Finding(metric, False, f"weights.{setting}=PATH, e.g. of {example}", licence)
    try:
        digest = load(path)
    except (NetworkError, RecogniserError) as error:
        return Finding(metric, False, str(error), licence)
    return Finding(metric, True, f"weights.{setting}={path}", licence, digest[:12])


def visqol(metric: str, name: str) -> Finding:
    """A scale of ViSQOL."""
    reason = ViSQOL(name).missing()
    on = reason or f"visqol-python {importlib.metadata.version('visqol-python')}"
    return Finding(metric, not reason, on, "Apache-2.0")


def built_in(*metrics: str) -> list[Finding]:
    """Metrics of this repository that need nothing else."""
    return [Finding(metric, True, "built in", "MIT") for metric in metrics]


def findings(cfg: DictConfig) -> list[Finding]:
    """All metrics, those that need nothing first."""
    weights = cfg.weights
    found = built_in(
        "WER, CER", "SI-SDR, SNR", "mel and STFT distance", "Fréchet distance, FAD∞", "FAD on log-mel statistics",
        "BLEU, ROUGE-L, CIDEr-D", "classes that captions name", "class accuracy (classifier trained on first use)",
        "bits per second, perplexity per level",
    )  # fmt: skip
    found += [
        visqol("ViSQOL, audio (SVR)", "visqol-audio/svr"),
        visqol("ViSQOL, speech (exponential)", "visqol-speech/exponential"),
        visqol("ViSQOL, speech (lattice)", "visqol-speech/lattice"),
        network("speaker similarity (GE2E)", "resemblyzer", weights.resemblyzer or "installed", "Apache-2.0", "",
                lambda path: weights_hash(GE2E.load(voice_encoder_path(path)))),
        network("DistillMOS", "distillmos", weights.distillmos or "installed", "MIT", "",
                lambda path: weights_hash(DistillMOSNetwork.load(distillmos_path(path)))),
        package("STOI, ESTOI", "pystoi", "pystoi", "MIT"),
        package("PESQ", "pesq", "pesq", "MIT (the ITU's code has its own terms)"),
        package("DNSMOS", "speechmos", "speechmos", "MIT", "dnsmos_models/sig_bak_ovr.onnx"),
        package("Whisper's English normaliser", "whisper_normalizer", "whisper-normalizer", "MIT"),
        package("recogniser pocketsphinx", "pocketsphinx", "pocketsphinx", "BSD", "model/en-us/en-us.lm.bin"),
    ]  # fmt: skip
    ctc = beside_code(cfg.ctc)
    there = (ctc / "model.safetensors").is_file()
    digest = folder_hash(ctc, ["config.json", "model.safetensors"])[:12] if there else ""
    found.append(Finding("recogniser ctc-mini", there, str(ctc) if there else f"no checkpoint in {ctc}", "MIT", digest))
    try:
        found.append(Finding("METEOR", True, "pycocoevalcap and Java", "LGPL", file_hash(meteor_jar())[:12]))
    except CannotScore as error:
        found.append(Finding("METEOR", False, error.reason.removeprefix("not computed: "), "LGPL"))
    found.append(Finding("SPICE, SPIDEr", False, SPICE_REASON.removeprefix("not computed: ")))

    def recogniser(name: str) -> Callable[[str], str]:
        def load(path: str) -> str:
            with load_recogniser(name, Path(), Path(), 1, weights={name: path}) as judge:
                return str(judge.how()["weights_sha256"])

        return load

    def network_of(load: Callable[[str], nn.Module]) -> Callable[[str], str]:
        return lambda path: weights_hash(load(path))

    def embedder(name: str) -> Callable[[str], str]:
        return network_of(lambda path: load_embedder(name, path, layer=weights.ssl_layer).network)  # type: ignore[attr-defined]

    card = "see its card"
    for metric, setting, licence, example, load in (
        ("recogniser whisper", "whisper", card, "openai/whisper-base.en", recogniser("whisper")),
        ("recogniser hubert-ctc", "hubert-ctc", card, "facebook/hubert-large-ls960-ft", recogniser("hubert-ctc")),
        ("UTMOS", "utmos", "MIT", "utmos22_strong_step7459_v1.pt", network_of(lambda path: UTMOS22.load(Path(path)))),
        ("speaker similarity", "speaker", card, "microsoft/wavlm-base-plus-sv",
         network_of(lambda path: SpeakerSimilarity(path).network)),
        ("CLAP score, retrieval, FAD", "clap", card, "laion/clap-htsat-unfused", embedder("clap")),
        ("FAD on EnCodec", "encodec", card, "facebook/encodec_24khz", embedder("encodec")),
        ("FAD on wav2vec-type networks", "ssl", card, "facebook/hubert-base-ls960", embedder("ssl")),
        ("KL of class posteriors", "classifier", card, "MIT/ast-finetuned-audioset-10-10-0.4593",
         network_of(lambda path: AudioClassifier(path).network)),
    ):  # fmt: skip
        found.append(network(metric, setting, weights[setting], licence, example, load))
    return found


def table(found: list[Finding]) -> str:
    """A line per metric."""
    lines = [(f.metric, "yes" if f.runs else "NO", f.on, f.licence, f.hash) for f in found]
    return Table(("metric", "runs", "on / lacks", "licence", "sha256"), lines).console()


@hydra_entry("eval_doctor")
def main(cfg: DictConfig) -> None:
    found = findings(cfg)
    print(table(found))
    print(f"\n{sum(f.runs for f in found)} of {len(found)} can run here.")


if __name__ == "__main__":
    main()

"""The doctor says what runs, what does not, and why."""

from pathlib import Path

from eval.doctor import findings, table
from tests.eval import tiny_networks
from training.config import compose


def diagnose(*overrides: str) -> dict:
    cfg = compose("eval_doctor", list(overrides))
    return {finding.metric: finding for finding in findings(cfg)}


def test_what_is_there_and_what_is_not(tmp_path: Path) -> None:
    tiny_networks.ctc_network(tmp_path / "ctc")
    tiny_networks.ssl_network(tmp_path / "ssl")
    found = diagnose(
        f"weights.hubert-ctc={tmp_path / 'ctc'}", f"weights.ssl={tmp_path / 'ssl'}", "weights.whisper=no/such/folder",
        f"weights.utmos={tmp_path / 'nothing.pt'}", f"ctc={tmp_path / 'none'}",
    )  # fmt: skip
    assert found["WER, CER"].runs and found["recogniser hubert-ctc"].runs and found["FAD on wav2vec-type networks"].runs
    assert len(found["recogniser hubert-ctc"].hash) == 12
    assert not found["recogniser whisper"].runs and "no/such/folder" in found["recogniser whisper"].on
    assert not found["UTMOS"].runs and "utmos22_strong" in found["UTMOS"].on
    assert not found["recogniser ctc-mini"].runs
    assert not found["KL of class posteriors"].runs and "weights.classifier=" in found["KL of class posteriors"].on
    assert not found["SPICE, SPIDEr"].runs
    for metric, setting in (("speaker similarity (GE2E)", "resemblyzer"), ("DistillMOS", "distillmos")):
        ours = diagnose(f"weights.{setting}={tmp_path / 'ours.pt'}")[metric]  # the file, and not what is installed
        assert not ours.runs and "ours.pt" in ours.on
    for metric in ("ViSQOL, audio (SVR)", "ViSQOL, speech (lattice)", "speaker similarity (GE2E)"):
        assert found[metric].runs or "pip install" in found[metric].on
    assert len(table(list(found.values())).splitlines()) == len(found) + 2

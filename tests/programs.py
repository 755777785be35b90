"""The programs, run in this process as their commands run them, and the options that make their models tiny."""

import importlib
import runpy
from pathlib import Path
from unittest import mock

from json_files import read_lines

from lm.train import train
from training.config import REPOSITORY, compose

PROGRAMS = {  # every configuration that draws on the group `data`, and its program
    "codec_classical": "codec.classical",
    "codec_semantic_prior": "codec.semantic_prior",
    "codec_train": "codec.train",
    "encode": "codec.encode",
    "eval_asr": "eval.asr",
    "eval_captioning": "eval.captioning",
    "eval_label": "eval.label",
    "eval_latents": "eval.latents",
    "eval_likelihood": "eval.likelihood",
    "eval_prompted": "eval.prompted",
    "eval_reconstruction": "eval.reconstruction",
    "eval_semantics": "eval.semantics",
    "eval_sound_space": "eval.sound_space",
    "eval_text_to_audio": "eval.text_to_audio",
    "eval_tts": "eval.tts",
    "lm_train": "lm.train",
}
TINY_CODEC = """
    codec.encoder_dim=16 codec.decoder_dim=16 codec.encoder_layers=1 codec.decoder_layers=1 codec.head_dim=8
    codec.code_dim=4 codec.codebook_sizes=[16,16,16] codec.analysis_ffts=[640] codec.synthesis_fft=640
    device=cpu trainer.batch_size=2 trainer.crop_seconds=0.6 trainer.init_batches=4
""".split()
TINY_LM = """
    lm.config.hidden_size=32 lm.config.intermediate_size=48 lm.config.num_hidden_layers=1
    lm.config.num_attention_heads=2 lm.config.num_key_value_heads=2 lm.text_tokenizer.vocab_size=290
    device=cpu trainer.micro_rows=2 trainer.precision=fp32
""".split()

TINY_ROWS = ["trainer.row_length=128", "trainer.batch_rows=2"]


def run_program(config: str, *overrides: str) -> None:
    """``main`` of the program that reads ``configs/<config>.yaml``."""
    importlib.import_module(PROGRAMS[config]).main.__wrapped__(compose(config, list(overrides)))


def run_command(script: str, *arguments: str) -> None:
    """``python SCRIPT ARGUMENT …``, as it stands there, in this process."""
    with mock.patch("sys.argv", [script, *arguments]):
        runpy.run_path(str(REPOSITORY / script), run_name="__main__")


def records(run: Path) -> list[dict]:
    """The lines of a run's log."""
    return read_lines(run / "log.jsonl")


def train_lm(*overrides: str) -> Path:
    """``lm/train.py``, whose errors are not yet sentences; the folder of the model."""
    return train(compose("lm_train", list(overrides)))

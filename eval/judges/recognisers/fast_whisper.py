"""Whisper in the CTranslate2 format, run by faster-whisper: int8 on the CPU, float16 on a GPU. The same checkpoint in
the format of transformers is run by eval/judges/recognisers/networks.py.

    pip install faster-whisper
    python eval/tts.py recognisers=[whisper] weights.whisper=FOLDER     # with model.bin, config.json and tokenizer.json
    python eval/tts.py recognisers=[whisper] weights.whisper=Systran/faster-whisper-base.en

Greedy, no temperature fall-back, no timestamps, no earlier text; a clip longer than 30 s is cut into equal pieces.
Where the voice activity detector hears no speech there are no words.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from huggingface_hub import snapshot_download
from numpy.typing import NDArray

from eval.harness.audio import CannotScore, pieces, resample
from eval.harness.worker_pool import Job, WorkerError, WorkerPool
from eval.judges.recognisers.fast_whisper_worker import PAUSE_MS, SPEECH_MS
from eval.judges.recognisers.interface import RATE, Recogniser, RecogniserError
from eval.judges.recognisers.networks import WHISPER_SECONDS, check_language
from training.identity import file_hash
from training.pretrained import PretrainedError, description, pinned, telling

FILES = ("config.json", "tokenizer.json", "preprocessor_config.json", "vocabulary.json", "vocabulary.txt", "model.bin")
NEEDED = ("config.json", "tokenizer.json", "model.bin")


def is_ctranslate2(path: str) -> bool:
    """Whether the checkpoint in a folder or on the hub is in the CTranslate2 format; what cannot be read is not."""
    if Path(path).is_dir():
        return (Path(path) / "model.bin").is_file()
    try:
        return "model_type" not in description(path)  # transformers always names it
    except PretrainedError:
        return False


class FastWhisper(Recogniser):
    """A Whisper checkpoint in the CTranslate2 format, in worker processes.

    Args:
        path: folder or hub id, which ORG/NAME@REVISION pins.
        language: spoken language, None: found out clip by clip; ignored by English-only checkpoints.
        processes: on the CPU, with one thread each; a GPU has one.
        timeout: seconds for a clip.

    Raises:
        RecogniserError: faster-whisper is not installed, there is no such checkpoint, or an unknown language.
    """

    name = "whisper"

    def __init__(
        self, path: str, device: str = "cpu", language: str | None = "en", processes: int = 2, timeout: float = 600.0
    ) -> None:
        if importlib.util.find_spec("faster_whisper") is None:
            raise RecogniserError(
                f"weights.whisper={path} is in the CTranslate2 format, which faster-whisper reads: pip install "
                "faster-whisper, or give the folder or hub id of a transformers checkpoint, as openai/whisper-base.en."
            )
        super().__init__()
        check_language(language)
        self.path, self.language = path, language
        self.folder, self.revision = _folder(path)
        gpu = torch.device(device).type == "cuda"
        self.compute = "float16" if gpu else "int8"
        settings = {
            "folder": str(self.folder), "device": "cuda" if gpu else "cpu", "compute": self.compute,
            "device_index": torch.cuda.current_device() if gpu else 0, "language": language,
        }  # fmt: skip
        self.pool = WorkerPool(
            "eval.judges.recognisers.fast_whisper_worker", settings, 1 if gpu else processes, timeout
        )
        self.callback(self.pool.close)
        try:
            self.pool.map([({}, b"")])  # one worker loads it: whether that works is known before the first clip
        except WorkerError as error:
            self.close()
            raise RecogniserError(f"weights.whisper={path} cannot be loaded: {error}") from None

    def transcribe(self, waves: list[NDArray[np.float32]], sample_rate: int) -> list[str | CannotScore]:
        """Words of each clip ``[samples]``, none where nobody speaks; the reason for a clip on which a worker died."""
        jobs: list[Job] = []
        owners: list[int] = []
        for index, wav in enumerate(waves):
            for part in pieces(resample(wav, sample_rate, RATE), RATE, WHISPER_SECONDS):
                jobs.append(({}, np.ascontiguousarray(part, dtype="<f4").tobytes()))
                owners.append(index)
        said: list[list[str]] = [[] for _ in waves]
        failed: dict[int, CannotScore] = {}
        for index, answer in zip(owners, self.pool.map(jobs), strict=True):
            if "failure" in answer:
                failed[index] = CannotScore(answer["failure"])
            else:
                said[index].append(answer["text"])
        return [failed.get(i) or " ".join(filter(None, parts)) for i, parts in enumerate(said)]

    @cached_property
    def _hashes(self) -> dict[str, str]:
        return {name: file_hash(self.folder / name) for name in FILES if (self.folder / name).is_file()}

    def how(self) -> dict[str, object]:
        """What a result records about this recogniser; two copies of the same weights get the same record."""
        return {
            "network": "Whisper, CTranslate2",
            "id": Path(self.path).name if Path(self.path).exists() else self.path.partition("@")[0],
            **({"revision": self.revision} if self.revision else {}),
            "weights_sha256": self._hashes["model.bin"],
            "files_sha256": self._hashes,
            "package": f"faster-whisper {importlib.metadata.version('faster-whisper')}",
            "ctranslate2": importlib.metadata.version("ctranslate2"),
            "compute": self.compute,
            "decoding": f"greedy, language {self.language or 'found out'}, no timestamps, pieces of at most "
            f"{WHISPER_SECONDS:g} s",
            "no_words": f"where Silero's voice activity detector hears less than {SPEECH_MS} ms of speech with pauses "
            f"below {PAUSE_MS} ms",
            "sample_rate": RATE,
        }


def _folder(path: str) -> tuple[Path, str | None]:
    """Where the files of a checkpoint lie, and the commit of the hub that they are of (None: a folder).

    Raises:
        RecogniserError: not there, or not complete.
    """
    try:
        name, revision = pinned(path)
        if Path(name).is_dir():
            folder, commit = Path(name), None
        else:
            with telling(path):
                folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
            commit = folder.name
    except PretrainedError as error:
        raise RecogniserError(f"weights.whisper: {error}") from None
    if missing := [file for file in NEEDED if not (folder / file).is_file()]:
        raise RecogniserError(
            f"weights.whisper={path} has no {missing[0]}: a Whisper checkpoint in the CTranslate2 format has "
            f"{', '.join(NEEDED)}."
        )
    return folder, commit

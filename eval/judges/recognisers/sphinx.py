"""pocketsphinx with its own US-English model: the judge that works offline and has seen nothing of ours.

Two recognisers that are never mixed: ``pocketsphinx`` with the package's own dictionary and language model
(open vocabulary, 134 000 words), and ``pocketsphinx-grammar`` with a closed dictionary and a bigram of the
corpus' grammar. The acoustic model is the same; the second knows which words can come, so its error rates are
much lower.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eval.harness.audio import CannotScore, resample
from eval.harness.worker_pool import Job, WorkerPool
from eval.judges.recognisers.interface import RATE, Recogniser, RecogniserError
from training.identity import file_hash, folder_hash


def model_folder() -> Path:
    """The model inside the pocketsphinx package.

    Raises:
        RecogniserError: pocketsphinx is not installed.
    """
    found = importlib.util.find_spec("pocketsphinx")
    if found is None or found.origin is None:
        raise RecogniserError("pocketsphinx is not installed: run `pip install pocketsphinx` or leave it out.")
    return Path(found.origin).parent / "model" / "en-us"


def restricted_dictionary(words: set[str]) -> str:
    """The lines of the package's pronouncing dictionary for ``words``, with their variants ("the(2)").

    Raises:
        RecogniserError: words that the dictionary lacks; a recogniser that cannot hear them would be unfair.
    """
    lines, found = [], set()
    for line in (model_folder() / "cmudict-en-us.dict").read_text(encoding="utf-8").splitlines():
        word = line.split(" ", 1)[0].split("(", 1)[0]
        if word in words:
            lines.append(line)
            found.add(word)
    if missing := sorted(words - found):
        raise RecogniserError(f"pocketsphinx has no pronunciation of {', '.join(missing[:5])} ({len(missing)} words).")
    return "\n".join(lines) + "\n"


class Sphinx(Recogniser):
    """pocketsphinx in worker processes.

    Args:
        grammar: None for the open vocabulary, else the folder with ``grammar.arpa`` (bigram) and
            ``words.txt``.
        processes: worker processes.
        timeout: seconds for one clip.
    """

    def __init__(self, grammar: Path | None = None, processes: int = 2, timeout: float = 120.0) -> None:
        super().__init__()
        self.name = "pocketsphinx" if grammar is None else "pocketsphinx-grammar"
        model = model_folder()
        # The beams are pocketsphinx' defaults except that at most maxhmmpf states live per frame: speech that fits
        # no word keeps them all alive and takes four times as long.
        self.settings: dict[str, object] = {"hmm": str(model / "en-us"), "maxhmmpf": 3000, "cmn": "batch"}
        self.grammar = grammar
        if grammar is None:
            self.settings |= {"lm": str(model / "en-us.lm.bin"), "dict": str(model / "cmudict-en-us.dict")}
        else:
            arpa, words = grammar / "grammar.arpa", grammar / "words.txt"
            if missing := [path for path in (arpa, words) if not path.is_file()]:
                raise RecogniserError(
                    f"pocketsphinx-grammar needs '{missing[0]}', which scripts/make_corpus.py writes; "
                    "leave it out of recognisers=[...] for other corpora."
                )
            folder = self.enter_context(tempfile.TemporaryDirectory(prefix="dictionary-"))
            dictionary = Path(folder) / "grammar.dict"
            dictionary.write_text(restricted_dictionary(set(words.read_text("utf-8").split())), encoding="utf-8")
            self.settings |= {"lm": str(arpa), "dict": str(dictionary)}
        self.pool = WorkerPool("eval.judges.recognisers.sphinx_worker", self.settings, processes, timeout)
        self.callback(self.pool.close)

    def transcribe(self, waves: list[NDArray[np.float32]], sample_rate: int) -> list[str | CannotScore]:
        """Words of each clip ``[samples]``; an empty string where nothing is recognised, and the reason for a clip on
        which the worker died or took too long.
        """
        jobs: list[Job] = []
        for wav in waves:
            pcm = np.round(resample(wav, sample_rate, RATE).clip(-1.0, 1.0) * 32767.0).astype("<i2")
            jobs.append(({}, pcm.tobytes()))
        answers = self.pool.map(jobs)
        return [CannotScore(answer["failure"]) if "failure" in answer else answer["text"] for answer in answers]

    def how(self) -> dict[str, object]:
        """What a result records about this recogniser."""
        settings = {k: v for k, v in self.settings.items() if k not in ("hmm", "lm", "dict")}
        record: dict[str, object] = {
            "package": f"pocketsphinx {importlib.metadata.version('pocketsphinx')}",
            "acoustic_model": {
                "name": "en-us (in the package)",
                "sha256": folder_hash(Path(str(self.settings["hmm"]))),
            },
            "sample_rate": RATE,
            "settings": settings,
        }
        if self.grammar is None:
            record["language_model"] = {
                "name": "en-us.lm.bin (in the package)",
                "sha256": file_hash(Path(str(self.settings["lm"]))),
            }
            record["vocabulary"] = "cmudict-en-us.dict, open"
        else:
            record["language_model"] = {
                "name": "grammar.arpa",
                "sha256": file_hash(self.grammar / "grammar.arpa"),
            }
            record["vocabulary"] = {"name": "words.txt, closed", "sha256": file_hash(self.grammar / "words.txt")}
        return record

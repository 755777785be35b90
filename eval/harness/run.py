"""One evaluation, from its configuration to results.json: what the programs of this folder have in common.

run = Run(cfg, rows=ROWS, recognisers=NAMES)    # meets the other processes, refuses what cannot work
clips = run.choose(lambda clip: clip.domain == "speech", "speech")
folder = run.model("tts")
run.take(run_name(folder), "eval-tts")          # nobody else writes there meanwhile
run.load_tokenizer()
speaker = run.open(Speaker, folder, task)
run.begin(rows, {"split": cfg.split, "audio": audio_record(clips)}, model=speaker.how)
run.keep({"reference": read_reference(clips), …})
…                                               # judges file scores in run.report
run.finish()
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig
from transformers.utils.logging import disable_progress_bar

from codec.corpus import Clip, spread
from codec.interface import TokenizerError
from codec.load import load_tokenizer
from eval.harness.clips import read_clips
from eval.harness.processes import hold_out, join
from eval.harness.provenance import versions
from eval.harness.report import Report
from eval.harness.scored import ScoredClip, split_usable, write_clip
from lm.model import ModelError
from lm.run_state import model_folder
from lm.sequences.text_tokenizer import TextTokenizerError
from lm.sequences.vocabulary import VocabularyError
from tasks.base import TaskError
from tasks.text import scoring_normaliser
from training.config import ConfigError, refusing
from training.identity import file_names
from training.launch import pick_device
from training.log import duration

T = TypeVar("T")
Rows = dict[str, list[ScoredClip]]


class Run:
    """Configuration, device, cache, clips, tokenizer, report and folder of one evaluation.

    Args:
        cfg: of the program.
        choices: for each key that lists names, those there are.

    Raises:
        ConfigError: a name that there is not, or a normaliser whose package is missing.
    """

    out: Path
    report: Report

    def __init__(self, cfg: DictConfig, **choices: Sequence[str]) -> None:
        join()
        self.started = time.monotonic()
        for key, known in choices.items():
            if unknown := [name for name in cfg[key] if name not in known]:
                raise ConfigError(f"{key}: there is no '{unknown[0]}'; choose from {', '.join(known)}.")
        if "rows" in choices and not cfg.rows:
            raise ConfigError("rows is empty: name at least one row.")
        with refusing(TaskError):
            scoring_normaliser(cfg.get("normaliser", "none"))
        disable_progress_bar()  # of loading weights, which takes no time here
        if cfg.get("recognisers") and cfg.weights.whisper and "whisper" not in cfg.recognisers:
            cfg.recognisers = ["whisper", *cfg.recognisers]  # weights that are given add their score, like the others
        self.cfg, self.device = cfg, pick_device(cfg.device)
        self.cache = Path(cfg.cache) if cfg.get("cache") else None
        self.root = cfg.data.root
        self.tokenizer: Any = None
        self.rows: Rows = {}

    # ---- what is evaluated -------------------------------------------------------------------------------------
    @cached_property
    def corpus(self) -> list[Clip]:
        """All clips of the corpus; says once which were left out. Raises ConfigError."""
        return read_clips(self.root)

    def choose(
        self, accepts: Callable[[Clip], bool], what: str, split: str | None = None, limit: int | None = None
    ) -> list[Clip]:
        """Clips of a split that ``accepts`` takes (`codec.corpus.spread`), in the order of the corpus.

        Args:
            what: they are, for the message where there are none.
            split: None: the configuration's.
            limit: at most so many (0: all); None: the configuration's.

        Raises:
            ConfigError: no corpus, or no such clips.
        """
        split = split or self.cfg.split
        chosen = [clip for clip in self.corpus if clip.split == split and accepts(clip)]
        if not chosen:
            raise ConfigError(f"{self.root} has no {what} in its {split} split.")
        return spread(chosen, self.cfg.limit if limit is None else limit)

    def model(self, task: str) -> Path:
        """The folder of the language model: the configuration's, or the newest finished run of ``task``."""
        with refusing(ModelError):
            return model_folder(self.cfg.model, task)

    def take(self, name: str, what: str) -> None:
        """Write to ``out``, or to ``what`` in the folder of the run called ``name``, alone. Raises LockError."""
        self.out = Path(self.cfg.out) if self.cfg.out else Path("runs") / name / what
        hold_out(self.out, self.root)

    def say(self, what: str) -> None:
        """Tell people what is evaluated, and where the results go."""
        print(f"{what}, to {self.out}", flush=True)

    def load_tokenizer(self, **options: Any) -> None:
        """Load the configuration's tokenizer. Raises ConfigError."""
        with refusing(TokenizerError):
            self.tokenizer = load_tokenizer(self.cfg.tokenizer, self.device, **options)

    def open(self, kind: Callable[..., T], folder: Path, task: Any) -> T:
        """The model in ``folder`` as a Speaker, a Listener or what else ``kind`` makes of it. Raises ConfigError."""
        with refusing(ModelError, TextTokenizerError, VocabularyError):
            return kind(self, folder, task)

    # ---- what comes of it --------------------------------------------------------------------------------------
    def begin(
        self,
        rows: Iterable[str],
        corpus: Mapping[str, Any],
        packages: str = "torch transformers numpy soxr",
        **how: Any,
    ) -> Report:
        """Start the report of ``rows``, with everything that makes its numbers.

        Args:
            corpus: what was chosen of it.
            packages: whose versions are recorded.
            how: the rest.
        """
        cfg = self.cfg
        made: dict[str, Any] = {
            "corpus": {"name": cfg.data.name or Path(self.root).name, **corpus},
            "tokenizer": self.tokenizer.describe() if self.tokenizer is not None else None,
            **({"seed": cfg.seed} if "seed" in cfg else {}),
            "versions": versions(*packages.split()),
        }
        self.report = Report(made | how, list(rows))
        return self.report

    def keep(self, rows: Rows, clips: Iterable[Clip], *fields: str, heard: Sequence[str] | None = None) -> None:
        """Take ``rows`` as what is judged: write their audio, begin their lines of items.jsonl, say what has no audio.

        Args:
            clips: of the corpus, whose ``fields`` each line holds.
            heard: the rows whose audio is written; None: all.
        """
        self.rows |= rows
        known = {clip.id: clip for clip in clips}
        files = file_names(known, ".wav")
        for row, members in rows.items():
            for clip in members:
                of_clip = {name: getattr(known[clip.id], name) for name in fields}
                head: dict[str, Any] = {"id": clip.id, "text": clip.text, **of_clip, "row": row}
                if clip.wav is not None:
                    if heard is None or row in heard:
                        head["audio"] = write_clip(self.out, f"wavs/{row}/{files[clip.id]}", clip.wav, clip.rate)
                    head["seconds"] = round(clip.seconds, 3)
                clip.item = head | clip.item
            for name, reason in split_usable(members)[1].items():
                print(f"{row}: {name}: {reason}", flush=True)

    def finish(
        self,
        items: Iterable[Mapping[str, Any]] = (),
        shown: Sequence[str] | None = None,
        notes: Sequence[str] = (),
        wrote: str = "results.json, items.jsonl and wavs/",
    ) -> None:
        """Write the results and print their table.

        Args:
            items: lines of items.jsonl besides those of the clips.
            shown: metrics of the table; None: all.
            notes: lines below it.
        """
        self.report.write(self.out, [*(clip.item for members in self.rows.values() for clip in members), *items])
        print("\n" + self.report.table(shown))
        for note in filter(None, notes):
            print(note)
        print(f"\n{self.out}/{wrote}, in {duration(time.monotonic() - self.started)}", flush=True)

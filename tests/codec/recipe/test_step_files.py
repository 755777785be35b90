"""A training step can be followed: few of our files, its losses in one of them, and room for one more."""

import multiprocessing
import re
import sys
from pathlib import Path
from types import FrameType

import pytest
import yaml
from json_files import read_lines
from tiny_training import REPOSITORY, train

import codec.objectives.losses as losses_file
from codec.objectives.losses import WaveformLosses
from codec.recipe.run import Run

GAN = ["gan.start=0", "gan.sizes=[64,256]", "gan.channels=[8,8]", "trainer.quantize_from=0"]


def records(name: str, *more: str) -> list[dict]:
    """What two steps told."""
    train(name, "trainer.max_steps=2", *GAN, *more)
    found = read_lines(f"runs/{name}/log.jsonl")
    return [{key: value for key, value in record.items() if key != "audio_s_per_s"} for record in found]


@pytest.mark.slow
def test_a_step_with_discriminators_enters_few_of_our_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step is given its crops: who follows it need not know how a file is read."""
    records("first", "trainer.workers=1")  # makes the filters, which are kept
    entered: set[tuple[str, str]] = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.is_relative_to(REPOSITORY) and not path.is_relative_to(Path(sys.prefix)):
            entered.add((path.relative_to(REPOSITORY).as_posix(), frame.f_code.co_qualname))

    honest = Run.step

    def step(self: Run, batches: object) -> object:
        sys.setprofile(note)
        try:
            return honest(self, batches)  # type: ignore[arg-type]
        finally:
            sys.setprofile(None)

    monkeypatch.setattr(Run, "step", step)
    records("run", "trainer.workers=1")
    files = {path for path, _ in entered}
    assert {"codec/recipe/run.py", "codec/objectives/losses.py", "codec/objectives/adversarial.py"} <= files
    assert len(files) <= 8, sorted(files)
    assert len(entered) <= 100, len(entered)


@pytest.mark.slow
def test_a_loss_is_one_function_and_one_line(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As docs/codec.md says: its two blocks, executed."""
    section = (REPOSITORY / "docs/codec.md").read_text(encoding="utf-8").split("## Adding a loss")[1].split("\n## ")[0]
    code, line = (re.search(rf"```{kind}\n(.*?)```", section, re.DOTALL) for kind in ("python", "yaml"))
    assert code and line
    made: dict = {}
    exec("class More:\n" + code[1], vars(losses_file), made)  # noqa: S102  # the page's own lines
    ((name, weight),) = yaml.safe_load(line[1]).items()
    monkeypatch.setattr(WaveformLosses, name, vars(made["More"])[name], raising=False)
    record = records("run", f"+loss.{name}={weight}", "gan.balancer=true")[0]
    assert record[name] > 0 and record["mel"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_workers_read_the_same_crops(workers: int, place: Path) -> None:
    told = [records(str(count), f"trainer.workers={count}") for count in (0, workers)]
    assert told[0] == told[1] and len(told[0]) >= 2
    assert not multiprocessing.active_children(), "they end with the training"

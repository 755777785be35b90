"""METEOR 1.5 (Denkowski & Lavie 2014), the Java program that COCO's scripts call, with its paraphrase table.

It is inside the optional package pycocoevalcap and needs Java; nothing is downloaded. Without either it is "not
computed". SPICE needs Stanford's CoreNLP 3.6.0 besides, which no package carries, and Java 8: it is never computed
here, and SPIDEr = (CIDEr-D + SPICE) / 2 neither.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from eval.harness.audio import CannotScore
from eval.metrics.caption import Words, check
from training.identity import file_hash

SPICE_REASON = "not computed: SPICE needs Java 8 and Stanford CoreNLP 3.6.0, which no package carries"


def meteor_jar(java: str = "java") -> Path:
    """The program inside pycocoevalcap.

    Raises:
        CannotScore: Java or the package is not there, with what to install.
    """
    if shutil.which(java) is None:
        raise CannotScore(f"not computed: METEOR needs Java and there is no '{java}'")
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise CannotScore("not computed: METEOR needs `pip install pycocoevalcap`")
    return Path(next(iter(found.submodule_search_locations))) / "meteor" / "meteor-1.5.jar"


def describe_meteor() -> dict[str, str]:
    """What a result records about METEOR."""
    jar = meteor_jar()
    return {"package": f"pycocoevalcap {importlib.metadata.version('pycocoevalcap')}", "sha256": file_hash(jar)}


def meteor(
    candidates: Sequence[Words], references: Sequence[Sequence[Words]], java: str = "java", timeout: float = 600.0
) -> tuple[float, list[float]]:
    """METEOR of the set (from summed statistics, not the mean of items) and of every item.

    Raises:
        CannotScore: it cannot run here, or did not end within ``timeout`` seconds.
    """
    check(candidates, references)
    jar = meteor_jar(java)
    process = subprocess.Popen(
        [java, "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, encoding="utf-8",
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(timeout, process.kill)
    timer.start()
    try:
        statistics = []
        for candidate, texts in zip(candidates, references, strict=True):
            line = " ||| ".join(["SCORE", *(" ".join(text) for text in texts), " ".join(candidate)])
            process.stdin.write(line + "\n")
            process.stdin.flush()
            statistics.append(process.stdout.readline().strip())
        process.stdin.write(" ||| ".join(["EVAL", *statistics]) + "\n")
        process.stdin.flush()
        values = [float(process.stdout.readline()) for _ in range(len(candidates) + 1)]
        return values[-1], values[:-1]
    except (ValueError, BrokenPipeError) as error:
        raise CannotScore(f"not computed: METEOR gave no number ({error})") from None
    finally:
        timer.cancel()
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()

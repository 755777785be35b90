"""What the evaluations print with what ships: runs them, and writes docs/sample_output.md and docs/samples/.

    python scripts/sample_output.py            # all of them, about ten minutes on two cores
    python scripts/sample_output.py asr tts    # only these anew; the others keep what stands in the page

A command that fails ends it; the page then has what was printed until then.
"""

from __future__ import annotations

import training.help  # noqa: F401

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path

from codec.audio.files import read_audio, write_audio
from training.checkpoint import write_file
from training.config import ending_plainly

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/sample_output.md"
SAMPLES = ROOT / "docs/samples"
COMMANDS = {
    "reconstruction": "python eval/reconstruction.py",
    "tts": "python eval/tts.py model=checkpoints/lm-tts-mini",
    "asr": "python eval/asr.py model=checkpoints/lm-all-mini",
    "captioning": "python eval/captioning.py model=checkpoints/lm-all-mini",
    "music-captioning": "python eval/captioning.py task=music_captioning model=checkpoints/lm-all-mini",
    "sound": "python eval/text_to_audio.py model=checkpoints/lm-all-mini",
    "music": "python eval/text_to_audio.py task=text_to_music model=checkpoints/lm-all-mini",
    "prompted": "python eval/prompted.py model=checkpoints/lm-spoken-mini",
    "likelihood": "python eval/likelihood.py model=checkpoints/lm-tts-mini",
    "semantics": "python eval/semantics.py",
    "selftest": "python eval/selftest.py",
    "doctor": "python eval/doctor.py",
}
HEAD = """# What the commands print

Written by `python scripts/sample_output.py`, which runs each command with the models and the corpus that ship. What the
rows and columns mean: [evaluation.md](evaluation.md).
"""
# What the README lets people click: the file of an evaluation, and the name that it gets.
CLICKED = {
    "resynthesis": "runs/almtokenizer/eval-reconstruction/wavs/resynthesis/speech-test-0000.wav",
    "spoken": "runs/lm-tts-mini/eval-tts/wavs/generated/speech-test-0001.wav",
    "music": "runs/lm-all-mini/eval-text_to_music/wavs/generated/music-test-bass-00.wav",
}


def section(name: str, command: str, output: str) -> str:
    """The part of the page that holds what one command printed."""
    return f"\n## {name}\n\n```bash\n{command}\n```\n\n```\n{output.strip()}\n```\n"


def sections(page: str) -> dict[str, str]:
    """The parts of a page that stands, by name."""
    found = re.split(r"^(?=## )", page, flags=re.MULTILINE)[1:]
    return {part[3:].split("\n", 1)[0]: "\n" + part.rstrip() + "\n" for part in found}


def printed(command: str) -> str:
    """What a command of this repository prints.

    Raises:
        SystemExit: it failed; its last lines tell why.
    """
    words = shlex.split(command)
    done = subprocess.run([sys.executable, *words[1:]], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{command} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2000:]}")
    return re.sub(r"^.*: \d+/\d+ in [\d:]+.*\n", "", done.stdout, flags=re.MULTILINE)  # without lines of progress


@ending_plainly()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(COMMANDS)}; none: all")
    names = parser.parse_args(argv).names or list(COMMANDS)
    if unknown := set(names) - set(COMMANDS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; choose from {', '.join(COMMANDS)}")
    parts = sections(PAGE.read_text(encoding="utf-8")) if PAGE.is_file() else {}
    for name in names:
        print(COMMANDS[name], flush=True)
        parts[name] = section(name, COMMANDS[name], printed(COMMANDS[name]))
        write_file(PAGE, HEAD + "".join(parts[name] for name in COMMANDS if name in parts))
    for name, path in CLICKED.items():
        if (ROOT / path).is_file():
            SAMPLES.mkdir(exist_ok=True)
            write_audio(SAMPLES / f"{name}.flac", read_audio(ROOT / path, 24_000), 24_000)
    print(f"{PAGE.relative_to(ROOT)}: {len(parts)} of {len(COMMANDS)} commands")


if __name__ == "__main__":
    main()

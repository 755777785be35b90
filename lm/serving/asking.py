"""What one tells another engine that speaks; imports nothing, so that ``--help`` is there at once."""

from __future__ import annotations

import argparse
from pathlib import Path


def speaking_parser(description: str | None, out: str) -> argparse.ArgumentParser:
    """The options of a script that lets another engine speak into the folder ``out``."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="folder of the language model: its layout and text tokenizer")
    parser.add_argument("--text", action="append", required=True, help="may be given several times")
    parser.add_argument("--speaker", default="slt")
    parser.add_argument("--tokenizer", default="checkpoints/codec-mini", help="folder of the audio tokenizer")
    parser.add_argument("--max-seconds", type=float, default=20.0)
    parser.add_argument("--temperature", type=float, default=0.4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser

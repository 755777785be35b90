"""Which split a clip is in, by the names of folders and files, as Hugging Face `datasets` reads them.

A name is of a split where one of the words below stands in it by itself, between the ends of the name, digits and
``- . _`` or blanks: ``test-clean`` and ``speaker_test_2`` are test, ``attest`` is not. Unlike there, letters may be of
either case, and a clip is in one split only, that of the outermost folder that names one.
"""

import re
from collections.abc import Sequence

SPLIT_NAMES = {  # folder or column value -> the name that the rest of the framework uses
    "train": "train",
    "training": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
_WORD = re.compile(rf"(?:^|[-._ 0-9])({'|'.join(SPLIT_NAMES)})(?=$|[-._ 0-9])", re.IGNORECASE)


def split_of(names: Sequence[str]) -> str | None:
    """The split of the first name that names one."""
    found = next((match for name in names if (match := _WORD.search(name))), None)
    return SPLIT_NAMES[found.group(1).lower()] if found else None


def own_name(split: str) -> str:
    """Our name of a split that is named by a column: ``Validation`` is valid; what is no such word stays as it is."""
    return SPLIT_NAMES.get(split.lower(), split)

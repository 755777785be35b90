"""What the id of a clip may be: evaluations write files named after it, so it must stay inside a folder."""

import unicodedata
from pathlib import PurePosixPath, PureWindowsPath


def fault_of_id(identity: str) -> str | None:
    """Why ``identity`` cannot name a file below a folder, or None where it can; it may have folders (``a/b``)."""
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in identity):
        return "it has control characters or half a character"
    if PurePosixPath(identity).is_absolute() or PureWindowsPath(identity).drive:
        return "it is a path of its own"
    parts = identity.replace("\\", "/").split("/")
    if ".." in parts:
        return "it leads out of its folder"
    if not all(part.strip(". ") for part in parts):
        return "it has a part without a name"
    return None

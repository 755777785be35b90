"""A clip that cannot be scored is a counted failure, never a default score."""

from __future__ import annotations


class CannotScore(Exception):
    """One clip has no score; ``args[0]`` is the reason in a few words, so that equal reasons can be counted."""

    @property
    def reason(self) -> str:
        return str(self.args[0])

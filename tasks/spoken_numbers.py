"""English numbers in words, as a reader says them: what phonemes.py begins with. The words are inflect's.

1865 is a year, eighteen sixty-five, as is every number of four digits without a comma from 1100 to 2099 but for the
first years of a millennium; 1,865 is one thousand eight hundred sixty-five. Numbers of another form than those below
(dates with strokes, numbers grown together with letters) stay as they are, so that the caller can name them.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

MONEY = {"$": ("dollar", "cent", "cents"), "£": ("pound", "penny", "pence"), "€": ("euro", "cent", "cents")}
DIGITS = ("oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBER = re.compile(
    r"(?<![\w.,:/⁄])(?P<minus>(?<!\w)[-−])?(?P<money>[$£€])?(?P<body>[0-9]+(?:[.,:/⁄][0-9]+)*)"
    r"(?:(?P<ending>st|nd|rd|th|'?s)|(?P<scale> (?:hundred|thousand|million|billion|trillion)))?(?![\w/⁄]|[.,:][0-9])",
    re.IGNORECASE,
)
WHOLE = re.compile(r"[0-9]{1,21}|[0-9]{1,3}(?:,[0-9]{3}){1,6}")  # longer ones have no name
DECIMAL = re.compile(rf"({WHOLE.pattern})\.([0-9]+)")
CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
FRACTION = re.compile(r"([0-9]{1,2})[/⁄]([0-9]{1,2})")


@cache
def _engine() -> Any:
    """Raises ModuleNotFoundError without inflect."""
    import inflect

    return inflect.engine()


def _cardinal(number: int) -> str:
    return _engine().number_to_words(number, andword="").replace(",", "")


def _ordinal(number: int) -> str:
    return _engine().number_to_words(_engine().ordinal(number), andword="").replace(",", "")


def _integer(digits: str) -> int:
    return int(digits.replace(",", ""))


def _pairs(number: int) -> str:
    """A number of up to four digits two and two: eighteen sixty-five, nineteen oh five, nineteen hundred."""
    left, right = divmod(number, 100)
    return f"{_cardinal(left)} " + ("hundred" if not right else f"{'oh ' * (right < 10)}{_cardinal(right)}")


def _whole(digits: str) -> str:
    """A whole number, a year, or, begun with a zero or longer than nine digits without commas, digit by digit."""
    if digits[0] == "0" and digits != "0" or len(digits) > 9 and "," not in digits:
        return " ".join(DIGITS[int(digit)] for digit in digits if digit != ",")
    number = _integer(digits)
    return _pairs(number) if "," not in digits and 1100 <= number < 2100 and number % 1000 > 9 else _cardinal(number)


def _amount(body: str) -> str:
    if found := DECIMAL.fullmatch(body):
        decimals = " ".join("zero" if digit == "0" else DIGITS[int(digit)] for digit in found[2])
        return f"{_cardinal(_integer(found[1]))} point {decimals}"
    return _cardinal(_integer(body)) if WHOLE.fullmatch(body) else ""


def _money(sign: str, body: str, scale: str) -> str:
    unit, cent, cents = MONEY[sign]
    whole, _, part = body.partition(".")
    if len(part) != 2 or scale:
        return (said := _amount(body)) and f"{said}{scale} {unit if body + scale == '1' else unit + 's'}"
    if said := _amount(whole):
        said += f" {unit if whole == '1' else unit + 's'}"
        said += f" and {_cardinal(int(part))} {cent if part == '01' else cents}" if part != "00" else ""
    return said


def _said(body: str, money: str, ending: str, scale: str) -> str:
    """The words of a number's parts; nothing for a form that is not known."""
    if money:
        return "" if ending else _money(money, body, scale)
    if ending and not WHOLE.fullmatch(body):
        return ""
    if ending in ("st", "nd", "rd", "th"):
        return _ordinal(_integer(body))
    if ending:  # the nineteen sixties
        tens, _, last = _whole(body).replace("-", " ").rpartition(" ")
        return f"{tens} {_engine().plural_noun(last)}"
    if found := CLOCK.fullmatch(body):
        hour, minute = int(found[1]), int(found[2])
        return _pairs(100 * hour + minute) if minute else f"{_cardinal(hour)} o'clock"
    if (found := FRACTION.fullmatch(body)) and 0 < int(found[1]) < int(found[2]) <= 20:
        above, below = int(found[1]), int(found[2])
        part = {2: "half", 4: "quarter"}.get(below) or _ordinal(below)
        return f"{_cardinal(above)} {part if above == 1 else _engine().plural_noun(part)}"
    if WHOLE.fullmatch(body) and not scale:
        return _whole(body)
    return (said := _amount(body)) and said + scale


def in_words(text: str) -> str:
    """``text`` with its numbers in words. Raises ModuleNotFoundError without inflect where there is one."""

    def words(found: re.Match[str]) -> str:
        said = _said(found["body"], found["money"] or "", (found["ending"] or "").lower(), found["scale"] or "")
        return f"{'minus ' if found['minus'] else ''}{' '.join(said.split())}" if said.strip() else found[0]

    return NUMBER.sub(words, text)

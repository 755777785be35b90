"""English numbers in words, as a reader says them: what phonemes.py begins with. The words are inflect's.

1865 is a year, eighteen sixty-five, as is every number of four digits without a comma from 1100 to 2099 but for the
first years of a millennium; 1,865 is one thousand eight hundred sixty-five. Numbers of another form than those below
(dates with strokes, numbers grown together with letters) stay as they are, so that the caller can name them. 3/4 is
three quarters; 4/7, which is a day as often, stays.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

MONEY = {"$": ("dollar", "cent", "cents"), "£": ("pound", "penny", "pence"), "€": ("euro", "cent", "cents")}
MONEY["¥"] = ("yen", "sen", "sen")
UNCHANGED = ("yen",)  # in the plural
SCALES = r"(?:(?:[^\S\n]{1,2}|\n|-)(?:hundred|thousand|million|billion|trillion)\b){1,2}"
# Forms that are brought into those of NUMBER, before compatibility characters are (½ is 1⁄2, ² is 2).
POWERS = {"²": " squared", "³": " cubed"}
POWER = re.compile(r"(?<=[0-9])[²³](?![⁰¹²³⁴-⁹])")
MIXED = re.compile(r"(?<=[0-9])\s?(?=[¼-¾⅐-⅞])|(?<![\w.,:/⁄][0-9])(?<=[0-9])\s(?=[0-9]{1,2}[/⁄][0-9]{1,2}(?![\w/⁄]))")
SPACED = re.compile(r"(?<![\w.,:/⁄])[1-9][0-9]{0,2}(?:\s[0-9]{3})*\s0[0-9]{2}(?:\s[0-9]{3})*(?![\w/⁄]|[.,:\s][0-9])")
SIGN_APART = re.compile(r"([$£€¥])\s?([-−]?)\s?(?=[0-9])")
SIGN_BEHIND = re.compile(rf"(?<![\w.,:/⁄$£€¥])([0-9]+(?:[.,][0-9]+)*(?:{SCALES})?)\s?([$£€¥])(?!\s?[0-9/])")
CENTS = re.compile(r"(?<![\w.,:/⁄$£€¥])([0-9]{1,2})\s?¢")
MONEY_RANGE = re.compile(rf"([$£€¥])([0-9.,]*[0-9])[-–]([0-9.,]*[0-9])(?![\w/⁄-])({SCALES})?", re.IGNORECASE)
TELEPHONE = re.compile(r"(?<![\w.,:/⁄-])(?:1-)?[0-9]{3}-[0-9]{3}-[0-9]{4}(?![\w/⁄-]|[.,:][0-9])")
DIGITS = ("oh", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBER = re.compile(
    r"(?<![\w.,:/⁄])(?P<minus>(?<!\w)[-−])?(?P<money>[$£€¥])?(?P<body>[0-9]+(?:[.,:/⁄][0-9]+)*)"
    rf"(?:(?P<ending>st|nd|rd|th|'?s)|(?P<scale>{SCALES}))?(?![\w/⁄]|[.,:][0-9])",
    re.IGNORECASE,
)
WHOLE = re.compile(r"[0-9]{1,21}|[0-9]{1,3}(?:,[0-9]{3}){1,6}")  # longer ones have no name
DECIMAL = re.compile(rf"({WHOLE.pattern})\.([0-9]+)")
CLOCK = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])")
FRACTION = re.compile(r"([1-9][0-9]?)(?:/(2|3|4|5|8|10)|⁄([2-9]|1[0-9]|20))")


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
    units = unit if unit in UNCHANGED else f"{unit}s"
    if len(part) != 2 or scale:
        return (said := _amount(body)) and f"{said}{scale} {unit if body + scale == '1' else units}"
    if said := _amount(whole):
        said += f" {unit if whole == '1' else units}"
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
        said = _whole(body).replace("-", " ")
        return f"{said[:-1]}ies" if said.endswith("y") else f"{said}{'es' if said.endswith('six') else 's'}"
    if found := CLOCK.fullmatch(body):
        return "" if scale else _time(int(found[1]), int(found[2]))
    if (found := FRACTION.fullmatch(body)) and int(found[1]) < int(found[2] or found[3]):
        above, below = int(found[1]), int(found[2] or found[3])
        part = {2: "half", 4: "quarter"}.get(below) or _ordinal(below)
        part = f"{_cardinal(above)} {part if above == 1 else _engine().plural_noun(part)}"
        return f"{part} of a{scale}" if scale else part
    if WHOLE.fullmatch(body) and not scale:
        return _whole(body)
    return (said := _amount(body)) and said + scale


def _time(hour: int, minute: int) -> str:
    if minute or hour > 12:
        return _pairs(100 * hour + minute)
    return f"{_cardinal(hour)} o'clock" if hour else "midnight"


def _plainer(text: str) -> str:
    """``text`` with numbers in the forms of NUMBER; compatibility characters as what they stand for."""
    text = POWER.sub(lambda found: POWERS[found[0]], MIXED.sub(" and ", text))
    text = unicodedata.normalize("NFKC", text)
    text = SPACED.sub(lambda found: "".join(found[0].split()), text)
    text = CENTS.sub(lambda found: f"{found[1]} {'cent' if int(found[1]) == 1 else 'cents'}", text)
    text = SIGN_BEHIND.sub(r"\2\1", SIGN_APART.sub(r"\2\1", text))
    text = MONEY_RANGE.sub(lambda found: f"{found[2]} to {found[1]}{found[3]}{found[4] or ''}", text)
    return TELEPHONE.sub(lambda found: " ".join(DIGITS[int(digit)] for digit in found[0] if digit != "-"), text)


def in_words(text: str) -> str:
    """``text`` with its numbers in words, and compatibility characters (NFKC) as what they stand for.

    Raises:
        ModuleNotFoundError: there is a number, and no inflect.
    """

    def words(found: re.Match[str]) -> str:
        scale = "".join(f" {word}" for word in re.split(r"[\s-]+", found["scale"] or "") if word)
        said = _said(found["body"], found["money"] or "", (found["ending"] or "").lower(), scale)
        return f"{'minus ' if found['minus'] else ''}{' '.join(said.split())}" if said.strip() else found[0]

    return NUMBER.sub(words, _plainer(text))

"""Numbers as a reader says them; what has no known form stays, to be named."""

from __future__ import annotations

import pytest

from tasks.spoken_numbers import in_words


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("I have 3 dogs.", "I have three dogs."),
        ("3,500 men in 1865.", "three thousand five hundred men in eighteen sixty-five."),
        (
            "1900, 1905, 2000, 2008, 2024",
            "nineteen hundred, nineteen oh five, two thousand, two thousand eight, twenty twenty-four",
        ),
        ("1,865; 2100", "one thousand eight hundred sixty-five; two thousand one hundred"),
        ("1914-18", "nineteen fourteen-eighteen"),
        ("the 1960s, 1900's and 90s", "the nineteen sixties, nineteen hundreds and nineties"),
        ("the 1st, 22nd and 1,000th", "the first, twenty-second and one thousandth"),
        ("3.14 or 0.50", "three point one four or zero point five zero"),
        ("-5 degrees, −3", "minus five degrees, minus three"),
        ("at 3:30, 10:05, 10:00", "at three thirty, ten oh five, ten o'clock"),
        ("$3.50, £1,000, €2.5", "three dollars and fifty cents, one thousand pounds, two point five euros"),
        ("$1, $1.01, $5 million", "one dollar, one dollar and one cent, five million dollars"),
        ("1/2, 3/4 and 2⁄3", "one half, three quarters and two thirds"),
        ("007, 5551234567", "oh oh seven, five five five one two three four five six seven"),
        ("30,000,000 or 200 million", "thirty million or two hundred million"),
        ("GPT-4 (42)", "GPT-four (forty-two)"),
        ("$5 hundred thousand, a $5-billion deal", "five hundred thousand dollars, a five billion dollars deal"),
        ("$5  million, $5\nmillion", "five million dollars, five million dollars"),
        ("$1-2 million, £3–4", "one to two million dollars, three to four pounds"),
        (
            "5 €, 5$, $ 5, ¥500, $-5, 50¢",
            "five euros, five dollars, five dollars, five hundred yen, minus five dollars, fifty cents",
        ),
        ("1/2 million, ¾ billion", "one half of a million, three quarters of a billion"),
        ("1½, 2 1/2 cups, ⅐", "one and one half, two and one half cups, one seventh"),
        ("10², 5³", "ten squared, five cubed"),
        (
            "10 000, 1 000 000, 1 050 000 and 12 500",
            "ten thousand, one million, one million fifty thousand and twelve five hundred",
        ),
        ("at 18:00, 0:00, 00:30", "at eighteen hundred, midnight, zero thirty"),
        ("555-123-4567", "five five five one two three four five six seven"),
        ("a 50-30-20 rule", "a fifty-thirty-twenty rule"),
        ("5 million € were, 10 $/day", "five million euros were, ten $/day"),
        (
            "Call 44 020 7946 0958.",
            "Call forty-four oh two oh seven thousand nine hundred forty-six oh nine five eight.",
        ),
        ("5 - million reasons", "five - million reasons"),
        ("two 2s, 6s and 20s", "two twos, sixes and twenties"),
        ("３ dogs", "three dogs"),
    ],
)
def test_said(text, said):
    assert in_words(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "12/25/2020",
        "4/7",
        "01/02",
        "9/11",
        "3:30 million",
        "51/2",
        "1.2.3",
        "1,2,3",
        "99,99",
        "1.2.3 million",
        "$1,23.45",
        "$5th",
        "1:2:3",
        "3am",
        "B2B",
        "$",
        "٣",
        "$" + "1" * 70,
        "1" * 70 + "th",
        "1" * 70 + ".5",
        "1" * 5000,
        "1" * 5000 + "/2",
    ],
)
def test_what_has_no_known_form_stays(text):
    assert in_words(text) == text

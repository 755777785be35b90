"""A long text in parts: nothing is lost, no part is too long, and the cuts are where a reader pauses."""

from __future__ import annotations

import pytest

from tasks.pauses import in_parts, length

TALE = (
    'It rained, and it rained. Mr. A. Hill paid 3,500 dollars at 12:30. "Why?" she said. '
    "Nothing more happened that day; they all went home – late (and wet) – and slept until the following morning came."
)


@pytest.mark.parametrize("most", [1, 7, 20, 40, 80, 126, 500])
def test_nothing_is_lost_and_no_part_is_longer_than_the_most_or_a_word(most):
    parts = in_parts(TALE, most)
    assert " ".join(parts) == TALE
    words = [[word for word in part.split() if any(map(str.isalnum, word))] for part in parts]
    assert all(length(" ".join(said)) <= max(most, max(map(length, said))) for said in words)
    assert len(parts) >= -(-len(TALE) // most) or most == 1


def test_cuts_are_behind_sentences_then_behind_clauses_then_between_words():
    assert in_parts("One two three. Four five six. Seven eight.", 30) == [
        "One two three.",
        "Four five six. Seven eight.",
    ]
    assert in_parts("One two three, four five six, seven eight nine ten.", 32) == [
        "One two three, four five six,", "seven eight nine ten."
    ]  # fmt: skip
    assert in_parts("one two three four five six", 14) == ["one two three", "four five six"]
    assert in_parts('"Why?" she said. "Because he did."', 20) == ['"Why?" she said.', '"Because he did."']
    assert in_parts("first line\nsecond line", 12) == ["first line", "second line"]


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Brown came.",
        "A. B. Cole came.",
        "Prof. Lee and Gen. Hill came.",
        "It cost 3,500 at 12:30.",
        "No. 7 at 5 p.m. came.",
    ],
)
def test_titles_initials_and_numbers_end_nothing(text):
    assert in_parts(f"{text} He left at once, he did.", length(text) + 2)[0] == text


def test_no_number_is_cut_from_its_scale_or_its_digits():
    assert in_parts("he earned $2 million and 12 000 more", 22) == ["he earned", "$2 million and", "12 000", "more"]


def test_what_says_nothing_belongs_to_its_neighbour():
    assert in_parts("One two three.\n\n* * *\n\nFour five six.", 15) == ["One two three.\n\n* * *", "Four five six."]
    assert in_parts("* * *\nOne two three.", 14) == ["* * *\nOne two three."]


def test_scripts_without_spaces_are_cut_behind_their_marks():
    assert in_parts("今日は晴れです。明日は雨でしょう。", 10) == ["今日は晴れです。", "明日は雨でしょう。"]


def test_parts_are_of_about_one_length():
    assert in_parts("a b c. " * 5, 28) == ["a b c. a b c. a b c.", "a b c. a b c."]


@pytest.mark.parametrize("text", ["", "   ", "x" * 50])
def test_what_cannot_be_cut_stays(text):
    assert in_parts(text, 2) == [text.strip()]


def test_digits_are_as_long_as_they_are_said():
    assert length("777") >= len("seven hundred seventy-seven") and length("no digit") == 8
    assert in_parts("777 777 777", 60) == ["777 777", "777"]

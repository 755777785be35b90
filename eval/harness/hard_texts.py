"""Sentences on which models that speak go on for ever, stop at once or go round in circles (`eval/tts.py texts=hard`).

Numbers are written out, so that any text tokenizer can read them; let `normaliser=whisper-english` judge them, which
reads digits and words alike.
"""

from __future__ import annotations

HARD: dict[str, tuple[str, ...]] = {  # kind → sentences
    "numbers": (
        "Three hundred and forty two.",
        "One, two, three, four, five, six, seven, eight, nine, ten.",
        "Call me on five five five, zero one two three, after half past seven.",
        "The first of March nineteen eighty four was a Thursday.",
        "It costs seventeen dollars and ninety nine cents, not seventy dollars.",
        "Two times two million is four million.",
        "Turn to page six hundred and sixty six, line sixty six, word six.",
        "Ten, nine, eight, seven, six, five, four, three, two, one, zero.",
    ),
    "repeated words": (
        "No, no, no, no, no.",
        "Very, very, very, very good.",
        "The dog that the dog that the dog bit bit ran away.",
        "He had had what she had had had.",
        "Row, row, row your boat, row, row, row your boat.",
        "Again and again and again and again she asked again.",
        "Knock knock. Who is there? Knock knock. Who is there?",
        "It was a long, long, long, long way home.",
    ),
    "one word": ("Yes.", "No.", "Hello.", "Stop!", "Why?", "Tomorrow.", "Extraordinary.", "A."),
    "sixty words": (
        "In the morning the old man walked down to the harbour, where the boats were coming in with the night's catch, "
        "and he stood by the wall and watched the women sort the fish into baskets while the gulls cried over the "
        "water and the sun rose behind the hills and warmed the grey stones of the town at last.",
        "When the letter arrived nobody in the house wanted to open it, so it lay on the table beside the "
        "lamp for three days, and everyone who passed through the room looked at it for a moment and then looked "
        "away, until my sister took the knife from the drawer and cut the envelope along the top without a word.",
        "The train left the city in the rain and crossed the brown river, and after an hour the houses grew few "
        "and the fields grew large, and we saw horses standing under trees and children waving from a bridge, and my "
        "brother fell asleep against the window while I counted the white stations until it was too dark to see.",
        "She explained that the machine had been built by her grandfather in a shed behind the school, that it had "
        "never worked as he had hoped, that he had taken it apart and put it together again every winter for twenty "
        "years, and that the only thing it could do was make a sound like the sea on summer nights.",
    ),
    "tongue twisters": (
        "She sells sea shells by the sea shore.",
        "Peter Piper picked a peck of pickled peppers.",
        "How much wood would a woodchuck chuck if a woodchuck could chuck wood?",
        "The sixth sick sheikh's sixth sheep's sick.",
        "Red lorry, yellow lorry, red lorry, yellow lorry.",
        "Fresh fried fish, fish fresh fried, fried fish fresh, fish fried fresh.",
        "Six slippery snails slid slowly seaward.",
        "Unique New York, you know you need unique New York.",
    ),
}

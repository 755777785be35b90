"""Builders of the embedded corpus: a grammar, flite speech, synthesised sounds and music.

``scripts/make_corpus.py`` is the command; ``docs/corpus.md`` is the description.
"""

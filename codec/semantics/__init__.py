"""Semantic centres from audio encoders (paper, section 2.3)."""

"""Evaluation: imports everything, is imported by nothing. See docs/evaluation.md."""

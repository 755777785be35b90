"""The field's measures, one file per family."""

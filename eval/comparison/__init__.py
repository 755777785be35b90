"""Many tokenizers in one set-up: plan, budget, sweep, table, page."""

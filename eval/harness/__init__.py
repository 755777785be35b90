"""What evaluations share: clips in, rows, tables, intervals, caches, processes, provenance."""

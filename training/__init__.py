"""What every training and command-line script shares: configuration entry, atomic checkpoints, logs, progress."""

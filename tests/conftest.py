"""Settings that hold for every test: no hub, no display, two threads at most."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # on most machines there is none
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

"""Settings that hold for every test: no hub, no display, one thread (tiny tensors lose by more)."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # on most machines there is none
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; processes that tests start inherit it
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

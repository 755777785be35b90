"""Waveforms to codes and back: the audio tokenizer, its training, and corpora and token shards on disk."""

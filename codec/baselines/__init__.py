"""Published tokenizers behind :class:`codec.interface.AudioTokenizer`, one file each; see docs/tokenizers.md."""

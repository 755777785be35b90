"""What every tokenizer and every file of codes raises; here, because those that need no torch do so, too."""


class TokenizerError(RuntimeError):
    """A tokenizer or a file of codes that cannot be loaded, with the cure."""

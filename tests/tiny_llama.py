"""Sizes of a language model that trains in a second."""

from collections.abc import Mapping

LLAMA = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
}
DEPTH = {"hidden_size": 16, "intermediate_size": 24, "num_attention_heads": 2, "num_key_value_heads": 2}


def options(key: str, sizes: Mapping[str, int]) -> list[str]:
    """The sizes as options of a command line."""
    return [f"{key}.{name}={size}" for name, size in sizes.items()]

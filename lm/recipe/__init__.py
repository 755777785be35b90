"""One training of the language model: options, data, start, optimisers, validation, logs."""

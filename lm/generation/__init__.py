"""From prompts to audio and text: legal tokens, sampling, decoding, streams."""

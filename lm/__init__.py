"""Token ids ⇄ sequences of text and audio, language-model training and generation."""

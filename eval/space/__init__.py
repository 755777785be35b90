"""The space that a tokenizer quantises: recordings in it, what they can be told by, and moves between them."""

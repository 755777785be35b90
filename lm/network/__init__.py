"""What the language model computes beyond its backbone: heads, attention, depth transformer, loss."""

"""What the codec computes: ends, transformers, interleaving, quantiser, and all of it in a stream."""

"""A folder of recordings as a voice that a trained model learns: what is taken, how long it trains, what came of it."""

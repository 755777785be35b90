"""The trained model in other engines."""

"""The trained model for many: a server of our own, and other engines."""

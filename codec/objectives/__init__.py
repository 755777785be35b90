"""What the codec learns from: losses, discriminators, auxiliary networks, a listener."""

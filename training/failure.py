"""What ends a training by itself."""


class NonFiniteLoss(RuntimeError):
    """A loss or the gradient is NaN or infinite; names the audio or the documents it came from."""

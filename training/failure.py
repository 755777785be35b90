"""What ends a training that nobody asked to stop."""


class NonFiniteLoss(RuntimeError):
    """A loss or the gradient is NaN or infinite; names the audio or the documents it came from."""


class HelperEnded(RuntimeError):
    """A process that makes steps ahead is gone; says what ended it."""

"""Recognisers: the judges that turn speech into words (`eval.judges.judging.load_recogniser`).

Two need weights from a folder or a hub: ``hubert-ctc`` and ``whisper``, by transformers (networks.py) or, where the
checkpoint is in the CTranslate2 format, by faster-whisper (fast_whisper.py). Nothing is imported here: the workers of
this room have no use for torch.
"""

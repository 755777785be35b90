"""Files of codes become audio by an exported decoder (scripts/export_onnx.py): no torch, a start of a second.

    python codec/onnx_decode.py onnx=codec-onnx input=codes out=again
    almkit decode codes -o again --onnx codec-onnx

Codes of another tokenizer than the exported one, and what is no file of codes, are listed; the status is then 1, and 2
where nothing is left.
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
from pathlib import Path

from omegaconf import DictConfig

from codec.audio.answer import AUDIO_FORMATS, names_a_file
from codec.audio.files import write_audio
from codec.audio.folder import given_paths
from codec.encoded import Encoded, find_all, find_codes
from codec.errors import TokenizerError
from codec.onnx_codec import OnnxCodec, OnnxCodecError
from training.config import ConfigError, hydra_entry, refusing
from training.identity import file_names, path_inside
from training.lock import hold


def decode(path: Path, target: Path, codec: OnnxCodec) -> float:
    """Write the audio of a file of codes; its seconds. Raises TokenizerError."""
    encoded = Encoded.load(path)
    try:
        encoded.check(codec.fingerprint)
        wave = codec.decode(encoded.codes.T, encoded.samples)
    except (TokenizerError, OnnxCodecError) as error:
        raise TokenizerError(f"{path}: {error}") from None
    write_audio(target, wave, codec.sample_rate)
    return len(wave) / codec.sample_rate


@hydra_entry("onnx_decode")
def main(cfg: DictConfig) -> None:
    if not (sources := given_paths(cfg.input)) or not cfg.onnx:
        raise ConfigError("say which codes, and where the decoder is: almkit decode CODES --onnx FOLDER")
    is_file = names_a_file(cfg.out, AUDIO_FORMATS)
    with refusing(FileNotFoundError, ValueError):
        found, refused = find_all(sources, find_codes)
        names = file_names(found, f".{cfg.format}")
    if is_file and len(found) > 1:
        raise ConfigError(f"out={cfg.out} is a file of one clip, and there are {len(found)}: name a folder.")
    hold(cfg.out, "out", is_file=is_file, reads=() if is_file else sources)
    with refusing(OnnxCodecError):
        codec = OnnxCodec(cfg.onnx, cfg.int8)
    done = 0
    for name, path in found.items():
        target = Path(cfg.out) if is_file else path_inside(Path(cfg.out), names[name])
        try:
            seconds = decode(path, target, codec)
        except TokenizerError as error:
            refused.append(str(error))
            continue
        done += 1
        line = {"source": str(path), "output": str(target), "seconds": seconds}
        print(json.dumps(line) if cfg.json else f"{seconds:9.2f} s  {target}")
    for reason in refused:
        print(json.dumps({"error": reason}) if cfg.json else f"rejected: {reason}")
    if refused:
        raise SystemExit(1 if done else 2)


if __name__ == "__main__":
    main()

"""The command ``almkit``: what people do, in words; each is a program of the packages with its settings.

    almkit speak "hello, world 1.50" -o hello.wav     →   python lm/generate.py task=tts text=… out=hello.wav

It reads the command line and starts the program, whose other ``key=value`` settings ``--set`` reaches; nothing heavy is
imported before that. The status is 0 only when all was done.
"""

from __future__ import annotations

from training.help import help_of, show

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from training.places import REPOSITORY
from training.quoting import written
from training.streams import settle


@dataclass(frozen=True)
class Command:
    """What one can say after ``almkit``.

    Attributes:
        program: module whose ``main`` is started.
        does: in a line.
        takes: ``texts``, ``recordings``, ``files`` that become files, a ``folder`` to learn from, a ``model``, or what
            is to ``push`` or ``pull``.
        settings: that make the program do it.
        example: of the command line.
    """

    program: str
    does: str
    takes: str
    settings: tuple[str, ...]
    example: str


COMMANDS = {
    "encode": Command(
        "codec.reconstruct", "audio files → files of codes (.safetensors)", "files", ("way=encode",),
        "almkit encode recordings/ a.mp3 -o codes",
    ),
    "decode": Command(
        "codec.reconstruct", "files of codes → audio files", "files", ("way=decode",), "almkit decode codes/ -o again"
    ),
    "reconstruct": Command(
        "codec.reconstruct", "audio → codes → audio: hear what the codec keeps", "files", (),
        "almkit reconstruct my.mp3 -o again.wav --window 8",
    ),
    "speak": Command(
        "lm.generate", "texts → speech", "texts", ("task=tts",),
        'almkit speak "hello, world 1.50" --voice slt -o hello.wav',
    ),
    "transcribe": Command(
        "lm.generate", "speech → what is said", "recordings", ("task=asr",), "almkit transcribe a.wav folder/ --json"
    ),
    "caption": Command(
        "lm.generate", "sounds or music → what is heard", "recordings", ("task=audio_captioning",),
        "almkit caption rain.wav; almkit caption --music song.mp3",
    ),
    "sound": Command(
        "lm.generate", "descriptions → sounds", "texts", ("task=text_to_sound",),
        'almkit sound "a dog barks twice" -o dog.wav',
    ),
    "music": Command(
        "lm.generate", "descriptions → music", "texts", ("task=text_to_music",),
        'almkit music "a slow tune on the bass" -o tune.wav',
    ),
    "continue": Command(
        "lm.generate", "recordings → the same, and how they go on", "recordings", ("task=continuation",),
        "almkit continue a.wav -o longer.wav",
    ),
    "push": Command(
        "lm.hub", "a trained model or codec → the hub, with a model card", "push", ("way=push",),
        'almkit push runs/anna/final me/anna --licence cc-by-4.0 --consent "Anna recorded herself, and agreed"',
    ),
    "pull": Command(
        "lm.hub", "a model or codec of the hub → a folder", "pull", ("way=pull",),
        "almkit pull me/anna -o checkpoints/anna",
    ),
    "finetune": Command(
        "lm.finetune", "a folder of recordings → a model that speaks in their voice", "folder", (),
        "almkit finetune recordings/ --from checkpoints/lm-all-mini --name anna --whisper openai/whisper-base.en",
    ),
    "serve": Command(
        "lm.serve", "a model for many: speech and transcriptions by OpenAI's interface, and a page to try it", "model",
        (), "almkit serve --port 8080",
    ),
}  # fmt: skip
DOCTOR = "which metrics can run here, and what the others lack"
EVALUATE = "score a tokenizer or a model: almkit evaluate NAME key=value …"
STANDARD_INPUT = "-: those that standard input names, one a line"


def evaluations() -> dict[str, Path]:
    """The programs of ``eval/`` by name."""
    found = {path.stem: path for path in sorted((REPOSITORY / "eval").glob("*.py"))}
    return {name: path for name, path in found.items() if "@hydra_entry(" in path.read_text(encoding="utf-8")}


def parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    form = argparse.RawDescriptionHelpFormatter
    whole = argparse.ArgumentParser(
        "almkit", description="Audio language models: codes, speech, sounds, music, texts and scores.",
        epilog="almkit COMMAND --help shows its options and an example.", formatter_class=form,
    )  # fmt: skip
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        lines = f"example:\n  {command.example}\n\nall settings: python -m {command.program} --help"
        one = commands.add_parser(name, help=command.does, description=command.does, epilog=lines, formatter_class=form)
        if command.takes == "texts":
            one.add_argument(
                "inputs", nargs="*", metavar="TEXT", help="each as it stands; none: lines of standard input"
            )
            one.add_argument("--file", help="a text file with one text per line")
        elif command.takes == "folder":
            one.add_argument("folder", metavar="FOLDER", help="recordings in any layout, with texts or without")
            one.add_argument("--from", dest="init", help="the model that learns: a folder, one that ships, or a hub id")
            one.add_argument("--name", help="of the run, runs/NAME")
            one.add_argument("--voice", help="the speaker of recordings that name none")
            one.add_argument("--whisper", help="who hears what is said where there is no text: a folder, or a hub id")
            one.add_argument("--lora", action="store_true", help="train adapters, merged in the end")
            one.add_argument(
                "--steps", type=int, help="of the training, in place of what the amount of speech asks for"
            )
        elif command.takes in ("push", "pull"):
            if name == "push":
                one.add_argument("folder", metavar="FOLDER", help="of a trained model or codec")
                one.add_argument("--licence", help="of the weights, as the hub spells it: mit, cc-by-4.0 …")
                one.add_argument("--heard", help="what they have heard, and its licences; else what its run recorded")
                one.add_argument("--consent", help="who agreed that it speaks in their voice, and how")
                one.add_argument("--card", action="store_true", help="print the card, and push nothing")
            one.add_argument("repo", metavar="ORG/NAME", help="of the hub")
            if name == "pull":
                one.add_argument("-o", "--out", dest="folder", help="folder; else the hub's own cache")
        elif command.takes == "model":
            one.add_argument("model", nargs="?", help="folder of a language model, one that ships, or a hub id")
            one.add_argument("--host", help="address to bind; any but 127.0.0.1 needs a key in $ALMKIT_API_KEY")
            one.add_argument("--port", type=int, help="8000 unless said otherwise")
        else:
            kind = "files of codes" if name == "decode" else "audio files"
            one.add_argument("inputs", nargs="+", metavar="PATH", help=f"{kind}, or folders; {STANDARD_INPUT}")
        if command.program == "lm.generate":
            one.add_argument("--model", help="folder of a language model, one that ships, or a hub id")
            one.add_argument("--seed", type=int, help="text or recording i uses seed + i")
        if name == "speak":
            one.add_argument("--voice", help="a speaker that the model has heard, or a recording of the voice")
            one.add_argument("--voice-text", help="what is said in the recording of the voice")
        if name == "caption":
            one.add_argument("--music", action="store_true", help="it is music")
        if name in ("speak", "sound", "music", "continue"):
            one.add_argument("--temperature", type=float, help="0 is greedy")
            one.add_argument("--stream", action="store_true", help="write the audio while it is made")
        if name == "decode":
            one.add_argument("--onnx", help="folder of an exported codec (scripts/export_onnx.py): runs without torch")
        if name == "continue":
            one.add_argument("--domain", choices=("speech", "sound", "music"), help="of the recordings")
        if command.takes == "files":
            one.add_argument("--window", type=int, help="frames per query, from 2 to 10")
            one.add_argument("--levels", type=int, help="so many levels of the codec, from the first")
        if command.program != "lm.hub":
            one.add_argument(
                "--codec", help="folder of an audio tokenizer, one that ships, or a hub id; else the named model's own"
            )
            one.add_argument("--device", help="auto, cpu or cuda")
        if command.takes in ("texts", "recordings", "files"):
            one.add_argument("-o", "--out", help="folder of the results, or for one clip a file, NAME.wav or NAME.flac")
            one.add_argument("--json", action="store_true", help="print a JSON line per result")
        one.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting")
    for name, does in (("evaluate", EVALUATE), ("doctor", DOCTOR)):
        example = "almkit evaluate tts limit=20" if name == "evaluate" else "almkit doctor"
        one = commands.add_parser(
            name, help=does, description=does, epilog=f"example:\n  {example}", formatter_class=form
        )
        if name == "evaluate":
            one.add_argument("what", metavar="NAME", choices=tuple(evaluations()), help=", ".join(evaluations()))
        one.add_argument("rest", nargs=argparse.REMAINDER, metavar="key=value", help="settings; --help lists them")
    return whole


def codec_of(model: str | None) -> str | None:
    """The codec that ships for a model that is named."""
    return import_module("lm.run_state").codec_of(model) if model else None


def settings_of(name: str, given: argparse.Namespace) -> list[str]:
    """The settings of the program that ``almkit NAME`` starts."""
    command = COMMANDS[name]
    onnx = getattr(given, "onnx", None)
    found = [] if onnx else list(command.settings)

    def say(key: str, value: object) -> None:
        if value is not None:
            found.append(f"{key}={written(value)}")

    if command.takes == "folder":
        for key in ("folder", "init", "name", "voice", "steps"):
            say(key, getattr(given, key))
        say("weights.whisper", given.whisper)
    elif command.takes in ("push", "pull"):
        for key in ("folder", "repo", "licence", "heard", "consent"):
            say(key, getattr(given, key, None))
    elif command.takes == "model":
        for key in ("model", "host", "port"):
            say(key, getattr(given, key))
    elif command.takes == "texts":
        texts = given.inputs or given.file is not None
        found += [f"text={written(given.inputs)}"] if given.inputs else []
        say("file", given.file if texts else "-")
    else:
        found.append(f"{'input' if command.takes == 'files' else 'audio'}={written(given.inputs)}")
    say("onnx", onnx)
    if command.program == "lm.generate":
        say("model", given.model)
        say("seed", given.seed)
    if name == "speak" and given.voice is not None:
        if Path(given.voice).is_file():
            found[0] = "task=voice_prompted_tts"
            say("audio", given.voice)
            say("audio_text", given.voice_text)
        else:
            say("speaker", given.voice)
    if name == "caption" and given.music:
        found[0] = "task=music_captioning"
    if name in ("transcribe", "caption") and given.out is None:
        found.append("out=null")
    for key in ("temperature", "domain", "window", "levels", "out", "device"):
        say("sampling.temperature" if key == "temperature" else key, getattr(given, key, None))
    if command.program != "lm.hub":
        say("tokenizer.path", given.codec or codec_of(getattr(given, "init", None) or getattr(given, "model", None)))
    for key in ("stream", "json", "lora", "card"):
        if getattr(given, key, False):
            found.append(f"{key}=true")
    return [*found, *given.set]


def program_of(given: argparse.Namespace) -> str:
    """The module whose ``main`` is started."""
    return "codec.onnx_decode" if getattr(given, "onnx", None) else COMMANDS[given.command].program


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and start the program."""
    whole = parser()
    try:
        given = whole.parse_args(arguments)
    finally:
        settle(sys.stdout)  # ``--help | head``
    if given.command in COMMANDS:
        if COMMANDS[given.command].takes in ("files", "recordings") and given.out is None and len(given.inputs) > 1:
            if not Path(last := given.inputs[-1]).exists():
                whole.error(f"{last} does not exist; if it is where the result goes, say -o {last}")
        program, settings = program_of(given), settings_of(given.command, given)
    else:
        what = given.what if given.command == "evaluate" else "doctor"
        program, settings = f"eval.{what}", given.rest
        if {"-h", "--help"} & set(settings):
            show(help_of(f"almkit {given.command}", evaluations()[what]) or "")
            return
    sys.argv = [f"almkit {given.command}", *settings]
    import_module(program).main()


if __name__ == "__main__":
    main()

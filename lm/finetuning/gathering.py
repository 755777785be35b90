"""Any folder of recordings as clips of one length: what fits stays where it is, long recordings are cut at pauses.

    clips, rejects = gather(Path("recordings"), work / "clips", "anna", Limits(...))

What a corpus is, `codec.corpus` decides. ``out`` becomes a corpus folder that names the recordings where they lie and
holds the pieces of those that were cut; it is made anew only when the folder or the limits changed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from codec.audio.files import audio_info, write_audio
from codec.corpus import AudioError, Clip, CorpusError, Reject, read_corpus
from codec.corpus.cutting import Piece, cut_at_pauses, level
from codec.shards.portions import Scan, scan_corpus
from training.checkpoint import write_file
from training.identity import file_names, path_inside
from training.progress import progress

KEY = "gathered.json"  # written last: what `out` was made from, and what was left out


@dataclass(frozen=True)
class Limits:
    """Which clips can be learnt from.

    Attributes:
        shortest, longest: seconds.
        quietest: mean level in dB of full scale.
        dnsmos: least predicted opinion score (P.808, from 1 to 5); None: it is not looked at.
    """

    shortest: float
    longest: float
    quietest: float
    dnsmos: float | None = None


def line_of(clip: Clip, **more: Any) -> dict[str, Any]:
    """The line of metadata that gives this speech back."""
    named = {"text": clip.text, "speaker": clip.speaker, "split": clip.split, "licence": clip.licence, **more}
    line = {"file_name": str(clip.path.resolve()), "id": clip.id, "domain": "speech", **named}
    return {key: value for key, value in line.items() if value is not None}


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """A JSON line each."""
    write_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def gather(folder: str | Path, out: Path, voice: str, limits: Limits) -> tuple[list[Clip], list[Reject]]:
    """The clips of ``folder`` that are long and loud enough, as a corpus in ``out``, and the others with the reason.

    Args:
        voice: the speaker of recordings that name none.

    Raises:
        CorpusError: no such folder, or nothing in it that can be used.
    """
    if Path(folder).is_file():
        raise CorpusError(f"{folder} is one file; give the folder that holds the recordings")
    scan = scan_corpus(folder)
    asked = {"corpus": scan.key, "voice": voice, **asdict(limits)}
    kept = json.loads((out / KEY).read_text(encoding="utf-8")) if (out / KEY).is_file() else {}
    if kept.get("asked") != asked:
        (out / KEY).unlink(missing_ok=True)  # what it tells of is written over from here on
        kept = {"asked": asked, "rejects": _gather(scan, out, voice, limits)}
        write_file(out / KEY, json.dumps(kept) + "\n")
    rejects = [Reject(**reject) for reject in kept["rejects"]]
    return (read_corpus(out)[0] if len((out / "metadata.jsonl").read_bytes()) else []), rejects


def _gather(scan: Scan, out: Path, voice: str, limits: Limits) -> list[dict[str, Any]]:
    """Write the corpus ``out``; what was left out."""
    lines: list[dict[str, Any]] = []
    rejects = list(scan.rejects)
    for clip in progress(scan.clips, desc="recordings"):
        try:
            found, refused = _clips_of(clip, out, limits)
        except AudioError as error:
            found, refused = [], [str(error)]
        lines += [line_of(part, speaker=clip.speaker or voice, seconds=seconds) for part, seconds in found]
        rejects += [Reject(clip.id, str(clip.path), reason) for reason in refused]
    write_lines(out / "metadata.jsonl", lines)
    return [asdict(reject) for reject in rejects]


def _clips_of(clip: Clip, out: Path, limits: Limits) -> tuple[list[tuple[Clip, float]], list[str]]:
    """The clip itself or its pieces, with their seconds, and why the rest is none."""
    if clip.domain == "music" or clip.captions:
        return [], ["it is described as a sound or music, and is no speech"]
    info = audio_info(clip.path)
    if clip.text and info.seconds > limits.longest:
        return [], [f"longer than {limits.longest:g} s, and its text cannot be cut"]
    found: list[tuple[Clip, float]] = []
    refused = []
    for piece in cut_at_pauses(clip.path, limits.longest):
        if fault := _fault(piece, info.sample_rate, limits):
            refused.append(fault)
        elif info.seconds <= limits.longest:
            found.append((clip, round(info.seconds, 3)))
        else:
            place = f"{clip.id}-{round(1000 * piece.start):08d}"
            path = path_inside(out / "audio", file_names([place], ".flac")[place])
            path.parent.mkdir(parents=True, exist_ok=True)
            write_audio(path, piece.wave, info.sample_rate)
            part = Clip(place, path, None, [], clip.speaker, "speech", clip.split, clip.licence)
            found.append((part, round(len(piece.wave) / info.sample_rate, 3)))
    return found, refused


def _fault(piece: Piece, rate: int, limits: Limits) -> str | None:
    if len(piece.wave) < limits.shortest * rate:
        return f"shorter than {limits.shortest:g} s"
    if level(piece.wave) < limits.quietest:
        return f"quieter than {limits.quietest:g} dB"
    return None if piece.whole else f"no pause in {limits.longest:g} s to cut it at"

"""Push a trained model or codec to the hub with a model card, and pull one.

    almkit push runs/anna/final me/anna --licence cc-by-4.0 --consent "Anna, who recorded herself, agreed in writing"
    python lm/hub.py repo=me/anna folder=runs/anna/final licence=mit consent=… card=true      # look at the card first
    almkit pull me/anna -o checkpoints/anna

The card says what it is and how it is loaded, what it has heard under which licences (from the token shards of its
run), its figures with the commands that gave them (from the evaluations beside it), its limits, and whose voices it
speaks in and that they agreed. A README.md in the folder takes its place. Only weights, settings and the card travel:
no code, no pickle.
"""

from __future__ import annotations

import training.help  # noqa: F401

import json
import shutil
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError
from omegaconf import DictConfig, OmegaConf

from codec.pretrained import HUB_ID, holds_weights
from codec.shards import INDEX_NAME, ShardError, read_shards
from lm.run_state import speakers_of, tasks_of
from training.config import ConfigError, hydra_entry, refusing
from training.identity import first_line
from training.lock import hold
from training.places import beside_code

FILES = ("config.json", "*.json", "*.safetensors", "*.model", "README.md")
LIBRARY, CARD = "transformers", "README.md"
NO_ANSWER: type[Exception] = next(
    kind for kind in HfHubHTTPError.__mro__ if kind.__name__ in ("HTTPError", "RequestException")
)
HUB_ERRORS = (NO_ANSWER, HFValidationError, LocalTokenNotFoundError, OSError)  # of whichever client it is built on
PROGRAMS = {
    "known": "tts",
    **dict.fromkeys(("text_to_sound", "text_to_music"), "text_to_audio"),
    **dict.fromkeys(("audio_captioning", "music_captioning"), "captioning"),
    **dict.fromkeys(("continuation", "interleaved", "voice_prompted_tts"), "prompted"),
}  # of an evaluation's folder, where its name is none
SHOWN = ("wer/", "cer/", "dnsmos/", "speaker-similarity/", "utmos", "distillmos", "bits-per-second", "stoi", "pesq")


def describe(folder: Path) -> dict[str, Any]:
    """config.json of a model. Raises ConfigError where there is no model."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"folder={folder} holds no trained model: config.json cannot be read ({error}).") from None
    if not isinstance(config, dict) or not holds_weights(folder):
        raise ConfigError(f"folder={folder} holds no weights: give the final folder of a training.")
    return config


def recorded(folder: Path) -> list[str]:
    """What the run of ``folder`` was trained on, by licence and speaker; empty where that is not known."""
    settings = folder.parent / "config.yaml"
    if not settings.is_file():
        return []
    data: Any = OmegaConf.to_container(OmegaConf.load(settings), resolve=False)
    data = data.get("data", {})
    named = data.get("tokens") if data.get("tokens") not in (None, "auto") else f"{data.get('root')}/tokens"
    shards = beside_code(str(named))
    if not (shards / INDEX_NAME).is_file():
        return []
    try:
        rows = [row for row in read_shards(shards) if row.split == "train"]
    except ShardError as error:
        raise ConfigError(f"{error}; or say heard=… in your own words.") from None
    hours: dict[tuple[str, str], float] = defaultdict(float)
    speakers: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        key = (row.licence or "a licence that is not recorded", row.domain)
        hours[key] += row.duration / 3600
        speakers[key].update([row.speaker] if row.speaker else [])
    found = []
    for (licence, domain), length in sorted(hours.items(), key=lambda item: -item[1]):
        names = sorted(speakers[licence, domain])
        of = f" of {', '.join(names[:8])}{f' and {len(names) - 8} more' if len(names) > 8 else ''}" if names else ""
        found.append(f"{length:.2f} h of {domain}{of}: {licence}")
    return found


def figures(folder: Path, repo: str) -> Iterator[str]:
    """A table per evaluation beside the model, or of its fine-tuning, with the command that gives it."""
    places = [*folder.parent.glob("eval-*/results.json"), *folder.parent.glob("finetune/after/eval-*/results.json")]
    for place in sorted(places):
        with refusing(OSError, ValueError, key=str(place)):
            results = json.loads(place.read_text(encoding="utf-8"))
        lines = []
        for row, cells in results["rows"].items():
            for metric, cell in cells.items():
                if metric.startswith(SHOWN) and cell.get("value") is not None:
                    low, high = cell.get("low"), cell.get("high")
                    interval = f" [{low:.3g}, {high:.3g}]" if low is not None else ""
                    lines.append(f"| {row} | {metric} | {cell['value']:.3g}{interval} | {cell['n']} |")
        if lines:
            corpus = results.get("how", {}).get("corpus", {})
            of = f"{corpus.get('name', 'its corpus')}, {corpus.get('split', 'test')}"
            kind, _, task = place.parent.name.removeprefix("eval-").partition("-")
            program = PROGRAMS.get(kind, kind)
            task = kind if program in ("text_to_audio", "captioning", "prompted") else task
            chosen = f" task={task}" if task and program != "tts" else ""
            yield f"`python eval/{program}.py{chosen} model={repo}`, on {of}, with 95 % intervals over clips:\n"
            yield "\n".join(["| row | metric | value | clips |", "|---|---|---|---|", *lines]) + "\n"


def card_of(folder: Path, cfg: DictConfig) -> str:
    """The model card.

    Raises:
        ConfigError: nobody says what it has heard, under which licence it is, or who agreed to its voices.
    """
    config = describe(folder)
    own = (folder / CARD).read_text(encoding="utf-8") if (folder / CARD).is_file() else ""
    tasks, speakers, codec = tasks_of(folder), speakers_of(folder) or [], config.get("model_type") == "almtokenizer"
    if speakers and not cfg.consent:
        raise ConfigError(
            f"the model speaks in the voices of {', '.join(speakers[:8])}: say who agreed to that and how, consent=…"
        )
    if own.startswith("---"):  # a card with a head of its own
        if not any(line.removeprefix("license:").strip() not in ("", line) for line in own.split("---")[1].split("\n")):
            raise ConfigError(f"{folder / CARD} begins with front matter that names no license: add it there.")
        return own + (f"\n**Voices.** {cfg.consent}\n" if speakers and str(cfg.consent) not in own else "")
    if not cfg.licence:
        raise ConfigError("say under which licence the weights are, as licence=mit or licence=cc-by-4.0.")
    tags = ["almkit", "audio", *(["audio-codec"] if codec else ["audio-language-model", *tasks])]
    head = {"license": cfg.licence, "library_name": LIBRARY, "tags": tags}
    front = "---\n" + OmegaConf.to_yaml(OmegaConf.create(head)) + "---\n"
    if own:
        consent = f"\n**Voices.** {cfg.consent}\n" if speakers else ""
        return front + own + consent
    data = [cfg.heard] if cfg.heard else recorded(folder)
    if not data:
        raise ConfigError(f"it is not recorded what {folder} has heard: say it, and its licences, heard=…")
    kind = "AutoModel" if codec else "AutoModelForCausalLM"
    door = f'load_codec("{cfg.repo}")' if codec else f'load_model("{cfg.repo}")'
    first = "import codec.model  # registers the class\n" if codec else ""
    what = (
        "An audio tokenizer"
        if codec
        else f"A language model on audio tokens, trained for {', '.join(tasks) or 'audio'}"
    )
    places = config.get("max_position_embeddings")
    limits = [cfg.limits] if cfg.limits else []
    limits += [f"It has {places} positions for text and audio together."] if places and not codec else []
    limits += (
        [f"It knows {len(speakers)} voices by name, and no other: {', '.join(speakers[:20])}."] if speakers else []
    )
    limits += ["What it says or writes can be wrong; nothing was tested beyond the figures above."]
    parts = [
        f"{front}\n# {cfg.repo.partition('/')[2]}\n",
        f"{what} ({config.get('model_type')}), made with almkit.\n",
        f"```python\nfrom almkit import load_codec, load_model\n\nmodel = {door}\n```\n",
        f"```python\nfrom transformers import {kind}\n{first}\nmodel = {kind}.from_pretrained(\"{cfg.repo}\")\n```\n",
        "## Heard\n",
        *(f"- {line}" for line in data), "",
        "## Figures\n",
        *(list(figures(folder, cfg.repo)) or ["None were measured.\n"]),
        "## Limits\n",
        *(f"- {line}" for line in limits), "",
        *(["## Voices and consent\n", f"It speaks in the voices of {', '.join(speakers)}. {cfg.consent}\n",
           "Do not use it to make anyone believe that a person said what they did not say, and say of what it "
           "makes that it is synthetic.\n"] if speakers else []),
    ]  # fmt: skip
    return "\n".join(parts)


def push(cfg: DictConfig) -> None:
    """Put the folder and its card into the repository. Raises ConfigError."""
    folder = beside_code(cfg.folder)
    card = card_of(folder, cfg)
    if cfg.card:
        print(card)
        return
    with tempfile.TemporaryDirectory() as staged:
        for pattern in FILES:
            for file in folder.glob(pattern):
                shutil.copy2(file, staged)
        (Path(staged) / CARD).write_text(card, encoding="utf-8")
        api = huggingface_hub.HfApi()
        try:
            api.create_repo(cfg.repo, private=cfg.private, exist_ok=True)
            api.upload_folder(repo_id=cfg.repo, folder_path=staged, commit_message=f"Push {folder.name} with its card")
        except HUB_ERRORS as error:
            status = getattr(getattr(error, "response", None), "status_code", 0)
            locked = isinstance(error, LocalTokenNotFoundError) or status in (401, 403)
            cure = "log in with `hf auth login`" if locked else "see to it that the hub can be reached, and try again"
            raise ConfigError(f"{cfg.repo} cannot be pushed ({first_line(error)}): {cure}.") from None
        count = len(list(Path(staged).iterdir()))
    print(f"{cfg.repo}: {count} files and the card are there; `almkit pull {cfg.repo}` gets them.")


def pull(cfg: DictConfig) -> None:
    """Fetch the weights, settings and the card of a repository; code and pickles stay there. Raises ConfigError."""
    name, _, revision = cfg.repo.partition("@")
    if cfg.folder:
        hold(cfg.folder, "folder")
    try:
        found = huggingface_hub.snapshot_download(
            name, revision=revision or None, allow_patterns=list(FILES), local_dir=cfg.folder
        )
    except HUB_ERRORS as error:
        raise ConfigError(f"{cfg.repo} cannot be pulled ({first_line(error)}).") from None
    describe(Path(found))
    print(f"{cfg.repo}: in {found}")


@hydra_entry("hub")
def main(cfg: DictConfig) -> None:
    if not HUB_ID.fullmatch(str(cfg.repo or "").partition("@")[0]):
        raise ConfigError(f"repo={cfg.repo}: name a repository of the hub, ORG/NAME.")
    if cfg.way == "pull":
        pull(cfg)
    elif not cfg.folder:
        raise ConfigError("say what is pushed: folder=FOLDER, as runs/anna/final")
    else:
        push(cfg)


if __name__ == "__main__":
    main()

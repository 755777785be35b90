"""Who may import whom: each room names the rooms it may look into, and no file imports itself by a detour."""

import ast
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("almkit", "codec", "lm", "tasks", "eval", "training", "scripts")
# The files of a package that one runs, and the rooms behind them, from the ground up. A room may look into those listed
# above it in its own package, and into what its package may look into.
ROOMS = {
    "training": {"training": "training"},
    "tasks": {"tasks": "tasks"},
    "codec": {
        "sound": "codec/audio",
        "corpus": "codec/corpus",
        "contract": "codec/errors.py codec/encoded.py codec/interface.py codec/pretrained.py",
        "network": "codec/network",
        "model": "codec/model.py codec/load.py codec/files.py codec/onnx_codec.py",
        "baselines": "codec/baselines",
        "shards": "codec/shards",
        "objectives": "codec/objectives",
        "semantics": "codec/semantics",
        "recipe": "codec/recipe",
        "doors": "codec",
    },
    "lm": {
        "sequences": "lm/sequences",
        "network": "lm/network",
        "model": "lm/model.py lm/run_state.py",
        "generation": "lm/generation",
        "door": "lm/audio_model.py",
        "recipe": "lm/recipe",
        "finetuning": "lm/finetuning",
        "serving": "lm/serving",
        "doors": "lm",
    },
    "eval": {
        "harness": "eval/harness",
        "embedders": "eval/embedders",
        "metrics": "eval/metrics",
        "recognisers": "eval/judges/recognisers",
        "judges": "eval/judges",
        "probes": "eval/probes",
        "space": "eval/space",
        "comparison": "eval/comparison",
        "doors": "eval",
    },
    "almkit": {"almkit": "almkit"},
    "scripts": {"parts": "scripts/mini_corpus scripts/preparation scripts/page", "doors": "scripts"},
}
BELOW = {
    "training": (),
    "tasks": (),
    "codec": ("training",),
    "lm": ("codec", "tasks", "training"),
    "eval": ("lm", "codec", "tasks", "training"),
    "almkit": ("eval", "lm", "codec", "tasks", "training"),
    "scripts": ("eval", "lm", "codec", "tasks", "training"),
}
# Doors that other files open: encoding is a step of a training and of evaluations, an untrained codec and a classical
# one are rows of them.
SHARED_DOORS = {"codec.classical", "codec.encode", "codec.reconstruct", "codec.untrained", "eval.known_answers"}


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_of(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def room(module: str) -> tuple[str, int, str]:
    """Package, floor and name of the room that a module is in: the longest path that holds it."""
    path = modules()[module].relative_to(ROOT).as_posix()
    package = module.split(".")[0]
    found = [
        (len(place), floor, name)
        for floor, (name, places) in enumerate(ROOMS[package].items())
        for place in places.split()
        if path == place or path.startswith(place + "/")
    ]
    _, floor, name = max(found)
    return package, floor, name


def imports(source: str, known: set[str]) -> list[tuple[str, bool]]:
    """Our modules that ``source`` imports, and whether it does so inside a function, but not what only types need."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    found = []
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [part if (part := f"{node.module}.{a.name}") in known else node.module for a in node.names]
        found += [(name, node.col_offset > 0) for name in names if name in known]  # type: ignore[attr-defined]
    return found


@cache
def arrows() -> dict[str, list[tuple[str, bool]]]:
    known = set(modules())
    return {module: imports(path.read_text(encoding="utf-8"), known) for module, path in modules().items()}


def fault(source: str, target: str) -> str | None:
    """Why ``source`` may not import ``target``, or None."""
    (package, floor, name), (other, height, place) = room(source), room(target)
    if other != package:
        if other not in BELOW[package]:
            return f"{package} does not know {other}"
        opens = package in ("almkit", "scripts") or target in SHARED_DOORS
        return f"a door of {other}" if place == "doors" and not opens else None
    if place == "doors" and name == "doors" and package != "scripts" and target not in SHARED_DOORS:
        return "from door to door"
    return f"from {name} up to {place}" if height > floor else None


@pytest.mark.parametrize("package", PACKAGES)
def test_arrows_run_down_only(package: str) -> None:
    faults = [
        f"{source} -> {target}: {why}"
        for source, targets in arrows().items()
        if source.split(".")[0] == package
        for target, _ in targets
        if (why := fault(source, target))
    ]
    assert not faults, "\n".join(faults)


def test_no_circle_of_files() -> None:
    graph = {source: {target for target, _ in targets if target != source} for source, targets in arrows().items()}
    try:
        tuple(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_our_modules_are_imported_where_a_reader_sees_it() -> None:
    late = [f"{source} -> {target}" for source, targets in arrows().items() for target, inside in targets if inside]
    assert not late, late


@pytest.mark.parametrize(
    "source, target, why",
    [
        ("tasks.tts", "lm.model", "tasks does not know lm"),
        ("codec.network.quantizer", "codec.recipe.run", "from network up to recipe"),
        ("codec.interface", "codec.model", "from contract up to model"),
        ("eval.metrics.wer", "eval.judges.judging", "from metrics up to judges"),
        ("lm.generation.frames", "lm.train", "from generation up to doors"),
        ("eval.asr", "codec.train", "a door of codec"),
        ("eval.asr", "eval.captioning", "from door to door"),
    ],
)
def test_an_arrow_that_runs_up_is_found(source: str, target: str, why: str) -> None:
    assert fault(source, target) == why


def test_late_imports_and_names_of_packages_are_found() -> None:
    source = "from codec import model\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import lm.model\n"
    source += "def work():\n    from codec.network.patchify import voiced\n    import json\n"
    assert imports(source, set(modules())) == [("codec.model", False), ("codec.network.patchify", True)]

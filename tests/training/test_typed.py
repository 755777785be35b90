"""What is typed is what arrives: texts and names, in every program."""

import random
import re

import pytest
from omegaconf import OmegaConf

from training.config import CONFIG_DIR, REPOSITORY, check_overrides, compose
from training.quoting import literal
from training.schema import options
from training.typed import as_typed, strings

PROGRAMS = sorted(path.stem for path in CONFIG_DIR.glob("*.yaml"))
NAMES = ["2024", "1.50", "7e3", "1_000", "true", "a,b", "it's", "a=b (c)", "[x", "{x", "${x}", "1:2", ".5", "inf"]
TEXTS = [
    *NAMES, "hello, world", "it's nine o'clock!", "你好,世界", "$0.36: 50 %", '"Hello," she said.', "'tis", "\\", "!",
    "c:\\dir\\", "costs ${seed}", "a \\${x}", "\\\\${x}", "# no comment", "~", "~a", "@b", "a: b", "null null", "None",
    "choice(a,b)", "range(1,3)", "-1", "+1", "0x1F", "०१", "’", "a\tb", "(c", "it's \\' so", "%", "*",
]  # fmt: skip
FIRST = {"serve": "model",   # a name, or the folder of what a program reads or writes
    "lm_train": "name", "codec_train": "name", "ablate_lm": "name", "recogniser_train": "corpus", "demo_page": "out",
    "eval_compare": "out", "eval_doctor": "ctc", "eval_selftest": "clips", "lm_finetune": "folder", "hub": "folder",
}  # fmt: skip


def received(program: str, key: str, *overrides: str) -> object:
    typed = as_typed(program, list(overrides), CONFIG_DIR)
    check_overrides(program, typed)
    return OmegaConf.select(compose(program, list(overrides)), key)


def test_all_programs_are_here() -> None:
    files = [*REPOSITORY.glob("codec/*.py"), *REPOSITORY.glob("lm/*.py"), *REPOSITORY.glob("eval/*.py")]
    files += REPOSITORY.glob("scripts/*.py")
    used = {name for file in files for name in re.findall(r'@hydra_entry\("(\w+)"\)', file.read_text("utf-8"))}
    assert used == set(PROGRAMS)


@pytest.mark.slow
@pytest.mark.parametrize("program", PROGRAMS)
def test_every_key_of_every_program_that_holds_a_string_gets_it_as_typed(program: str) -> None:
    known = options(CONFIG_DIR, program)
    kinds = {
        k.replace("*", "tts"): v  # an entry of a dictionary
        for k, v in strings(CONFIG_DIR, program).items()
        if "_target_" not in k and not known[k].choices
    }
    for turn in range(0, len(NAMES), 5):  # each key gets three of the names, all programs together all of them
        names = {key: NAMES[(place + turn) % len(NAMES)] for place, key in enumerate(sorted(kinds))}
        typed = {key: "[a,1.50, 'x, y',2024]" if kind == "list" else names[key] for key, kind in kinds.items()}
        cfg = compose(program, [f"{'' if key in known else '+'}{key}={value}" for key, value in typed.items()])
        for key, kind in kinds.items():
            assert OmegaConf.select(cfg, key) == (["a", "1.50", "x, y", "2024"] if kind == "list" else names[key]), key
    first = FIRST.get(program, "out")
    assert received(program, first, f"{first}=2024") == "2024"
    assert received(program, first, f"{first}=null") is None


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_arrives_as_it_was_typed(text: str) -> None:
    assert compose("lm_generate", [f"text={text}"]).text == text


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        ("[1.50,7e3, it's]", ["1.50", "7e3", "it's"]),
        ("['hello, world',\"a 'b'\",null]", ["hello, world", "a 'b'", "null"]),
        ("[a=b,c: d]", ["a=b", "c: d"]),
        ("'1.50'", "1.50"),
        ("'[a,b]'", "[a,b]"),
        ('"null"', "null"),
        ("'it\\'s'", "it's"),
        ("[cough] hello", "[cough] hello"),
    ],
)
def test_lists_and_quotes_stay_what_they_were(value: str, texts: object) -> None:
    assert received("lm_generate", "text", f"text={value}") == texts


@pytest.mark.slow
def test_whatever_a_text_contains_it_can_be_written_literally() -> None:
    rng = random.Random(0)
    for _ in range(40):
        one, two = ("".join(rng.choices("ab\\'\"${}[](),:= \n1é", k=rng.randrange(1, 12))) for _ in range(2))
        cfg = compose("lm_generate", [f"text={literal(one)}", f"speaker={literal(two)}"])
        assert (cfg.text, cfg.speaker) == (one, two)


@pytest.mark.slow
def test_other_options_of_a_key_stay() -> None:
    assert received("lm_train", "text.normalise", "text.normalise={tts: english}") == {"tts": "english"}
    assert received("lm_train", "resume", "resume=none") == "none"
    assert received("eval_reconstruction", "delay", "delay=28") == 28
    assert received("lm_train", "task.prompt", "task=tts", "task.prompt=5") == "5"
    assert received("lm_train", "task.tasks.tts.prompt", "task=[tts,asr]", "task.tasks.tts.prompt=1e3") == "1e3"
    assert received("codec_train", "codec.patchify", "codec=mini_causal", "codec.patchify=conv") == "conv"


def test_a_sweep_is_still_a_sweep() -> None:
    assert as_typed("lm_train", ["-m", "name=2024,a b", "seed=1,2"], CONFIG_DIR) == [
        "-m",
        "name='2024','a b'",
        "seed=1,2",
    ]
    assert as_typed("lm_train", ["-m", "name=choice(a,b)"], CONFIG_DIR) == ["-m", "name=choice(a,b)"]


def test_every_key_without_a_default_says_what_it_holds() -> None:
    """A key that is null says nothing of its type: the comment is the only rule there is."""
    types = r"\s*[\w-]+: null\s*# (str|int|float|bool|list of (str|int|float)|list|null)\b"
    for path in sorted(CONFIG_DIR.rglob("*.yaml")):
        lines = path.read_text(encoding="utf-8").splitlines()
        if "  - mini" in lines:  # what it changes is explained there
            continue
        for line in lines:
            assert not re.match(r"\s*[\w-]+: null\b", line) or re.match(types, line), f"{path.name}: {line}"

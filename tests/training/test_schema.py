"""What comments say of values, and that every numeric key of every program holds to it."""

import math

import pytest
from omegaconf import OmegaConf

from training.config import CONFIG_DIR, compose
from training.schema import Option, first_fault, limits, options

BELOW, ABOVE = math.nextafter(1.0, 0.0), math.ulp(0.0)


@pytest.mark.parametrize(
    ("comment", "option"),
    [
        ("int", Option("int")),
        ("int, ids, at least 8: rows; longer ones go", Option("int", range="at least 8")),
        ("float or one per level, dB, from -90 to 0; null: as it comes", Option("float", "either", "from -90 to 0")),
        ("2 floats, at least 0 and below 1: momenta", Option("float", "pair", "at least 0 and below 1")),
        ("2 floats rising: a range", Option("float", "rising")),
        ("ints, samples: of windows, at least 3", Option("int", "list")),
        ("list of str: names", Option("str", "list")),
        ("str or list: texts", Option("str", "either")),
        ("str or null: a folder", Option("str", also=("null",))),
        ("dict or null: rows of a table", Option("", "dict", also=("null",))),
        ("int or auto: samples", Option("int", also=("auto",))),
        ("null | 1 | 2: the stage", Option("", "default", choices=("null", "1", "2"))),
        ("null | wandb: where to", Option("str", "default", choices=("null", "wandb"))),
        ("auto | none | PATH: what goes on", Option()),
        ("internal: words that only begin like one", Option()),
        ("whether this is so", Option()),
    ],
)
def test_a_comment_says_what_its_key_holds(comment: str, option: Option) -> None:
    assert Option.said(comment) == option


def test_ranges_are_words() -> None:
    found = {words: limits(words) for words in ("", "at least 1", "above 0 and at most 1", "at least 0 and below 1")}
    assert list(found.values()) == [(-math.inf, math.inf), (1, math.inf), (ABOVE, 1), (0, BELOW)]
    assert limits("from 1e-4 to 2.5") == (1e-4, 2.5)


@pytest.mark.parametrize(
    ("chosen", "key", "option"),
    [
        ("codec=mini_causal", "codec.span", Option("int")),
        ("lm=small", "lm.init_rows", Option("str", "default", choices=("normal", "mean", "codebook"))),
        ("task=all", "task.tasks.tts.decoding.top_p", Option("float", range="above 0 and at most 1")),
    ],
)
def test_comments_hold_where_another_file_builds_on_theirs(chosen: str, key: str, option: Option) -> None:
    assert options(CONFIG_DIR, "codec_train" if chosen.startswith("codec") else "lm_train", (chosen,))[key] == option


# Whose range follows from others and is held where they are used, or that may be any number.
ELSEWHERE = ("codec.", "lm.", "comparison.rows.", "trainer.gain_db", "weights.ssl_layer", "delay")
PROGRAMS = [(path.stem, ()) for path in sorted(CONFIG_DIR.glob("*.yaml"))]
PROGRAMS += [("lm_train", (f"task={path.stem}",)) for path in sorted((CONFIG_DIR / "task").glob("*.yaml"))]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "chosen"), [row for row in PROGRAMS if "task=mixture" not in row[1]])
def test_a_numeric_key_takes_no_other_value(program: str, chosen: tuple[str, ...]) -> None:
    """Whatever its default is: by what its comment says, in one sentence that names the key and the range."""
    cfg = compose(program, list(chosen))
    known = options(CONFIG_DIR, program, chosen)
    numeric = {key: option for key, option in known.items() if option.base in ("int", "float") and ".*" not in key}
    assert numeric or program in ("codec_classical", "eval_selftest", "hub", "onnx_decode")
    for key, option in numeric.items():
        assert option.range or key.startswith(ELSEWHERE), f"{key}: its comment names no range"
        least, most = limits(option.range)
        wrong = [math.nan, math.inf, -math.inf, "abc", True, {"a": 1}, *([1.5] if option.base == "int" else [])]
        wrong += [number for number in (least - 1, most + 1) if math.isfinite(number)]
        wrong += [0] * (least == ABOVE) + [1] * (most == BELOW)
        for value in wrong:
            two = option.shape in ("pair", "rising", "list")
            fault = option.fault([value, value] if two else value)
            assert fault and option.range in fault, (key, value)
        if option.shape == "one":
            assert option.fault([1, 1])
    assert first_fault(cfg, known) is None
    for key in list(numeric)[:1]:
        OmegaConf.update(cfg, key, "abc")
        assert str(first_fault(cfg, known)).startswith(f"{key}=abc must be ")

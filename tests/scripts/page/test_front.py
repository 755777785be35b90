"""The front matter of a page: shown as text, refused in a sentence where it cannot be used."""

from pathlib import Path

import page_fixtures as made
import pytest

from demo_page import Options, build_page
from page.front import read_front
from training.config import ConfigError

WHOLE = """
title: A title & more
authors: [{name: A. Author, url: "https://example.org/a", at: Some University}, B. Other]
abstract: What it is.
links: {Paper: "https://example.org/paper"}
figure: overview.png
"""


@pytest.mark.slow
def test_authors_links_abstract_and_figure_stand_above_the_clips(tmp_path: Path) -> None:
    (tmp_path / "overview.png").write_bytes(b"a picture")
    (tmp_path / "front.yaml").write_text(WHOLE)
    folder = made.tts(tmp_path / "runs" / "demo" / "eval-tts")
    page = build_page([folder], tmp_path / "page", Options(front=read_front(tmp_path / "front.yaml")))
    head, clips = page.read_text(encoding="utf-8").split("<main>")
    for text in ("<h1>A title &amp; more</h1>", '<a href="https://example.org/a">A. Author</a>', "Some University"):
        assert text in head
    assert "B. Other" in head and '<a href="https://example.org/paper">Paper</a>' in head and "What it is." in head
    assert 'src="figure.png"' in head and (page.parent / "figure.png").read_bytes() == b"a picture"
    assert clips.index('class="items"') < clips.index('class="summary sortable"'), "clips come before scores"
    (tmp_path / "front.yaml").write_text(WHOLE.replace("A title", "Another"))
    again = build_page([folder], tmp_path / "page", Options(front=read_front(tmp_path / "front.yaml")))
    assert "Another &amp; more" in again.read_text(encoding="utf-8"), "a page follows its front matter"


@pytest.mark.parametrize(
    "text, why",
    [
        ("title: [", "cannot be read"),
        ("- a list", "the keys are title"),
        ("titel: a", "the keys are title"),
        ("links: {Paper: 'javascript:alert(1)'}", "no address"),
        ("authors: [{name: A, url: file:///etc/passwd}]", "no address"),
        ("figure: none.png", "there is no figure"),
        ("figure: front.yaml", "there is no figure"),
        ("figure: [a.png]", "figure is .*: write a text"),
        ("title: [a, b]", "title is .*: write a text"),
        ("abstract: {a: b}", "abstract is .*: write a text"),
        ("authors: 7", "authors is 7: write a list"),
        ("authors: A. Author", "authors is 'A. Author': write a list"),
        ("authors: [{nam: A}]", "write a name, or"),
        ("authors: [[A, B]]", "write a text"),
        ("links: [https://a.b]", "links is .*: write a dictionary"),
        ("links: {Paper: 7}", "no address"),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "front.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=f"front=.*{why}"):
        read_front(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_front(tmp_path / "none.yaml")

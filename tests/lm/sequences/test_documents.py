"""Text ⇄ ids, documents ⇄ ids: nothing is lost, and text never becomes audio."""

from __future__ import annotations

import pytest
import sentencepiece
from transformers import AutoTokenizer

from lm.sequences.documents import render, text_ids
from lm.sequences.patterns import PATTERNS
from lm.sequences.text_tokenizer import MODEL_FILE, TextTokenizerError, train_text_tokenizer
from tasks.base import Request
from tasks.document import AudioSegment, Document, TextSegment
from tasks.tts import TTS

TEXTS = [
    "slt: anna found the green table",
    "",
    " leading and  double   spaces ",
    "Über 漢字 🎧 \t\n",
    "</s> <s> <unk> <0x41> <audio> </audio> <|tts|> <|s_5|> <|spare_3|>",
    "ﬁ ① Ａ e\u0301",  # identity normalisation: compatibility forms stay
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_survives_the_round_trip(text_tokenizer, vocabulary, text):
    ids = text_ids(text_tokenizer, text, vocabulary)
    assert text_tokenizer.decode(ids) == text


def test_corpus_words_are_about_one_token(tmp_path, rows):
    tokenizer = train_text_tokenizer([row.text for row in rows], 500, tmp_path)
    words = sum(len(row.text.split()) for row in rows)
    assert sum(len(tokenizer.tokenize(row.text)) for row in rows) <= 1.2 * words


def test_stock_autotokenizer_and_sentencepiece_agree(tmp_path, rows):
    train_text_tokenizer([row.text for row in rows], 400, tmp_path)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    reference = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / MODEL_FILE))
    for text in [*(row.text for row in rows), "unseen wörds 漢", "tablegarden green"]:
        assert stock(text, add_special_tokens=False)["input_ids"] == reference.encode(text)


def test_training_does_not_depend_on_the_order_of_the_texts(tmp_path, rows):
    texts = [row.text for row in rows]
    first = train_text_tokenizer(texts, 400, tmp_path / "a").get_vocab()
    assert train_text_tokenizer(texts[::-1], 400, tmp_path / "b").get_vocab() == first


def test_a_corpus_without_text_is_refused(tmp_path):
    with pytest.raises(TextTokenizerError, match="no text"):
        train_text_tokenizer(["", " "], 400, tmp_path)


def test_text_that_contains_audio_tokens_yields_text_rows_only(text_tokenizer, vocabulary):
    hostile = " ".join([*vocabulary.control, "<|s_5|>", "<audio_0_17>", "</s>", "<s>"])
    ids = text_ids(text_tokenizer, hostile, vocabulary)
    assert max(ids) < vocabulary.text_size
    specials = {text_tokenizer.bos_token_id, text_tokenizer.eos_token_id, text_tokenizer.unk_token_id}
    assert not specials & set(ids)
    document = Document("tts", (TextSegment(hostile), AudioSegment(None)))
    rendered = render(document, vocabulary, text_tokenizer).ids
    assert (vocabulary.levels_of(rendered) == -1).all()
    assert (rendered >= vocabulary.text_size).sum() == 5  # task, <text>, </text>, modality, <audio>


def test_the_prompt_is_a_prefix_of_the_training_ids(rows, text_tokenizer, vocabulary):
    task = TTS()
    for row in rows:
        prompt = render(task.document(row, with_target=False), vocabulary, text_tokenizer)
        whole = render(task.document(row), vocabulary, text_tokenizer)
        request = Request(id=row.id, text=row.text, speaker=row.speaker)
        asked = render(task.document(request, with_target=False), vocabulary, text_tokenizer)
        assert (whole.ids[: len(prompt)] == prompt.ids).all()
        assert (asked.ids == prompt.ids).all()
        # Learnt is exactly what follows the prompt: the codes and the end.
        assert not whole.learn[: len(prompt)].any() and whole.learn[len(prompt) :].all()
        assert len(whole) - len(prompt) == 3 * row.n_frames + 1
        codes = vocabulary.ids_to_codes(PATTERNS["flat"].unflatten(whole.ids[len(prompt) : -1], 3))
        assert (codes == row.codes).all()


def test_segments_in_any_order_and_number(rows, text_tokenizer, vocabulary):
    a, b = rows[0].codes, rows[1].codes
    document = Document(
        "interleaved",
        (AudioSegment(a), TextSegment("anna", learn=True), AudioSegment(b, "sound", learn=True), TextSegment("x")),
    )
    rendered = render(document, vocabulary, text_tokenizer)
    names = {vocabulary.control_id(name): name for name in vocabulary.control}
    controls = [names[i] for i in rendered.ids.tolist() if i in names]
    assert controls == (
        "<|interleaved|> <|speech|> <audio> </audio> <text> </text> <|sound|> <audio> </audio> <text> </text>".split()
    )
    learnt = rendered.ids[rendered.learn]
    assert (vocabulary.levels_of(learnt) >= 0).sum() == 3 * len(b)
    assert vocabulary.control_id("</text>") in learnt and vocabulary.control_id("</audio>") in learnt


def test_only_the_last_segment_may_be_open(text_tokenizer, vocabulary):
    with pytest.raises(ValueError, match="last segment"):
        render(Document("tts", (AudioSegment(None), TextSegment("x"))), vocabulary, text_tokenizer)


def test_braces_and_speakers_in_texts_stay_text():
    task = TTS()
    row = Request(id="x", text="{speaker} {0} {text}", speaker="rms")
    assert task.prompt_text(row) == "rms: {speaker} {0} {text}"
    assert task.prompt_text(Request(id="x", text="hi")) == "hi"

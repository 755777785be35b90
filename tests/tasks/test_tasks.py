"""Every task: its document, its prompt, its variants; text to speech renders what it always did."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from types import SimpleNamespace

import hydra
import numpy as np
import pytest
from hydra.utils import instantiate

from lm.recipe.data import RowOrder, StepData
from lm.sequences.document_set import render_documents
from lm.sequences.documents import render
from lm.sequences.vocabulary import AudioVocabulary
from tasks.asr import ASR
from tasks.base import Request, TaskError
from tasks.document import AudioSegment, TextSegment
from tasks.text import check_names, normaliser, normalisers, note_on_lengths, note_on_texts, parts_to_say
from training.config import REPOSITORY, check_overrides, compose, group_options

SIX = ["tts", "asr", "text_to_sound", "text_to_music", "audio_captioning", "music_captioning"]
SINGLE = [name for name in group_options("task") if name not in ("all", "mixture")]


class Letters:
    """A text tokenizer whose ids are the letters' code points."""

    def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
        return {"input_ids": [ord(letter) for letter in text]}


VOCABULARY = AudioVocabulary(128, (16, 12, 8), {"name": "x", "fingerprint": "f"})


def task(*overrides: str):
    return instantiate(compose("lm_train", list(overrides)).task)


def clip(number: int, domain: str = "speech", captions: int = 0, **fields):
    codes = np.random.default_rng(number).integers(0, 8, (4 + number % 5, 3)).astype(np.uint16)
    values = {
        "id": f"book-{number}",
        "text": f"Line {number}!" if domain == "speech" else None,
        "captions": [f"caption {number} {letter}" for letter in "abcde"[:captions]],
        "speaker": ("slt", "rms")[number % 2] if domain == "speech" else None,
        "domain": domain,
        "codes": codes,
    }
    return SimpleNamespace(**{**values, **fields})


CLIPS = [clip(i) for i in range(12)] + [clip(20 + i, "sound", 3) for i in range(5)] + [clip(40, "music", 1)]


def rendered(chosen, rows=CLIPS):
    return render_documents(chosen.select(rows), chosen, VOCABULARY, Letters(), 400)


def test_text_to_speech_renders_the_ids_it_always_did():
    """Values of the version before there were other tasks: a run that was stopped then goes on now."""
    random = np.random.default_rng(5)
    rows = [
        SimpleNamespace(
            id=f"c{i}", text="abc def "[: 3 + i % 6], speaker=("slt", None)[i % 2], captions=[], domain="speech",
            codes=random.integers(0, 8, (3 + i % 7, 3)).astype(np.uint16),
        )
        for i in range(30)
    ]  # fmt: skip
    documents = render_documents(rows, task("task=tts"), VOCABULARY, Letters(), 96)
    assert documents.hash == "096a7cf52eae2bf14e7be99d2984165dbddafdf44151d384b24453d4649cc295"
    assert VOCABULARY.hash == "bc755e7bdc182e9603b82b48bc55d54d44dbe65066f13b5e6701c45aedace7fc"
    data = StepData(documents, VOCABULARY, 96, 4, 3, curriculum_steps=2, hide=0.2, drop_condition=0.3)
    digest = hashlib.sha256()
    for step in range(12):
        batch = data.batch(step).rows
        for array in (batch.input_ids, batch.position_ids, batch.targets):
            digest.update(array.tobytes())
    assert digest.hexdigest() == "fa2a3a35cab82313ca7144f21a7347583ddffa2b94c6ac3bf2751bd71ff673c8"


def test_one_task_draws_its_rows_in_the_order_it_always_did():
    lengths = np.random.default_rng(0).lognormal(4.5, 0.5, 2500).clip(20, 500).astype(int)
    order = RowOrder(lengths, 512, seed=3)
    text = json.dumps([order.epoch_rows(0), order.epoch_rows(1)])
    expected = "9009c8b53bcf2e58214bae3247367d79b002b24d631ed1cb82b058c405ba14de"
    assert hashlib.sha256(text.encode()).hexdigest() == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", SINGLE)
@pytest.mark.parametrize("prompts", ["fixed", "paraphrased"])
def test_prompts_are_prefixes_and_only_targets_are_learnt(name, prompts):
    chosen = task(f"task={name}", f"task.prompts={prompts}")
    assert chosen.name == name and chosen.metrics and chosen.decoding
    rows = chosen.select(CLIPS)
    assert rows
    for row in rows:
        for variant in range(chosen.variants(row)):
            document = chosen.document(row, variant=variant)
            prompt = render(chosen.document(row, False, variant), VOCABULARY, Letters())
            whole = render(document, VOCABULARY, Letters())
            assert (whole.ids[: len(prompt)] == prompt.ids).all()
            end = VOCABULARY.control_id("</text>" if chosen.target == "text" else "</audio>")
            start = VOCABULARY.control_id("<text>" if chosen.target == "text" else "<audio>")
            assert prompt.ids[-1] == start and whole.ids[-1] == end and whole.learn[len(prompt) :].all()
            if name != "interleaved":  # where earlier sentences are learnt too
                assert not whole.learn[: len(prompt)].any()
            extra = document.segments[0].text in chosen.instructions if chosen.instructions else False
            assert extra == (prompts == "paraphrased")
    other = chosen.with_condition_of(rows[0], rows[-1])
    right, wrong = (render(chosen.document(row), VOCABULARY, Letters()) for row in (rows[0], other))
    assert right.ids[right.learn].tolist() == wrong.ids[wrong.learn].tolist()
    if len(rows) > 1:
        assert right.ids.tolist() != wrong.ids.tolist()


def test_documents_in_full():
    expected = {
        "asr": ["<|asr|>", "<|speech|>", "<audio>", "A", "</audio>", "<text>", "T", "</text>"],
        "text_to_sound": ["<|text_to_sound|>", "<text>", "T", "</text>", "<|sound|>", "<audio>", "A", "</audio>"],
        "music_captioning": ["<|music_captioning|>", "<|music|>", "<audio>", "A", "</audio>", "<text>", "T", "</text>"],
        "continuation": ["<|audio_only|>", *["<|speech|>", "<audio>", "A", "</audio>"] * 2],
        "voice_prompted_tts": ["<|tts|>", *["<text>", "T", "</text>", "<|speech|>", "<audio>", "A", "</audio>"] * 2],
        "interleaved": ["<|interleaved|>", *["<text>", "T", "</text>", "<|speech|>", "<audio>", "A", "</audio>"] * 4],
    }
    names = {VOCABULARY.control_id(name): name for name in VOCABULARY.control}
    for name, shape in expected.items():
        chosen = task(f"task={name}")
        ids = render(chosen.document(chosen.select(CLIPS)[0]), VOCABULARY, Letters()).ids.tolist()
        marks = [names.get(i, "T" if i < VOCABULARY.text_size else "A") for i in ids]
        assert [mark for i, mark in enumerate(marks) if i == 0 or mark != marks[i - 1]] == shape, name


def test_requests_give_prompts():
    codes = CLIPS[0].codes
    spoken = task("task=voice_prompted_tts").document(Request("x", text="hi", reference=CLIPS[0]), with_target=False)
    assert [type(s) for s in spoken.segments] == [TextSegment, AudioSegment] * 2 and spoken.segments[-1].codes is None
    heard = task("task=asr").document(Request("x", codes=codes), with_target=False)
    assert heard.segments[0].codes is codes and heard.segments[1].text is None
    described = task("task=audio_captioning").document(Request("x", codes=codes, domain="sound"), with_target=False)
    assert described.segments[0].domain == "sound" and described.segments[1].text is None
    continued = task("task=continuation").document(Request("x", codes=codes), with_target=False)
    assert len(continued.segments[0].codes) == len(codes) and continued.segments[1].codes is None


def test_a_voice_prompt_is_another_recording_of_the_same_speaker():
    rows = task("task=voice_prompted_tts", "task.references=3").select(CLIPS)
    assert len(rows) == 12
    for row in rows:
        assert len({reference.id for reference in row.references}) == 3
        assert all(r.speaker == row.speaker and r.id != row.id for r in row.references)
    assert not task("task=voice_prompted_tts").select([CLIPS[0], CLIPS[1]])  # two speakers with one clip each


def test_passages_follow_the_recording_and_never_mix_speakers():
    passages = task("task=interleaved", "task.sentences=4").select(CLIPS[::-1])
    assert [[int(row.id.split("-")[1]) for row in passage.rows] for passage in passages] == [
        [1, 3, 5, 7], [9, 11], [0, 2, 4, 6], [8, 10],
    ]  # fmt: skip


def test_every_caption_is_drawn_and_the_draw_is_a_function_of_seed_id_and_epoch():
    documents = rendered(task("task=text_to_sound", "task.prompts=paraphrased"))
    assert documents.variants.tolist() == [24] * 5  # 3 captions, 8 phrasings
    drawn = np.array([documents.drawn(1, epoch)[0] for epoch in range(60)])
    assert len(set(drawn[:, 0].tolist())) > 15 and (drawn[:, 0] != drawn[:, 1]).any()
    assert (documents.drawn(1, 7)[0] == drawn[7]).all() and (documents.drawn(2, 7)[0] != drawn[7]).any()
    fewer = rendered(task("task=text_to_sound", "task.prompts=paraphrased"), CLIPS[13:15])
    assert (fewer.drawn(1, 7)[0] == drawn[7][1:3]).all()  # whatever else is in the set
    data = StepData(documents, VOCABULARY, 400, 1, 1)
    texts = {bytes(data.batch(step).rows.input_ids[0]) for step in range(12)}
    assert len(texts) > 8
    again = StepData(documents, VOCABULARY, 400, 1, 1)
    assert (again.batch(11).rows.input_ids == data.batch(11).rows.input_ids).all()


def test_a_mixture_holds_the_documents_of_its_tasks_and_shares_their_audio():
    documents = rendered(task("task=all"))
    assert Counter(documents.tasks) == {
        "tts": 12, "asr": 12, "text_to_sound": 5, "audio_captioning": 5, "text_to_music": 1, "music_captioning": 1,
    }  # fmt: skip
    assert len(set(documents.ids)) == len(documents) == 36
    assert documents.audio_tokens(VOCABULARY) == 3 * sum(len(c.codes) for c in CLIPS)
    alone = rendered(task("task=asr"))
    place = documents.ids.index("asr/book-0")
    assert all((a == b).all() for a, b in zip(documents[place], alone[0], strict=True))


def test_weights_say_how_often_a_document_comes():
    documents = rendered(task("task=[tts,asr,text_to_sound]", "task.tasks.asr.weight=2.5", "task.tasks.tts.weight=0.5"))
    order = StepData(documents, VOCABULARY, 400, 4, 9).full
    tasks = np.array(documents.tasks)
    counts = np.zeros(len(documents), dtype=int)
    for epoch in range(4):
        for row in order.epoch_rows(epoch):
            np.add.at(counts, row, 1)
        again = StepData(documents, VOCABULARY, 400, 4, 9).full
        assert again.epoch_rows(epoch) == order.epoch_rows(epoch)
    assert set(counts[tasks == "asr"]) == {10} and set(counts[tasks == "tts"]) == {2}
    assert set(counts[tasks == "text_to_sound"]) == {4}
    assert rendered(task("task=[asr,tts]")).hash == rendered(task("task=[tts,asr]")).hash
    assert documents.hash != rendered(task("task=[tts,asr,text_to_sound]")).hash


def test_normalisation_is_per_task_and_the_same_in_prompt_and_target():
    both = task("task=[tts,asr]")
    both.use_normaliser(normalisers({"asr": "english"}))
    written = {
        row.task.name: row.task.document(row).segments for row in both.select([clip(3, text="Mister Twenty-One!")])
    }
    assert written["tts"][0].text == "rms: Mister Twenty-One!"
    assert written["asr"][1].text == "mister 21"
    one = task("task=asr")
    one.use_normaliser(normalisers("basic"))
    assert one.document(clip(3, text="Ah, naïve!")).segments[1].text == "ah naïve"
    assert not one.accepts(clip(3, text="?!"))
    for wrong in ("klingon", {"asr": "klingon"}):
        with pytest.raises(TaskError, match="choose one of none, basic, english"):
            normalisers(wrong)
    check_names({"asr": "english"}, both)
    with pytest.raises(TaskError, match="names ttss, and this training has the tasks asr, tts."):
        check_names({"ttss": "english"}, both)


def test_english_is_for_english():
    """It takes the letters of other languages away, and the training says so."""
    german = "Fünf Äpfel, hat's!"
    assert normaliser("english")(german) == "funf apfel hat is" and normaliser("basic")(german) == "fünf äpfel hat s"
    chosen = task("task=[tts,asr,interleaved]")
    rows = chosen.select([clip(i, text=german if i < 6 else "a naïve line") for i in range(8)])
    note = note_on_texts({"asr": "english"}, chosen, rows)
    assert "8 of 8 texts" in note and "text.normalise=basic" in note
    assert note_on_texts({"interleaved": "english"}, chosen, rows) is not None
    assert note_on_texts("basic", chosen, rows) is None and note_on_texts({"tts": "basic"}, chosen, rows) is None
    english = chosen.select([clip(i, text="naïve" if i == 0 else "a line") for i in range(40)])
    assert note_on_texts("english", chosen, english) is None


def test_what_phonemes_cannot_say_is_counted():
    chosen = task("task=[tts,interleaved]")
    rows = chosen.select([clip(i, text="I have 3rds cats" if i else "Nabopolassar has 3rds") for i in range(8)])
    note = note_on_texts({"interleaved": "phonemes"}, chosen, rows)
    assert "9 of 31 words are not in its dictionary, as 3RDS, NABOPOLASSAR: they" in note
    assert note_on_texts({"interleaved": "phonemes"}, chosen, rows, share=0.3) is None
    assert note_on_texts("phonemes", chosen, chosen.select([clip(i, text="Three cats.") for i in range(8)]), 0) is None


def test_texts_half_as_long_again_as_a_model_has_learnt_are_said_in_parts():
    reading = task("task=tts")
    rows = reading.select([clip(i, text=" ".join("a" * length)) for i, length in enumerate((5, 8, 9, 20))])
    assert [len(parts_to_say({"tts": 10}, reading, row)) for row in rows] == [1, 1, 2, 4]
    note = note_on_lengths({"tts": 10}, reading, rows)
    assert note.startswith("2 of 4 texts are longer than what the model has learnt to say (at most 10 characters), and")
    assert note.endswith("said in 6 parts, cut where a reader pauses.")
    assert note_on_lengths({"tts": 10}, reading, rows[:2]) is None and note_on_lengths({}, reading, rows) is None
    assert note_on_lengths({"asr": 1}, task("task=asr"), rows) is None, "asr says none"
    passages = task("task=interleaved").select([clip(i, text="a" * 40) for i in range(4)])
    assert "10 characters): say them in parts" in note_on_lengths(
        {"interleaved": 10}, task("task=interleaved"), passages
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=asr", "task.prompts=paraphrased", "task.paraphrases=[]"], "needs sentences"),
        (["task=continuation", "task.shares=[1.5]"], "between 0 and 1"),
        (["task=interleaved", "task.recording=x"], "needs a group"),
    ],
)
def test_options_that_cannot_work_are_one_sentence(overrides, message):
    with pytest.raises(hydra.errors.InstantiationException) as error:
        task(*overrides)
    assert isinstance(error.value.__cause__, TaskError) and message in str(error.value.__cause__)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("prompts=free", "is unknown; choose one of fixed, paraphrased."),
        ("weight=0", "must be above 0."),
        ("references=0", "must be at least 1."),
        ("decoding.max_seconds=0", "must be above 0."),
    ],
)
def test_values_of_a_task_are_of_their_kind(refusal, override, reason):
    assert f"task.{override} {reason}" in refusal(task, "task=voice_prompted_tts", f"task.{override}")
    for wrong in ({"prompts": "free"}, {"weight": 0}):
        with pytest.raises(TaskError, match="is unknown|must be above 0"):
            ASR(**wrong)


def test_lists_of_tasks_on_the_command_line(refusal):
    check_overrides("lm_train", ["task=[tts,asr]", "task.tasks.asr.weight=2"])
    assert [member.name for member in task("task=all").tasks] == sorted(SIX)
    for wrong, message in ((["task=[tts,arr]"], "Did you mean asr?"), (["task=[tts,tts]"], "each of them once")):
        assert message in refusal(check_overrides, "lm_train", wrong)


@pytest.mark.parametrize("name", [*SINGLE, "all"])
def test_each_task_names_the_commands_that_score_it(name: str) -> None:
    chosen = task(f"task={name}")
    scripts = {command.split()[1] for command in chosen.evaluations}
    assert scripts and all((REPOSITORY / script).is_file() for script in scripts)
    if name == "all":
        assert set(chosen.evaluations) == {command for part in chosen.tasks for command in part.evaluations}
        assert len(chosen.evaluations) == 6  # reading, hearing, two of sound, two of music
    for command in chosen.evaluations:
        for option in command.split()[2:]:
            assert option.removeprefix("task=") in SINGLE

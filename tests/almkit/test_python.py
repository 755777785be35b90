"""``from almkit import load_codec, load_model``: files and arrays in, answers out, errors that say what to do."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from almkit import load_codec, load_model
from codec.audio.answer import Answer, wave_of
from codec.audio.files import AudioError, read_audio
from codec.interface import TokenizerError
from lm.model import ModelError
from training.config import REPOSITORY

SPEECH = REPOSITORY / "data/mini/speech/speech-test-0000.flac"
RATE = 24_000


@pytest.fixture(scope="module")
def model():
    return load_model(device="cpu")


@pytest.fixture(scope="module")
def codec():
    return load_codec(device="cpu")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_a_text_is_spoken_streamed_and_understood(model, here) -> None:
    said = model.speak("peter carried the purple ladder", temperature=0)
    assert (
        said.sample_rate == RATE and said.audio.dtype == np.float32 and said.codes.shape == (len(said.audio) // 1920, 3)
    )
    assert (
        said.scores["ended"] and said.scores["log_probability"] < 0 and said.text == "peter carried the purple ladder"
    )
    streamed = np.concatenate(list(model.stream("peter carried the purple ladder", temperature=0)))
    assert len(streamed) == len(said.audio) and np.corrcoef(streamed, said.audio)[0, 1] > 0.9
    file = said.save(here / "new/said.wav")
    assert soundfile.info(file).frames == len(said.audio)
    heard = model.transcribe(file)
    assert str(heard) == heard.text == model.transcribe(said).text == "peter carried the purple ladder"
    heard.save("heard.txt"), heard.save("heard.json")
    assert (
        Path("heard.txt").read_text() == "peter carried the purple ladder\n"
        and '"ended": true' in Path("heard.json").read_text()
    )
    twice = np.interp(np.arange(2 * len(said.audio)) / 2, np.arange(len(said.audio)), said.audio)
    assert model.transcribe(twice, sample_rate=2 * RATE).text == heard.text  # an array at another rate
    assert model.caption(said).text and model.caption(said, music=True).text
    other = model.speak("peter carried the purple ladder", voice="rms", temperature=0)
    assert not np.array_equal(other.codes, said.codes)


@pytest.mark.slow
def test_a_recording_goes_on_and_lends_its_voice(here) -> None:
    model = load_model("checkpoints/lm-spoken-mini", device="cpu")
    wave = read_audio(SPEECH, RATE)
    longer = model.continue_(wave[:RATE], temperature=0)
    assert len(longer.audio) > RATE and len(longer.codes) > 12
    said = model.speak("peter carried the purple ladder", voice=wave, voice_text="every evening the pigeon is happy")
    assert said.seconds > 0.3
    with pytest.raises(ModelError, match="has learnt continuation, .* and not asr"):
        model.transcribe(wave)


@pytest.mark.slow
def test_the_voice_that_ships_reads_words_outside_any_grammar(here) -> None:
    model = load_model("checkpoints/lm-tts-voice", device="cpu")
    said = model.speak("The penguin walked across the frozen harbour.", temperature=0)
    assert said.scores["ended"] and 1.5 < said.seconds < 5
    assert np.array_equal(said.codes, model.speak(said.text, temperature=0, guidance=2).codes)  # as its folder asks for
    assert len(said.codes) != len(model.speak("The penguin walked.", temperature=0).codes)
    with pytest.raises(ModelError, match="has learnt tts and not asr"):
        model.transcribe(said)


@pytest.mark.slow
def test_codes_are_kept_in_files_and_decode_to_the_same(codec, here) -> None:
    again = codec.reconstruct(SPEECH)
    encoded = codec.encode(read_audio(SPEECH, RATE))
    assert len(again.audio) == encoded.samples and again.scores["frames"] == len(encoded.codes)
    assert again.scores["bits_per_second"] == pytest.approx(412.5, rel=0.05)
    for form in (encoded, encoded.save("a.safetensors")):
        assert np.array_equal(codec.decode(form).audio, again.audio)
    raw = codec.decode(encoded.codes)  # codes alone: whole frames
    assert len(raw.audio) == 1920 * len(encoded.codes)
    with pytest.raises(TokenizerError, match="open the codec that made them"):
        load_codec(levels=2).decode("a.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "kind", "sentence"),
    [
        (lambda m, c: m.speak(" "), ValueError, "there is no text"),
        (lambda m, c: m.speak("a", voice="bob"), ModelError, "has heard rms, slt"),
        (lambda m, c: m.speak("a", heat=1), ValueError, "heat is no field of sampling"),
        (lambda m, c: m.speak("a", temperature=-1), ValueError, "temperature=-1 must be at least 0"),
        (lambda m, c: m.speak("anna" * 3000), ModelError, "positions: shorten it"),
        (lambda m, c: m.continue_(SPEECH), ModelError, "and not continuation"),
        (lambda m, c: m.transcribe("nowhere.wav"), AudioError, "nowhere.wav"),
        (lambda m, c: m.transcribe(np.zeros(9, np.int16)), AudioError, "divide 16-bit samples by 32768"),
        (lambda m, c: m.transcribe(np.zeros((2, 9))), AudioError, "take the mean of channels"),
        (lambda m, c: m.transcribe(np.full(9, np.nan)), ValueError, "NaN"),
        (lambda m, c: c.reconstruct(Answer(text="words")), AudioError, "holds no audio"),
        (lambda m, c: c.decode(np.full((4, 3), 10**6)), ValueError, "do not fit"),
        (lambda m, c: c.decode(SPEECH), TokenizerError, "is no file of codes"),
        (lambda m, c: c.reconstruct(SPEECH).save("a.mp3"), ValueError, "ends in .wav or .flac"),
        (lambda m, c: load_codec("checkpoints/none"), TokenizerError, "no codec checkpoint"),
        (lambda m, c: load_codec(window=99), ValueError, "99"),
        (lambda m, c: load_model("nowhere"), ModelError, "no language model at 'nowhere'"),
    ],
)
def test_what_cannot_work_says_why(model, codec, here, call, kind, sentence: str) -> None:
    with pytest.raises(kind, match=sentence):
        call(model, codec)


def test_an_array_is_resampled_as_a_file_is() -> None:
    wave, rate = soundfile.read(SPEECH, dtype="float32")
    np.testing.assert_allclose(wave_of(wave, RATE, rate), wave_of(str(SPEECH), RATE), atol=1e-5)

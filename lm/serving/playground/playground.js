// The page of `almkit serve`: asks the server that it came from, and nobody else.
"use strict";
const $ = (id) => document.getElementById(id);
let card = null; // what /v1/models says
let context = null; // of the sound that is played
let playing = null; // of the speech that is being made: { stop }
let given = null; // the recording: { name, blob }

// ---- the server --------------------------------------------------------------------------------------------------
async function ask(path, options = {}) {
  const key = sessionStorage.getItem("key");
  const headers = { ...(options.headers || {}), ...(key ? { Authorization: `Bearer ${key}` } : {}) };
  const answer = await fetch(path, { ...options, headers });
  if (answer.ok) return answer;
  $("key-form").hidden = answer.status !== 401;
  const said = await answer.json().catch(() => null);
  throw new Error(said ? said.error.message : `the server answered ${answer.status}.`);
}

function tell(words, bad = false) {
  $("status").textContent = words;
  $("status").className = bad ? "problem" : "soft";
}

async function begin() {
  try {
    card = (await (await ask("/v1/models")).json()).data[0];
  } catch (error) {
    tell(error.message, true);
    return;
  }
  $("key-form").hidden = true;
  $("model").textContent = card.id;
  $("voice").replaceChildren(...["auto", ...card.voices].map((name) => new Option(name, name)));
  $("text").maxLength = card.characters;
  for (let window = 2; window <= 10; window++) $("window").add(new Option(`${window} frames`, window));
  for (let levels = 1; levels <= card.levels; levels++) $("levels").add(new Option(levels, levels));
  const knows = (task) => !card.tasks.length || card.tasks.includes(task);
  $("say").disabled = !knows("tts");
  const tasks = { transcriptions: "asr", captions: "audio_captioning", music: "music_captioning" };
  for (const [name, task] of Object.entries(tasks)) document.querySelector(`[data-ask=${name}]`).hidden = !knows(task);
  tell("");
}

// ---- sound -------------------------------------------------------------------------------------------------------
const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

function samplesOf(bytes) {
  const whole = new Int16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 1);
  return Float32Array.from(whole, (value) => value / 32767);
}

function joined(pieces) {
  const wave = new Float32Array(pieces.reduce((sum, piece) => sum + piece.length, 0));
  let at = 0;
  for (const piece of pieces) { wave.set(piece, at); at += piece.length; }
  return wave;
}

function wavOf(wave, rate) {
  const view = new DataView(new ArrayBuffer(44 + 2 * wave.length));
  const word = (at, letters) => [...letters].forEach((letter, i) => view.setUint8(at + i, letter.charCodeAt(0)));
  word(0, "RIFF"); view.setUint32(4, 36 + 2 * wave.length, true); word(8, "WAVEfmt "); view.setUint32(16, 16, true);
  view.setUint16(20, 1, true); view.setUint16(22, 1, true); view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true); word(36, "data"); view.setUint32(40, 2 * wave.length, true);
  wave.forEach((value, i) => view.setInt16(44 + 2 * i, 32767 * Math.max(-1, Math.min(1, value)), true));
  return new Blob([view], { type: "audio/wav" });
}

class Player { // plays pieces one behind the other, as they come
  constructor(rate) { this.rate = rate; this.next = 0; this.sources = []; }
  add(piece) {
    context = context || new AudioContext();
    context.resume();
    const buffer = context.createBuffer(1, piece.length, this.rate);
    buffer.copyToChannel(piece, 0);
    const source = context.createBufferSource();
    source.buffer = buffer;
    source.connect(context.destination);
    this.next = Math.max(this.next, context.currentTime + 0.03);
    source.start(this.next);
    this.next += piece.length / this.rate;
    this.sources.push(source);
  }
  stop() { for (const source of this.sources) source.stop(); }
}

// ---- pictures ----------------------------------------------------------------------------------------------------
const SIZE = 512, BANDS = 128; // of a spectrum; and the rows that are drawn, up to half of the rate

function spectrum(frame) { // magnitudes of a frame of SIZE samples, by a radix-2 FFT
  const re = new Float32Array(SIZE), im = new Float32Array(SIZE);
  for (let i = 0, j = 0; i < SIZE; i++) {
    re[j] = frame[i] * (0.5 - 0.5 * Math.cos((2 * Math.PI * i) / SIZE));
    let bit = SIZE >> 1;
    while (bit && j & bit) { j ^= bit; bit >>= 1; }
    j ^= bit;
  }
  for (let size = 2; size <= SIZE; size *= 2) {
    for (let k = 0; k < size / 2; k++) {
      const c = Math.cos((-2 * Math.PI * k) / size), s = Math.sin((-2 * Math.PI * k) / size);
      for (let i = k; i < SIZE; i += size) {
        const o = i + size / 2, x = re[o] * c - im[o] * s, y = re[o] * s + im[o] * c;
        re[o] = re[i] - x; im[o] = im[i] - y; re[i] += x; im[i] += y;
      }
    }
  }
  return Float32Array.from({ length: SIZE / 2 }, (_, i) => Math.hypot(re[i], im[i]));
}

function drawSound(canvas, wave) { // 80 dB below the loudest is black
  const columns = Math.min(600, Math.max(1, Math.floor(wave.length / 160))), step = wave.length / columns;
  canvas.width = columns; canvas.height = BANDS;
  const paint = canvas.getContext("2d"), image = paint.createImageData(columns, BANDS), table = [];
  let most = 1e-9;
  for (let x = 0; x < columns; x++) {
    const frame = new Float32Array(SIZE), start = Math.round(x * step) - SIZE / 2;
    for (let i = 0; i < SIZE; i++) frame[i] = wave[start + i] || 0;
    table.push(spectrum(frame));
    for (const value of table[x]) most = Math.max(most, value);
  }
  for (let x = 0; x < columns; x++) {
    for (let y = 0; y < BANDS; y++) {
      const value = Math.max(table[x][2 * y], table[x][2 * y + 1]);
      const share = Math.max(0, 1 + (20 * Math.log10(value / most + 1e-9)) / 80), at = 4 * ((BANDS - 1 - y) * columns + x);
      image.data.set([18 + 237 * share ** 1.2, 13 + 220 * share ** 2.5, 31 + 150 * Math.sin(Math.PI * share ** 0.8), 255], at);
    }
  }
  paint.putImageData(image, 0, 0);
}

function drawTokens(canvas, codes) { // a colour per code; one row per level
  const levels = codes.length ? codes[0].length : 1;
  canvas.width = Math.max(1, codes.length) * 6; canvas.height = levels * 6;
  const paint = canvas.getContext("2d");
  codes.forEach((frame, x) => frame.forEach((code, level) => {
    paint.fillStyle = `hsl(${(code * 137.508) % 360} 65% ${45 + (code % 5) * 6}%)`;
    paint.fillRect(6 * x, 6 * level, 6, 6);
  }));
}

function element(name, attributes = {}, ...inside) {
  const made = Object.assign(document.createElement(name), attributes);
  made.append(...inside);
  return made;
}

function picture(words, kind, draw) {
  const canvas = element("canvas", { className: kind, role: "img", ariaLabel: words });
  draw(canvas);
  return element("figure", {}, element("figcaption", { textContent: words }), canvas);
}

function shown(place, { words, blob, wave, rate, codes, name }) {
  const parts = [];
  if (words) parts.push(element("p", { className: "written", textContent: words }));
  if (blob) {
    const url = URL.createObjectURL(blob);
    parts.push(element("audio", { controls: true, src: url }));
    if (name) parts.push(element("a", { className: "download", href: url, download: name, textContent: `Download ${name}` }));
  }
  if (wave && wave.length) {
    const seconds = (wave.length / rate).toFixed(2);
    parts.push(picture(`Spectrogram, ${seconds} s, 0 to ${rate / 2000} kHz`, "sound", (canvas) => drawSound(canvas, wave)));
  }
  if (codes) {
    const rows = codes.map((frame) => frame.join(" ")).join("\n");
    parts.push(picture(`Tokens: ${codes.length} frames of ${codes.length ? codes[0].length : 0} levels`, "tokens",
      (canvas) => drawTokens(canvas, codes)));
    parts.push(element("details", {}, element("summary", { textContent: "Tokens as numbers, a line per frame" }),
      element("pre", { textContent: rows, tabIndex: 0 })));
  }
  place.replaceChildren(...parts);
  place.hidden = false;
}

// ---- speak -------------------------------------------------------------------------------------------------------
async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    waiting += value;
    for (let end; (end = waiting.indexOf("\n\n")) >= 0; waiting = waiting.slice(end + 2)) {
      yield JSON.parse(waiting.slice(6, end));
    }
  }
}

async function speak() {
  if (playing) playing.stop();
  const mine = new AbortController(), player = new Player(card.sample_rate), pieces = [], start = performance.now();
  playing = { player, stop() { mine.abort(); player.stop(); $("stop").disabled = true; } };
  $("stop").disabled = false;
  tell("Speaking …");
  const body = { model: card.id, input: $("text").value, voice: $("voice").value, seed: Number($("seed").value),
    response_format: "pcm", stream_format: "sse" };
  if ($("temperature").value !== "") body.temperature = Number($("temperature").value);
  try {
    const options = { method: "POST", body: JSON.stringify(body), signal: mine.signal };
    let first = 0;
    for await (const event of eventsOf(await ask("/v1/audio/speech", options))) {
      if (event.type === "speech.audio.delta") {
        first = first || performance.now() - start;
        pieces.push(samplesOf(bytesOf(event.audio)));
        player.add(pieces[pieces.length - 1]);
        shown($("said"), { wave: joined(pieces), rate: card.sample_rate });
      } else {
        const wave = joined(pieces), cut = event.ended ? "" : " It was cut off at its limit.", note = event.note ? ` ${event.note}` : "";
        shown($("said"), { wave, rate: card.sample_rate, codes: event.codes, blob: wavOf(wave, card.sample_rate), name: "said.wav" });
        tell(`First sound after ${(first / 1000).toFixed(2)} s.${cut}${note}`);
      }
    }
  } catch (error) {
    if (error.name !== "AbortError") tell(error.message, true); else tell("Stopped.");
  }
  const left = context ? player.next - context.currentTime : 0; // s, until the last piece has been heard
  setTimeout(() => { if (playing.player === player) $("stop").disabled = true; }, 1000 * Math.max(0, left));
}

// ---- listen ------------------------------------------------------------------------------------------------------
async function take(name, blob) { // what the browser can read becomes a WAV that the server reads; the rest goes as it is
  given = { name, blob };
  let wave = null;
  try {
    const sound = await new OfflineAudioContext(1, 1, card.sample_rate).decodeAudioData(await blob.arrayBuffer());
    wave = new Float32Array(sound.length);
    for (let channel = 0; channel < sound.numberOfChannels; channel++) {
      sound.getChannelData(channel).forEach((value, i) => { wave[i] += value / sound.numberOfChannels; });
    }
    given.blob = wavOf(wave, card.sample_rate);
  } catch { /* a format of the server's alone: it says what is wrong with it, if anything is */ }
  $("dropped").textContent = name;
  shown($("given"), { wave, rate: card.sample_rate, blob: given.blob });
  for (const button of document.querySelectorAll("[data-ask]")) button.disabled = false;
  $("heard").hidden = true;
  tell("");
}

async function listen(what) {
  const form = new FormData();
  form.append("file", given.blob, "recording");
  form.append("model", card.id);
  if (what === "music") form.append("music", "true");
  const reconstructs = what === "reconstructions";
  if (reconstructs) for (const key of ["window", "levels"]) if ($(key).value) form.append(key, $(key).value);
  tell("Listening …");
  try {
    const said = await (await ask(`/v1/audio/${what === "music" ? "captions" : what}`, { method: "POST", body: form })).json();
    if (reconstructs) {
      const bytes = bytesOf(said.audio), wave = samplesOf(bytes.slice(44)), rate = card.sample_rate;
      shown($("heard"), { words: `${Math.round(said.bits_per_second)} bit/s`, wave, rate, codes: said.codes, blob: wavOf(wave, rate), name: "reconstructed.wav" });
    } else {
      shown($("heard"), { words: said.text || "(nothing)" });
    }
    tell("");
  } catch (error) {
    tell(error.message, true);
  }
}

let recorder = null;
async function record() {
  if (recorder) { recorder.stop(); return; }
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true }), parts = [];
    recorder = new MediaRecorder(stream);
    recorder.ondataavailable = (event) => parts.push(event.data);
    recorder.onstop = () => {
      for (const track of stream.getTracks()) track.stop();
      recorder = null;
      $("record").setAttribute("aria-pressed", "false");
      $("record").textContent = "Record";
      $("recording").textContent = "";
      take("your recording", new Blob(parts));
    };
    recorder.start();
    $("record").setAttribute("aria-pressed", "true");
    $("record").textContent = "Stop recording";
    $("recording").textContent = `Recording, at most ${card.audio_seconds} s …`;
    setTimeout(() => recorder && recorder.stop(), 1000 * card.audio_seconds - 500);
  } catch (error) {
    tell(`No microphone: ${error.message}`, true);
  }
}

// ---- who presses what --------------------------------------------------------------------------------------------
$("speak").addEventListener("submit", (event) => { event.preventDefault(); speak(); });
$("text").addEventListener("input", () => { $("count").textContent = `${$("text").value.length} of ${$("text").maxLength} characters`; });
$("stop").addEventListener("click", () => { if (playing) playing.stop(); });
$("record").addEventListener("click", record);
$("file").addEventListener("change", () => { if ($("file").files.length) take($("file").files[0].name, $("file").files[0]); });
$("listen").addEventListener("submit", (event) => { event.preventDefault(); listen(event.submitter.dataset.ask); });
$("key-form").addEventListener("submit", (event) => { event.preventDefault(); sessionStorage.setItem("key", $("key").value); begin(); });
for (const kind of ["dragover", "dragleave", "drop"]) {
  $("drop").addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0].name, event.dataTransfer.files[0]);
  });
}
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && playing) playing.stop();
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !$("say").disabled) $("speak").requestSubmit();
});
begin();

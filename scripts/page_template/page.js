"use strict";
// One clip plays at a time; switching inside a sentence keeps the position; views, search and keys. No network.
(function () {
  const root = document.documentElement;
  root.classList.add("scripted");
  const data = JSON.parse(document.getElementById("data").textContent);
  let playing = null; // the clip element that sounds or was paused last
  let frame = 0;

  // Theme: follows the system until a choice is made; file:// may forbid storage, which costs only the memory of it.
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const store = (value) => { try { localStorage.setItem("theme", value); } catch { /* not remembered */ } };
  if (stored()) root.dataset.theme = stored();
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    store(root.dataset.theme);
  });

  const audioOf = (clip) => clip.querySelector("audio");
  const sentenceOf = (clip) => clip.closest(".sentence");
  const sectionOf = (element) => element.closest(".evaluation");
  const pictureSeconds = Number(document.body.dataset.seconds);

  function volumeOf(clip) {
    const section = sectionOf(clip);
    if (!section.querySelector(".match").checked) return 1;
    const number = Number(sentenceOf(clip).dataset.number);
    const levels = data[section.dataset.section].sentences.find((s) => s.number === number).levels;
    const own = levels[clip.dataset.row];
    if (own === undefined) return 1;
    const down = Math.min(...Object.values(levels)) - own; // dB, at most 0: the loudest come down to the quietest
    return Math.pow(10, Math.max(-20, down) / 20);
  }

  function moveHead(clip) {
    const part = Math.min(1, audioOf(clip).currentTime / pictureSeconds);
    clip.querySelector(".head").style.left = 100 * part + "%";
    clip.classList.add("started");
  }

  function follow() {
    if (!playing || audioOf(playing).paused) return;
    moveHead(playing);
    frame = requestAnimationFrame(follow);
  }

  function showState(clip, on) {
    clip.classList.toggle("playing", on);
    clip.querySelector(".play").setAttribute("aria-pressed", String(on));
  }

  function setCurrent(sentence) {
    document.querySelectorAll(".sentence.current").forEach((other) => other.classList.remove("current"));
    if (sentence) sentence.classList.add("current");
  }

  function pause() { if (playing) audioOf(playing).pause(); }

  function play(clip, position) {
    const audio = audioOf(clip);
    const last = playing;
    let start = position;
    if (start === undefined) {
      start = audio.currentTime;
      if (last && last !== clip && sentenceOf(last) === sentenceOf(clip)) start = audioOf(last).currentTime;
    }
    if (last && last !== clip) {
      audioOf(last).pause();
      last.classList.remove("started");
    }
    playing = clip;
    setCurrent(sentenceOf(clip));
    audio.volume = volumeOf(clip);
    const go = () => {
      if (playing !== clip) return;
      audio.currentTime = start < audio.duration - 0.02 ? start : 0;
      audio.play().catch((error) => { showState(clip, false); console.warn(error); });
    };
    if (audio.readyState >= 1) go();
    else { audio.addEventListener("loadedmetadata", go, { once: true }); audio.load(); }
  }

  function toggle(clip) { if (clip === playing && !audioOf(clip).paused) pause(); else play(clip); }

  document.querySelectorAll(".clip:not(.without)").forEach((clip) => {
    const audio = audioOf(clip);
    audio.controls = false;
    clip.querySelector(".play").addEventListener("click", () => toggle(clip));
    clip.querySelector(".picture").addEventListener("click", (event) => {
      const box = event.currentTarget.getBoundingClientRect();
      play(clip, ((event.clientX - box.left) / box.width) * pictureSeconds);
    });
    audio.addEventListener("play", () => { showState(clip, true); cancelAnimationFrame(frame); follow(); });
    audio.addEventListener("pause", () => { showState(clip, false); moveHead(clip); });
    audio.addEventListener("ended", () => { showState(clip, false); audio.currentTime = 0; clip.classList.remove("started"); });
  });

  // Which sentences are shown.
  const sections = [...document.querySelectorAll(".evaluation")];
  sections.forEach((section) => {
    const own = data[section.dataset.section];
    const list = section.querySelector(".list");
    const articles = new Map([...list.children].map((article) => [Number(article.dataset.number), article]));
    const buttons = [...section.querySelectorAll("[data-view]")];
    const search = section.querySelector("input[type=search]");
    let view = "random";

    function chosen() {
      const size = own.sample.length;
      const rank = (s) => (s.rank === null ? Number.MAX_VALUE : s.rank); // a clip without a score is the worst
      const ranked = [...own.sentences].sort((a, b) => rank(a) - rank(b) || a.number - b.number);
      if (view === "random") return own.sentences.filter((s) => own.sample.includes(s.number));
      if (view === "best") return ranked.slice(0, size);
      if (view === "worst") return ranked.reverse().slice(0, size);
      return own.sentences;
    }

    function update() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      // A search looks at all sentences: who types a word wants to find it, whatever view is on.
      const pool = words.length ? own.sentences : chosen();
      const shown = pool.filter((s) => words.every((word) => s.text.includes(word)));
      articles.forEach((article) => { article.hidden = true; });
      shown.forEach((s) => { const article = articles.get(s.number); article.hidden = false; list.append(article); });
      if (playing && sentenceOf(playing).hidden) pause();
      section.querySelector(".count").textContent = `${shown.length} of ${own.sentences.length} sentences`;
      section.querySelector(".none").hidden = shown.length > 0;
      buttons.forEach((b) => b.setAttribute("aria-pressed", String(!words.length && b.dataset.view === view)));
    }

    buttons.forEach((button) => button.addEventListener("click", () => { view = button.dataset.view; search.value = ""; update(); }));
    search.addEventListener("input", update);
    section.querySelector(".match").addEventListener("change", () => { if (playing) audioOf(playing).volume = volumeOf(playing); });
    update();
  });

  // Keys, where no text field or button has the focus for itself.
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, summary, a")) return;
    if (event.key === " " && event.target.closest("button")) return;
    const shown = [...document.querySelectorAll(".sentence:not([hidden])")];
    const current = document.querySelector(".sentence.current:not([hidden])") || shown[0];
    if (!current) return;
    const clips = [...current.querySelectorAll(".clip:not(.without)")];
    if (event.key >= "1" && event.key <= "9" && clips[event.key - 1]) play(clips[event.key - 1]);
    else if (event.key === " ") toggle(playing && current.contains(playing) ? playing : clips[0]);
    else if (event.key === "j" || event.key === "k") {
      const next = shown[Math.max(0, Math.min(shown.length - 1, shown.indexOf(current) + (event.key === "j" ? 1 : -1)))];
      pause();
      setCurrent(next);
      next.scrollIntoView({ block: "center", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
    } else return;
    event.preventDefault();
  });
})();

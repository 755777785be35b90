"use strict";
// One player per item, which switches between systems at the same position; views, sorting, search and keys. No network.
(function () {
  const root = document.documentElement;
  root.classList.add("scripted");
  const data = JSON.parse(document.getElementById("data").textContent);
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // Theme: follows the system until a choice is made; file:// may forbid storage, which costs only the memory of it.
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const store = (value) => { try { localStorage.setItem("theme", value); } catch { /* not remembered */ } };
  if (stored()) root.dataset.theme = stored();
  document.getElementById("theme").addEventListener("click", () => {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    store(root.dataset.theme);
  });

  // ---- players ----------------------------------------------------------------------------------------------------
  let current = null; // the player that keys go to
  const players = new Map();

  class Player {
    constructor(row) {
      this.row = row;
      this.cells = [...row.querySelectorAll(".clip:not(.without)")];
      this.cell = null; // the system that sounds or was heard last
      this.position = 0; // seconds, where nothing has been heard yet
      this.seek = row.querySelector(".seek");
      this.clock = row.querySelector(".clock");
      this.section = row.closest(".evaluation");
      this.pictureSeconds = Number(row.dataset.seconds);
      row.querySelector(".toggle").addEventListener("click", () => this.toggle());
      this.seek.addEventListener("input", () => this.moveTo(Number(this.seek.value)));
      this.cells.forEach((cell) => {
        const audio = cell.querySelector("audio");
        audio.controls = false;
        cell.querySelector(".switch").addEventListener("click", () => (this.sounds(cell) ? this.pause() : this.play(cell)));
        cell.querySelector(".picture").addEventListener("click", (event) => {
          const box = event.currentTarget.getBoundingClientRect();
          this.play(cell, ((event.clientX - box.left) / box.width) * this.pictureSeconds);
        });
        audio.addEventListener("play", () => { this.show(); this.follow(); });
        audio.addEventListener("pause", () => this.show());
        audio.addEventListener("ended", () => {
          if (this.cell !== cell) return;
          if (this.section.querySelector(".loop").checked) this.play(cell, 0);
          else this.moveTo(0);
        });
      });
    }

    audio() { return this.cell && this.cell.querySelector("audio"); }

    now() { return this.cell && this.audio().readyState ? this.audio().currentTime : this.position; }

    sounds(cell) { return this.cell === cell && !this.audio().paused; }

    playing() { return Boolean(this.cell) && !this.audio().paused; }

    // Starts a system where the last one is, or at `position`; beyond its end it starts over.
    play(cell, position) {
      const start = position === undefined ? this.now() : position;
      if (current && current !== this) current.pause();
      setCurrent(this);
      if (this.cell && this.cell !== cell) this.audio().pause();
      this.cell = cell;
      this.position = start;
      const audio = this.audio();
      this.cells.forEach((other) => { // so that the next switch need not wait for the file
        const waiting = other.querySelector("audio");
        if (waiting.preload !== "auto") { waiting.preload = "auto"; waiting.load(); }
      });
      const go = () => {
        if (this.cell !== cell) return;
        audio.currentTime = start < audio.duration - 0.02 ? start : 0;
        audio.play().catch((error) => { this.show(); console.warn(error); });
      };
      if (audio.readyState >= 1) go();
      else audio.addEventListener("loadedmetadata", go, { once: true });
      this.show();
    }

    pause() {
      if (!this.cell) return;
      this.position = this.now();
      this.audio().pause();
    }

    toggle() {
      if (this.playing()) this.pause();
      else {
        const first = this.cell && !this.cell.hidden ? this.cell : this.cells.find((cell) => !cell.hidden);
        if (first) this.play(first);
      }
    }

    moveTo(position) {
      this.position = position;
      const audio = this.audio();
      if (audio && audio.readyState) audio.currentTime = Math.min(position, audio.duration);
      setCurrent(this);
      this.showPosition(position);
    }

    follow() {
      if (!this.playing()) return;
      this.showPosition(this.now());
      requestAnimationFrame(() => this.follow());
    }

    showPosition(position) {
      this.seek.value = String(position);
      this.clock.textContent = position.toFixed(1);
      this.seek.setAttribute("aria-valuetext", `${position.toFixed(1)} of ${this.pictureSeconds} seconds`);
      const part = Math.min(1, position / this.pictureSeconds);
      this.row.querySelectorAll(".head").forEach((head) => { head.style.left = `${100 * part}%`; });
      this.row.classList.toggle("started", position > 0);
    }

    show() {
      const playing = this.playing();
      this.row.classList.toggle("playing", playing);
      this.cells.forEach((cell) => {
        cell.classList.toggle("on", this.cell === cell);
        cell.classList.toggle("sounding", playing && this.cell === cell);
        cell.querySelector(".switch").setAttribute("aria-pressed", String(playing && this.cell === cell));
      });
    }
  }

  function setCurrent(player) {
    if (current && current !== player) current.row.classList.remove("current");
    current = player;
    player.row.classList.add("current");
  }

  document.querySelectorAll("tr.item").forEach((row) => {
    if (row.querySelector(".player")) players.set(row, new Player(row));
  });

  // ---- sorting: a heading's button sorts, once more turns it round --------------------------------------------------

  // `value(row)` is a number, a text or null; null goes last in both directions. The sort is stable.
  function sorted(rows, value, order) {
    const sign = order === "descending" ? -1 : 1;
    return rows.map((row) => [row, value(row)]).sort(([, a], [, b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    }).map(([row]) => row);
  }

  function nextOrder(heading, first) {
    const now = heading.getAttribute("aria-sort");
    if (now === "none") return first;
    return now === "ascending" ? "descending" : "ascending";
  }

  function mark(heading, order) {
    heading.parentElement.querySelectorAll("[aria-sort]").forEach((other) => other.setAttribute("aria-sort", "none"));
    if (order) heading.setAttribute("aria-sort", order);
  }

  document.querySelectorAll("table.sortable").forEach((table) => {
    table.querySelectorAll("th[aria-sort] .sort").forEach((button) => button.addEventListener("click", () => {
      const heading = button.closest("th");
      const order = nextOrder(heading, button.dataset.first);
      mark(heading, order);
      const value = (row) => {
        const text = row.children[heading.cellIndex].dataset.value;
        return text === "" ? null : Number(text);
      };
      table.tBodies[0].append(...sorted([...table.tBodies[0].rows], value, order));
    }));
  });

  // ---- which items are shown, in which order -----------------------------------------------------------------------
  document.querySelectorAll(".evaluation").forEach((section) => {
    const own = data[section.dataset.section];
    const body = section.querySelector(".items tbody");
    const rows = new Map([...body.rows].map((row) => [Number(row.dataset.number), row]));
    const facts = new Map(own.items.map((item) => [item.number, item]));
    const buttons = [...section.querySelectorAll("[data-view]")];
    const search = section.querySelector("input[type=search]");
    const metric = section.querySelector(".metric");
    const headings = [...section.querySelectorAll(".items thead th")];
    let view = buttons[0].dataset.view;
    let by = null; // {heading, column, order}

    function order(numbers) {
      if (!by) return numbers;
      if (by.column === "number") return sorted(numbers, (number) => number, by.order);
      return sorted(numbers, (number) => {
        const scores = facts.get(number).scores[by.column];
        return scores && metric && metric.value in scores ? scores[metric.value] : null;
      }, by.order);
    }

    function update() {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      // A search looks at all items of the page: who types a word wants to find it, whatever view is on.
      const pool = words.length ? [...rows.keys()] : own.views[view];
      const shown = order(pool.filter((number) => words.every((word) => facts.get(number).text.includes(word))));
      rows.forEach((row) => { row.hidden = true; });
      shown.forEach((number) => { rows.get(number).hidden = false; });
      body.append(...shown.map((number) => rows.get(number)));
      if (current && current.row.hidden && section.contains(current.row)) current.pause();
      const sorting = by && by.column !== "number" ? `, by ${metric.selectedOptions[0].textContent.trim()}` : "";
      section.querySelector(".count").textContent = `${shown.length} ${shown.length === 1 ? "item" : "items"} shown${sorting}`;
      section.querySelector(".none").hidden = shown.length > 0;
      buttons.forEach((b) => b.setAttribute("aria-pressed", String(!words.length && b.dataset.view === view)));
      section.querySelectorAll("[data-metric]").forEach((line) => {
        line.classList.toggle("chosen", Boolean(metric) && line.dataset.metric === metric.value);
      });
    }

    function sortBy(heading, column, chosen) {
      mark(heading, chosen);
      by = { heading, column, order: chosen };
      update();
    }

    headings.forEach((heading) => {
      const button = heading.querySelector(".sort");
      const column = button.dataset.by;
      button.addEventListener("click", () => {
        const best = column === "number" || !metric || own.metrics[metric.value] < 0 ? "ascending" : "descending";
        sortBy(heading, column, nextOrder(heading, best));
      });
    });
    if (metric) metric.addEventListener("change", () => {
      if (by && by.column !== "number") sortBy(by.heading, by.column, own.metrics[metric.value] < 0 ? "ascending" : "descending");
      else update();
    });
    buttons.forEach((button) => button.addEventListener("click", () => {
      view = button.dataset.view;
      search.value = "";
      by = null; // a view has an order of its own
      mark(headings[0], null);
      update();
    }));
    search.addEventListener("input", update);

    function columns() {
      section.querySelectorAll("[data-column]").forEach((box) => {
        section.querySelectorAll(`[data-system="${box.dataset.column}"]`).forEach((cell) => { cell.hidden = !box.checked; });
      });
      const shown = headings.filter((heading) => !heading.hidden).length;
      section.querySelector(".stage").classList.toggle("wide", shown > 6);
      if (current && current.cell && current.cell.hidden) current.pause();
    }
    section.querySelectorAll("[data-column]").forEach((box) => box.addEventListener("change", columns));
    columns();
    update();
  });

  document.addEventListener("click", (event) => { // a menu closes when something else is clicked
    document.querySelectorAll("details.columns[open]").forEach((menu) => { if (!menu.contains(event.target)) menu.open = false; });
  });

  // ---- keys, where no element wants them for itself -----------------------------------------------------------------
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=search], select")) return;
    if (event.key === "Escape") { document.querySelectorAll("details.columns[open]").forEach((menu) => { menu.open = false; }); return; }
    if (event.key === " " && event.target.closest("button, summary, a, input")) return;
    const shown = [...players.values()].filter((player) => !player.row.hidden);
    if (!shown.length) return;
    const player = current && !current.row.hidden ? current : shown[0];
    if (event.key >= "1" && event.key <= "9") {
      const button = player.row.querySelector(`[aria-keyshortcuts="${event.key}"]`);
      const cell = button && button.closest(".clip");
      if (!cell || cell.hidden) return;
      if (!player.sounds(cell)) player.play(cell);
    } else if (event.key === " ") player.toggle();
    else if (event.key === "j" || event.key === "k") {
      // rows stand in the order of the page, which sorting changes
      const order = shown.sort((a, b) => (a.row.compareDocumentPosition(b.row) & Node.DOCUMENT_POSITION_FOLLOWING ? -1 : 1));
      const step = current && !current.row.hidden ? (event.key === "j" ? 1 : -1) : 0;
      const next = order[Math.max(0, Math.min(order.length - 1, order.indexOf(player) + step))];
      if (current) current.pause();
      setCurrent(next);
      next.row.scrollIntoView({ block: "center", behavior: calm.matches ? "auto" : "smooth" });
    } else return;
    event.preventDefault();
  });
})();

// Maps and grids: a point plays its two sounds one after the other; arrow keys go to the next point in their direction.
(function () {
  // What plays the sounds of points one at a time; `name(point)`, and `said` of each sound, are told in `status`.
  function player(status, said, name) {
    const audio = new Audio();
    let ringing = null;

    function stop() {
      audio.pause();
      if (ringing) ringing.classList.remove("ringing");
      ringing = null;
    }

    function play(point) {
      stop();
      ringing = point;
      point.classList.add("ringing");
      const sounds = point.dataset.sounds.split(" ");
      const next = (number) => {
        if (ringing !== point) return;
        if (number === sounds.length) { stop(); return; }
        status.textContent = `${name(point)}: ${said[number]}`;
        audio.onended = () => next(number + 1);
        audio.src = sounds[number];
        audio.play().catch((error) => {
          if (error.name === "AbortError") return; // another point was chosen meanwhile
          status.textContent = `${name(point)} cannot be played`;
          console.warn(error);
        });
      };
      next(0);
    }
    return { play, stop };
  }

  const place = (point) => [Number(point.dataset.x), Number(point.dataset.y)];
  const directions = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

  function neighbour(points, from, [right, down]) {
    const [x, y] = place(from);
    let best = null;
    let least = Infinity;
    points.forEach((point) => {
      const [px, py] = place(point);
      const ahead = (px - x) * right + (py - y) * down;
      const aside = Math.abs((px - x) * down) + Math.abs((py - y) * right);
      if (point !== from && ahead > 0 && ahead + 2 * aside < least) { best = point; least = ahead + 2 * aside; }
    });
    return best;
  }

  // Clicks and keys of points that are seen together; the tab key reaches one of them.
  function listen(points, play) {
    points.forEach((point, number) => {
      point.setAttribute("tabindex", number ? "-1" : "0");
      point.addEventListener("click", (event) => { event.preventDefault(); point.focus(); play(point); });
      point.addEventListener("focus", () => points.forEach((other) => other.setAttribute("tabindex", other === point ? "0" : "-1")));
      point.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") play(point);
        else if (directions[event.key]) { const other = neighbour(points, point, directions[event.key]); if (other) { other.focus(); play(other); } }
        else return;
        event.preventDefault();
        event.stopPropagation(); // or the section's player would take the key, too
      });
    });
  }

  document.querySelectorAll("[data-map]").forEach((map) => {
    const figures = [...map.querySelectorAll(".map")];
    const views = [...map.querySelectorAll("[data-view-of-map]")];
    const said = ["the recording", "its codes"];
    const { play, stop } = player(map.querySelector(".heard-now"), said, (point) => point.querySelector("title").textContent);

    figures.forEach((figure) => listen([...figure.querySelectorAll(".point[role]")], play));

    views.forEach((button, number) => button.addEventListener("click", () => {
      stop();
      figures.forEach((figure, k) => { figure.hidden = k !== number; });
      views.forEach((other, k) => other.setAttribute("aria-pressed", String(k === number)));
    }));

    map.querySelector(".by").addEventListener("change", (event) => {
      const label = event.target.value;
      const shapes = [...map.querySelectorAll(".legend")].map((legend) => [...legend.querySelectorAll("path")].map((path) => path.getAttribute("d")));
      map.querySelectorAll(".legend").forEach((legend) => { legend.hidden = legend.dataset.legend !== label; });
      map.querySelectorAll(".point").forEach((point) => {
        const number = Number(point.getAttribute(`data-l${label}`));
        for (let k = 1; k <= 8; k += 1) point.classList.toggle(`c${k}`, k === (number % 8) + 1);
        point.querySelector("path").setAttribute("d", shapes[label][number]);
      });
    });
  });

  document.querySelectorAll("[data-grid]").forEach((grid) => {
    const { play, stop } = player(grid.querySelector(".heard-now"), ["before", "after"], (cell) => cell.title);
    const moves = [...grid.querySelectorAll(".move")];
    const states = new Map();
    moves.forEach((move) => states.set(move.dataset.state, [...(states.get(move.dataset.state) || []), move]));
    states.forEach((cells) => listen(cells, play));

    const chosen = (kind) => grid.querySelector(`[data-${kind}][aria-pressed="true"]`).dataset[kind];
    ["vectors", "amount"].forEach((kind) => {
      const buttons = [...grid.querySelectorAll(`[data-${kind}]`)];
      buttons.forEach((button) => button.addEventListener("click", () => {
        stop();
        buttons.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
        const state = `${chosen("vectors")}-${chosen("amount")}`;
        moves.forEach((move) => { move.hidden = move.dataset.state !== state; });
      }));
    });
  });
})();

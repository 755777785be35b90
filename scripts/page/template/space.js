// Maps: a point plays its recording and then its resynthesis; arrow keys go to the next point in their direction.
(function () {
  document.querySelectorAll("[data-map]").forEach((map) => {
    const figures = [...map.querySelectorAll(".map")];
    const views = [...map.querySelectorAll("[data-view-of-map]")];
    const status = map.querySelector(".heard-now");
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
      const name = point.querySelector("title").textContent;
      const next = (number) => {
        if (ringing !== point) return;
        if (number === sounds.length) { stop(); return; }
        status.textContent = `${name}: ${number ? "its codes" : "the recording"}`;
        audio.onended = () => next(number + 1);
        audio.src = sounds[number];
        audio.play().catch((error) => {
          if (error.name === "AbortError") return; // another point was chosen meanwhile
          status.textContent = `${name} cannot be played`;
          console.warn(error);
        });
      };
      next(0);
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

    figures.forEach((figure) => {
      const points = [...figure.querySelectorAll(".point[role]")];
      if (points.length) points[0].setAttribute("tabindex", "0");
      points.forEach((point) => {
        point.addEventListener("click", () => { point.focus(); play(point); });
        point.addEventListener("focus", () => points.forEach((other) => other.setAttribute("tabindex", other === point ? "0" : "-1")));
        point.addEventListener("keydown", (event) => {
          if (event.key === "Enter" || event.key === " ") play(point);
          else if (directions[event.key]) { const other = neighbour(points, point, directions[event.key]); if (other) { other.focus(); play(other); } }
          else return;
          event.preventDefault();
          event.stopPropagation(); // or the section's player would take the key, too
        });
      });
    });

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
})();

/* Interactive figures: native sliders move between pre-rendered frames. See bncore/page/static_face.py. */
(() => {
  "use strict";

  const frames = new Map();
  const SHEET = "<style>svg { display: block; height: auto; width: 100%; }</style>";

  function load(url) {
    if (!frames.has(url)) {
      const frame = fetch(url).then((answer) => {
        if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
        return answer.text();
      });
      frame.catch(() => frames.delete(url));
      frames.set(url, frame);
    }
    return frames.get(url);
  }

  function start(figure) {
    const stage = figure.querySelector(".bn-frame");
    const sliders = [...figure.querySelectorAll("input[type=range]")];
    const alts = JSON.parse(figure.querySelector(".bn-alts").textContent);
    const url = (file) => `${figure.dataset.frames}/${file}`;
    const fileAt = (positions) => (positions.join("-") || "still") + ".svg";
    const current = () => fileAt(sliders.map((slider) => slider.value));
    let wanted = null;

    async function draw() {
      const file = current();
      wanted = file;
      const svg = await load(url(file)).catch(() => null);
      if (wanted !== file || figure.dataset.shown === file) return;
      if (svg === null) {
        stage.setAttribute("aria-label", "This frame could not be loaded.");
        return;
      }
      // In a shadow root a new picture costs a few milliseconds; in the page itself the theme's
      // style sheet would be matched again against everything.
      const root = stage.shadowRoot ?? stage.attachShadow({ mode: "open" });
      root.innerHTML = SHEET + svg;
      stage.setAttribute("aria-label", alts[file]);
      figure.dataset.shown = file;
    }

    function announce(slider) {
      const text = JSON.parse(slider.dataset.values)[slider.value];
      slider.setAttribute("aria-valuetext", text);
      slider.parentElement.querySelector("output").value = text;
    }

    function prefetch() {
      const here = sliders.map((slider) => Number(slider.value));
      sliders.forEach((slider, axis) => {
        const steps = [...Array(Number(slider.max) + 1).keys()];
        steps.sort((a, b) => Math.abs(a - here[axis]) - Math.abs(b - here[axis]));
        for (const step of steps) {
          load(url(fileAt(here.with(axis, step)))).catch(() => {});
        }
      });
    }

    figure.querySelector(".bn-controls").hidden = false;
    for (const slider of sliders) {
      slider.disabled = false;
      announce(slider);
      slider.addEventListener("input", () => {
        announce(slider);
        draw();
      });
      slider.addEventListener("change", prefetch);
    }
    for (const kind of ["pointerenter", "focusin", "touchstart"]) {
      figure.addEventListener(kind, prefetch, { once: true, passive: true });
    }

    new IntersectionObserver((entries, observer) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        observer.disconnect();
        draw();
      }
    }, { rootMargin: "200px" }).observe(figure);
  }

  function startAll() {
    document.querySelectorAll("figure.bn-figure").forEach(start);
  }

  if (document.readyState === "loading") {
    document.addEventListener("DOMContentLoaded", startAll);
  } else {
    startAll();
  }
})();

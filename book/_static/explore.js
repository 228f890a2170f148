/* Interactive figures: native sliders and buttons move between pre-rendered frames. See bncore/page/static_face.py. */
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

  // One parameter of a figure: a range input with its output, or a group of radio buttons.
  function axisOf(control) {
    const inputs = [...control.querySelectorAll("input")];
    if (control.classList.contains("bn-choice")) {
      const position = () => inputs.findIndex((input) => input.checked);
      return { inputs, count: inputs.length, position, announce() {} };
    }
    const [slider] = inputs;
    const texts = JSON.parse(slider.dataset.values);
    const output = control.querySelector("output");
    const announce = () => {
      slider.setAttribute("aria-valuetext", texts[slider.value]);
      output.value = texts[slider.value];
    };
    return { inputs, count: texts.length, position: () => Number(slider.value), announce };
  }

  function start(figure) {
    const stage = figure.querySelector(".bn-frame");
    const axes = [...figure.querySelectorAll(".bn-control")].map(axisOf);
    const alts = JSON.parse(figure.querySelector(".bn-alts").textContent);
    const url = (file) => `${figure.dataset.frames}/${file}`;
    const fileAt = (positions) => (positions.join("-") || "still") + ".svg";
    const here = () => axes.map((axis) => axis.position());
    let wanted = null;

    async function draw() {
      const file = fileAt(here());
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

    function prefetch() {
      const now = here();
      axes.forEach((axis, place) => {
        const steps = [...Array(axis.count).keys()];
        steps.sort((a, b) => Math.abs(a - now[place]) - Math.abs(b - now[place]));
        for (const step of steps) {
          load(url(fileAt(now.with(place, step)))).catch(() => {});
        }
      });
    }

    figure.querySelector(".bn-controls").hidden = false;
    for (const axis of axes) {
      axis.announce();
      for (const input of axis.inputs) {
        input.disabled = false;
        input.addEventListener("input", () => {
          axis.announce();
          draw();
        });
        input.addEventListener("change", prefetch);
      }
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

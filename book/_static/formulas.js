/* A formula wider than its place scrolls, and so is a stop for the keyboard; no other formula is. */
(() => {
  "use strict";

  const FORMULAS = ".bd-article :is(span.math, mjx-container[display=true])";

  const observer = new ResizeObserver((entries) => {
    for (const formula of new Set(entries.map(({ target }) => target.closest(FORMULAS)))) {
      const rounding = formula.matches("span") ? 1 : 0; // pixels: a letter may lean over its box
      const wide = formula.scrollWidth > formula.clientWidth + rounding;
      if (wide === formula.classList.contains("bn-wide")) continue;
      formula.classList.toggle("bn-wide", wide);
      if (wide) formula.tabIndex = 0;
      else formula.removeAttribute("tabindex");
    }
  });

  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    for (const formula of document.querySelectorAll(FORMULAS)) {
      observer.observe(formula);
      formula.querySelectorAll("mjx-math").forEach((drawn) => observer.observe(drawn));
    }
  });
})();

/* A formula wider than its place scrolls, and so is a stop for the keyboard; no other formula is. */
(() => {
  "use strict";

  const FORMULAS = ".bd-article :is(span.math, mjx-container[display=true])";
  const ROUNDING = 2; // pixels

  const observer = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      const wide = target.scrollWidth > target.clientWidth + ROUNDING;
      if (wide === target.classList.contains("bn-wide")) continue;
      target.classList.toggle("bn-wide", wide);
      if (wide) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });

  addEventListener("load", async () => {
    await window.MathJax?.startup?.promise;
    document.querySelectorAll(FORMULAS).forEach((formula) => observer.observe(formula));
  });
})();

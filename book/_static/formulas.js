/* A formula in a closed fold is typeset when the fold opens: a long page is there at once.
   A formula wider than its place scrolls, and so is a stop for the keyboard; no other formula is. */
(() => {
  "use strict";

  const FORMULAS = ".bd-article :is(span.math, mjx-container[display=true])";
  const FOLDED = "details:not([open]) > :not(summary)";

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

  function watch(formulas) {
    for (const formula of formulas.flatMap((one) => [one, ...one.querySelectorAll(FORMULAS)])) {
      if (!formula.matches(FORMULAS)) continue;
      observer.observe(formula);
      formula.querySelectorAll("mjx-math").forEach((drawn) => observer.observe(drawn));
    }
  }

  const math = (root) => [...root.querySelectorAll(".math")];
  const waiting = (root) =>
    math(root).filter((formula) => !formula.querySelector("mjx-container") && !formula.closest(FOLDED));

  addEventListener("load", async () => {
    const { MathJax } = window;
    if (!MathJax?.startup) return;
    await MathJax.startup.promise;
    watch(math(document));

    function typeset(root) {
      MathJax.startup.promise = MathJax.startup.promise.then(async () => {
        const formulas = waiting(root);
        if (!formulas.length) return;
        await MathJax.typesetPromise(formulas);
        watch(formulas);
      });
    }
    document.addEventListener("toggle", ({ target }) => target.open && typeset(target), true);
    typeset(document); // what was unfolded in the meantime
    addEventListener("beforeprint", () => MathJax.typeset(waiting(document)));
  });
})();

// A link that points into a fold opens it, and paper shows what is folded. Without this script a fold is a plain <details>.
(() => {
  const FOLDS = "details.bn-fold, details.sd-dropdown";
  const closed = () => [...document.querySelectorAll(FOLDS)].filter((fold) => !fold.open);

  const openNamed = () => {
    let target;
    try {
      target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch {
      return; // no id is written like this
    }
    if (!target) return;
    // The id of a fold stands on its section; another id of the same section on a span before it.
    const section = target.matches("span:empty") ? target.parentElement : target;
    const folds = closed().filter((fold) => fold.contains(target) || fold.parentElement === section && fold === section.querySelector(":scope > details"));
    for (const fold of folds) fold.open = true;
    if (folds.length) target.scrollIntoView();
  };

  openNamed();
  window.addEventListener("hashchange", openNamed);
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#']");
    if (link && link.hash === location.hash) openNamed();
  });

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = closed();
    for (const fold of opened) fold.open = true;
  });
  window.addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
  });
})();

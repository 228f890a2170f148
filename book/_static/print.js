/* A printed page wears the light theme, whatever the reader reads in. */
(() => {
  "use strict";

  const page = document.documentElement;
  let worn = null;

  function light() {
    worn ??= page.dataset.theme;
    page.dataset.theme = "light";
  }

  function back() {
    if (worn !== null) page.dataset.theme = worn;
    worn = null;
  }

  const printed = matchMedia("print");
  printed.addEventListener("change", () => (printed.matches ? light() : back()));
  addEventListener("beforeprint", light);
  addEventListener("afterprint", back);
})();

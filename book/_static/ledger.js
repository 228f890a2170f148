/* Filters the rows of a claims ledger by verdict, chapter, source and text, and opens the row that
   the address names. Without this script the whole table shows and the filters stay hidden. */
(() => {
  "use strict";

  function enliven(ledger) {
    const form = ledger.querySelector(".bn-ledger-filters");
    const count = ledger.querySelector(".bn-ledger-count");
    const rows = [...ledger.querySelectorAll("tbody tr")];
    if (!form) return;

    function filter() {
      const wanted = new FormData(form);
      const words = wanted.get("text").toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.dataset.text ?? (row.dataset.text = row.textContent.toLowerCase());
        const matches =
          ["verdict", "chapter", "source"].every(
            (name) => !wanted.get(name) || wanted.get(name) === row.dataset[name],
          ) && words.every((word) => text.includes(word));
        row.hidden = !matches;
        shown += matches;
      }
      count.textContent = `${shown} of ${rows.length} claims shown`;
    }

    form.addEventListener("input", filter);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    count.hidden = false;
    filter();
  }

  function openNamedRow() {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!row?.matches(".bn-ledger tbody tr")) return;
    const form = row.closest(".bn-ledger").querySelector(".bn-ledger-filters");
    if (row.hidden && form) {
      form.reset();
      form.dispatchEvent(new Event("input"));
    }
    row.querySelector("details").open = true;
    row.scrollIntoView();
  }

  function start() {
    document.querySelectorAll(".bn-ledger").forEach(enliven);
    openNamedRow();
    window.addEventListener("hashchange", openNamedRow);
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

/* Filters the rows of the claims ledger by verdict, chapter, source and text, which the address keeps,
   unfolds the chapters that hold what was looked for, and opens what the address names. Without this script the filters
   stay hidden and the browser unfolds chapters by itself. */
(() => {
  "use strict";

  function enliven(ledger) {
    const form = ledger.querySelector(".bn-ledger-filters");
    const count = ledger.querySelector(".bn-ledger-count");
    const rows = [...ledger.querySelectorAll(".bn-wing .bn-claims tbody tr")];
    const chapters = [...ledger.querySelectorAll(".bn-chapter")];
    const button = form?.querySelector("button");
    let folded = null;
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
      fold([...wanted.values()].some((value) => value.trim()));
      count.textContent = `${shown} of ${rows.length} claims shown`;
    }

    // `?verdict=fails`: what a reader reloads, comes back to or sends on shows the same rows.
    function fromAddress() {
      const asked = new URLSearchParams(location.search);
      for (const field of form.elements) if (asked.has(field.name)) field.value = asked.get(field.name);
      // What the page does not offer asks for nothing.
      for (const select of form.querySelectorAll("select"))
        if (select.selectedIndex < 0) select.value = "";
    }

    function toAddress() {
      const asked = new URLSearchParams(location.search);
      for (const [name, value] of new FormData(form))
        if (value.trim()) asked.set(name, value.trim());
        else asked.delete(name);
      const query = asked.size ? `?${asked}` : "";
      history.replaceState(history.state, "", location.pathname + query + location.hash);
    }

    function fold(filtered) {
      if (filtered && !folded) folded = chapters.filter((chapter) => !chapter.open);
      for (const chapter of chapters) {
        chapter.hidden = !chapter.querySelector(".bn-claims tbody tr:not([hidden])");
        if (filtered) chapter.open = true;
      }
      for (const wing of ledger.querySelectorAll(".bn-wing"))
        wing.hidden = !wing.querySelector(".bn-chapter:not([hidden])");
      if (!filtered) {
        folded?.forEach((chapter) => (chapter.open = false));
        folded = null;
      }
      label();
    }

    function allOpen() {
      return chapters.every((chapter) => chapter.open || chapter.hidden);
    }

    function label() {
      button.textContent = allOpen() ? "Close all chapters" : "Open all chapters";
    }

    button.addEventListener("click", () => {
      const open = !allOpen();
      for (const chapter of chapters) if (!chapter.hidden) chapter.open = open;
    });
    for (const chapter of chapters) chapter.addEventListener("toggle", label);
    form.addEventListener("input", () => {
      filter();
      toAddress();
    });
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
    count.hidden = false;
    fromAddress();
    filter();
    printUnfolded(chapters);
  }

  function printUnfolded(chapters) {
    let opened = [];
    window.addEventListener("beforeprint", () => {
      opened = chapters.filter((chapter) => !chapter.open);
      for (const chapter of opened) chapter.open = true;
    });
    window.addEventListener("afterprint", () => {
      for (const chapter of opened) chapter.open = false;
    });
  }

  function openNamed() {
    let named = null;
    try {
      named = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    } catch {
      return; // the address is no valid one
    }
    const ledger = named?.closest(".bn-ledger");
    if (!ledger) return;
    const form = ledger.querySelector(".bn-ledger-filters");
    if (named.closest("[hidden]") && form) {
      form.reset();
      form.dispatchEvent(new Event("input"));
    }
    const chapter = named.closest(".bn-chapter");
    if (chapter) chapter.open = true;
    if (named.matches("tr")) named.querySelector("details").open = true;
    named.scrollIntoView();
  }

  function start() {
    document.querySelectorAll(".bn-ledger").forEach(enliven);
    window.addEventListener("hashchange", openNamed);
    // A second click on the same link changes no address, and not every browser unfolds by itself.
    document.addEventListener("click", (event) => {
      const link = event.target.closest?.(".bn-ledger a[href*='#']");
      if (link && link.hash === location.hash) openNamed();
    });
    openNamed();
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();

/* Leads on from an id that has moved to where it is now. The page's own table stands in it as JSON: an id, or the
   beginning of some with `*` for the rest, and the address. */
(() => {
  "use strict";

  const table = JSON.parse(document.getElementById("bn-forwards").textContent);

  function target(id) {
    if (Object.hasOwn(table, id)) return table[id];
    const begins = Object.keys(table).filter(
      (old) => old.endsWith("*") && id.startsWith(old.slice(0, -1)),
    );
    if (!begins.length) return null;
    const old = begins.reduce((a, b) => (b.length > a.length ? b : a));
    return table[old].replace(/\*$/, "") + id.slice(old.length - 1);
  }

  function follow() {
    let id;
    try {
      id = decodeURIComponent(location.hash.slice(1));
    } catch {
      return; // the address is no valid one
    }
    if (!id || document.getElementById(id)) return;
    const found = target(id);
    // The old address leaves no trace: going back would lead here again.
    if (found) location.replace(found);
  }

  window.addEventListener("hashchange", follow);
  follow();
})();

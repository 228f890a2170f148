/* What the search shows first: chapters before the package, titles before text, and names of code last. */
// Sphinx declares it too, where it is not there: by `var`, which allows no `const` beside it.
var Scorer = {
  title: 20,
  partialTitle: 9,
  term: 5,
  partialTerm: 2,
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 5, 1: 2, 2: 0 },
  objPrioDefault: 0,

  score([page, , anchor, , score]) {
    // An entry of the index of names counts up to 100.
    if (page.startsWith("book/api") || page.startsWith("_modules/")) return score / 20 - 10;
    return anchor ? score : score + 1;
  },
};

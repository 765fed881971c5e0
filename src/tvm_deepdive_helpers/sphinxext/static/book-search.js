/*
 * Results in an order that helps; see sphinxext/searching.py. Sphinx's own search stays as it is, but for the function that
 * ranks pages by the words that stand in them. It works from a folder on disk as well as from a server.
 */
"use strict";

(() => {
  const HAN = /[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]/u;

  /* Words of a text, without those that stand everywhere. */
  const wordsOf = (text) => splitQuery(text.toLowerCase()).filter((word) => !stopwords.has(word) && !/^\d+$/.test(word));

  /* The same as the index knows them. */
  const stems = (text) => {
    const stemmer = new Stemmer();
    return wordsOf(text).map((word) => stemmer.stemWord(word));
  };

  /*
   * A query is a list of ideas. An idea is a list of ways to say it, and a way is a list of words that must all be there:
   * "算子融合 on CPU" has the ideas [[算子, 子融, 融合], [oper, fusion]] and [[cpu]].
   */
  const ideas = (query, equivalents) => {
    let rest = query.toLowerCase().trim();
    const found = [];
    const known = [];
    const single = new Set();
    for (const words of equivalents) for (const word of words) {
      known.push([word, words]);
      if (/^[a-z]+$/.test(word)) single.add(word);
    }
    // The stem of "tensorize" is another word of the glossary; then only the word as it is written counts.
    const way = (word) => {
      const found = stems(word);
      return found.length === 1 && found[0] !== word && single.has(found[0]) ? [`${word}.`] : found;
    };
    known.sort((a, b) => b[0].length - a[0].length);
    for (const [word, words] of known) {
      const at = rest.indexOf(word);
      if (at < 0) continue;
      if (!HAN.test(word)) {
        // An English term is a whole word, or its plural.
        const around = (rest[at - 1] || " ") + (rest.slice(at + word.length).replace(/^e?s\b/, "")[0] || " ");
        if (/[\w.]/.test(around)) continue;
      }
      found.push(words.map(way).filter((found) => found.length));
      rest = `${rest.slice(0, at)} ${rest.slice(at + word.length)}`;
    }
    for (const name of rest.match(/[\w]+(?:\.[A-Za-z_]\w*)+/g) || []) {
      const parts = stems(name);
      found.push([[name], parts]);
      rest = rest.replace(name, " ");
    }
    for (const run of rest.match(/[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+|[^\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+/gu) || []) {
      if (HAN.test(run)) found.push([stems(run)]);
      // A word with a dot behind it is the word as it is written: "tensorize." and not each "tensor".
      else for (const word of wordsOf(run)) found.push([stems(word), [`${word}.`]]);
    }
    return found.filter((idea) => idea.length && idea[0].length);
  };

  const numbers = (value) => (value === undefined ? [] : value.length === undefined ? [value] : value);

  class Ranking {
    constructor(index, extra) {
      this.index = index;
      this.count = index.docnames.length;
      this.place = new Map(index.docnames.map((name, at) => [name, at]));
      this.names = extra.docnames;
      this.weights = extra.weights;
      this.cache = new Map();
    }

    own(table, word) {
      return Object.prototype.hasOwnProperty.call(table, word) ? table[word] : undefined;
    }

    /* Pages that have exactly this word, each with what it is worth there. */
    exact(word) {
      const pages = new Map();
      for (const page of numbers(this.own(this.index.terms, word))) pages.set(page, 1);
      for (const page of numbers(this.own(this.index.titleterms, word))) pages.set(page, 3);
      for (const code of this.own(this.weights, word) || []) {
        const page = this.place.get(this.names[Math.floor(code / 10)]);
        if (pages.has(page)) pages.set(page, pages.get(page) + (code % 10));
      }
      const rare = Math.log(1 + this.count / Math.max(1, pages.size));
      for (const [page, worth] of pages) pages.set(page, worth * rare);
      return pages;
    }

    /* The same; where nothing has the word itself, words that begin with it, or contain it, count a little. */
    word(word) {
      if (this.cache.has(word)) return this.cache.get(word);
      let pages = this.exact(word);
      if (!pages.size && !word.endsWith(".") && (word.length > 2 || HAN.test(word))) {
        pages = new Map();
        const near = new Set();
        for (const table of [this.index.terms, this.index.titleterms])
          for (const other of Object.keys(table)) if (other.includes(word)) near.add(other);
        for (const other of near) {
          const share = (word.length / other.length) * (other.startsWith(word) ? 0.8 : 0.4);
          for (const [page, worth] of this.exact(other)) pages.set(page, Math.max(pages.get(page) || 0, worth * share));
        }
      }
      this.cache.set(word, pages);
      return pages;
    }

    /* Pages that have all words of a way. */
    way(words) {
      let sum = null;
      for (const word of words) {
        const pages = this.word(word);
        if (sum === null) sum = new Map(pages);
        else for (const page of [...sum.keys()]) {
          if (pages.has(page)) sum.set(page, sum.get(page) + pages.get(page));
          else sum.delete(page);
        }
      }
      // Words that say one thing together are not worth more the more there are.
      for (const [page, worth] of sum || []) sum.set(page, worth / Math.sqrt(words.length));
      return sum || new Map();
    }

    idea(ways) {
      const best = new Map();
      for (const words of ways)
        for (const [page, worth] of this.way(words)) best.set(page, Math.max(best.get(page) || 0, worth));
      return best;
    }

    /* Pages that are no reading matter come later. */
    kind(name) {
      if (name.startsWith("gallery/")) return 0.4;
      if (/(^|\/)(index|status|colophon|template)$/.test(name)) return 0.6;
      if (/(^|\/)glossary$/.test(name)) return 0.4;
      return 1;
    }

    rank(query, equivalents) {
      const asked = ideas(query, equivalents);
      const score = new Map();
      const met = new Map();
      for (const ways of asked) {
        for (const [page, worth] of this.idea(ways)) {
          score.set(page, (score.get(page) || 0) + worth);
          met.set(page, (met.get(page) || 0) + 1);
        }
      }
      // Pages with all ideas; if there is none, those with most.
      const most = Math.max(0, ...met.values());
      const wanted = [...met].filter(([, number]) => number === most).map(([page]) => page);
      const words = query.toLowerCase().trim();
      const named = new Set();
      for (const [entry, places] of Object.entries(this.index.indexentries || {}))
        if (entry === words) for (const [page] of places) named.add(page);
      return wanted
        .map((page) => [page, score.get(page) * this.kind(this.index.docnames[page]) * (named.has(page) ? 1.5 : 1)])
        .sort((a, b) => b[1] - a[1]);
    }
  }

  const install = () => {
    if (!window.bookSearch || typeof Search === "undefined") return;
    let asked = "";
    const whole = Search._performSearch;
    Search._performSearch = (query, ...rest) => {
      asked = query;
      return whole(query, ...rest);
    };
    Search.performTermsSearch = () => {
      const index = Search._index;
      const ranked = new Ranking(index, window.bookSearch).rank(asked, window.bookSearch.equivalents);
      if (!ranked.length) return [];
      // A page whose title is the query has 16 points from Sphinx; the best page by words has 20.
      const top = ranked[0][1];
      return ranked
        .slice(0, 60)
        .map(([page, score]) => [
          index.docnames[page],
          index.titles[page],
          "",
          null,
          (20 * score) / top,
          index.filenames[page],
          SearchResultKind.text,
        ]);
    };
  };

  if (typeof Search === "undefined") document.addEventListener("DOMContentLoaded", install);
  else install();
})();

/* The explorer of passes and schedules: its controls, over the plain list of the page. Data: tvm_deepdive_helpers/explorer.py. */
"use strict";
(() => {
  const CONTEXT = 2; // equal lines that are shown around a change
  const KINDS = { "=": "same", "~": "both", "-": "gone", "+": "come" };

  const make = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null));
    return node;
  };

  async function read(script) {
    const bytes = Uint8Array.from(atob(script.textContent), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    const data = await new Response(stream).json();
    // The states: for each step the functions that it starts from, and those that it leaves.
    const states = [new Map(data.start)];
    for (const step of data.steps) {
      const old = states[states.length - 1 - (step.f || 0)];
      const state = new Map((step.o || [...old.keys()]).map((name) => [name, old.get(name) || []]));
      let put = 0, out = 0;
      for (const [name, hunks] of Object.entries(step.d || {})) {
        const lines = (old.get(name) || []).slice();
        for (const [at, gone, come] of hunks.slice().reverse()) {
          lines.splice(at, gone, ...come);
          out += gone;
          put += come.length;
        }
        if (state.has(name)) state.set(name, lines);
      }
      Object.assign(step, { old, put, out, from: states.length - 1 - (step.f || 0) });
      states.push(state);
    }
    data.names = [...new Set(states.flatMap((state) => [...state.keys()]))];
    return data;
  }

  // Rows of a difference: [kind, old number, new number, old line, new line]; "=" equal, "~" changed, "-", "+".
  function rows(old, hunks) {
    const found = [];
    let at = 0, shift = 0;
    const equal = (end) => {
      for (; at < end; at++) found.push(["=", at + 1, at + 1 + shift, old[at], old[at]]);
    };
    for (const [place, gone, come] of hunks) {
      equal(place);
      const both = gone === come.length ? gone : 0;
      for (let i = 0; i < both; i++) found.push(["~", at + 1 + i, at + 1 + i + shift, old[at + i], come[i]]);
      for (let i = both; i < gone; i++) found.push(["-", at + 1 + i, null, old[at + i], null]);
      for (let i = both; i < come.length; i++) found.push(["+", null, at + 1 + i + shift, null, come[i]]);
      at += gone;
      shift += come.length - gone;
    }
    equal(old.length);
    return found;
  }

  // The words of two lines, those that differ in <del> and <ins>.
  function words(before, after) {
    const split = (text) => text.match(/\w+|\s+|[^\w\s]/g) || [];
    const a = split(before), b = split(after);
    const best = Array.from({ length: a.length + 1 }, () => new Uint16Array(b.length + 1));
    for (let i = a.length - 1; i >= 0; i--) {
      for (let j = b.length - 1; j >= 0; j--) {
        best[i][j] = a[i] === b[j] ? best[i + 1][j + 1] + 1 : Math.max(best[i + 1][j], best[i][j + 1]);
      }
    }
    const sides = [[], []];
    const add = (side, tag, word) => {
      const last = sides[side][sides[side].length - 1];
      if (last && last[0] === tag) last[1] += word;
      else sides[side].push([tag, word]);
    };
    let i = 0, j = 0;
    while (i < a.length || j < b.length) {
      if (i < a.length && j < b.length && a[i] === b[j]) {
        add(0, "", a[i++]);
        add(1, "", b[j++]);
      } else if (j === b.length || (i < a.length && best[i + 1][j] >= best[i][j + 1])) add(0, "del", a[i++]);
      else add(1, "ins", b[j++]);
    }
    return sides.map((side) => side.map(([tag, text]) => (tag ? make(tag, {}, text) : text)));
  }

  // Page and source of each pass: the tables of the page, outside of the explorer.
  function places() {
    const found = {};
    for (const row of document.querySelectorAll("table tr")) {
      const name = row.cells[0] && row.cells[0].querySelector("code");
      if (name && row.cells.length >= 3 && !row.closest(".explorer")) {
        found[name.textContent] = [row.cells[1], row.cells[2]].map((cell) =>
          [...cell.querySelectorAll("a")].map((link) => link.cloneNode(true)));
      }
    }
    return found;
  }

  function start(root, id) {
    const text = JSON.parse(root.dataset.texts);
    const plain = root.querySelector(".explorer-plain");
    const modules = new Map([...plain.querySelectorAll(".explorer-module")].map((node) => [node.dataset.key, {
      title: node.querySelector(".explorer-title").textContent,
      script: node.querySelector("script"),
    }]));
    const known = places();
    const now = { key: "", at: 0, name: null, data: null };

    const button = (label, action, key) => make("button", { type: "button", onclick: action, "aria-keyshortcuts": key }, label);
    const select = (label, action) => {
      const field = make("select", { onchange: action });
      return [field, make("label", {}, `${label} `, field)];
    };
    const [moduleField, moduleLabel] = select(text.module, () => open(moduleField.value, 1, true));
    const [functionField, functionLabel] = select(text.function, () => {
      now.name = functionField.value === "*" ? null : functionField.value.slice(1);
      list();
      show();
    });
    const only = make("input", { type: "checkbox", onchange: () => list() });
    const back = button("←", () => move(-1), "k");
    const next = button("→", () => move(1), "j");
    back.setAttribute("aria-label", text.previous);
    next.setAttribute("aria-label", text.next);
    const position = make("span", { class: "explorer-position" });
    const wideButton = button(text.wide, () => wide(), "f");
    const plainButton = button(text.plain, () => openPlain(), "p");
    const helpButton = button(text.help, () => help(), "?");
    const helpBox = make("p", { class: "explorer-help", hidden: "" }, text.keys);
    for (const one of [wideButton, plainButton]) one.setAttribute("aria-pressed", "false");
    helpButton.setAttribute("aria-expanded", "false");
    const steps = make("div", { class: "explorer-steps", role: "listbox", tabindex: "0", "aria-label": text.steps });
    const said = make("div", { class: "explorer-said", "aria-live": "polite" });
    const diff = make("div", { class: "explorer-diff", role: "region", tabindex: "0", "aria-label": text.difference });
    const ui = make("div", { class: "explorer-ui", onkeydown: press },
      make("div", { class: "explorer-bar" }, moduleLabel, functionLabel, make("label", {}, only, ` ${text.only}`),
        make("span", { class: "explorer-move" }, back, position, next), wideButton, plainButton, helpButton),
      helpBox, make("div", { class: "explorer-main" }, steps, make("div", { class: "explorer-step" }, said, diff)));
    for (const [key, { title }] of modules) moduleField.append(make("option", { value: key }, title));
    root.prepend(ui);
    root.classList.add("explorer-live");

    const counts = (step) => (step.d ? `+${step.put} −${step.out}` : "");
    const touched = (step) => now.name === null ? step.c || step.d : step.d && now.name in step.d;
    const shown = () => now.data.steps.map((step, at) => at + 1).filter((at) => !only.checked || touched(now.data.steps[at - 1]));

    // The list of steps, under the headings of the phases.
    function list() {
      const groups = [];
      let phase = null;
      for (const at of shown()) {
        const step = now.data.steps[at - 1];
        if (!groups.length || step.p !== phase) {
          phase = step.p;
          groups.push(make("div", { role: "group", "aria-label": text[phase] || text.steps },
            phase ? make("div", { class: "explorer-phase", "aria-hidden": "true" }, text[phase]) : null));
        }
        const change = counts(step) || (step.c ? "~" : "");
        groups[groups.length - 1].append(make("div",
          { role: "option", id: `${id}-${at}`, "aria-selected": "false", class: touched(step) ? "" : "explorer-idle",
            onclick: () => { go(at); steps.focus(); } },
          make("span", { class: "explorer-number" }, String(at)),
          make("span", { class: "explorer-name" }, step.s || step.n || text.gap),
          make("span", { class: "explorer-lines" }, change),
          step.t === undefined ? null : make("span", { class: "explorer-time" }, `${step.t.toFixed(2)} ms`)));
      }
      steps.replaceChildren(...groups);
      mark();
    }

    function mark() {
      const old = steps.querySelector("[aria-selected=true]");
      if (old) old.setAttribute("aria-selected", "false");
      const chosen = document.getElementById(`${id}-${now.at}`);
      if (chosen) {
        chosen.setAttribute("aria-selected", "true");
        steps.setAttribute("aria-activedescendant", chosen.id);
        const top = chosen.offsetTop;
        if (top < steps.scrollTop || top + chosen.offsetHeight > steps.scrollTop + steps.clientHeight) {
          steps.scrollTop = top - steps.clientHeight / 3;
        }
      } else steps.removeAttribute("aria-activedescendant");
    }

    // Title, links and difference of the chosen step.
    function show() {
      const step = now.data.steps[now.at - 1], lines = now.data.lines;
      position.textContent = text.step.replace("%(at)s", now.at).replace("%(of)s", now.data.steps.length);
      const [pages, sources] = known[step.n] || [[], []];
      const note = (label, ...links) => links.length
        ? make("p", {}, `${label}: `, ...links.flatMap((link, at) => (at ? [", ", link] : [link]))) : null;
      const hint = !step.n ? text.gap_note : step.c && !step.d ? text.hidden : !step.c && step.d ? text.names : null;
      said.replaceChildren(...[
        make("p", { class: "explorer-what" }, make("code", {}, step.s || step.n || text.gap),
          ` ${counts(step)}`),
        step.v ? note(text.decision, make("code", {}, step.v)) : null,
        note(text.page, ...pages.map((link) => link.cloneNode(true))),
        note(text.source, ...sources.map((link) => link.cloneNode(true))),
        hint ? make("p", {}, hint) : null,
        step.f ? make("p", {}, text.from.replace("%s", step.from)) : null,
        touched(step) ? null : make("p", {}, text.unchanged)].filter((node) => node));

      const parts = [make("div", { class: "explorer-row explorer-heads" }, make("div", {}, text.before), make("div", {}, text.after))];
      const hunksOf = (name) => (step.d || {})[name] || [];
      const names = [...new Set([...step.old.keys(), ...Object.keys(step.d || {})])];
      names.sort((a, b) => !hunksOf(a).length - !hunksOf(b).length); // stable: what changes comes first
      for (const name of names.filter((one) => now.name === null || one === now.name)) {
        const found = rows(step.old.get(name) || [], hunksOf(name));
        if (!found.length) continue;
        const still = !hunksOf(name).length;
        if (name && !still) parts.push(make("div", { class: "explorer-function" }, name));
        // A function that was chosen is shown whole if nothing changes in it.
        const near = new Set();
        found.forEach(([kind], at) => {
          if (kind !== "=" || (now.name !== null && still)) for (let i = at - CONTEXT; i <= at + CONTEXT; i++) near.add(i);
        });
        for (let at = 0; at < found.length; at++) {
          if (near.has(at)) {
            parts.push(line(found[at], lines));
            continue;
          }
          const hidden = [];
          while (at < found.length && !near.has(at)) hidden.push(found[at++]);
          at--;
          const label = text.equal.replace("%s", hidden.length);
          const more = button(still && name ? `${name}: ${label}` : label, () => {
            more.replaceWith(...hidden.map((row) => line(row, lines)));
            diff.focus();
          }, null);
          more.className = "explorer-more";
          parts.push(more);
        }
      }
      diff.replaceChildren(...parts);
      diff.scrollTop = 0;
    }

    // Functions stand in a class in the text of a module; the four blanks before each line say nothing.
    function line([kind, before, after, old, fresh], all) {
      const lines = (at) => (at === null ? "" : all[at].replace(/^ {4}/, ""));
      const side = (tag, number, content) => make("div", { class: number === null ? "explorer-none" : "" },
        make("span", { class: "explorer-line", "aria-hidden": "true" }, number === null ? "" : String(number)),
        number === null ? "" : make(tag, { class: "explorer-text" }, ...content));
      const [a, b] = kind === "~" ? words(lines(old), lines(fresh)) : [[lines(old)], [lines(fresh)]];
      return make("div", { class: `explorer-row explorer-${KINDS[kind]}` },
        side(kind === "-" ? "del" : "span", before, a), side(kind === "+" ? "ins" : "span", after, b));
    }

    function go(at, quiet) {
      now.at = Math.min(Math.max(at, 1), now.data.steps.length);
      mark();
      show();
      if (!quiet) {
        try {
          history.replaceState(null, "", `#module=${now.key}&pass=${now.at}`);
        } catch (error) { /* some browsers refuse this for files */ }
      }
    }

    function move(by) {
      const all = shown();
      const at = by > 0 ? all.find((one) => one > now.at) : all.reverse().find((one) => one < now.at);
      if (at) go(at);
    }

    async function open(key, step, write) {
      const module = modules.get(key);
      try {
        now.data = module.data || (module.data = await read(module.script));
      } catch (error) {
        said.replaceChildren(make("p", { role: "alert" }, text.failed));
        root.classList.remove("explorer-live");
        return;
      }
      now.key = key;
      now.name = null;
      moduleField.value = key;
      functionField.replaceChildren(make("option", { value: "*" }, text.all),
        ...now.data.names.map((name) => make("option", { value: `=${name}` }, name || text.head)));
      now.at = /^\d+$/.test(step) ? Number(step) : now.data.steps.findIndex((one) => one.n === step) + 1;
      list();
      go(now.at || 1, !write);
    }

    function wide(on = !root.classList.contains("explorer-wide")) {
      root.classList.toggle("explorer-wide", on);
      wideButton.setAttribute("aria-pressed", String(on));
      mark();
    }

    function help(on = helpBox.hidden) {
      helpBox.hidden = !on;
      helpButton.setAttribute("aria-expanded", String(on));
    }

    function openPlain() {
      wide(false);
      const on = root.classList.toggle("explorer-open");
      plainButton.setAttribute("aria-pressed", String(on));
    }

    function press(event) {
      if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
      const arrows = event.target !== diff;
      const on = () => move(1), off = () => move(-1);
      const actions = { __proto__: null, j: on, k: off,
        ...(arrows && { ArrowRight: on, ArrowDown: on, ArrowLeft: off, ArrowUp: off,
          Home: () => go(shown()[0] || 1), End: () => go(shown().pop() || 1) }),
        c: () => { only.checked = !only.checked; list(); },
        f: () => wide(), p: () => openPlain(), "?": () => help(),
        Escape: () => (helpBox.hidden ? wide(false) : help(false)),
      };
      const action = actions[event.key];
      if (!action) return;
      event.preventDefault();
      event.stopPropagation(); // the theme has keys of its own
      action();
    }

    function follow(first) {
      const wish = new URLSearchParams(location.hash.slice(1));
      const key = wish.get("module");
      if (modules.has(key)) {
        open(key, wish.get("pass") || "1", false).then(() => {
          steps.focus({ preventScroll: true });
          root.scrollIntoView();
        });
      } else if (first) open(modules.keys().next().value, "1", false);
    }

    window.addEventListener("hashchange", () => follow(false));
    follow(true);
  }

  document.querySelectorAll(".explorer").forEach((root, number) => start(root, `explorer${number}`));
})();

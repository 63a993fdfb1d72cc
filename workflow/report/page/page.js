"use strict";
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const [study, texts] = ["#study", "#texts"].map((place) => JSON.parse($(place).textContent));
  const SVG = "http://www.w3.org/2000/svg";

  /** Element with attributes and children. Text is always set as text, never as markup. */
  function make(name, attributes = {}, ...children) {
    return fill(document.createElement(name), attributes, children);
  }
  function draw(name, attributes = {}, ...children) {
    return fill(document.createElementNS(SVG, name), attributes, children);
  }
  function fill(element, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  function say(text) {
    $("#said").textContent = text;
  }

  /** A value of the summary as text; the same rules as lorastudy.report.show. */
  function show(value, kind) {
    if (value === undefined || value === null) return "–";
    if (kind === "text") return String(value);
    if (kind === "whole") return Math.round(value).toLocaleString("en-US");
    if (kind === "fraction") return value.toFixed(3);
    if (kind === "duration") {
      if (Math.round(value) < 10) return `${value.toFixed(1)} s`;
      const whole = Math.round(value);
      const two = (number) => String(number).padStart(2, "0");
      return `${Math.floor(whole / 3600)}:${two(Math.floor(whole / 60) % 60)}:${two(whole % 60)}`;
    }
    if (Math.abs(value) >= 1e4) return Math.round(value).toLocaleString("en-US");
    return String(Number(value.toPrecision(4)));
  }

  // --- theme

  const themes = ["automatic", "light", "dark"];
  const themeButton = $("#theme");
  function setTheme(theme) {
    if (theme === "automatic") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    themeButton.textContent = { automatic: "Auto", light: "Light", dark: "Dark" }[theme];
    themeButton.setAttribute("aria-label", `Theme: ${theme}`);
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // a page from a file may not be allowed to remember
    }
  }
  let remembered = "automatic";
  try {
    remembered = localStorage.getItem("theme") || "automatic";
  } catch {
    // as above
  }
  let theme = Math.max(0, themes.indexOf(remembered));
  setTheme(themes[theme]);
  themeButton.hidden = false;
  themeButton.addEventListener("click", () => {
    theme = (theme + 1) % themes.length;
    setTheme(themes[theme]);
  });

  // --- files and commands

  async function download(number) {
    const held = $(`script[data-file="${number}"]`);
    const packed = Uint8Array.from(atob(held.textContent), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    const address = URL.createObjectURL(new Blob([await new Response(stream).arrayBuffer()], { type: "application/octet-stream" }));
    const link = make("a", { href: address, download: held.dataset.name.split("/").pop() });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }

  async function copy(text) {
    try {
      await navigator.clipboard.writeText(text);
      say("Copied");
    } catch {
      say("Not copied: select the text and copy it");
    }
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.download) download(button.dataset.download);
    else if (button.dataset.copy) copy(button.dataset.copy);
    else if (button.dataset.zoom) enlarge(button);
    else if (button.dataset.open) openPanel(button.dataset.open);
  });

  // --- table of cells: sorting and filtering

  const table = $("#cell-table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const filters = $("#filters");

  for (const row of $$("tr[data-id]")) {
    const head = row.cells[0];
    if (!study.details[row.dataset.id] && !study.rows[row.dataset.id]) continue;
    head.replaceChildren(make("button", { type: "button", class: "link", "data-open": row.dataset.id }, head.textContent));
  }

  function value(row, key) {
    const held = key === "id" ? row.dataset.id : study.rows[row.dataset.id][key];
    return held === undefined ? null : held;
  }

  function compare(one, other) {
    if (typeof one === "number" && typeof other === "number") return one - other;
    return String(one).localeCompare(String(other), "en", { numeric: true });
  }

  for (const head of $$("th[data-key]", table)) {
    const button = make("button", { type: "button", class: "sort" }, head.textContent);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const falling = head.getAttribute("aria-sort") === "ascending";
      for (const other of $$("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const key = head.dataset.key;
      rows.sort((a, b) => {
        const [one, other] = [value(a, key), value(b, key)];
        if (one === null || other === null) return (one === null) - (other === null); // what is missing comes last
        return falling ? compare(other, one) : compare(one, other);
      });
      body.append(...rows);
    });
  }

  function filter() {
    const wanted = new FormData(filters);
    const text = wanted.get("text").trim().toLowerCase();
    let count = 0;
    for (const row of rows) {
      const match =
        row.dataset.id.toLowerCase().includes(text) &&
        [...wanted].every(([name, choice]) => name === "text" || choice === "" || matches(value(row, name), choice));
      row.hidden = !match;
      count += match;
    }
    $("#shown").textContent = `${count} of ${rows.length} cells`;
  }

  function matches(held, choice) {
    return typeof held === "number" ? held === Number(choice) : held === choice;
  }

  filters.hidden = false;
  filters.addEventListener("input", filter);
  filters.addEventListener("reset", () => setTimeout(filter));
  filters.addEventListener("submit", (event) => event.preventDefault());
  filter();

  // --- panel of one cell

  const panel = $("#panel");

  function shared(index) {
    return study.shared[index];
  }

  function className(index) {
    return study.classes?.[index] ?? `class ${index}`;
  }

  function facts(pairs) {
    const list = make("dl", { class: "facts" });
    for (const [name, text] of pairs) {
      list.append(make("div", {}, make("dt", {}, name), make("dd", { class: "break" }, text)));
    }
    return list;
  }

  function part(title, ...content) {
    return make("section", {}, make("h3", {}, title), ...content);
  }

  function label(name) {
    return name === "money" ? `Cost (${study.currency})` : study.labels[name][0];
  }

  function scores(row) {
    const head = make("tr", {}, ...["Score", "Value", "95% interval"].map((text) => make("th", { scope: "col" }, text)));
    const lines = study.scores
      .filter((name) => row[name] !== undefined)
      .map((name) =>
        make(
          "tr",
          {},
          make("th", { scope: "row" }, label(name)),
          make("td", { class: "n" }, show(row[name], "fraction")),
          make("td", { class: "n" }, `${show(row[`${name}_low`], "fraction")} to ${show(row[`${name}_high`], "fraction")}`),
        ),
      );
    return make("table", { class: "data" }, make("thead", {}, head), make("tbody", {}, ...lines));
  }

  /** Round numbers between low and high, about `count` of them. */
  function ticks(low, high, count) {
    const rough = (high - low) / count || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) {
      found.push(Number(tick.toPrecision(12)));
    }
    return found;
  }

  function lossCurve({ step, loss }) {
    const width = Math.min(620, window.innerWidth - 60); // so that its text keeps its size on a phone
    const [height, left, right, top, bottom] = [240, 52, 12, 10, 38];
    const [low, high] = [Math.min(...loss), Math.max(...loss)];
    const room = (high - low) * 0.05 || 0.1;
    const x = (value) => left + ((width - left - right) * value) / (step[step.length - 1] || 1);
    const y = (value) => top + ((height - top - bottom) * (high + room - value)) / (high - low + 2 * room);
    const first = `${show(loss[0])} at step ${step[0]}`;
    const last = `${show(loss[loss.length - 1])} at step ${step[step.length - 1]}`;
    const svg = draw("svg", {
      class: "curve",
      role: "img",
      viewBox: `0 0 ${width} ${height}`,
      "aria-label": `Training loss, from ${first} to ${last}; lowest ${show(low)}`,
    });
    for (const tick of ticks(low - room, high + room, 4)) {
      svg.append(draw("line", { class: "grid", x1: left, x2: width - right, y1: y(tick), y2: y(tick) }));
      svg.append(draw("text", { x: left - 6, y: y(tick) + 4, class: "end" }, show(tick)));
    }
    for (const tick of ticks(0, step[step.length - 1], 6).filter(Number.isInteger)) {
      svg.append(draw("text", { x: x(tick), y: height - bottom + 16, class: "middle" }, String(tick)));
    }
    svg.append(draw("text", { x: (left + width - right) / 2, y: height - 4, class: "middle" }, "step"));
    svg.append(draw("polyline", { points: step.map((value, index) => `${x(value)},${y(loss[index])}`).join(" ") }));
    if (step.length <= 60) {
      step.forEach((value, index) => {
        const dot = draw("circle", { cx: x(value), cy: y(loss[index]), r: 2.5 });
        dot.append(draw("title", {}, `step ${value}: ${show(loss[index])}`));
        svg.append(dot);
      });
    }
    return make("div", {}, svg, make("p", { class: "small" }, `Mean training loss since the point before: from ${first} to ${last}.`));
  }

  function confusion(matrix) {
    const largest = Math.max(...matrix.flat(), 1);
    const head = make("tr", {}, make("th", { scope: "col" }, "true \\ predicted"));
    matrix.forEach((_, index) => head.append(make("th", { scope: "col", class: "n" }, className(index))));
    head.append(make("th", { scope: "col", class: "n" }, "recall"));
    const lines = matrix.map((counts, index) => {
      const all = counts.reduce((sum, count) => sum + count, 0);
      const line = make("tr", {}, make("th", { scope: "row" }, className(index)));
      counts.forEach((count, column) => {
        const cell = make("td", { class: column === index ? "n shade right" : "n shade" }, String(count));
        cell.style.setProperty("--share", `${Math.round((45 * count) / largest)}%`);
        line.append(cell);
      });
      line.append(make("td", { class: "n" }, all ? show(counts[index] / all, "fraction") : "–"));
      return line;
    });
    return scrolling("Confusion matrix", make("table", { class: "data" }, make("thead", {}, head), make("tbody", {}, ...lines)));
  }

  function scrolling(name, ...content) {
    return make("div", { class: "scroll", role: "region", "aria-label": name, tabindex: "0" }, ...content);
  }

  function textOf(id) {
    if (texts === null) return "(the texts are not in this page)";
    return texts[id] ?? "(the text is not among the present test texts)";
  }

  function errors(list) {
    if (!list.length) return make("p", {}, "None: every prediction is right.");
    const items = list.map(([text, truth, prediction, probability]) =>
      make(
        "li",
        {},
        make("p", { class: "small" }, make("b", {}, className(prediction)), ` predicted with probability ${probability.toFixed(3)}, true is `, make("b", {}, className(truth))),
        make("blockquote", { dir: "auto" }, textOf(text)),
      ),
    );
    return make("ol", { class: "errors" }, ...items);
  }

  /** Nested settings as dotted pairs. */
  function flat(value, path = "") {
    if (value === null || typeof value !== "object" || Array.isArray(value)) {
      const text = value === null ? "none" : Array.isArray(value) ? value.join(", ") : String(value);
      return [[path, text]];
    }
    return Object.entries(value).flatMap(([key, inner]) => flat(inner, path ? `${path}.${key}` : key));
  }

  function fold(title, pairs) {
    return make("details", {}, make("summary", {}, title), facts(pairs));
  }

  function render(id) {
    const [row, detail] = [study.rows[id], study.details[id]];
    const content = [];
    if (row.status !== "finished") content.push(make("p", { class: "note" }, `${row.status}: ${row.reason ?? ""}`));
    content.push(facts(study.axes.filter((name) => row[name] !== undefined).map((name) => [label(name), show(row[name], study.labels[name][1])])));
    const beside = make("div", { class: "beside" });
    if (row.accuracy !== undefined) beside.append(part("Scores", scores(row)));
    const pictures = make("div");
    if (detail?.curve?.step.length) pictures.append(part("Loss", lossCurve(detail.curve)));
    if (detail?.confusion) pictures.append(part("Confusion matrix", confusion(detail.confusion)));
    if (pictures.childElementCount) beside.append(pictures);
    content.push(beside);
    if (row.status === "finished" && detail) content.push(part("Most confident errors", errors(detail.errors)));
    const known = study.facts.filter((name) => row[name] !== undefined);
    if (known.length) content.push(part("Time, memory, cost", facts(known.map((name) => [label(name), show(row[name], study.labels[name][1])]))));
    if (detail) {
      const where = Object.entries(detail.provenance).map(([name, index]) => [name, shared(index)]);
      content.push(
        part(
          "Settings and provenance",
          ...where.filter(([name]) => name === "config").map(([, config]) => fold("Settings", flat(config))),
          fold("Provenance", flat(Object.fromEntries(where.filter(([name]) => name !== "config")))),
        ),
      );
    }
    return content;
  }

  /** Ids in the order in which the table shows them, baselines last. */
  function sequence() {
    const shown = rows.filter((row) => !row.hidden).map((row) => row.dataset.id);
    return [...shown, ...$$("#main tr[data-id]").map((row) => row.dataset.id).filter((id) => !rows.some((row) => row.dataset.id === id))];
  }

  let open = null;
  function openPanel(id) {
    if (!study.rows[id]) return;
    open = id;
    $("#panel-title").textContent = id;
    $("#panel-body").replaceChildren(...render(id));
    panel.scrollTop = 0;
    history.replaceState(null, "", `#cell=${encodeURIComponent(id)}`);
    if (!panel.open) panel.showModal();
  }
  function turn(by) {
    const ids = sequence();
    const place = ids.indexOf(open);
    openPanel(ids[(place + by + ids.length) % ids.length]);
    say(open);
  }
  $("#panel-next").addEventListener("click", () => turn(1));
  $("#panel-previous").addEventListener("click", () => turn(-1));
  $("#panel-close").addEventListener("click", () => panel.close());
  panel.addEventListener("close", () => {
    history.replaceState(null, "", "#cells");
    $(`[data-open="${CSS.escape(open)}"]`)?.focus();
  });
  function follow() {
    const found = /^#cell=(.+)$/.exec(location.hash);
    if (found) openPanel(decodeURIComponent(found[1]));
  }
  window.addEventListener("hashchange", follow);

  // --- enlarged figure

  const lightbox = $("#lightbox");
  const image = $("#lightbox-image");
  let scale = null; // null: as wide as the window
  let opener = null;

  function setScale(next) {
    scale = next;
    image.style.width = scale === null ? "100%" : `${Math.round(image.naturalWidth * scale)}px`;
    $("#zoom-level").textContent = `${Math.round((100 * image.getBoundingClientRect().width) / image.naturalWidth)}%`;
  }
  function scaleBy(factor) {
    const now = image.getBoundingClientRect().width / image.naturalWidth;
    setScale(Math.min(4, Math.max(0.1, now * factor)));
  }
  function enlarge(button) {
    opener = button;
    const small = $("img", button);
    image.src = small.src;
    image.alt = small.alt;
    $("#lightbox-title").textContent = button.getAttribute("aria-label").replace("Enlarge: ", "");
    lightbox.showModal();
    image.decode().then(() => setScale(null));
  }
  $("#zoom-in").addEventListener("click", () => scaleBy(1.25));
  $("#zoom-out").addEventListener("click", () => scaleBy(0.8));
  $("#zoom-fit").addEventListener("click", () => setScale(null));
  $("#zoom-close").addEventListener("click", () => lightbox.close());
  lightbox.addEventListener("keydown", (event) => {
    if (event.key === "+" || event.key === "=") scaleBy(1.25);
    else if (event.key === "-") scaleBy(0.8);
    else if (event.key === "0") setScale(null);
  });
  lightbox.addEventListener("close", () => opener?.focus());
  for (const dialog of [panel, lightbox]) {
    dialog.addEventListener("click", (event) => {
      if (event.target === dialog) dialog.close(); // the backdrop
    });
  }

  // --- section in view

  const links = new Map($$("nav a").map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        for (const link of links.values()) link.removeAttribute("aria-current");
        links.get(entry.target.getAttribute("aria-labelledby"))?.setAttribute("aria-current", "true");
      }
    },
    { rootMargin: "-20% 0px -70% 0px" },
  );
  for (const section of $$("main > section[aria-labelledby]")) seen.observe(section);

  follow();
})();

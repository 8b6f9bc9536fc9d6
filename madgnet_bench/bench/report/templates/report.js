"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const root = document.documentElement;

  // Theme: follows the system until it is chosen.
  const system = matchMedia("(prefers-color-scheme: dark)");
  const themeButton = $("#theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const showTheme = () => themeButton.setAttribute("aria-pressed", String(isDark()));
  themeButton.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* no storage */ }
    showTheme();
  });
  system.addEventListener("change", showTheme);
  showTheme();

  // Sorting: a header's button sorts by its column, once more the other way; missing values stay last, and rows that stand
  // apart stay below all others.
  const keyOf = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.v;
    if (given === "") return null;
    const text = given ?? cell.firstChild?.textContent.trim() ?? "";
    return text !== "" && Number.isFinite(Number(text)) ? Number(text) : text.toLowerCase();
  };
  const compare = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  const sortBy = (header) => {
    const table = header.closest("table");
    const descending = header.getAttribute("aria-sort") === "ascending";
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [keyOf(row, header.cellIndex), row]);
    rows.sort(([a, rowA], [b, rowB]) => {
      const apart = rowA.hasAttribute("data-apart") - rowB.hasAttribute("data-apart");
      if (apart) return apart;
      if (a === null || b === null) return (a === null) - (b === null);
      return descending ? compare(b, a) : compare(a, b);
    });
    for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
    header.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...rows.map(([, row]) => row));
  };
  for (const button of $$("thead button")) button.addEventListener("click", () => sortBy(button.closest("th")));

  // Filters: one form for every table and picture.
  const form = $("#filters");
  const status = $("#filter-status");
  const chosen = (id) => $(`#f-${id}`)?.value ?? "";
  const takes = (element, filter) =>
    (!filter.setting || !element.dataset.setting || element.dataset.setting === filter.setting) &&
    (!filter.dataset || !element.dataset.dataset || element.dataset.dataset === filter.dataset) &&
    (!filter.network || !element.dataset.network || element.dataset.network.toLowerCase().includes(filter.network));
  const filterTable = (table, filter) => {
    const hidden = [...table.tHead.rows[0].cells].map((header) => !takes(header, filter));
    const changed = hidden.some((hide, column) => hide !== table.tHead.rows[0].cells[column].hidden);
    for (const row of table.tBodies[0].rows) row.hidden = !takes(row, filter);
    if (changed) for (const row of table.rows) for (const [column, hide] of hidden.entries()) row.cells[column].hidden = hide;
  };
  const apply = () => {
    const filter = { setting: chosen("setting"), dataset: chosen("dataset"), network: chosen("network").trim().toLowerCase() };
    const key = chosen("block") || $(".block").dataset.block;
    for (const block of $$(".block")) block.classList.toggle("current", block.dataset.block === key);
    const block = $(".block.current");
    const kinds = $$("input[name=kind]", block).filter((box) => box.checked).map((box) => box.value);
    for (const board of $$(".board", block)) board.classList.toggle("current", board.dataset.measure === chosen("measure"));
    if (!$(".board.current", block)) $(".board", block)?.classList.add("current");
    for (const table of $$("table.data", block)) filterTable(table, filter);
    for (const article of $$(".gallery article", block)) article.hidden = !takes(article, filter);
    if (kinds.length || $("input[name=kind]", block)) for (const card of $$(".cards > li", block)) card.hidden = !kinds.includes(card.dataset.kind);
    const prefix = block === $(".block") ? "" : `${key}-`;
    for (const link of $$("nav a")) {
      const base = link.dataset.base ?? (link.dataset.base = link.hash.slice(1));
      link.hash = document.getElementById(prefix + base) ? prefix + base : base;
    }
    const table = $(".board.current table", block);
    const rows = [...table.tBodies[0].rows];
    const sets = [...table.tHead.rows[0].cells].filter((header) => header.dataset.setting);
    const seen = (elements) => `${elements.filter((element) => !element.hidden).length} of ${elements.length}`;
    status.textContent = `${seen(rows)} models, ${seen(sets)} columns`;
  };
  form.addEventListener("input", apply);
  form.addEventListener("reset", () => setTimeout(apply));
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const box of $$("input[name=kind]")) box.addEventListener("change", apply);

  // Gallery: which part the thumbnails show, and the dialog with all of them.
  for (const gallery of $$(".gallery")) {
    for (const radio of $$("input[type=radio]", gallery)) {
      radio.addEventListener("change", () => { gallery.dataset.part = radio.value; });
    }
  }
  const viewer = $("#viewer");
  let shown = null;
  const visible = () => $$(".block.current .case").filter((card) => !card.closest("[hidden]"));
  const show = (card) => {
    shown = card;
    const article = card.closest("article");
    const picture = $("img", card);
    const [, kind] = $$(".about > *", card).map((element) => element.textContent);
    const name = $(".id", card).textContent;
    $("#v-title").textContent = name;
    const cards = visible();
    $("#v-where").textContent = `${article.dataset.network} on ${article.dataset.dataset} (${article.dataset.setting}), ${kind}; ${cards.indexOf(card) + 1} of ${cards.length}`;
    for (const image of $$(".panel img", viewer)) {
      image.src = picture.getAttribute("src");
      image.alt = `${image.dataset.part} of case ${name}`;
      image.parentElement.style.aspectRatio = $(".thumb", card).style.aspectRatio;
      image.classList.toggle("small", Number(picture.getAttribute("height")) < 200);
    }
    $("#v-targets").replaceChildren("outlines:", ...Object.entries(JSON.parse(article.dataset.targets)).flatMap(([target, colour]) => {
      const swatch = document.createElement("span");
      swatch.className = "swatch";
      swatch.style.background = colour;
      return [swatch, `${target} `];
    }));
    $("#v-scores").replaceChildren(...Object.entries(JSON.parse(card.dataset.scores)).map(([term, value]) => {
      const entry = document.createElement("div");
      const [head, text] = ["dt", "dd"].map((tag) => document.createElement(tag));
      head.textContent = term;
      text.textContent = value;
      entry.append(head, text);
      return entry;
    }));
    if (!viewer.open) viewer.showModal();
  };
  const step = (by) => {
    const cards = visible();
    const place = cards.indexOf(shown) + by;
    if (cards.length) show(cards[(place + cards.length) % cards.length]);
  };
  for (const card of $$(".case")) card.addEventListener("click", () => show(card));
  $("#v-back").addEventListener("click", () => step(-1));
  $("#v-next").addEventListener("click", () => step(1));
  $("#v-close").addEventListener("click", () => viewer.close());
  viewer.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      step(event.key === "ArrowLeft" ? -1 : 1);
    }
  });
  viewer.addEventListener("click", (event) => { if (event.target === viewer) viewer.close(); });
  viewer.addEventListener("close", () => shown?.focus());

  apply();
  root.dataset.ready = "true";
})();

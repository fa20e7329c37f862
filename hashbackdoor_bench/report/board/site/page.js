// Sorting, filtering, theme and copying. Reads text and data- attributes only, builds no HTML.
"use strict";

const root = document.documentElement;
root.classList.add("script");

const store = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); } catch { /* a private window */ } },
};
if (store.get("theme")) root.dataset.theme = store.get("theme"); // before anything is painted

function startTheme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);
  const show = () => {
    button.textContent = dark() ? "◐ Light" : "◐ Dark";
    button.setAttribute("aria-label", `Switch to ${dark() ? "light" : "dark"} colours`);
    button.setAttribute("aria-pressed", String(dark()));
  };
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    store.set("theme", root.dataset.theme);
    show();
  });
  system.addEventListener("change", show);
  show();
}

function startCopy() {
  for (const button of document.querySelectorAll("button.copy")) {
    button.addEventListener("click", async () => {
      const said = button.textContent;
      button.textContent = (await copy(button.dataset.command)) ? "Copied" : "Copy failed";
      setTimeout(() => { button.textContent = said; }, 1500);
    });
  }
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch { // some browsers keep the clipboard from pages opened as files
    const area = document.createElement("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

// ---- boards

const cell = (row, place) => row.cells[place]?.dataset.value ?? "";

function compare(a, b) {
  const [x, y] = [Number(a), Number(b)];
  return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, "en", { numeric: true }) : x - y;
}

function sortTable(table, key, direction) {
  const heads = [...table.tHead.rows[0].cells];
  const place = heads.findIndex((head) => head.dataset.key === key);
  if (place < 0) return;
  for (const head of heads) head.removeAttribute("aria-sort");
  heads[place].setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
  const rows = [...table.tBodies[0].rows].sort((a, b) => {
    const [x, y] = [cell(a, place), cell(b, place)];
    if (x === "" || y === "") return (x === "") - (y === ""); // nothing stays below, either way
    return direction * compare(x, y) || a.dataset.order - b.dataset.order;
  });
  table.tBodies[0].append(...rows);
}

const firstDirection = (head) => // names and places begin with the first, figures with the largest
  head.classList.contains("number") && head.dataset.key !== "place" ? -1
    : head.dataset.key === "gain" ? -1 : 1;

const tables = () => [...document.querySelectorAll("table[role=table]")];

function startSorting() {
  for (const table of tables()) {
    [...table.tBodies[0].rows].forEach((row, order) => { row.dataset.order = order; });
    const first = table.tHead.rows[0].cells[0];
    if (first.dataset.key === "place") first.setAttribute("aria-sort", "ascending");
    for (const head of table.tHead.rows[0].cells) {
      head.querySelector("button").addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        const other = now === "ascending" ? -1 : 1;
        sortTable(table, head.dataset.key, now ? other : firstDirection(head));
      });
    }
  }
}

function startFilters() {
  const form = document.getElementById("filters");
  if (!form) return;
  const sortAll = () => {
    for (const table of tables()) {
      const head = [...table.tHead.rows[0].cells].find((h) => h.dataset.key === form.sort.value);
      if (head) sortTable(table, head.dataset.key, firstDirection(head));
    }
  };
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", (event) => {
    if (event.target === form.sort) sortAll();
    filter(form);
    remember(form);
  });
  form.addEventListener("reset", () => setTimeout(() => { sortAll(); filter(form); remember(form); }));
  addEventListener("hashchange", () => { restore(form); filter(form); });
  restore(form);
  if (form.sort.value !== "place") sortAll();
  filter(form);
}

function filter(form) {
  const words = form.text.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0, all = 0;
  for (const board of document.querySelectorAll(".board")) {
    const here = !form.delivery.value || board.dataset.delivery === form.delivery.value;
    board.hidden = !here;
    let left = 0;
    for (const row of board.querySelectorAll("table[role=table] tbody tr")) {
      const text = row.textContent.toLowerCase();
      row.hidden = !(words.every((word) => text.includes(word))
        && (!form.knowledge.value || row.dataset.knowledge === form.knowledge.value)
        && (!form.label.value || row.dataset.label === form.label.value));
      all += 1;
      left += !row.hidden;
    }
    for (const part of board.querySelectorAll("[data-victim]")) {
      part.hidden = Boolean(form.victim.value) && part.dataset.victim !== form.victim.value;
    }
    board.querySelector(".none").hidden = left > 0;
    shown += here ? left : 0;
  }
  document.getElementById("count").textContent = `${shown} of ${all} rows`;
}

// The filter stands in the address, so that it can be sent and survives the way back.
function remember(form) {
  const given = [...new FormData(form)].filter(([name, value]) =>
    value && !(name === "sort" && value === "place"));
  const text = new URLSearchParams(given).toString();
  history.replaceState(null, "", text ? `#?${text}` : location.pathname + location.search);
}

function restore(form) {
  if (!location.hash.startsWith("#?")) return;
  const given = new URLSearchParams(location.hash.slice(2));
  for (const field of form.elements) {
    if (!field.name) continue;
    const value = given.get(field.name);
    const known = field.tagName !== "SELECT" || [...field.options].some((o) => o.value === value);
    if (value !== null && known) field.value = value;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  startTheme();
  startCopy();
  startSorting();
  startFilters();
});

"use strict";
// The results board: sorts, filters and folds its lines. Without this script all lines are shown, unfolded.
(() => {
  const board = document.getElementById("board");
  if (!board) return;
  const table = document.getElementById("board-table");
  const head = table.tHead.rows[0];
  const lines = [...table.tBodies];
  const controls = Object.fromEntries(
    ["filter", "dataset", "family", "kind", "metrics"].map(name => [name, document.getElementById(`board-${name}`)])
  );
  const main = new Set(["R@10", "N@10", "R@20", "N@20"]);
  board.querySelector(".board-controls").hidden = false;

  const fold = (line, open) => {
    const button = line.querySelector(".fold");
    button.setAttribute("aria-expanded", open);
    line.querySelector(".facts").hidden = !open;
  };
  for (const line of lines) {
    fold(line, false);
    const button = line.querySelector(".fold");
    button.addEventListener("click", () => fold(line, button.getAttribute("aria-expanded") !== "true"));
  }

  const show = () => {
    const words = controls.filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const line of lines) {
      const text = line.rows[0].textContent.toLowerCase();
      const fits = words.every(word => text.includes(word))
        && (!controls.dataset.value || line.dataset.dataset === controls.dataset.value)
        && (!controls.family.value || line.dataset.family === controls.family.value)
        && (!controls.kind.value || line.dataset.kind === controls.kind.value);
      line.hidden = !fits;
      count += fits;
    }
    for (const cell of table.querySelectorAll("[data-metric]")) {
      cell.hidden = controls.metrics.value === "main" && !main.has(cell.dataset.metric);
    }
    document.getElementById("board-count").textContent = `${count} line${count === 1 ? "" : "s"}`;
  };
  for (const control of Object.values(controls)) control.addEventListener("input", show);

  // The first click sorts texts in ascending and numbers in descending order. The next click reverses the order.
  const valueOf = (line, column) => {
    const cell = line.rows[0].cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim() : Number(cell.dataset.value);
  };
  const sort = (column, ascending) => {
    lines.sort((a, b) => {
      const x = valueOf(a, column), y = valueOf(b, column);
      if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
      const order = typeof x === "number" ? x - y : x.localeCompare(y, undefined, { numeric: true });
      return ascending ? order : -order;
    });
    table.append(...lines);
  };
  head.addEventListener("click", event => {
    const cell = event.target.closest("th");
    if (!cell) return;
    const isText = cell.classList.contains("text");
    const before = cell.getAttribute("aria-sort");
    const ascending = before ? before === "descending" : isText;
    for (const other of head.cells) other.removeAttribute("aria-sort");
    cell.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    sort(cell.cellIndex, ascending);
  });
  show();
})();

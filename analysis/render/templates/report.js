"use strict";
(function () {
  function key(row, i) {
    var cell = row.cells[i], value = cell.dataset.v;
    return value === undefined ? cell.textContent.trim() : Number(value);
  }
  function compare(a, b) {
    var one = typeof a === "number", two = typeof b === "number";
    if (one && two) { return a - b; }
    if (one !== two) { return one ? -1 : 1; }
    return a.localeCompare(b);
  }
  document.querySelectorAll("button.sort").forEach(function (button) {
    button.addEventListener("click", function () {
      var head = button.parentElement, i = head.cellIndex;
      var body = head.closest("table").tBodies[0], rows = Array.from(body.rows);
      var first = head.classList.contains("num") ? "descending" : "ascending";
      var other = first === "ascending" ? "descending" : "ascending";
      var order = head.getAttribute("aria-sort") === first ? other : first;
      var sign = order === "ascending" ? 1 : -1;
      var missing = function (k) { return k === "" || k === "\u2013"; };
      rows.map(function (row) { return [key(row, i), row]; }).sort(function (a, b) {
        if (missing(a[0]) || missing(b[0])) { return missing(a[0]) - missing(b[0]); }
        return sign * compare(a[0], b[0]);
      }).forEach(function (pair) { body.append(pair[1]); });
      Array.from(head.parentElement.cells).forEach(function (cell) {
        cell.setAttribute("aria-sort", cell === head ? order : "none");
      });
    });
  });
  var panel = document.getElementById("trace"), from = null;
  function close() {
    panel.hidden = true;
    if (from) { from.focus(); }
  }
  document.querySelectorAll("button.trace").forEach(function (button) {
    button.addEventListener("click", function () {
      from = button;
      panel.querySelector("pre").textContent = button.title;
      panel.hidden = false;
    });
  });
  panel.querySelector("button").addEventListener("click", close);
  document.addEventListener("keydown", function (event) {
    if (event.key === "Escape" && !panel.hidden) { close(); }
  });
})();

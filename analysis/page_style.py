"""Style and script of the report page."""

STYLE = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0 auto;padding:1rem 1rem 3rem;max-width:78rem;color:#1a1a1a;background:#fff;
font:16px/1.5 system-ui,"DejaVu Sans",sans-serif}
h1{font-size:1.6rem;margin:.5rem 0 .25rem;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:2rem 0 .5rem;overflow-wrap:anywhere}
.claim{font-size:1.1rem;max-width:60rem;margin:.25rem 0 .75rem}
nav{font-size:.9rem}a{color:#0072B2}
.legend,details,figcaption{font-size:.85rem;color:#444}
details{margin:.5rem 0;max-width:68rem;overflow-wrap:anywhere}summary{cursor:pointer}
details ul{padding-left:1.1rem;margin:.25rem 0}
.alarms{border-left:4px solid #D55E00;background:#FDF3EC;margin:1rem 0;
padding:.6rem .8rem .6rem 2rem;font-size:.9rem;overflow-wrap:anywhere}
.alarm{color:#A33F00;font-weight:600;white-space:nowrap}
.box{overflow-x:auto;max-width:100%;border-bottom:1px solid #888}
.box:focus-visible,button:focus-visible{outline:2px solid #0072B2;outline-offset:1px}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums;min-width:100%}
thead{border-top:2px solid #222;border-bottom:1px solid #222}
th,td{padding:.22rem .55rem;text-align:left;font-weight:400;white-space:nowrap}
th.group{text-align:center;border-bottom:1px solid #999}
.num{text-align:right}
.names th{font-weight:600}
tbody tr:nth-child(even),tbody tr:nth-child(even) th{background:#F6F6F6}
tbody tr:hover,tbody tr:hover th{background:#E8F1F8}
tbody th{position:sticky;left:0;background:#fff;white-space:normal;min-width:8.5rem;max-width:18rem}
sup{font-size:.75em;line-height:0}td sup{display:inline-block;text-align:left}
button{font:inherit;color:inherit;background:none;border:0;padding:0;margin:0;cursor:pointer}
button.sort{font-weight:600}
button.sort::after{content:"\\2195";color:#888;font-size:.8em;padding-left:.25em}
th[aria-sort=ascending] .sort::after{content:"\\25B2";color:#0072B2}
th[aria-sort=descending] .sort::after{content:"\\25BC";color:#0072B2}
button.trace:hover{text-decoration:underline dotted}
code{font-size:.85em}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr));
gap:1.5rem;align-items:start}
figure{margin:0}figure svg{display:block;width:100%;max-width:26rem;height:auto}
#trace{position:fixed;left:0;right:0;bottom:0;background:#fff;border-top:2px solid #0072B2;
padding:.6rem 1rem;box-shadow:0 -2px 8px rgba(0,0,0,.15);max-height:45vh;overflow:auto}
#trace[hidden]{display:none}
#trace pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;font-size:.8rem}
#trace button{float:right;font-size:1.4rem;line-height:1;padding:0 .4rem}
@media (max-width:40rem){body{padding:.5rem .6rem 3rem}tbody th{max-width:9.5rem;min-width:7rem}
th,td{padding:.25rem .4rem}}
@media print{body{max-width:none;padding:0;font-size:10pt}.box{overflow:visible}
table,details,.legend,figcaption{font-size:7.5pt}th,td{padding:.1rem .3rem}tbody th{position:static}
button.sort::after{content:""}#trace{display:none}tr,figure{break-inside:avoid}
thead{display:table-header-group}.figures{display:block}figure{margin-bottom:1rem}
figure svg{width:3.3in}}
"""

SCRIPT = """
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
      var missing = function (k) { return k === "" || k === "\\u2013"; };
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
"""

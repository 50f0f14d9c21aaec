"use strict";
(() => {
  const at = id => document.getElementById(id);
  const data = JSON.parse(at("data").textContent);
  const table = at("tests"), body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const taken = [...body.querySelectorAll("tr.r")].map(row => pair(row));
  const rest = document.querySelector("noscript") ? document.querySelector("noscript").textContent.split("\n").filter(line => line.startsWith("<tr class=\"r")) : [];
  const count = taken.length + rest.length;
  const pairs = taken.slice();
  const ALL = 400;  // so many rows are shown at once; else those that are in sight, and some around
  const MARGIN = 40, NEAR = 5;
  let order = [], open = -1, openHeight = 0, rowHeight = 30, shown = null;

  function pair(row) {
    const part = row.nextElementSibling;
    part.removeAttribute("id");  // the script finds it, and CSS shall not show it by itself
    return [row, part];
  }

  function pairOf(test) {
    if (!pairs[test]) {
      const template = document.createElement("template");
      template.innerHTML = rest[test - taken.length];  // escaped where it was made
      pairs[test] = pair(template.content.querySelector("tr.r"));
    }
    return pairs[test];
  }

  const names = Array.from({length: count}, (_, test) =>
    test < taken.length ? taken[test][0].cells[0].textContent.trim() : data.names[test - taken.length]);
  const searched = names.map(name => name.toLowerCase());

  // The rows.

  const spaces = [space(), space()];

  function space() {
    const row = document.createElement("tr"), cell = document.createElement("td");
    row.className = "space";
    row.setAttribute("aria-hidden", "true");
    cell.colSpan = heads.length;
    row.append(cell);
    return row;
  }

  function rowAt(y, openAt) {
    const place = openAt < 0 || y < (openAt + 1) * rowHeight
      ? Math.floor(y / rowHeight)
      : Math.max(openAt, Math.floor((y - openHeight) / rowHeight));
    return Math.min(Math.max(place, 0), order.length);
  }

  function draw(everything) {
    const openAt = order.indexOf(open), end = order.length;
    let first = 0, last = end;
    if (!everything && end > ALL) {
      const y = -body.getBoundingClientRect().top, top = rowAt(y, openAt), bottom = rowAt(y + innerHeight, openAt);
      const enough = shown && (!shown.first || shown.first + NEAR <= top) && (shown.last === end || bottom + NEAR <= shown.last);
      if (enough) return;
      first = Math.max(0, top - MARGIN);
      last = Math.min(end, bottom + MARGIN);
    } else if (shown) {
      return;
    }
    const rows = [], again = !shown;
    for (let place = first; place < last; place++) {
      const [row, part] = pairOf(order[place]);
      rows.push(row);
      if (place === openAt) rows.push(part);
    }
    const heights = [first * rowHeight, (end - last) * rowHeight];
    if (openAt >= 0 && openAt < first) heights[0] += openHeight;
    if (openAt >= last) heights[1] += openHeight;
    spaces.forEach((row, number) => { row.cells[0].style.height = heights[number] + "px"; });
    if (heights[0]) rows.unshift(spaces[0]);
    if (heights[1]) rows.push(spaces[1]);
    fill(rows);
    shown = {first, last};
    if (again && rows.length) rowHeight = body.querySelector("tr.r").getBoundingClientRect().height || rowHeight;
    if (openAt >= first && openAt < last) openHeight = pairOf(open)[1].getBoundingClientRect().height;
  }

  function fill(rows) {  // what stays is not touched: to lay out a table takes longest
    const wanted = new Set(rows);
    [...body.children].forEach(row => { if (!wanted.has(row)) row.remove(); });
    let next = body.firstChild;
    for (const row of rows) {
      if (row === next) next = next.nextSibling;
      else body.insertBefore(row, next);
    }
  }

  function redraw() { shown = null; draw(); }

  let waiting = false;
  function soon() {
    if (waiting) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }
  addEventListener("scroll", soon, {passive: true});
  addEventListener("resize", () => { shown = null; soon(); });
  addEventListener("beforeprint", () => { shown = null; draw(true); });
  addEventListener("afterprint", redraw);

  // Sorting and filtering.

  let sorted = {head: heads.findIndex(head => head.hasAttribute("aria-sort")), up: false};
  const keysOf = head => head === 0 ? searched : data.keys[head - 1];
  const keysNamed = title => data.keys[data.titles.indexOf(title)];

  function compare(a, b) {
    const keys = keysOf(sorted.head), x = keys[a], y = keys[b];
    if (x === null || y === null) return (x === null) - (y === null) || a - b;
    return (x < y ? -1 : x > y ? 1 : 0) * (sorted.up ? 1 : -1) || a - b;
  }

  heads.forEach((head, number) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const up = sorted.head === number ? !sorted.up : typeof keysOf(number).find(key => key !== null) === "string";
      sorted = {head: number, up};
      heads.forEach(other => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      arrange();
    });
  });

  const inputs = ["find", "outcome", "budget", "grew"].map(at).filter(Boolean);
  const valueOf = id => at(id) ? (at(id).type === "checkbox" ? at(id).checked : at(id).value) : "";

  function arrange() {
    const words = valueOf("find").toLowerCase().split(/\s+/).filter(Boolean);
    const outcome = valueOf("outcome"), budget = valueOf("budget"), grew = valueOf("grew");
    const outcomes = keysNamed("outcome"), budgets = keysNamed("budget");
    order = [];
    for (let test = 0; test < count; test++) {
      if (outcome && outcomes[test] !== outcome) continue;
      if (budget && (budget === "any" ? !budgets[test] : budgets[test] !== budget)) continue;
      if (grew && !data.grew[test]) continue;
      if (words.every(word => searched[test].includes(word))) order.push(test);
    }
    order.sort(compare);
    const number = value => value.toLocaleString("en");
    at("count").textContent = (order.length === count ? "" : number(order.length) + " of ") + number(count) + (count === 1 ? " test" : " tests");
    redraw();
  }
  inputs.forEach(input => input.addEventListener("input", arrange));
  at("filters").addEventListener("submit", event => event.preventDefault());

  // A test's own part.

  function show(test) {
    for (const one of [open, test].filter(one => one >= 0)) {
      const [row, part] = pairOf(one);
      part.classList.toggle("open", one === test);
      row.querySelector("a").setAttribute("aria-expanded", one === test);
    }
    open = test;
    redraw();
  }

  function go() {
    const found = /^#t(\d+)$/.exec(location.hash);
    const test = found ? Number(found[1]) : -1;
    if (test < 0 || test >= count) return show(-1);
    if (!order.includes(test)) {
      inputs.forEach(input => { if (input.type === "checkbox") input.checked = false; else input.value = ""; });
      arrange();
    }
    show(test);
    const [row, part] = pairOf(test);
    if (!row.isConnected) {
      scrollTo(0, body.getBoundingClientRect().top + scrollY + order.indexOf(test) * rowHeight - 80);
      redraw();
    }
    const top = row.getBoundingClientRect().top;
    if (top < 40 || top > innerHeight - 200) scrollTo(0, top + scrollY - 80);
    draw();
    part.querySelector("p").focus({preventScroll: true});
  }
  addEventListener("hashchange", go);

  document.addEventListener("click", event => {
    const link = event.target.closest("a[href^='#t']");
    if (!link || link.hash !== location.hash) return;
    event.preventDefault();  // it is open, and the address does not change
    if (body.contains(link)) {
      history.replaceState(null, "", location.pathname + location.search);
      show(-1);
    } else {
      go();
    }
  });

  // The picture.

  const tip = at("tip"), picture = at("picture");
  const mib = value => value === null ? "n/a" : (value / 1048576).toFixed(1);

  function describe(test) {
    const [peak, kept, time] = ["peak", "kept", "time"].map(title => keysNamed(title)[test]);
    return names[test] + ": peak " + mib(peak) + ", kept " + mib(kept) + " MiB" + (time === null ? "" : ", " + (time / 1e9).toFixed(2) + " s");
  }

  for (const plot of picture ? picture.querySelectorAll(".plot") : []) {
    const band = Number(plot.dataset.band), [bands, starts, ends] = data.spans;
    const own = [...bands.keys()].filter(test => bands[test] === band).sort((a, b) => starts[a] - starts[b]);
    const cursor = document.createElement("div");
    cursor.className = "cursor";
    cursor.hidden = true;
    plot.append(cursor);
    let current = -1;

    const point = place => {
      current = place;
      const test = own[place], wide = plot.clientWidth / 2000;
      cursor.hidden = tip.hidden = false;
      cursor.style.left = starts[test] * wide + "px";
      cursor.style.width = (ends[test] - starts[test]) * wide + "px";
      tip.textContent = describe(test);
      const left = plot.offsetLeft + starts[test] * wide;
      tip.style.left = Math.max(0, Math.min(left, picture.clientWidth - tip.offsetWidth - 8)) + "px";
      tip.style.top = plot.offsetTop + plot.clientHeight + 4 + "px";
    };
    const away = () => { cursor.hidden = tip.hidden = true; current = -1; };

    plot.addEventListener("pointermove", event => {
      const x = (event.clientX - plot.getBoundingClientRect().left) * 2000 / plot.clientWidth, near = 3000 / plot.clientWidth;
      const peaks = keysNamed("peak");
      let best = -1, bestGap = Infinity;
      own.forEach((test, place) => {
        const gap = Math.max(starts[test] - x, x - ends[test], 0), same = gap <= near && bestGap <= near;
        if (same ? peaks[test] > peaks[own[best]] : gap < bestGap) { best = place; bestGap = gap; }
      });
      if (best >= 0 && best !== current) point(best);
    });
    plot.addEventListener("pointerleave", away);
    plot.addEventListener("blur", away);
    plot.addEventListener("click", event => {
      if (!event.target.closest("a") && current >= 0) location.hash = "t" + own[current];
    });
    plot.addEventListener("keydown", event => {
      const to = {ArrowRight: current + 1, ArrowLeft: current - 1, Home: 0, End: own.length - 1}[event.key];
      if (to !== undefined && own.length) {
        event.preventDefault();
        point(Math.max(0, Math.min(to, own.length - 1)));
      } else if (event.key === "Enter" && current >= 0 && event.target === plot) {
        location.hash = "t" + own[current];
      } else if (event.key === "Escape") {
        away();
      }
    });
  }

  at("filters").hidden = false;
  if (at("more")) at("more").hidden = true;
  arrange();
  if (location.hash) go();
})();

// Draws what a trace holds. The data comes from programs that were traced: it is only ever put into text nodes and numbers.
"use strict";
{
  const data = JSON.parse(document.getElementById("data").textContent);
  const [LANE, AT, KIND, TEXT, MORE, FAILURE, PORT, RIGHTS, SINCE, ROWS] = Array(10).keys();
  const { strings, lanes, events, arrows, stays, holds, ports } = data;
  const chart = document.getElementById("chart"), space = document.getElementById("space");
  const picture = document.getElementById("picture"), heads = document.getElementById("lanes");
  const details = document.getElementById("details");
  const HEIGHTS = [9, 15, 24, 37], NARROWEST = [44, 110, 165, 215], GUTTER = 88, TOP = 30;
  let zoom = 3, selected = -1, hovered = -1, width = 0, scheduled = false;
  let shown = [];   // the events that pass the filters, in order: one row each
  let rowOf = [];   // the row of each event, -1 where it is filtered out
  const arrowsOf = new Map();
  arrows.forEach((arrow, index) => arrow.slice(0, 2).forEach(event => {
    if (event >= 0) arrowsOf.set(event, index);
  }));
  const waits = events.flatMap((event, index) => (event[SINCE] >= 0 ? [index] : []));
  const colour = lane => (lanes[lane][2] ? `var(--l${lane % 6})` : "var(--none)");
  const height = () => HEIGHTS[zoom];
  const hidden = new Set();  // lanes that are not wanted
  let columnOf = [];         // where each lane is, from the left; -1 where it is hidden
  const x = lane => GUTTER + 16 + columnOf[lane] * width;
  const y = row => TOP + row * height();

  function time(ns) {
    const ms = ns / 1e6;
    return ms < 1000 ? `${ms.toFixed(2)} ms` : `${(ms / 1000).toFixed(ms < 1e5 ? 3 : 1)} s`;
  }

  // -- which events have a row ----------------------------------------------------------------------------------------

  function filter() {
    const wanted = new Set([...document.querySelectorAll("[data-kinds]:checked")].flatMap(box => box.dataset.kinds.split(" ")));
    shown = [];
    rowOf = events.map((event, index) =>
      !hidden.has(event[LANE]) && (wanted.has(event[KIND]) || event[FAILURE] >= 0 || index === selected) ? shown.push(index) - 1 : -1);
    resize();
  }

  function rowAt(at) { // the first row that is not before this time
    let low = 0, high = shown.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (events[shown[middle]][AT] < at) low = middle + 1; else high = middle;
    }
    return low;
  }

  const place = event => (rowOf[event] >= 0 ? rowOf[event] : rowAt(events[event][AT]));

  // -- drawing --------------------------------------------------------------------------------------------------------

  function make(name, attributes, text) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in attributes) element.setAttribute(key, attributes[key]);
    if (text !== undefined) element.textContent = text;
    picture.append(element);
    return element;
  }

  function cut(text, room) {
    const most = Math.max(4, Math.floor(room / 6.6));
    return text.length <= most ? text : `${text.slice(0, most - 1)}…`;
  }

  function resize() {
    let columns = 0;
    columnOf = lanes.map((_, lane) => (hidden.has(lane) ? -1 : columns++));
    const least = Math.min(NARROWEST[zoom], chart.clientWidth < 600 ? 165 : 215);
    width = Math.max(least, Math.floor((chart.clientWidth - GUTTER - 8) / Math.max(1, columns)));
    const whole = GUTTER + columns * width;
    space.style.width = heads.style.width = `${whole}px`;
    space.style.height = `${y(shown.length) + 20}px`;
    [...heads.children].forEach((head, lane) => {
      head.hidden = hidden.has(lane);
      head.style.left = `${x(lane) - 12}px`;
      head.style.maxWidth = `${width - 10}px`;
      head.style.background = colour(lane);
    });
    draw();
  }

  function schedule() {
    if (!scheduled) requestAnimationFrame(() => { scheduled = false; draw(); });
    scheduled = true;
  }

  function draw() {
    const top = Math.max(0, chart.scrollTop - 200), room = chart.clientHeight + 400;
    const first = Math.max(0, Math.floor((top - TOP) / height()) - 1);
    const last = Math.min(shown.length - 1, Math.ceil((top + room - TOP) / height()));
    const total = space.clientWidth;
    picture.replaceChildren();
    picture.style.top = `${top}px`;
    picture.setAttribute("width", total);
    picture.setAttribute("height", room);
    picture.setAttribute("viewBox", `0 ${top} ${total} ${room}`);
    drawMarks(total);
    drawLanes(first, last);
    drawWaits(first, last);
    const labels = arrows.map((arrow, index) => drawArrow(arrow, index, first, last));
    for (const label of labels) if (label) make("text", ...label); // No arrow is drawn over one.
    for (let row = first; row <= last; row++) drawEvent(shown[row], row);
  }

  function drawMarks(total) {
    for (const event of new Set([selected, hovered])) {
      if (event >= 0 && rowOf[event] >= 0) {
        const tall = Math.max(10, height() * 0.9);
        make("rect", { x: 0, y: y(rowOf[event]) - tall * (zoom > 1 ? 0.66 : 0.5), width: total, height: tall, fill: "var(--mark)", rx: 4 });
      }
    }
  }

  function drawLanes(first, last) {
    lanes.forEach(([, , recorded, begins, ends], lane) => {
      if (hidden.has(lane)) return;
      make("line", { x1: x(lane), x2: x(lane), y1: y(first), y2: y(last), stroke: "var(--line)", "stroke-dasharray": "1 6" });
      const from = Math.max(first, place(begins)), to = Math.min(last, ends < 0 ? last : place(ends));
      if (recorded && from <= to) make("line", { x1: x(lane), x2: x(lane), y1: y(from), y2: y(to), stroke: colour(lane), "stroke-width": 2 });
    });
    const port = selected >= 0 ? events[selected][PORT] : -1;
    for (const [of, lane, since, until] of stays) {
      if (port < 0 || of !== port || hidden.has(lane)) continue;
      const from = Math.max(first - 1, rowAt(since)), to = Math.min(last + 1, until < 0 ? shown.length : rowAt(until));
      if (from <= to) make("line", { x1: x(lane), x2: x(lane), y1: y(from), y2: y(to), stroke: "var(--stay)", "stroke-width": 16, "stroke-linecap": "round", opacity: 0.4 });
    }
  }

  function drawWaits(first, last) {
    for (const event of waits) {
      const to = rowOf[event], from = to < 0 ? 0 : rowAt(events[event][SINCE]);
      if (to < first || from > last || to - from < 1) continue;
      const lane = events[event][LANE];
      make("rect", { x: x(lane) - 4, y: y(Math.max(from, first - 1)), width: 8, height: y(to) - y(Math.max(from, first - 1)), rx: 3, fill: "var(--paper)", stroke: colour(lane) });
    }
  }

  function drawArrow([from, to, certain, rights, words], index, first, last) {
    const known = [from, to].filter(event => event >= 0);
    if (known.some(event => rowOf[event] < 0)) return;
    const rows = known.map(event => rowOf[event]);
    if (Math.max(...rows) < first - 1 || Math.min(...rows) > last + 1) return;
    const chosen = arrowsOf.get(selected) === index || arrowsOf.get(hovered) === index;
    const ink = { fill: "none", stroke: rights ? "var(--right)" : "var(--arrow)", "stroke-width": (rights ? 2.6 : 1.6) + (chosen ? 1.4 : 0) };
    if (!certain) ink["stroke-dasharray"] = "5 4";
    if (from < 0 || to < 0) {
      const event = known[0], x1 = x(events[event][LANE]), y1 = y(rowOf[event]), way = to < 0 ? 1 : -1;
      make("path", { ...ink, d: to < 0 ? `M${x1} ${y1}h${way * 26}` : `M${x1 - 26} ${y1}h26`, "stroke-dasharray": "2 4" });
      make("circle", { cx: x1 + way * 30, cy: y1, r: 4, fill: "var(--paper)", stroke: ink.stroke, "stroke-width": 1.5 });
      return;
    }
    const x1 = x(events[from][LANE]), x2 = x(events[to][LANE]), y1 = y(rowOf[from]), y2 = y(rowOf[to]);
    if (x1 === x2) make("path", { ...ink, d: `M${x1} ${y1}C${x1 - 30} ${y1} ${x1 - 30} ${y2} ${x1 - 8} ${y2}` });
    else if (x1 < x2) make("path", { ...ink, d: `M${x1} ${y1}H${x2 - 22}C${x2 - 6} ${y1} ${x2 - 26} ${y2} ${x2 - 10} ${y2}` });
    // To the left, down beside the sender, where no labels are, and then below the label of who receives.
    else make("path", { ...ink, d: `M${x1} ${y1}C${x1 - 26} ${y1} ${x1 - 2} ${y2} ${x1 - 22} ${y2}H${x2 + 10}` });
    const way = x1 === x2 ? 1 : Math.sign(x2 - x1);
    make("path", { d: `M${x2 - way * 5} ${y2}l${-way * 9} -5v10z`, fill: ink.stroke, class: "head" });
    if (!rights || zoom < 2) return;
    const text = cut(strings[words], Math.max(width, Math.abs(x2 - x1)) - 50);
    return [{ x: (x1 + x2) / 2, y: (x2 < x1 ? y2 : y1) + 14, class: "moved", "text-anchor": "middle" }, text];
  }

  function drawEvent(index, row) {
    const event = events[index], wrong = event[FAILURE] >= 0, at = x(event[LANE]), level = y(row);
    const ink = wrong ? "var(--bad)" : colour(event[LANE]);
    const small = zoom < 1 ? 2 : 0;
    const chosen = selected >= 0 && event[PORT] >= 0 && event[PORT] === events[selected][PORT];
    if (chosen) make("circle", { cx: at, cy: level, r: 9, fill: "none", stroke: "var(--stay)", "stroke-width": 2 });
    if (event[KIND] === "kernel") make("path", { d: `M${at} ${level - 6}l6 6l-6 6l-6 -6z`, fill: "var(--paper)", stroke: ink, "stroke-width": 2 });
    else if (event[KIND] === "right" || event[KIND] === "name") make("circle", { cx: at, cy: level, r: 4 - small / 2, fill: "var(--paper)", stroke: ink, "stroke-width": 2 });
    else if (event[KIND] === "life") make("rect", { x: at - 7, y: level - 3, width: 14, height: 6, rx: 2, fill: ink });
    else make("circle", { cx: at, cy: level, r: 5 - small, fill: ink });
    if (wrong) make("path", { d: `M${at - 7} ${level - 7}l14 14m0 -14l-14 14`, stroke: "var(--bad)", "stroke-width": 2.4 });
    if (zoom < 1 && index !== selected && index !== hovered) return;
    const text = strings[event[TEXT]], more = wrong ? strings[event[FAILURE]] : strings[event[MORE]];
    const two = zoom === 3 && (more || event[KIND] === "send" || event[KIND] === "receive");
    const left = at + (event[KIND] === "receive" ? 27 : 13), room = width - (left - at) - 26;
    // The line of a message may lie on the right of its row: labels stand above it.
    const up = two ? 16 : zoom === 2 ? 6 : zoom === 1 ? 4 : -4;
    make("text", { x: left, y: level - up, class: zoom === 1 ? "small label" : "label" }, cut(text, room));
    if (two && more) make("text", { x: left, y: level - 4, class: wrong ? "more wrong label" : "more label" }, cut(more, room * 1.12));
    drawTime(index, row, level);
  }

  function drawTime(index, row, level) {
    const gap = row ? events[index][AT] - events[shown[row - 1]][AT] : 0;
    make("text", { x: GUTTER - 8, y: level + 4, class: "when", "text-anchor": "end" }, time(events[index][AT]));
    if (index === data.gap) make("text", { x: 8, y: level - 18, class: "later" }, `${data.left_out.toLocaleString("en")} events are left out here`);
    else if (zoom === 3 && gap > data.pause) make("text", { x: GUTTER - 8, y: level - 14, class: "later", "text-anchor": "end" }, `+${time(gap)}`);
  }

  // -- details --------------------------------------------------------------------------------------------------------

  function element(name, text, type) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (type) made.className = type;
    return made;
  }

  const otherEnd = event => {
    const arrow = arrows[arrowsOf.get(event)];
    return arrow ? (arrow[0] === event ? arrow[1] : arrow[0]) : -1;
  };

  function show(index) {
    details.replaceChildren();
    const event = events[index];
    details.append(element("h2", `${strings[event[TEXT]]}`));
    const where = lanes[event[LANE]];
    details.append(element("p", `${where[0]}, ${where[1]} · ${time(event[AT])}`));
    if (event[MORE] >= 0) details.append(element("p", strings[event[MORE]]));
    if (event[FAILURE] >= 0) details.append(element("p", strings[event[FAILURE]], "wrong"));
    const other = otherEnd(event === undefined ? -1 : index);
    if (other >= 0) {
      const took = Math.abs(events[other][AT] - event[AT]);
      const button = element("button", `Other end, ${time(took)} ${events[other][AT] < event[AT] ? "earlier" : "later"}`);
      button.addEventListener("click", () => select(other));
      details.append(button);
    }
    const list = element("dl");
    for (let at = ROWS; at < event.length; at += 2) {
      list.append(element("dt", strings[event[at]]), element("dd", strings[event[at + 1]], "bytes"));
    }
    details.append(list);
    details.append(holders(event));
  }

  // Who holds which right at this moment: of the event's port first, then of the others.
  function holders(event) {
    const box = element("details"), at = event[AT], byPort = new Map();
    for (const [port, lane, since, until, right] of holds) {
      if (since > at || (until >= 0 && until <= at)) continue;
      if (!byPort.has(port)) byPort.set(port, []);
      byPort.get(port).push(`${lanes[lane][0]}: ${strings[right]}`);
    }
    const order = [...byPort.keys()].sort((one, other) => (other === event[PORT]) - (one === event[PORT]));
    box.id = "holders";
    box.open = byPort.size > 0 && order[0] === event[PORT];
    box.append(element("summary", `Who holds what at this moment: ${byPort.size} ports`));
    const list = element("dl");
    for (const port of order.slice(0, 60)) list.append(element("dt", strings[ports[port]]), element("dd", byPort.get(port).join("; ")));
    box.append(list);
    return box;
  }

  function select(index, quiet) {
    if (index < 0 || index >= events.length) return;
    selected = index;
    hovered = -1;
    if (hidden.delete(events[index][LANE])) markLanes();
    if (rowOf[index] < 0) filter();
    show(index);
    const level = y(rowOf[index]);
    if (!quiet && (level < chart.scrollTop + 90 || level > chart.scrollTop + chart.clientHeight - 90)) {
      chart.scrollTop = level - chart.clientHeight / 2;
    }
    if (!quiet || innerWidth <= 960) chart.parentElement.scrollIntoView({ block: "nearest" }); // The details too.
    const at = x(events[index][LANE]);
    if (!quiet && (at < chart.scrollLeft + GUTTER || at + width > chart.scrollLeft + chart.clientWidth)) chart.scrollLeft = at - GUTTER - 20;
    schedule();
  }

  function eventAt(pointer) {
    const level = pointer.clientY - space.getBoundingClientRect().top;
    const row = Math.round((level - TOP + (zoom === 3 ? 6 : 0)) / height());
    return row >= 0 && row < shown.length ? shown[row] : -1;
  }

  // -- what people do -------------------------------------------------------------------------------------------------

  function zoomBy(step) {
    const middle = chart.scrollTop + chart.clientHeight / 2, row = (middle - TOP) / height();
    zoom = Math.min(HEIGHTS.length - 1, Math.max(0, zoom + step));
    resize();
    chart.scrollTop = y(row) - chart.clientHeight / 2;
  }

  function step(by) {
    const row = selected >= 0 ? rowOf[selected] : -1;
    select(shown[Math.min(shown.length - 1, Math.max(0, row + by))]);
  }

  // -- lanes: hidden, shown, jumped to --------------------------------------------------------------------------------

  const boxes = [...document.querySelectorAll("[data-lane]")];
  function markLanes() {
    boxes.forEach((box, lane) => { box.checked = !hidden.has(lane); });
    filter();
  }
  function showOnly(lanesWanted) {
    lanes.forEach((_, lane) => (lanesWanted(lane) ? hidden.delete(lane) : hidden.add(lane)));
    markLanes();
  }
  boxes.forEach((box, lane) => box.addEventListener("change", () => showOnly(other => (other === lane ? box.checked : !hidden.has(other)))));
  document.getElementById("all").addEventListener("click", () => showOnly(() => true));
  document.getElementById("none").addEventListener("click", () => showOnly(() => false));
  for (const button of document.querySelectorAll("[data-jump]")) {
    button.addEventListener("click", () => {
      const lane = Number(button.dataset.jump);
      select(lanes[lane][3]);
      chart.scrollLeft = x(lane) - GUTTER - 20;
    });
  }

  // -- search -----------------------------------------------------------------------------------------------------------

  const field = document.getElementById("search"), found = document.getElementById("found");
  let matches = [];
  const textOf = event => [TEXT, MORE, FAILURE].map(at => (event[at] >= 0 ? strings[event[at]] : "")).join(" ") + " " + lanes[event[LANE]].slice(0, 2).join(" ")
    + " " + event.slice(ROWS).map(number => strings[number]).join(" ");
  field.addEventListener("input", () => {
    const word = field.value.trim().toLowerCase();
    matches = word ? events.flatMap((event, index) => (textOf(event).toLowerCase().includes(word) ? [index] : [])) : [];
    found.textContent = word ? `${matches.length} found` : "";
  });
  field.addEventListener("keydown", event => {
    if (event.key !== "Enter" || !matches.length) return;
    const at = matches.indexOf(selected), next = event.shiftKey ? (at < 0 ? 0 : at) - 1 : at + 1;
    select(matches[(next + matches.length) % matches.length]);
    found.textContent = `${((next + matches.length) % matches.length) + 1} of ${matches.length}`;
  });

  const nextFailure = () => {
    const later = data.failures.find(event => event > selected);
    select(later === undefined ? data.failures[0] ?? -1 : later);
  };
  const KEYS = {
    ArrowDown: () => step(1), ArrowUp: () => step(-1), PageDown: () => step(15), PageUp: () => step(-15),
    Home: () => step(-Infinity), End: () => step(Infinity), Enter: () => select(otherEnd(selected)),
    f: nextFailure, "/": () => field.focus(), "+": () => zoomBy(1), "=": () => zoomBy(1), "-": () => zoomBy(-1),
  };
  chart.addEventListener("keydown", event => {
    if (KEYS[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) {
      KEYS[event.key]();
      event.preventDefault();
    }
  });
  chart.addEventListener("scroll", schedule, { passive: true });
  picture.addEventListener("click", event => { select(eventAt(event), true); chart.focus({ preventScroll: true }); });
  picture.addEventListener("pointermove", event => {
    if (event.pointerType !== "mouse") return;
    const now = eventAt(event);
    if (now !== hovered) { hovered = now; if (now >= 0) show(now); schedule(); }
  });
  picture.addEventListener("pointerleave", () => { hovered = -1; if (selected >= 0) show(selected); schedule(); });
  for (const box of document.querySelectorAll("[data-kinds]")) box.addEventListener("change", filter);
  for (const button of document.querySelectorAll("[data-event]")) {
    button.addEventListener("click", () => { select(Number(button.dataset.event)); chart.scrollIntoView({ block: "nearest" }); });
  }
  document.getElementById("in").addEventListener("click", () => zoomBy(1));
  document.getElementById("out").addEventListener("click", () => zoomBy(-1));
  // #show=messages,processes&zoom=2&event=12, so that a view can be linked to.
  const asked = new URLSearchParams(location.hash.slice(1)), kinds = (asked.get("show") || "").split(",");
  if (asked.has("show")) for (const box of document.querySelectorAll("[data-kinds]")) box.checked = kinds.includes(box.parentElement.textContent);
  if (asked.has("zoom")) zoom = Math.min(HEIGHTS.length - 1, Math.max(0, Number(asked.get("zoom")) | 0));
  new ResizeObserver(resize).observe(chart);
  filter();
  if (asked.has("event")) select(Number(asked.get("event")) | 0);
  document.documentElement.dataset.drawn = String(shown.length);
}

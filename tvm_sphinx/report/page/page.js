"use strict";
(() => {
const data = JSON.parse(document.getElementById("data").textContent);
const tasks = data.tasks, devices = data.devices, steps = data.measured ? data.measured.steps : [];
const byId = (id) => document.getElementById(id);
// Okabe and Ito's palette, told apart by colour-blind readers too.
const palette = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442", "#7f7f7f"];
const colour = (device) => palette[device % palette.length];
// Text on that colour: white on the dark ones of the palette, else black.
const ink = (device) => ([0, 2, 5].includes(device % palette.length) ? "#fff" : "#111");
const stepOf = new Map();
steps.forEach((step, index) => { if (step.task !== null) stepOf.set(step.task, index); });
const critical = new Set(data.path), criticalSteps = new Set(data.measured ? data.measured.path.map((l) => l.step) : []);
let selected = null;

const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
function ns(value) {
  if (value === null || value === undefined || value < 0) return "-";
  for (const [unit, scale] of [["s", 1e9], ["ms", 1e6], ["us", 1e3]])
    if (value >= scale) return (value >= 100 * scale ? Math.round(value / scale) : +(value / scale).toPrecision(3)) + " " + unit;
  return value + " ns";
}
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// -- a canvas that is moved and zoomed: by pointer, wheel and keys. x alone, or both directions.
class View {
  constructor(canvas, draw, { both }) {
    Object.assign(this, { canvas, both, paint: draw, x: 0, y: 0, zoom: 1, queued: false, frames: [] });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = canvas.getBoundingClientRect();
      this.zoomAt(Math.exp(-event.deltaY * 0.0015), event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.drag = { x: event.clientX, y: event.clientY, moved: 0 };
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!this.drag) { this.hover(event); return; }
      const dx = event.clientX - this.drag.x, dy = event.clientY - this.drag.y;
      this.drag = { x: event.clientX, y: event.clientY, moved: this.drag.moved + Math.abs(dx) + Math.abs(dy) };
      this.move(dx, dy);
    });
    canvas.addEventListener("pointerup", (event) => {
      const click = this.drag && this.drag.moved < 4;
      this.drag = null;
      const box = canvas.getBoundingClientRect();
      if (click) this.clicked(event.clientX - box.left, event.clientY - box.top);
    });
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
      if (event.key in moves) this.move(...moves[event.key]);
      else if (event.key === "+" || event.key === "=") this.zoomAt(1.4, this.width / 2, this.height / 2);
      else if (event.key === "-") this.zoomAt(1 / 1.4, this.width / 2, this.height / 2);
      else if (event.key === "0") this.reset();
      else return;
      event.preventDefault();
    });
    new ResizeObserver(() => this.redraw()).observe(canvas);
  }
  get width() { return this.canvas.clientWidth; }
  get height() { return this.canvas.clientHeight; }
  hover() {}
  clicked() {}
  reset() { this.x = this.y = 0; this.zoom = 1; this.redraw(); }
  move(dx, dy) { this.x += dx; if (this.both) this.y += dy; this.redraw(); }
  zoomAt(factor, px, py) {
    const zoom = Math.min(4000, Math.max(0.02, this.zoom * factor)), ratio = zoom / this.zoom;
    this.x = px - (px - this.x) * ratio;
    if (this.both) this.y = py - (py - this.y) * ratio;
    this.zoom = zoom;
    this.redraw();
  }
  redraw() {
    if (this.queued) return;
    this.queued = true;
    requestAnimationFrame(() => { this.queued = false; this.now(); });
  }
  now() {
    const begin = performance.now(), scale = window.devicePixelRatio || 1;
    const width = Math.round(this.width * scale), height = Math.round(this.height * scale);
    if (this.canvas.width !== width || this.canvas.height !== height) Object.assign(this.canvas, { width, height });
    const pen = this.canvas.getContext("2d");
    pen.setTransform(scale, 0, 0, scale, 0, 0);
    pen.fillStyle = css("--bg");
    pen.fillRect(0, 0, this.width, this.height);
    this.paint(pen, this);
    this.frames.push(performance.now() - begin);
    if (this.frames.length > 600) this.frames.shift();
  }
}

// -- timeline
const LEFT = 160, TOP = 26, ROW = Math.max(44, Math.min(70, 250 / devices.length));
const span = Math.max(data.makespan_ns, data.measured ? data.measured.makespan_ns : 0, 1);
byId("time-canvas").style.height = TOP + ROW * devices.length + 14 + "px";
const bars = [];
const half = data.measured ? (ROW - 10) / 2 : ROW - 12;
steps.forEach((step, index) => bars.push({ begin: step.begin, end: step.end, device: step.device, task: step.task,
  name: step.name, top: 0, kind: step.kind, critical: criticalSteps.has(index) }));
tasks.forEach((task, number) => bars.push({ begin: task.start, end: task.finish, device: task.device, task: number,
  name: task.name, top: data.measured ? half + 2 : 0, predicted: true, critical: critical.has(number) }));
const timeX = (view, time) => LEFT + view.x + time / span * (view.width - LEFT - 16) * view.zoom;
const barTop = (bar) => TOP + bar.device * ROW + 4 + bar.top;

function drawTimeline(pen, view) {
  const fg = css("--fg"), soft = css("--soft"), line = css("--line"), mark = css("--mark");
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "middle";
  const perTick = span / view.zoom / Math.max(2, (view.width - LEFT) / 110);
  const power = 10 ** Math.floor(Math.log10(perTick));
  const tick = power * [1, 2, 5, 10].find((f) => power * f >= perTick);
  const firstTime = Math.max(0, -view.x / ((view.width - LEFT - 16) * view.zoom) * span);
  for (let time = Math.floor(firstTime / tick) * tick; ; time += tick) {
    const x = timeX(view, time);
    if (x > view.width) break;
    pen.fillStyle = line; pen.fillRect(x, TOP - 6, 1, view.height);
    const label = ns(Math.round(time));
    pen.fillStyle = soft; if (x + 3 + pen.measureText(label).width < view.width) pen.fillText(label, x + 3, 10);
  }
  // Bars that are narrower than a pixel share one, so that no frame draws more than there is to see.
  const drawn = new Map();
  for (const bar of bars) {
    const x0 = timeX(view, bar.begin), x1 = timeX(view, bar.end);
    if (x1 < LEFT || x0 > view.width) continue;
    const key = bar.device * 4 + (bar.predicted ? 1 : 0) + (bar.critical ? 2 : 0);
    if (x1 - x0 < 0.5 && bar.task !== selected) {
      if (drawn.get(key) === Math.round(x0)) continue;
      drawn.set(key, Math.round(x0));
    }
    const y = barTop(bar), width = Math.max(x1 - x0, 0.7);
    pen.globalAlpha = bar.predicted && data.measured ? 0.55 : 1;
    pen.fillStyle = bar.kind === "copy" ? soft : colour(bar.device);
    pen.fillRect(x0, y, width > 3 ? width - 1 : width, half);
    pen.globalAlpha = 1;
    if (bar.critical) { pen.fillStyle = mark; pen.fillRect(x0, y + half - 2, width, 2); }
    if (bar.task !== null && bar.task === selected) { pen.strokeStyle = fg; pen.lineWidth = 2; pen.strokeRect(x0, y, width, half); }
    if (width > 46) {
      pen.save(); pen.beginPath(); pen.rect(x0, y, width, half); pen.clip();
      pen.fillStyle = bar.predicted && data.measured ? fg : ink(bar.device); pen.fillText(bar.name, Math.max(x0, LEFT) + 4, y + half / 2); pen.restore();
    }
  }
  pen.fillStyle = css("--bg"); pen.fillRect(0, TOP - 6, LEFT - 4, view.height);
  devices.forEach((device, number) => {
    const y = TOP + number * ROW;
    pen.fillStyle = line; pen.fillRect(0, y, view.width, 1);
    pen.fillStyle = fg; pen.font = "600 12px system-ui, sans-serif"; pen.fillText(device.name, 6, y + 14);
    pen.fillStyle = soft; pen.font = "11px system-ui, sans-serif";
    pen.fillText(`${device.tasks} tasks, ${Math.round(device.share * 100)}% busy`, 6, y + 30);
  });
}
const timeView = new View(byId("time-canvas"), drawTimeline, { both: false });
function barAt(px, py) {
  for (let i = bars.length - 1; i >= 0; i--) {
    const bar = bars[i], y = barTop(bar);
    if (py >= y && py <= y + half && px >= timeX(timeView, bar.begin) - 1 && px <= timeX(timeView, bar.end) + 1) return bar;
  }
  return null;
}
timeView.clicked = (px, py) => { const bar = barAt(px, py); if (bar && bar.task !== null) select(bar.task); };
timeView.hover = (event) => {
  const box = byId("time-canvas").getBoundingClientRect(), bar = barAt(event.clientX - box.left, event.clientY - box.top);
  byId("time-canvas").title = bar ? `${bar.name} on ${devices[bar.device].name}: ${bar.predicted ? "predicted" : "measured"} ${ns(bar.end - bar.begin)}` : "";
};

// -- graph: layers by the longest path, folded occurrences of what recurs as one box
let folded = new Set(data.groups.map((_, index) => index));
const groupOf = new Map();
data.groups.forEach((group, index) => group.tasks.forEach((task) => groupOf.set(task, index)));
let boxes = [], arrows = [], extent = { width: 1, height: 1 };
const WIDE = 150, HIGH = 22, GAP_X = 14, GAP_Y = 20;
function layOut() {
  const node = (task) => (groupOf.has(task) && folded.has(groupOf.get(task)) ? "g" + groupOf.get(task) : task);
  const found = new Map(), edges = new Set();
  tasks.forEach((_, task) => { const key = node(task); if (!found.has(key)) found.set(key, { key, tasks: [], level: 0, from: new Set(), to: new Set() }); found.get(key).tasks.push(task); });
  for (const [src, dst] of data.edges) {
    const a = node(src), b = node(dst);
    if (a !== b && !edges.has(a + ">" + b)) { edges.add(a + ">" + b); found.get(a).to.add(b); found.get(b).from.add(a); }
  }
  const waiting = new Map([...found].map(([key, box]) => [key, box.from.size])), ready = [...found.keys()].filter((k) => !waiting.get(k));
  let done = 0;
  for (let i = 0; i < ready.length; i++, done++) {
    const box = found.get(ready[i]);
    for (const to of box.to) {
      found.get(to).level = Math.max(found.get(to).level, box.level + 1);
      waiting.set(to, waiting.get(to) - 1);
      if (!waiting.get(to)) ready.push(to);
    }
  }
  if (done < found.size) { // folding has closed a circle: unfold what is in it
    for (const [key, left] of waiting) if (left && typeof key === "string") folded.delete(+key.slice(1));
    return layOut();
  }
  const layers = [];
  for (const key of ready) (layers[found.get(key).level] ||= []).push(found.get(key));
  const widest = Math.max(...layers.map((layer) => layer.length), 1);
  layers.forEach((layer, level) => {
    for (const box of layer) { const at = [...box.from].map((key) => found.get(key).x).filter((x) => x !== undefined); box.want = at.length ? at.reduce((a, b) => a + b) / at.length : 0; }
    layer.sort((a, b) => a.want - b.want);
    const left = ((widest - layer.length) * (WIDE + GAP_X)) / 2;
    layer.forEach((box, place) => { box.x = left + place * (WIDE + GAP_X); box.y = level * (HIGH + GAP_Y); });
  });
  boxes = ready.map((key) => found.get(key));
  arrows = [...edges].map((edge) => { const [a, b] = edge.split(">"); const at = (k) => found.get(k[0] === "g" ? k : +k); return [at(a), at(b)]; });
  extent = { width: widest * (WIDE + GAP_X), height: layers.length * (HIGH + GAP_Y) };
}
function fitGraph() {
  const view = graphView, wanted = Math.min((view.width - 20) / extent.width, 1.2);
  view.zoom = Math.max(wanted, 0.05);
  view.x = (view.width - extent.width * view.zoom) / 2; view.y = 12;
  view.redraw();
}
function boxLabel(box) {
  if (typeof box.key === "string") return `${data.groups[+box.key.slice(1)].name}: ${box.tasks.length} tasks`;
  const task = tasks[box.tasks[0]];
  return task.name === task.kernel ? task.name : `${task.name} ${task.kernel}`.trim();
}
const fits = new Map(); // texts as they fit a box: measuring is slow
function fitted(pen, text, width) {
  if (!fits.has(text)) {
    let short = text;
    while (short && pen.measureText(short === text ? text : short + "\u2026").width > width) short = short.slice(0, -1);
    fits.set(text, short === text ? text : short + "\u2026");
  }
  return fits.get(text);
}
function drawGraph(pen, view) {
  const { zoom } = view, fg = css("--fg"), mark = css("--mark"), bg = css("--bg");
  const seen = (y, height) => y * zoom + view.y < view.height && (y + height) * zoom + view.y > 0;
  pen.setTransform(pen.getTransform().translate(view.x, view.y).scale(zoom, zoom));
  pen.strokeStyle = css("--soft"); pen.lineWidth = 1 / Math.min(zoom, 1); pen.globalAlpha = 0.5;
  pen.beginPath();
  for (const [from, to] of arrows) {
    if (!seen(from.y, to.y - from.y + HIGH)) continue;
    pen.moveTo(from.x + WIDE / 2, from.y + HIGH); pen.lineTo(to.x + WIDE / 2, to.y);
  }
  pen.stroke(); pen.globalAlpha = 1;
  pen.font = "11px system-ui, sans-serif"; pen.textBaseline = "middle";
  for (const box of boxes) {
    if (!seen(box.y, HIGH)) continue;
    const count = new Map();
    for (const task of box.tasks) count.set(tasks[task].device, (count.get(tasks[task].device) || 0) + 1);
    let x = box.x;
    for (const [device, number] of count) { pen.fillStyle = colour(device); const width = WIDE * number / box.tasks.length; pen.fillRect(x, box.y, width, HIGH); x += width; }
    const isGroup = typeof box.key === "string";
    if (box.tasks.some((task) => critical.has(task))) { pen.fillStyle = mark; pen.fillRect(box.x, box.y + HIGH - 2, WIDE, 2); }
    if (box.tasks.includes(selected)) { pen.strokeStyle = fg; pen.lineWidth = 2.5; pen.strokeRect(box.x - 1, box.y - 1, WIDE + 2, HIGH + 2); }
    if (isGroup) { pen.strokeStyle = bg; pen.lineWidth = 2; pen.strokeRect(box.x + 3, box.y + 3, WIDE - 6, HIGH - 6); }
    if (zoom > 0.35) {
      pen.fillStyle = ink(tasks[box.tasks[0]].device); pen.fillText(fitted(pen, boxLabel(box), WIDE - 12), box.x + 6, box.y + HIGH / 2);
    }
  }
}
const graphView = new View(byId("graph-canvas"), drawGraph, { both: true });
graphView.reset = fitGraph;
graphView.clicked = (px, py) => {
  const x = (px - graphView.x) / graphView.zoom, y = (py - graphView.y) / graphView.zoom;
  const box = boxes.find((b) => x >= b.x && x <= b.x + WIDE && y >= b.y && y <= b.y + HIGH);
  if (!box) return;
  if (typeof box.key === "string") { folded.delete(+box.key.slice(1)); layOut(); graphView.redraw(); setFoldLabel(); } else select(box.tasks[0]);
};
function setFoldLabel() { byId("fold").textContent = folded.size ? "Unfold what recurs" : "Fold what recurs"; byId("folding").hidden = !data.groups.length; }
byId("fold").addEventListener("click", () => { folded = folded.size ? new Set() : new Set(data.groups.map((_, i) => i)); layOut(); fitGraph(); setFoldLabel(); });

// -- tasks: only the rows that are to be seen are in the page
const ROW_HIGH = 24;
const columns = [
  ["task", (t) => t.name], ["kernel", (t) => t.kernel], ["device", (t) => devices[t.device].name],
  ["predicted", (t) => t.finish - t.start, ns], ["measured", (_, n) => measured(n), ns],
  ["ratio", (t, n) => (measured(n) >= 0 && t.finish > t.start ? measured(n) / (t.finish - t.start) : -1), (v) => (v < 0 ? "-" : v.toFixed(2))],
  ["slack", (t) => t.slack, ns], ["source", (t) => t.origin.join(", ")],
];
const measured = (number) => (stepOf.has(number) ? steps[stepOf.get(number)].end - steps[stepOf.get(number)].begin : -1);
let order = tasks.map((_, number) => number), sort = { column: -1, up: true };
byId("task-head").innerHTML = columns.map(([name, , show], i) => `<span class="${show ? "n" : ""}"><button data-column="${i}">${name}</button></span>`).join("");
byId("task-head").addEventListener("click", (event) => {
  const column = event.target.dataset.column;
  if (column === undefined) return;
  sort = { column: +column, up: sort.column === +column ? !sort.up : true };
  listTasks();
});
function listTasks() {
  const words = byId("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const text = (t) => [t.name, t.kernel, devices[t.device].name, ...t.origin].join(" ").toLowerCase();
  order = tasks.map((_, number) => number).filter((n) => words.every((word) => text(tasks[n]).includes(word)));
  if (sort.column >= 0) {
    const value = columns[sort.column][1], sign = sort.up ? 1 : -1;
    order.sort((a, b) => { const x = value(tasks[a], a), y = value(tasks[b], b); return sign * (x < y ? -1 : x > y ? 1 : a - b); });
  }
  byId("shown").textContent = `${order.length} of ${tasks.length}`;
  byId("task-table").scrollTop = 0;
  drawRows();
}
const row = (number, place) => {
  const task = tasks[number], classes = ["row", critical.has(number) ? "critical" : "", number === selected ? "selected" : ""].join(" ");
  const cells = columns.map(([name, value, show]) => {
    const raw = value(task, number);
    if (name === "source") return `<span title="${escape(raw)}">${task.origin.map((o) => `<a href="#tasks" data-origin="${escape(o)}">${escape(o)}</a>`).join("")}</span>`;
    return `<span class="${show ? "n" : ""}" title="${escape(show ? show(raw) : raw)}">${escape(show ? show(raw) : raw)}</span>`;
  });
  return `<div class="${classes}" role="row" data-task="${number}" style="top:${place * ROW_HIGH}px">${cells.join("")}</div>`;
};
function drawRows(all) {
  const table = byId("task-table"), first = all ? 0 : Math.max(0, Math.floor(table.scrollTop / ROW_HIGH) - 4);
  const last = all ? order.length : Math.min(order.length, first + Math.ceil(table.clientHeight / ROW_HIGH) + 8);
  const rows = order.slice(first, last).map((number, i) => row(number, first + i)).join("");
  table.innerHTML = `<div style="height:${all ? "auto" : order.length * ROW_HIGH + "px"}">${rows}</div>`;
}
byId("task-table").addEventListener("scroll", () => requestAnimationFrame(() => drawRows()));
byId("filter").addEventListener("input", listTasks);
window.addEventListener("beforeprint", () => drawRows(true));
window.addEventListener("afterprint", () => drawRows());
document.body.addEventListener("click", (event) => {
  const origin = event.target.closest("[data-origin]"), target = event.target.closest("[data-task]");
  if (origin) { event.preventDefault(); byId("filter").value = origin.dataset.origin; listTasks(); } else if (target) select(+target.dataset.task);
});

// -- one task
function select(number) {
  selected = number;
  const task = tasks[number], rows = task.alternatives.map((one, device) => {
    const here = device === task.device, change = one.moved < 0 ? null : one.moved - data.makespan_ns;
    const whole = here ? ns(data.makespan_ns) : one.exec < 0 ? "-" : one.moved < 0 ? "forbidden by a pin" : `${ns(one.moved)} (${change < 0 ? "-" : "+"}${ns(Math.abs(change))})`;
    return `<tr class="${here ? "here" : ""}"><td><span class="swatch" style="background:${colour(device)}"></span>${escape(devices[device].name)}${here ? " (here)" : ""}</td><td class="n">${one.exec < 0 ? "cannot run" : ns(one.exec)}</td><td>${one.measured ? "measured" : "predicted"} &plusmn;${ns(one.spread)}</td><td>${escape(one.origin || "-")}</td><td>${whole}</td></tr>`;
  });
  const origin = task.origin.map((o) => `<a href="#tasks" data-origin="${escape(o)}">${escape(o)}</a>`).join("");
  byId("details").innerHTML = `<h3>${escape(task.name)} <small>${escape(task.kernel)}</small></h3>
    <p>${escape(devices[task.device].name)}, predicted ${ns(task.start)} to ${ns(task.finish)}${measured(number) >= 0 ? `, measured ${ns(measured(number))}` : ""}. It waited for ${escape(task.waited)}. ${origin ? "Source: " + origin : ""}</p>
    <ul>${task.binds.map((text) => `<li>${escape(text)}</li>`).join("")}</ul>
    <table><tr><th>device</th><th class="n">takes</th><th>known</th><th>code</th><th>whole, if it alone moves there</th></tr>${rows.join("")}</table>`;
  timeView.redraw(); graphView.redraw(); drawRows();
}
function showInTimeline(number) {
  const middle = (tasks[number].start + tasks[number].finish) / 2 / span * (timeView.width - LEFT - 16) * timeView.zoom;
  timeView.x = timeView.zoom > 1 ? (timeView.width - LEFT) / 2 - middle : 0;
  timeView.redraw();
}
function stepTask(direction) {
  const device = selected === null ? tasks[0].device : tasks[selected].device;
  const own = tasks.map((_, n) => n).filter((n) => tasks[n].device === device).sort((a, b) => tasks[a].start - tasks[b].start || a - b);
  const place = selected === null ? (direction > 0 ? -1 : own.length) : own.indexOf(selected);
  const next = own[Math.min(own.length - 1, Math.max(0, place + direction))];
  select(next); showInTimeline(next);
}
document.addEventListener("keydown", (event) => {
  if (event.target.tagName === "INPUT") { if (event.key === "Escape") { event.target.value = ""; listTasks(); event.target.blur(); } return; }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "n") stepTask(1);
  else if (event.key === "p") stepTask(-1);
  else if (event.key === "d") byId("theme").click();
  else if (event.key === "/") { event.preventDefault(); byId("filter").focus(); }
  else if (event.key === "Escape") { selected = null; timeView.redraw(); graphView.redraw(); drawRows(); }
});
byId("theme").addEventListener("click", () => {
  const root = document.documentElement, dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  timeView.redraw(); graphView.redraw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { timeView.redraw(); graphView.redraw(); });

// -- what does not move
byId("title").textContent = data.title;
byId("summary").textContent = data.summary;
byId("timeline-hint").textContent = data.measured
  ? `Above measured (${ns(data.measured.makespan_ns)}), below, paler, predicted (${ns(data.makespan_ns)}). Underlined is the critical path of each.`
  : `Predicted (${ns(data.makespan_ns)}). ${data.not_measured} The critical path is underlined.`;
byId("legend").innerHTML = devices.map((d, i) => `<span class="swatch" style="background:${colour(i)}"></span>${escape(d.name)}`).join("");
function table(id, head, rows) {
  byId(id).innerHTML = `<table><tr>${head.map((h) => `<th class="${h.n ? "n" : ""}">${escape(h.t || h)}</th>`).join("")}</tr>${rows.join("")}</table>`;
}
const number = (t) => ({ t, n: true });
if (data.measured) {
  byId("path-hint").textContent = "Of the measured run: each step, and what it waited for.";
  table("path-table", ["step", "device", number("begin"), number("measured"), number("predicted"), "waited for", number("gap")], data.measured.path.map((link) => {
    const step = steps[link.step], task = step.task === null ? null : tasks[step.task];
    return `<tr ${task ? `data-task="${step.task}"` : ""}><td>${escape(step.name)}</td><td>${escape(devices[step.device].name)}</td><td class="n">${ns(step.begin)}</td><td class="n">${ns(step.end - step.begin)}</td><td class="n">${task ? ns(task.finish - task.start) : "-"}</td><td>${escape(link.waited)}</td><td class="n">${ns(Math.max(0, link.gap))}</td></tr>`;
  }));
} else {
  byId("path-hint").textContent = "Of the predicted schedule: each task, and what it waited for.";
  table("path-table", ["task", "device", number("start"), number("predicted"), "waited for"], data.path.map((n) =>
    `<tr data-task="${n}"><td>${escape(tasks[n].name)}</td><td>${escape(devices[tasks[n].device].name)}</td><td class="n">${ns(tasks[n].start)}</td><td class="n">${ns(tasks[n].finish - tasks[n].start)}</td><td>${escape(tasks[n].waited)}</td></tr>`));
}
const most = Math.max(...data.weighed.map((w) => w[1]), data.makespan_ns, 1);
table("weighed-table", ["schedule", number("predicted"), ""], data.weighed.map(([name, time]) =>
  `<tr class="${time === data.makespan_ns ? "here" : ""}"><td>${escape(name)}</td><td class="n">${ns(time)}</td><td><span class="bar" style="width:${Math.round(320 * time / most)}px"></span></td></tr>`));
for (const [id, rows] of [["proof-list", data.proof], ["machine-list", data.machine]])
  byId(id).innerHTML = rows.map(([name, text]) => `<dt>${escape(name)}</dt><dd>${escape(text)}</dd>`).join("");
layOut(); setFoldLabel(); listTasks(); timeView.now(); fitGraph();
// For tests, and for whoever looks from the console.
window.sphinxReport = { data, timeView, graphView, select, boxes: () => boxes, boxLabel, fits, barAt, barX: (bar) => timeX(timeView, bar.begin), bars, barTop };
})();

"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const canvas = document.getElementById("timeline");
  const detail = document.getElementById("detail");
  const shown = document.getElementById("window");
  const ops = data.operations;
  const count = ops.id.length;
  const length = Math.max(data.length, 1);
  const LEFT = 74, LOAD = 64, LATENCY = 64, ROLE = 20, FAULT = 16, GAP = 12, AXIS = 20;
  const lane = Math.max(7, Math.min(16, Math.floor(420 / Math.max(1, data.lanes))));
  const faultRows = data.faults.reduce((most, band) => Math.max(most, band.row + 1), 0);
  const top = {};
  let height = AXIS;
  const place = (name, tall) => { top[name] = height; height += tall + GAP; };
  place("faults", faultRows * FAULT);
  place("load", LOAD);
  place("latency", LATENCY);
  place("members", data.members.length * ROLE);
  place("clients", data.lanes * lane);

  let from = 0, to = length, marked = new Set(), colours = {}, width = 0, hits = [];
  const x = (time) => LEFT + ((time - from) / (to - from)) * (width - LEFT);
  const seconds = (us) => (us / 1e6).toFixed(to - from < 2e6 ? 4 : 2);
  const names = ["ok", "fail", "info", "bad", "fault", "fault-band", "leader", "follower", "none",
    "silent", "on-leader", "ink", "soft", "line", "card"];

  // Longest operation: where to begin looking for those that reach into the window.
  let longest = 0;
  for (let i = 0; i < count; i++) longest = Math.max(longest, ops.end[i] - ops.start[i]);
  const firstFrom = (time) => {
    let low = 0, high = count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (ops.start[middle] < time) low = middle + 1; else high = middle;
    }
    return low;
  };

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    width = canvas.clientWidth;
    canvas.style.height = height + "px";
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const style = getComputedStyle(document.documentElement);
    for (const name of names) colours[name] = style.getPropertyValue("--" + name).trim();
    const g = canvas.getContext("2d");
    g.scale(ratio, ratio);
    g.clearRect(0, 0, width, height);
    g.font = "11px system-ui, sans-serif";
    g.textBaseline = "middle";
    hits = [];
    axis(g);
    g.save();
    g.beginPath();
    g.rect(LEFT, 0, width - LEFT, height);
    g.clip();
    bands(g);
    load(g);
    latency(g);
    members(g);
    clients(g);
    g.restore();
    labels(g);
    shown.textContent = `${seconds(from)} s – ${seconds(to)} s`;
    document.body.dataset.from = Math.round(from);
    document.body.dataset.to = Math.round(to);
  }

  function axis(g) {
    const wanted = (to - from) / Math.max(2, (width - LEFT) / 110);
    const power = Math.pow(10, Math.floor(Math.log10(wanted)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= wanted);
    g.strokeStyle = colours.line;
    g.fillStyle = colours.soft;
    g.textAlign = "center";
    for (let t = Math.ceil(from / step) * step; t <= to; t += step) {
      const at = Math.round(x(t)) + 0.5;
      g.beginPath(); g.moveTo(at, AXIS - 4); g.lineTo(at, height); g.stroke();
      if (at < width - 24) g.fillText(`${+(t / 1e6).toFixed(6)} s`, at, 8);
    }
  }

  function bands(g) {
    for (const band of data.faults) {
      if (band.end < from || band.start > to) continue;
      const a = x(band.start), b = Math.max(x(band.end), a + 2), y = top.faults + band.row * FAULT;
      g.fillStyle = colours["fault-band"];
      g.fillRect(a, AXIS, b - a, height - AXIS);
      g.fillStyle = colours.fault;
      g.fillRect(a, y, b - a, 2);
      g.textAlign = "left";
      const text = `${band.kind} ${band.target}`;
      g.save();
      g.beginPath(); g.rect(a, y, Math.max(b - a, 0), FAULT); g.clip();
      g.fillText(text, Math.max(a, LEFT) + 3, y + 9);
      g.restore();
      hits.push([a, y, b, y + FAULT, `${text}, ${seconds(band.start)} – ${seconds(band.end)} s: ${band.evidence || "no effect noted"}${band.effective ? "" : " (no effect was seen)"}`]);
    }
  }

  function load(g) {
    const { width: bucket, per_second: rows } = data.curves;
    const base = top.load + LOAD;
    let most = 1;
    for (let i = 0; i < rows[0].length; i++) most = Math.max(most, rows[0][i] + rows[1][i] + rows[2][i]);
    top.loadMost = most;
    for (let i = 0; i < rows[0].length; i++) {
      const a = x(i * bucket), b = x((i + 1) * bucket);
      if (b < LEFT || a > width) continue;
      let y = base;
      ["ok", "fail", "info"].forEach((name, row) => {
        const tall = (rows[row][i] / most) * LOAD;
        g.fillStyle = colours[name];
        g.fillRect(a, y - tall, Math.max(b - a - 0.5, 0.5), tall);
        y -= tall;
      });
      hits.push([a, top.load, b, base, `${seconds(i * bucket)} s: ${rows[0][i]} ok, ${rows[1][i]} failed, ${rows[2][i]} unknown a second`]);
    }
  }

  const scale = (ms) => Math.log10(Math.max(ms, 0.1) / 0.1) / 5;  // 0.1 ms to 10 s

  function latency(g) {
    const { width: bucket, median, p99, worst } = data.curves;
    const base = top.latency + LATENCY;
    for (const [row, name, thick] of [[worst, "fail", 1], [p99, "info", 1.25], [median, "ok", 1.75]]) {
      g.strokeStyle = colours[name];
      g.lineWidth = thick;
      g.beginPath();
      let pen = false;
      row.forEach((ms, i) => {
        if (ms === null) { pen = false; return; }
        const px = x((i + 0.5) * bucket), py = base - scale(ms) * LATENCY;
        if (pen) g.lineTo(px, py); else g.moveTo(px, py);
        if (!pen) g.lineTo(px + 1, py);
        pen = true;
      });
      g.stroke();
    }
    g.lineWidth = 1;
    median.forEach((ms, i) => {
      if (ms !== null) hits.push([x(i * bucket), top.latency, x((i + 1) * bucket), base,
        `${seconds(i * bucket)} s: latency ${ms} ms median, ${p99[i]} ms 99th percentile, ${worst[i]} ms worst`]);
    });
  }

  const roles = { leader: "leader", follower: "follower", "no leader": "none", silent: "silent" };

  function members(g) {
    data.members.forEach((member, row) => {
      const y = top.members + row * ROLE;
      for (const [start, end, role, term] of member.spans) {
        if (end < from || start > to) continue;
        const a = x(start), b = Math.max(x(end), a + 1);
        g.fillStyle = colours[roles[role]] || colours.line;
        g.fillRect(a, y + 2, b - a, ROLE - 4);
        if (b - Math.max(a, LEFT) > 46 && term) {
          g.fillStyle = role === "leader" ? colours["on-leader"] : colours.ink;
          g.textAlign = "left";
          g.fillText(`term ${term}`, Math.max(a, LEFT) + 4, y + ROLE / 2);
        }
        hits.push([a, y, b, y + ROLE, `${member.name}: ${role}${term ? `, term ${term}` : ""}, ${seconds(start)} – ${seconds(end)} s`]);
      }
    });
  }

  function clients(g) {
    const painted = new Map();
    const order = [0, 1, 2, 3];  // what matters most is painted last
    const jobs = order.map(() => []);
    for (let i = firstFrom(from - longest); i < count && ops.start[i] <= to; i++) {
      if (ops.end[i] < from) continue;
      const kind = marked.has(ops.id[i]) ? 3 : ops.outcome[i];
      const a = Math.floor(x(ops.start[i])), b = Math.max(Math.ceil(x(ops.end[i])), a + 1);
      if (b - a <= 2) {  // one bar for each pixel is enough
        const spot = (ops.lane[i] * 4 + kind) * 8192 + a;
        if (painted.has(spot)) continue;
        painted.set(spot, i);
      }
      jobs[kind].push([i, a, b]);
    }
    const paint = ["ok", "fail", "info", "bad"];
    for (const kind of order) {
      g.fillStyle = colours[paint[kind]];
      for (const [i, a, b] of jobs[kind]) {
        const y = top.clients + ops.lane[i] * lane;
        g.globalAlpha = ops.outcome[i] === 2 && kind !== 3 ? 0.6 : 1;
        g.fillRect(a, y + 1, b - a > 3 ? b - a - 1 : b - a, lane - 2);
        if (b - a > 150 && lane > 11) {
          g.globalAlpha = 1;
          g.fillStyle = colours.card;
          g.textAlign = "left";
          g.save(); g.beginPath(); g.rect(a, y, b - a - 4, lane); g.clip();
          g.fillText(ops.text[i].replace(/^client \d+: /, ""), Math.max(a, LEFT) + 4, y + lane / 2);
          g.restore();
          g.fillStyle = colours[paint[kind]];
        }
      }
      g.globalAlpha = 1;
    }
  }

  function labels(g) {
    g.textAlign = "left";
    g.fillStyle = colours.soft;
    if (faultRows) g.fillText("faults", 0, top.faults + FAULT / 2);
    g.fillText("load", 0, top.load + 6);
    g.fillText(`${Math.round(top.loadMost)}/s`, 0, top.load + 20);
    g.fillText("latency", 0, top.latency + 6);
    g.textAlign = "right";
    for (const [ms, text] of [[10, "10 ms"], [1000, "1 s"]]) {
      const y = top.latency + LATENCY - scale(ms) * LATENCY;
      g.fillText(text, LEFT - 6, y);
    }
    data.members.forEach((member, row) => g.fillText(member.name, LEFT - 6, top.members + (row + 0.5) * ROLE));
    if (data.lanes) g.fillText("clients", LEFT - 6, top.clients + Math.max(lane / 2, 6));
  }

  function show(begin, end) {
    const span = Math.min(Math.max(end - begin, 20), length * 1.02);
    from = Math.min(Math.max(begin, -length * 0.01), length * 1.01 - span);
    to = from + span;
    draw();
  }

  function zoom(factor, centre) {
    show(centre - (centre - from) * factor, centre + (to - centre) * factor);
  }

  function reveal(ids, begin, end) {
    marked = new Set(ids);
    show(begin, end);
  }

  function violation() {
    if (data.focus) reveal(data.accused, data.focus[0], data.focus[1]);
    document.body.dataset.focus = "violation";
  }

  document.querySelectorAll("[data-zoom]").forEach((button) => button.addEventListener("click", () => {
    const middle = (from + to) / 2, span = to - from;
    ({ all: () => show(0, length), violation, in: () => zoom(0.5, middle), out: () => zoom(2, middle),
      left: () => show(from - span / 2, to - span / 2), right: () => show(from + span / 2, to + span / 2),
    })[button.dataset.zoom]();
  }));
  document.querySelectorAll("[data-show]").forEach((button) => button.addEventListener("click", () => {
    const ids = button.dataset.show.split(",").map(Number);
    const places = ids.map((id) => ops.id.indexOf(id)).filter((i) => i >= 0);
    if (!places.length) { button.textContent = "not drawn"; return; }
    const begin = Math.min(...places.map((i) => ops.start[i]));
    const end = Math.max(...places.map((i) => ops.end[i]));
    const margin = Math.max(50000, (end - begin) / 4);
    reveal(ids, begin - margin, end + margin);
    canvas.scrollIntoView({ block: "center" });
  }));

  canvas.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(event.deltaY > 0 ? 1.25 : 0.8, from + ((event.offsetX - LEFT) / (width - LEFT)) * (to - from));
  }, { passive: false });
  let grip = null;
  canvas.addEventListener("pointerdown", (event) => { grip = [event.offsetX, from, to]; canvas.setPointerCapture(event.pointerId); });
  canvas.addEventListener("pointerup", () => { grip = null; });
  canvas.addEventListener("pointermove", (event) => {
    if (grip) {
      const moved = ((event.offsetX - grip[0]) / (width - LEFT)) * (grip[2] - grip[1]);
      show(grip[1] - moved, grip[2] - moved);
      return;
    }
    const text = under(event.offsetX, event.offsetY);
    if (text) detail.textContent = text;
  });
  canvas.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: "left", ArrowRight: "right", "+": "in", "-": "out", "0": "all" }[event.key];
    if (step) { event.preventDefault(); document.querySelector(`[data-zoom="${step}"]`).click(); }
  });

  function under(px, py) {
    const row = Math.floor((py - top.clients) / lane);
    if (row >= 0 && row < data.lanes && px >= LEFT) {
      let best = -1, nearest = 4;
      const time = from + ((px - LEFT) / (width - LEFT)) * (to - from);
      for (let i = firstFrom(time - longest); i < count && x(ops.start[i]) < px + 4; i++) {
        if (ops.lane[i] !== row) continue;
        const away = Math.max(x(ops.start[i]) - px, px - x(ops.end[i]), 0);
        if (away < nearest) { nearest = away; best = i; }
      }
      if (best >= 0) return `${seconds(ops.start[best])} s, ${((ops.end[best] - ops.start[best]) / 1000).toFixed(2)} ms, ${ops.text[best]}`;
      return "";
    }
    const hit = hits.findLast(([a, b, c, d]) => px >= a && px <= c && py >= b && py <= d);
    return hit ? hit[4] : "";
  }

  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const follow = () => { if (location.hash === "#violation") violation(); };
  window.addEventListener("hashchange", follow);
  const link = document.getElementById("to-violation");
  if (link) link.addEventListener("click", () => setTimeout(violation));
  draw();
  document.body.dataset.ready = "yes";
  follow();
})();

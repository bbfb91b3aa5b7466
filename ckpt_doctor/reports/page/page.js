"use strict";
// Draws what the JSON of the page tells. A name from a file is text: no markup is ever made of strings.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SVG = "http://www.w3.org/2000/svg";
  const FEW = 3; // adapters that are all drawn; of more, or where not all are told, a table and the one that is chosen
  const ROWS = 100; // of a table, before more are asked for
  const whole = new Intl.NumberFormat("en");
  const collator = new Intl.Collator("en", { numeric: true });
  const SIGNS = { accepts: "✓", rejects: "✕", misloads: "≠", unknown: "?" };
  let ids = 0;

  // Elements

  function filled(node, attributes, children) {
    for (const [key, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (typeof value === "function") node.addEventListener(key, value);
      else node.setAttribute(key, value === true ? "" : value);
    }
    node.append(...children.flat(2).filter((child) => child !== null && child !== undefined && child !== ""));
    return node;
  }
  const el = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);
  const svg = (name, attributes = {}, ...children) =>
    filled(document.createElementNS(SVG, name), attributes, children);
  const section = (title, ...children) => el("section", {}, el("h3", {}, title), ...children);
  const list = (texts, name = "ul") => el(name, {}, texts.map((text) => el("li", {}, text)));
  const ratio = (part, of) => (of ? part / of : 0);

  // Numbers: `form` is how those of a metric are written

  function said(value, form) {
    if (value === null || value === undefined) return "?";
    if (form === "one") return value.toFixed(1);
    if (form === "share") return value >= 0.0995 ? (value * 100).toFixed(0) : (value * 100).toPrecision(1);
    if (form === "power") return value ? value.toExponential(0) : "0";
    return whole.format(value);
  }
  const large = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });
  // A number in few digits, in a power of ten where it is very small
  function compact(value, digits = 1) {
    if (value >= 1e6) return value >= 1e15 ? value.toExponential(digits) : large.format(value);
    return value && value < 0.01 ? value.toExponential(digits) : whole.format(+value.toPrecision(3));
  }
  const percent = (value) => `${Math.round(value * 100)} %`;

  // The tone of a cell: 0 is nothing, 1 to 10 how full it is
  function tone(value, metric, tolerance) {
    if (value === null) return "none";
    if (metric.form === "power") {
      if (value > tolerance) return "over";
      return value ? `h${Math.min(Math.max(Math.ceil(((Math.log10(value) + 16) / 16) * 10), 1), 10)}` : "h1";
    }
    return value <= 0 ? "zero" : `h${Math.min(Math.ceil((value / metric.most) * 10 - 1e-9), 10)}`;
  }

  // Charts

  function chart(label, height, ...children) {
    return svg("svg", { viewBox: `0 0 400 ${height}`, role: "img", "aria-label": label, class: "chart" }, ...children);
  }

  function bars(values, names, label, axis) {
    const most = Math.max(...values, 0) || 1;
    const step = Math.min(364 / values.length, 28);
    const gap = Math.min(2, step / 4);
    const marks = values.map((value, at) => {
      const height = value ? Math.max((value / most) * 92, 1) : 0;
      return svg("rect", { x: 36 + at * step, y: 100 - height, width: Math.max(step - gap, 0.5), height, class: "bar" },
        svg("title", {}, `${names(at)}: ${String(value)}`));
    });
    const every = Math.ceil(values.length / 12);
    const ticks = values.map((_, at) => (at % every ? null
      : svg("text", { x: 36 + (at + 0.5) * step - gap / 2, y: 113, "text-anchor": "middle" }, String(axis(at)))));
    return chart(label, 118,
      svg("line", { x1: 36, x2: 36 + step * values.length, y1: 100, y2: 100, class: "axis" }),
      svg("text", { x: 32, y: 16, "text-anchor": "end" }, compact(most, 0)), marks, ticks);
  }

  // Values over the steps of a run, the last of each held until the next; `move` says where the slider is
  function trajectory(frames, series, label, choose) {
    const xs = frames.map((frame, at) => frame.step ?? at);
    for (let at = 1; at < xs.length; at++) {
      if (frames[at].step === null) xs[at] = xs[at - 1] + Math.max((xs[at - 1] - xs[0]) / 40, 1);
    }
    const most = Math.max(1, ...series.flatMap((one) => one.values.filter((value) => value !== null)));
    const x = (at) => 44 + ratio(xs[at] - xs[0], xs[xs.length - 1] - xs[0]) * 346;
    const y = (value) => 116 - (value / most) * 104;
    const lines = series.map((one) => {
      const points = one.values.map((value, at) => (value === null ? null : `${x(at).toFixed(1)},${y(value).toFixed(1)}`));
      return svg("polyline", { points: points.filter(Boolean).join(" "), class: `line ${one.look}` });
    });
    const dots = frames.length > 40 ? [] : series[0].values.map((value, at) => value === null ? null
      : svg("circle", { cx: x(at), cy: y(value), r: 2.5, class: "dot" }));
    const cursor = svg("line", { y1: 8, y2: 116, class: "cursor" });
    const grid = [0, 0.5, 1].map((share) => [
      svg("line", { x1: 44, x2: 390, y1: y(share * most), y2: y(share * most), class: "grid" }),
      svg("text", { x: 38, y: y(share * most) + 4, "text-anchor": "end" }, compact(share * most)),
    ]);
    const ends = [0, frames.length - 1].map((at) =>
      svg("text", { x: x(at), y: 132, "text-anchor": at ? "end" : "start" }, frames[at].name));
    const node = chart(label, 138, grid, lines, dots, cursor, ends);
    node.addEventListener("click", (event) => {
      const box = node.getBoundingClientRect();
      const where = ((event.clientX - box.left) / box.width) * 400;
      const near = xs.reduce((best, _, at) => (Math.abs(x(at) - where) < Math.abs(x(best) - where) ? at : best), 0);
      choose(near);
    });
    return { node, move: (at) => { cursor.setAttribute("x1", x(at)); cursor.setAttribute("x2", x(at)); } };
  }

  function spark(values, most) {
    const points = values.map((value, at) =>
      value === null ? null : `${(ratio(at, values.length - 1) * 78 + 1).toFixed(1)},${(19 - ratio(value, most) * 17).toFixed(1)}`);
    return svg("svg", { viewBox: "0 0 80 20", class: "spark", "aria-hidden": "true" },
      svg("polyline", { points: points.filter(Boolean).join(" "), class: "line" }));
  }

  // A table that is searched and sorted; columns are {name, number, text(row), cell(row)}

  function table(caption, columns, rows, search = rows.length > 8) {
    let sorted = rows;
    let order = null;
    let shown = ROWS;
    const body = el("tbody");
    const status = el("p", { class: "count", role: "status" });
    const more = el("button", { type: "button", class: "more", click: () => { shown += 1000; fill(); } });
    const input = el("input", { type: "search", placeholder: "Search", "aria-label": `Search ${caption}`, autocomplete: "off",
      input: () => { shown = ROWS; fill(); } });
    const heads = columns.map((column, at) => {
      const head = el("th", { scope: "col", class: column.number ? "number" : null },
        el("button", { type: "button", click: () => sort(at) }, column.name));
      return head;
    });
    function sort(at) {
      const down = order && order.at === at ? !order.down : Boolean(columns[at].number);
      order = { at, down };
      const key = (row) => { const value = columns[at].text(row); return value === "?" ? null : value; };
      sorted = [...rows].sort((a, b) => {
        const [one, other] = [key(a), key(b)];
        if (one === null || other === null) return (one === null) - (other === null);
        const way = columns[at].number ? one - other : collator.compare(one, other);
        return down ? -way : way;
      });
      heads.forEach((head, other) =>
        other === at ? head.setAttribute("aria-sort", down ? "descending" : "ascending") : head.removeAttribute("aria-sort"));
      fill();
    }
    function fill() {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      const found = !words.length ? sorted : sorted.filter((row) => {
        const text = columns.map((column) => column.text(row) ?? "").join("\n").toLowerCase();
        return words.every((word) => text.includes(word));
      });
      const lines = document.createDocumentFragment();
      for (const row of found.slice(0, shown)) {
        lines.append(el("tr", {}, columns.map((column, at) => {
          const cell = column.cell ? column.cell(row) : column.text(row);
          const content = typeof cell === "number" ? whole.format(cell) : cell ?? "–";
          return at ? el("td", { class: column.number ? "number" : null }, content) : el("th", { scope: "row" }, content);
        })));
      }
      body.replaceChildren(lines);
      status.textContent = words.length ? `${whole.format(found.length)} of ${whole.format(rows.length)}` : "";
      more.textContent = `Show ${whole.format(Math.min(found.length - shown, 1000))} more of ${whole.format(found.length)}`;
      more.hidden = found.length <= shown;
    }
    fill();
    return el("div", { class: "searched" }, search ? el("div", { class: "search" }, input, status) : null,
      el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": caption },
        el("table", { class: "rows" }, el("caption", {}, caption), el("thead", {}, el("tr", {}, heads)), body)), more);
  }

  // Ranks: the map, its slider, what each module has, and the layer that is chosen

  function ranks(map) {
    const { layers, frames } = map;
    let frame = frames.length - 1;
    let metric = map.metrics[map.first];
    let chosen = null;
    const over = frames.length > 1;
    const isRanks = map.metrics[0].name === "rank";
    const cells = new Map();
    layers.forEach(([, block, kind], at) => {
      const key = block * map.kinds.length + kind;
      if (!cells.has(key)) cells.set(key, []);
      cells.get(key).push(at);
    });
    const hint = el("span", {}, map.stack ? `blocks of ${map.stack}` : "");
    const grid = heatmap();
    const panel = el("div", { class: "layer" });
    const figures = el("dl", { class: "figures" });
    const modules = el("div");
    const counts = el("div");
    const moving = [];

    function value(layer, of = metric) { return of.steps[frame][layer]; }

    function mean(key, of = metric, at = frame) {
      const told = cells.get(key).map((layer) => of.steps[at][layer]).filter((one) => one !== null && one !== undefined);
      return told.length ? told.reduce((a, b) => a + b, 0) / told.length : null;
    }

    function heatmap() {
      const table = el("table", { class: "map", role: "grid", "aria-label": "Blocks by modules" });
      const narrow = map.kinds.length > 8 || map.kinds.some(([, name]) => name.length > 10);
      if (narrow) table.classList.add("upright");
      // sizes that are said need no look at all cells, of which there may be thousands
      const several = cells.size < layers.length;
      if (several) table.classList.add("several");
      const widest = narrow ? 0 : Math.max(...map.kinds.map(([, name]) => name.length));
      const label = Math.max(5, ...map.blocks.map((block) => block.length));
      table.style.setProperty("--columns", map.kinds.length);
      table.style.setProperty("--wide", `${Math.max(widest * 7 + 12, several ? 72 : narrow ? 30 : 44)}px`);
      table.style.setProperty("--label", `${Math.min(label, 24) * 7 + 14}px`);
      table.append(el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span", {}, "block")),
        map.kinds.map(([kind, name]) => el("th", { scope: "col", title: kind }, el("span", {}, name))))));
      const body = el("tbody");
      const drawn = []; // of each place its cell, its key, and what it shows
      map.blocks.forEach((block, row) => {
        const line = el("tr", {}, el("th", { scope: "row" }, block));
        map.kinds.forEach((_, column) => {
          const key = row * map.kinds.length + column;
          const cell = el("td", { tabindex: "-1" });
          drawn.push({ cell, key, has: cells.has(key), shown: null });
          line.append(cell);
        });
        body.append(line);
      });
      table.append(body);
      const at = new Map(drawn.map((one, index) => [one.cell, index]));
      let current = Math.max(drawn.findIndex((one) => one.has), 0);
      drawn[current].cell.tabIndex = 0;

      // What is to be seen at once, the rest when nothing moves any more
      let waiting = null;
      function paint() {
        const box = table.parentElement;
        const rows = map.blocks.length;
        const from = box ? Math.floor((box.scrollTop / table.offsetHeight) * rows) : 0;
        const to = box ? Math.ceil(((box.scrollTop + box.clientHeight) / table.offsetHeight) * rows) : rows;
        clearTimeout(waiting);
        if (rows <= 100 || !box) return fill(0, rows);
        fill(from, to);
        waiting = setTimeout(() => fill(0, rows), 200);
      }
      function fill(from, to) {
        for (const one of drawn.slice(from * map.kinds.length, to * map.kinds.length)) {
          if (!one.has) continue;
          const every = cells.get(one.key).map((layer) => value(layer));
          const told = every.filter((each) => each !== null && each !== undefined);
          const [least, most] = [Math.min(...told), Math.max(...told)];
          const text = !told.length ? "?" : least === most ? said(least, metric.form)
            : `${said(least, metric.form)}–${said(most, metric.form)}`;
          const look = tone(mean(one.key), metric, map.tolerance ?? 0);
          if (one.shown === text + look) continue;
          one.shown = text + look;
          one.cell.className = one.cell.classList.contains("chosen") ? `${look} chosen` : look;
          one.cell.textContent = text;
        }
      }
      function go(index, focus = true) {
        drawn[current].cell.tabIndex = -1;
        drawn[current].cell.classList.remove("chosen");
        drawn[current].cell.removeAttribute("aria-selected");
        current = index;
        const { cell, has, key } = drawn[current];
        cell.tabIndex = 0;
        cell.classList.add("chosen");
        cell.setAttribute("aria-selected", "true");
        if (focus) cell.focus();
        if (has) choose(cells.get(key)[0]);
      }
      const width = map.kinds.length;
      const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width, PageUp: -10 * width, PageDown: 10 * width };
      table.addEventListener("keydown", (event) => {
        let next = null;
        if (event.key in moves) next = current + moves[event.key];
        if (event.key === "Home") next = current - (current % width);
        if (event.key === "End") next = current - (current % width) + width - 1;
        if (next === null) return;
        event.preventDefault();
        if (next >= 0 && next < drawn.length) go(next);
      });
      table.addEventListener("click", (event) => {
        const cell = event.target.closest("td");
        if (cell) go(at.get(cell));
      });
      table.addEventListener("mouseover", (event) => {
        const cell = event.target.closest("td");
        const one = cell && drawn[at.get(cell)];
        if (one && one.has) hint.textContent = named(one.key);
      });
      function named(key) {
        const [first, ...rest] = cells.get(key);
        return layers[first][0] + (rest.length ? ` and ${rest.length} more` : "");
      }
      return { table, paint, go: (layer) => {
        const [, block, kind] = layers[layer];
        go(block * width + kind, false);
        choose(layer);
      } };
    }

    function choose(layer) {
      chosen = layer;
      const [name, block, kind, parameters] = layers[layer];
      const same = cells.get(block * map.kinds.length + kind);
      const parts = [el("h4", {}, name)];
      if (same.length > 1) {
        const select = el("select", { "aria-label": "Layer of this place", change: () => choose(+select.value) },
          same.slice(0, 1000).map((each) => el("option", { value: each, selected: each === layer }, layers[each][0])));
        parts.push(select);
      }
      const numbers = map.numbers?.[layer];
      const facts = sides.length ? frames.map(({ name: when }, at) => [`rank ${when}`, said(map.metrics[0].steps[at][layer], "whole")]) : map.metrics.map((each) => [each.name, each.form === "share" && value(layer, each) !== null
        ? `${said(value(layer, each), "share")} %` : said(value(layer, each), each.form)]);
      if (isRanks && parameters !== null) facts.push(["parameters", whole.format(parameters)]);
      if (numbers) {
        facts.push(["norm", numbers[0] === null ? "NaN or infinity" : compact(numbers[0])]);
        if (numbers[1] !== null) facts.push(["triplets used", String(numbers[1])], ["zero rows", String(numbers[2])]);
      }
      if (map.settled && map.settled[layer] !== null && map.settled[layer] !== undefined) {
        facts.push([value(layer, map.metrics[0]) === 0 ? "at 0 since" : "settled", `step ${whole.format(map.settled[layer])}`]);
      }
      parts.push(el("dl", { class: "facts" }, facts.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text)))));
      moving.length = moving.total ? 1 : 0;
      if (map.settled && isRanks) {
        const values = map.metrics[0].steps.map((step) => step[layer]);
        const line = trajectory(frames, [{ values, look: "main" }], `Rank of ${name}: ${values.join(", ")}`, show);
        moving.push(line);
        parts.push(el("h5", {}, "rank over the steps"), line.node);
      }
      const spectrum = map.spectra?.[layer];
      if (spectrum && spectrum.length) {
        parts.push(el("h5", {}, "singular values of its delta"),
          bars(spectrum, (at) => `value ${at + 1}`, `Singular values of ${name}, from ${compact(spectrum[0])} to ${compact(spectrum[spectrum.length - 1])}`,
            (at) => at + 1));
      } else if (map.spectra && spectrum) {
        parts.push(el("p", { class: "soft" }, "It has no singular values."));
      } else if (isRanks && map.why_not && !numbers) {
        parts.push(el("p", { class: "soft" }, map.why_not));
      } else if (isRanks && !map.spectra && data.verb === "ranks" && !map.left_out.length) {
        parts.push(el("p", { class: "soft" }, "With --values its singular values are here, too."));
      }
      panel.replaceChildren(...parts);
      moving.forEach((one) => one.move(frame));
    }

    function summary() {
      const told = map.metrics[0].steps[frame].filter((rank) => rank !== null && rank !== undefined);
      const sum = told.reduce((a, b) => a + b, 0);
      const { most } = map.metrics[0];
      const of = frames[frame];
      const facts = [["layers", whole.format(layers.length)],
        [map.pruned ? "triplets" : "sum of ranks", whole.format(sum) + (map.budget !== null ? ` of ${whole.format(map.budget)}` : "")],
        ...(of.planned !== null && of.planned !== undefined ? [["planned", whole.format(of.planned)]] : []),
        ["at 0", whole.format(told.filter((rank) => rank === 0).length)],
        [`at ${most}`, whole.format(told.filter((rank) => rank === most).length)]];
      if (map.metrics[1]) {
        const effective = map.metrics[1].steps[frame].filter((one) => one !== null);
        if (effective.length) facts.push(["effective rank, mean", (effective.reduce((a, b) => a + b, 0) / effective.length).toFixed(1)]);
      }
      if (of.smallest !== null && of.smallest !== undefined) facts.push(["rank that keeps 99 % of the energy", String(of.smallest)]);
      figures.replaceChildren(...facts.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text))));
      const histogram = new Map();
      told.forEach((rank) => histogram.set(rank, (histogram.get(rank) ?? 0) + 1));
      if (histogram.size > 1) {
        const span = Math.ceil((most + 1) / 32);
        const sizes = Array.from({ length: Math.ceil((most + 1) / span) }, (_, at) => {
          let count = 0;
          for (let rank = at * span; rank < (at + 1) * span; rank++) count += histogram.get(rank) ?? 0;
          return count;
        });
        const label = [...histogram].sort((a, b) => a[0] - b[0]).map(([rank, count]) => `${count} of rank ${rank}`).join(", ");
        counts.replaceChildren(el("h4", {}, "Layers by rank"),
          bars(sizes, (at) => `rank ${at * span}${span > 1 ? ` – ${(at + 1) * span - 1}` : ""}`, `Layers by rank: ${label}`, (at) => at * span));
      } else counts.replaceChildren();
      kinds(sum);
    }

    const ofKind = map.kinds.map(() => []);
    layers.forEach(([, , kind], at) => ofKind[kind].push(at));
    function kinds(sum) {
      const [rank, effective, energy] = map.metrics;
      const rows = map.kinds.map(([kind, name], at) => {
        const told = ofKind[at].map((layer) => rank.steps[frame][layer]).filter((one) => one !== null && one !== undefined);
        const total = told.reduce((a, b) => a + b, 0);
        const average = (of) => { const found = ofKind[at].map((layer) => of.steps[frame][layer]).filter((one) => one !== null); return found.length ? found : null; };
        const eff = effective && average(effective);
        const share = energy && average(energy);
        return el("tr", {}, el("th", { scope: "row", title: kind }, name),
          el("td", { class: "number" }, whole.format(ofKind[at].length)), el("td", { class: "number" }, whole.format(total)),
          el("td", { class: "number" }, percent(ratio(total, sum))),
          el("td", {}, meter(ratio(total, sum))),
          el("td", { class: "number" }, String(told.filter((one) => one === 0).length)),
          effective ? el("td", { class: "number" }, eff ? (eff.reduce((a, b) => a + b, 0) / eff.length).toFixed(1) : "–") : null,
          energy ? el("td", { class: "number" }, share ? percent(share.reduce((a, b) => a + b, 0)) : "–") : null,
          map.settled ? el("td", {}, sparks[at]) : null);
      });
      const head = ["module", "layers", "ranks", "of all", "", "at 0", ...(effective ? ["effective"] : []),
        ...(energy ? ["energy"] : []), ...(map.settled ? ["over the steps"] : [])];
      modules.replaceChildren(el("h4", {}, "What each module has"), el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "What each module has" },
        el("table", { class: "rows" }, el("thead", {}, el("tr", {}, head.map((name, at) => name
          ? el("th", { scope: "col", class: at ? "number" : null }, name) : el("td")))), el("tbody", {}, rows))));
    }
    const meter = (share) => { const bar = el("span", { class: "meter", "aria-hidden": "true" }, el("span")); bar.firstChild.style.width = `${share * 100}%`; return bar; };
    const sparks = !map.settled ? [] : ofKind.map((every) => spark(map.metrics[0].steps.map((step) => {
      const told = every.map((layer) => step[layer]).filter((one) => one !== null);
      return told.length ? told.reduce((a, b) => a + b, 0) / told.length : null;
    }), map.metrics[0].most));

    // The slider

    const slider = map.settled ? el("input", { type: "range", min: "0", max: String(frames.length - 1), step: "1",
      "aria-label": "Step", input: () => show(+slider.value) }) : null;
    const sides = !over || slider ? [] : frames.map(({ name }, at) => el("button", { type: "button", click: () => show(at) }, name));
    const output = el("output", { class: "step" });
    let timer = null;
    const play = el("button", { type: "button", click: () => (timer ? stop() : start()) }, "Play");
    function start() {
      if (frame === frames.length - 1) show(0);
      play.textContent = "Pause";
      timer = setInterval(() => (frame < frames.length - 1 ? show(frame + 1) : stop()), Math.max(3000 / frames.length, 60));
    }
    function stop() { clearInterval(timer); timer = null; play.textContent = "Play"; }

    function show(at) {
      frame = at;
      grid.paint(); // first, as it asks where the map is scrolled to
      if (slider) {
        slider.value = String(at);
        slider.setAttribute("aria-valuetext", frames[at].name);
        output.textContent = frames[at].name;
      }
      sides.forEach((side, other) => side.setAttribute("aria-pressed", String(other === at)));
      if (isRanks) summary();
      if (chosen !== null) choose(chosen);
      moving.forEach((one) => one.move(at));
    }

    if (map.settled) {
      const sums = map.metrics[0].steps.map((step) => step.reduce((a, b) => a + (b ?? 0), 0));
      const plans = frames.map((each) => each.planned ?? null);
      const series = [{ values: sums, look: "main" }];
      if (plans.some((each) => each !== null)) series.push({ values: plans, look: "plan" });
      moving.push(trajectory(frames, series, `${map.pruned ? "Triplets" : "Sum of ranks"} over the steps: ${sums.join(", ")}`, show));
      moving.total = moving[0].node;
    }
    const choice = map.metrics.length < 2 ? null : el("label", { class: "metric" }, "Show ",
      el("select", { change: (event) => { metric = map.metrics[+event.target.value]; grid.paint(); } },
        map.metrics.map((each, at) => el("option", { value: at, selected: at === map.first }, each.name))));

    const legend = el("p", { class: "legend", "aria-hidden": "true" },
      ...(isRanks ? [el("span", { class: "key zero" }, "0"), el("span", { class: "scale" }, Array.from({ length: 10 }, (_, at) => el("span", { class: `h${at + 1}` }))), el("span", {}, "full")]
        : [el("span", {}, "same"), el("span", { class: "scale" }, Array.from({ length: 10 }, (_, at) => el("span", { class: `h${at + 1}` }))), el("span", { class: "key over" }, "beyond the tolerance")]));
    const rows = layers.map((_, at) => at);
    const columns = [
      { name: "layer", text: (at) => layers[at][0], cell: (at) => el("button", { type: "button", class: "link", click: () => { grid.go(at); panel.scrollIntoView({ block: "nearest" }); } }, layers[at][0]) },
      ...map.metrics.map((each) => ({ name: each.name + (each.form === "share" ? ", %" : ""), number: true,
        text: (at) => value(at, each), cell: (at) => said(value(at, each), each.form) })),
      ...(map.numbers ? [{ name: "norm", number: true, text: (at) => map.numbers[at]?.[0] ?? null, cell: (at) => (map.numbers[at]?.[0] == null ? "–" : compact(map.numbers[at][0])) }] : []),
      ...(map.settled ? [{ name: "settled at step", number: true, text: (at) => map.settled[at] ?? null }] : []),
    ];
    const result = el("div", { class: "ranks" },
      map.verdict ? el("p", { class: "verdict" }, map.verdict) : null,
      map.advice.map((text) => el("p", { class: "advice" }, text)),
      isRanks ? figures : null,
      slider ? el("div", { class: "slider" }, play, slider, output) : null,
      sides.length ? el("div", { class: "slider", role: "group", "aria-label": "Before or after" }, sides) : null,
      el("div", { class: "sides" },
        el("div", { class: "left" },
          el("div", { class: "over" }, choice, legend),
          el("div", { class: "scroll" }, grid.table),
          el("p", { class: "hint" }, hint), modules),
        el("div", { class: "right" },
          map.settled ? el("div", {}, el("h4", {}, `${map.pruned ? "Triplets" : "Sum of ranks"} over the steps`),
            el("p", { class: "legend" }, el("span", { class: "stroke main" }), "left", moving[0] && frames.some((each) => each.planned != null) ? [el("span", { class: "stroke plan" }), "planned by the schedule"] : null),
            moving.total) : null,
          panel, counts)),
      isRanks ? el("details", { class: "all" }, el("summary", {}, `All ${whole.format(layers.length)} layers as a table`), table("layers", columns, rows, true)) : null,
      map.left_out.map((text) => el("p", { class: "soft" }, text)));
    show(frame);
    if (layers.length) grid.go(0);
    return result;
  }

  // Findings, who accepts, what was done

  function finding(one) {
    const page = data.codes[one.code];
    const names = (what, texts) => (texts.length ? el("p", {}, el("b", {}, `${what}: `), texts.map((text, at) => [at ? ", " : "", el("code", {}, text)])) : null);
    return el("details", { class: "finding" },
      el("summary", {}, el("span", { class: `severity ${one.severity}` }, one.severity), " ", el("b", {}, `${one.code} ${one.name}`), " ", el("span", { class: "message" }, one.message)),
      one.outcomes.map((text) => el("p", {}, text)),
      one.fixable ? el("p", {}, "ckpt-doctor fix repairs it.") : null,
      one.remedy ? el("p", {}, el("b", {}, "What to change: "), one.remedy) : null,
      names("Config keys", one.keys), names("Tensors", one.tensors),
      page ? el("div", { class: "page" }, page.parts.map(([heading, text]) => el("p", {}, el("b", {}, `${heading}: `), ticked(text))),
        page.messages.length ? [el("p", {}, el("b", {}, "Messages:")), list(page.messages.map((text) => el("code", {}, text)))] : null) : null);
  }
  // `code` as the pages of codes write it
  const ticked = (text) => text.split("`").map((part, at) => (at % 2 ? el("code", {}, part) : part));

  function runtimes(every, words) {
    const chip = ([id, ...verdicts]) => {
      const last = verdicts[verdicts.length - 1];
      const changed = verdicts.length > 1 && verdicts[0] !== last;
      return el("li", { class: `chip ${last}${changed ? " changed" : ""}`, title: verdicts.join(" → ") },
        el("span", { class: "sign", "aria-hidden": "true" }, (changed ? `${SIGNS[verdicts[0]]}→` : "") + SIGNS[last]),
        el("span", { class: "hidden" }, (changed ? `${verdicts[0]}, then ` : "") + last + ": "),
        id.startsWith("peft==") ? id.slice(6) : id.replace("==", " "));
    };
    const peft = every.filter(([id]) => id.startsWith("peft=="));
    const servers = every.filter(([id]) => !id.startsWith("peft=="));
    return [el("dl", { class: "words" }, words.map(([word, text]) => el("div", {}, el("dt", { class: word }, `${SIGNS[word]} ${word}`), el("dd", {}, text)))),
      el("ul", { class: "chips", "aria-label": "Releases of PEFT" }, peft.map(chip)),
      servers.length ? el("ul", { class: "chips", "aria-label": "Servers" }, servers.map(chip)) : null];
  }

  function article(item) {
    const one = item.detail;
    const id = `a${++ids}`;
    const head = el("h2", { id, tabindex: "-1" }, item.path);
    return el("article", { "aria-labelledby": id }, head,
      item.verdict && (one.map?.verdict !== item.verdict) ? el("p", { class: `verdict ${item.outcome.replace(" ", "-")}` }, item.verdict) : null,
      item.is ? el("p", { class: "soft" }, item.is) : null,
      one.about ? el("dl", { class: "facts about" }, one.about.map(([term, text]) => el("div", {}, el("dt", {}, term), el("dd", {}, text)))) : null,
      one.said?.length ? list(one.said) : null,
      one.left_out?.map((text) => el("p", { class: "soft" }, text)),
      one.ways ? section("What to do", el("ul", { class: "ways" }, one.ways.map(([text, command]) => el("li", {}, text, command ? [": ", el("code", {}, command)] : null)))) : null,
      one.runtimes?.length ? section(data.verb === "fix" ? "Who accepts it, before and after" : "Who accepts it", ...runtimes(one.runtimes, one.words)) : null,
      one.findings?.length ? section(data.verb === "fix" ? "What was in the way" : "What was found", el("div", { class: "findings" }, one.findings.map(finding))) : null,
      one.left?.length ? section("What is still found", el("div", { class: "findings" }, one.left.map(finding))) : null,
      one.refused?.length ? section("What was refused", list(one.refused.map(([title, codes, reason]) => `${title} (${codes.join(", ")}): ${reason}`))) : null,
      one.map ? section(data.verb === "compare" ? "Where they differ" : "Ranks", ranks(one.map)) : null,
      one.rows ? section("Layers and tensors", table("layers and tensors", [
        { name: "layer or tensor", text: (row) => row[0] },
        ...["norm", "difference", "relative"].map((name, at) => ({ name, number: true, text: (row) => row[at + 1], cell: (row) => (row[at + 1] === null ? "not a number" : compact(row[at + 1])) })),
      ], one.rows, true)) : null,
      one.changes?.length ? section("What changes", table("changes", [
        { name: "name", text: (row) => row[1], cell: (row) => el("code", {}, row[1]) }, { name: "of the", text: (row) => row[0] },
        { name: "before", text: (row) => row[2] }, { name: "after", text: (row) => row[3] },
      ], one.changes, true)) : null);
  }

  function beside(side) {
    const mark = (at) => "ABCD"[at];
    const energy = side.rows.every((row) => row.slice(1).every((cell) => !cell || cell[2] !== null)) && side.rows.some((row) => row.slice(1).some(Boolean));
    const cell = (value, share) => el("td", { class: "number" }, value === null ? "–" : value);
    const rows = side.rows.map(([name, ...found]) => el("tr", {}, el("th", { scope: "row" }, name),
      found.map((one) => cell(one && `${whole.format(one[0])} (${percent(one[1])})`)),
      energy ? found.map((one) => cell(one && percent(one[2]))) : null));
    const total = (name, of) => el("tr", {}, el("th", { scope: "row" }, name), side.totals.map((one) => cell(whole.format(one[of]))), energy ? side.totals.map(() => el("td")) : null);
    return el("section", {}, el("h2", {}, "Side by side"), el("ul", { class: "plain" }, side.paths.map((path, at) => el("li", {}, el("b", {}, `${mark(at)} `), path))),
      el("div", { class: "wide", tabindex: "0", role: "group", "aria-label": "Side by side" }, el("table", { class: "rows" }, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "module"),
        side.paths.map((_, at) => el("th", { scope: "col", class: "number" }, `${mark(at)} ranks`)),
        energy ? side.paths.map((_, at) => el("th", { scope: "col", class: "number" }, `${mark(at)} energy`)) : null)),
        el("tbody", {}, rows, total("all", 0), total("parameters", 1)))));
  }

  // The page

  const main = document.getElementById("main");
  document.getElementById("verb").textContent = data.verb;
  document.title = `ckpt-doctor ${data.verb}${data.items.length === 1 ? `: ${data.items[0].path}` : ""}`;
  const title = { scan: "What is wrong, and who rejects it", ranks: "Where the ranks are", fix: "What was repaired", compare: "Whether they compute the same" };
  main.append(el("h1", {}, title[data.verb]));
  if (data.items.length !== 1 && data.summary) main.append(el("p", { class: "verdict" }, data.summary));
  data.left_out.forEach((text) => main.append(el("p", { class: "soft" }, text)));
  (data.start ?? []).forEach((lines) => main.append(el("p", {}, el("code", {}, lines[0])), list(lines.slice(1))));
  if (data.beside) main.append(beside(data.beside));
  if (data.items.length <= FEW && data.items.every((item) => item.detail)) main.append(...data.items.map(article));
  else {
    const place = el("div", { id: "chosen" });
    const rows = data.items.map((item, at) => ({ ...item, at }));
    const columns = [
      { name: "adapter", text: (row) => row.path, cell: (row) => (row.detail ? el("a", { href: `#${row.at}` }, row.path) : row.path) },
      { name: "verdict", text: (row) => row.verdict, cell: (row) => el("span", { class: `word ${row.outcome}` }, row.verdict) },
      { name: data.verb === "ranks" ? "method" : "adapter is", text: (row) => row.is ?? "" },
      ...(data.verb === "ranks" ? [] : [{ name: "cause", text: (row) => row.cause ?? "" }, { name: data.verb === "fix" ? "repairs" : "next", text: (row) => row.next ?? "" }]),
    ];
    main.append(el("section", {}, el("h2", {}, "Adapters"), table("adapters", columns, rows, true)), place);
    const choose = (focus) => {
      const item = location.hash ? data.items[+location.hash.slice(1)] : null;
      if (!item?.detail) return;
      place.replaceChildren(article(item));
      if (focus) place.querySelector("h2").focus();
    };
    addEventListener("hashchange", () => choose(true));
    choose(false);
  }
  document.getElementById("footer").append(el("p", {}, `Made by ckpt-doctor ${data.tool.version}. All of it is in this file; nothing is fetched or sent.`));

  // Light, dark, or as the system has it; and what is folded unfolds on paper

  const THEMES = ["system", "light", "dark"];
  const theme = document.getElementById("theme");
  function shine(name) {
    document.documentElement.dataset.theme = name;
    theme.textContent = `Theme: ${name}`;
    try { localStorage.setItem("ckpt-doctor-theme", name); } catch { /* a browser that keeps nothing for files */ }
  }
  theme.addEventListener("click", () => shine(THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % 3]));
  let kept = null;
  try { kept = localStorage.getItem("ckpt-doctor-theme"); } catch { /* the same */ }
  shine(THEMES.includes(kept) ? kept : "system");
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open], .all)")];
    folded.forEach((node) => { node.open = true; });
  });
  addEventListener("afterprint", () => folded.forEach((node) => { node.open = false; }));
})();

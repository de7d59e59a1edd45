// Draws the page of runs from the JSON in it; live, asks for more every few seconds.
"use strict";
(() => {
  const LIVE = document.body.dataset.mode === "live";
  const POLL = 5000, MOST_POINTS = 8000;
  const COLOURS = 8, DASHES = [[], [6, 3], [2, 2], [8, 3, 2, 3]];
  const AXES = { steps: "steps", epochs: "epochs", images: "images", hours: "hours" };
  // Sections in their order: title, and the charts with the names that they take. What no chart takes goes to the end.
  const SECTIONS = [
    ["Loss", [{ title: "Loss", take: n => n === "loss", wide: true, scale: "auto", wideness: 8 },
      { title: "Part of the loss that options add", take: n => n === "regularizer", scale: "auto" },
      { title: "Norm of the gradient", take: n => n === "gradient_norm", scale: "auto" }]],
    ["Accuracy", [{ title: "Scores of evaluations", take: n => n.startsWith("scores/"), cut: "scores/", wide: true, dots: true }]],
    ["Features", [{ title: "Ranks of features", take: n => n.startsWith("signs/") && /rank/i.test(n), cut: "signs/", scale: "auto" },
      { title: "Standard deviations", take: n => n.startsWith("signs/") && /std|deviation|variance/i.test(n), cut: "signs/", scale: "auto" },
      { title: "Cosines", take: n => n.startsWith("signs/") && /cos/i.test(n), cut: "signs/" },
      { title: "Other signs", take: n => n.startsWith("signs/"), cut: "signs/", each: true, scale: "auto" }]],
    ["Rates", [{ title: "Learning rate", take: n => n === "lr" }, { title: "Weight decay", take: n => n === "weight_decay" },
      { title: "Momentum of the target encoder", take: n => n === "momentum" }]],
    ["Speed", [{ title: "Images per second", take: n => n === "images_per_s", floor: true },
      { title: "Waiting for data", unit: "% of the step", take: n => n === "waiting", floor: true },
      { title: "Time of a step", unit: "ms", take: n => n === "step_ms", floor: true },
      { title: "Memory", unit: "GiB", take: n => n === "memory", by: 2 ** 30, floor: true }]],
    ["Masks", [{ title: "Patches of an image", take: n => n === "context_len" || n === "target_len",
      names: { context_len: "context", target_len: "target" }, floor: true }]],
    ["Ranks of the run", [{ title: "Waiting for data", unit: "ms", take: n => n.startsWith("ranks/wait_ms/"), cut: "ranks/wait_ms/" },
      { title: "Ready for the last backward pass", unit: "ms", take: n => n.startsWith("ranks/ready_ms/"), cut: "ranks/ready_ms/" }]],
    ["Other", [{ title: "", take: n => !["wait_ms", "eta_s", "images"].includes(n), each: true, scale: "auto", mustVary: true }]],
  ];

  const state = { data: JSON.parse(document.getElementById("data").textContent), axis: "steps", plots: [], failed: 0, isStale: false };

  const make = (tag, props, ...children) => {
    const { style, ...rest } = props || {};
    const element = Object.assign(document.createElement(tag), rest);
    for (const [key, value] of Object.entries(style || {})) element.style.setProperty(key, value);
    element.append(...children.filter(child => child !== null && child !== undefined));
    return element;
  };
  const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const colour = number => css(`--c${number % COLOURS}`);
  const whole = value => Math.round(value).toLocaleString("en");
  const known = value => value !== null && value !== undefined;

  /** Returns a number in few digits. */
  const short = value => {
    if (!known(value)) return "–";
    const size = Math.abs(value);
    if (size === 0) return "0";
    if (size >= 1e3) return whole(value);
    if (size < 1e-4) return value.toExponential(2).replace(/\.?0*e/, "e").replace("e-", "e−");
    return String(Number(value.toPrecision(4)));
  };
  const long = seconds => {
    const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
    if (days) return `${days} d ${hours % 24} h`;
    if (hours) return `${hours} h ${minutes % 60} min`;
    return minutes ? `${minutes} min` : `${Math.floor(seconds)} s`;
  };
  const size = bytes => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (bytes >= 1024 && unit < 4) { bytes /= 1024; unit++; }
    return `${bytes.toFixed(unit ? 1 : 0)} ${units[unit]}`;
  };

  // --- the first lines: what matters -------------------------------------------------------------------------------

  /** Returns warnings of a run, with those that only a clock can tell. */
  const warnings = run => {
    const head = run.head, all = [...run.warnings];
    const silent = known(head.time_s) ? state.data.now - head.time_s : 0;
    const patience = Math.max(120, 20 * (head.step_ms || 0) / 1e3);
    const isOver = known(head.total_steps) && head.step >= head.total_steps;
    if (!isOver && silent > patience) all.push(`the last step ended ${long(silent)} ago: stopped, or stuck`);
    return all;
  };

  const drawHeads = () => {
    const runs = state.data.runs;
    document.getElementById("heads").replaceChildren(...runs.map((run, number) => {
      const head = run.head, words = [make("span", {}, make("b", {}, run.name))];
      const say = text => words.push(make("span", {}, text));
      if (known(head.step)) say(`step ${whole(head.step)}` + (known(head.total_steps) ? ` of ${whole(head.total_steps)}` : ""));
      if (known(head.loss)) say(`loss ${head.loss.toPrecision(4)}`);
      if (known(head.images_per_s)) say(`${short(head.images_per_s)} images/s`);
      if (known(head.waiting)) say(`waiting ${head.waiting.toFixed(1)} %`);
      if (head.eta_s > 0) say(`${long(head.eta_s)} to go`);
      else if (known(head.total_steps) && head.step >= head.total_steps) say("finished");
      if (runs.length > 1) words[0].prepend(make("i", { style: { background: colour(number) } }));
      const done = known(head.total_steps) ? Math.min(1, head.step / head.total_steps) : null;
      return make("div", { className: "run" }, ...words,
        done === null ? null : make("div", { className: "bar" },
          make("div", { style: { width: `${100 * done}%`, background: colour(runs.length > 1 ? number : 0) } })),
        ...warnings(run).map(text => make("p", { className: "warn" }, text)));
    }));
    document.getElementById("state").textContent = !LIVE ? "" : state.failed > 1 ? "· live, and not answering" : "· live";
  };

  // --- charts --------------------------------------------------------------------------------------------------------

  /** Returns where steps of a run lie on the chosen axis; null where the log does not tell. */
  const place = (run, steps) => {
    if (state.axis === "steps") return steps;
    const known = run.clock.steps, values = run.clock[state.axis];
    let at = 0;
    return steps.map(step => {
      while (at + 1 < known.length && known[at + 1] <= step) at++;
      const next = Math.min(at + 1, known.length - 1), gap = known[next] - known[at];
      if (values[at] === null || values[next] === null) return null;
      const part = gap > 0 ? Math.min(1, Math.max(0, (step - known[at]) / gap)) : 0;
      return values[at] + part * (values[next] - values[at]);
    });
  };

  /** Returns the curves of all runs that a chart takes, and marks them as taken. */
  const curvesOf = (chart, taken) => {
    const found = [];
    state.data.runs.forEach((run, number) => {
      const all = { ...run.curves, ...(run.facts ? run.facts.scores : {}) };
      for (const name of Object.keys(all).sort()) {
        if (chart.take(name) && !taken.has(name)) found.push({ run, number, name, curve: all[name] });
      }
    });
    found.forEach(one => chart.marked.add(one.name));
    return found;
  };

  const isFlat = found => {
    const values = found.flatMap(one => one.curve.values);
    return values.every(value => value === values[0]);
  };

  /** Tells whether values are better seen on a logarithmic scale. */
  const isWide = (values, wideness = 50) => {
    const sorted = values.filter(known).sort((a, b) => a - b);
    const at = share => sorted[Math.floor(share * (sorted.length - 1))];
    return sorted.length > 1 && sorted[0] > 0 && at(0.98) / at(0.02) > wideness;
  };

  const label = (chart, name) => (chart.names && chart.names[name]) || (chart.cut ? name.slice(chart.cut.length) : name);

  const draw = (parent, chart, found) => {
    const by = chart.by || 1, several = state.data.runs.length > 1;
    const names = [...new Set(found.map(one => one.name))];
    const tables = [], lines = [];
    const add = (run, points, line) => {
      const xs = place(run, points.steps), kept = [];
      xs.forEach((x, index) => { if (x !== null && (!kept.length || x > xs[kept[kept.length - 1]])) kept.push(index); });
      if (!kept.length) return;
      tables.push([kept.map(index => xs[index]), kept.map(index => points.values[index] / by)]);
      lines.push(line);
    };
    for (const one of found) {
      const number = names.indexOf(one.name), means = one.curve.means;
      const hue = colour(several ? one.number : number), dash = several ? DASHES[number % DASHES.length] : [];
      const text = [several ? one.run.name : "", names.length > 1 || !several ? label(chart, one.name) : ""].filter(Boolean).join(" ");
      if (means) add(one.run, one.curve, { hue, dash: [], faint: true, text });
      add(one.run, means || one.curve, { hue, dash, faint: false, text });
    }
    if (!tables.length) return;
    const isLog = chart.scale === "auto" && isWide(found.flatMap(one => one.curve.values), chart.wideness);
    const keys = make("div", { className: "keys" });
    const title = make("h3", {}, chart.title || label(chart, names[0]), " ",
      make("small", {}, [chart.unit, isLog ? "logarithmic" : ""].filter(Boolean).join(", ")));
    const box = make("div", { className: chart.wide ? "wide" : "" }, title, keys);
    parent.append(box);
    const width = () => Math.max(200, box.clientWidth), height = () => (chart.wide ? 300 : 210);
    const axis = { stroke: css("--faint"), grid: { stroke: css("--grid"), width: 1 }, ticks: { show: false }, font: "11px system-ui, sans-serif" };
    const marks = plot => {
      const { ctx, bbox } = plot;
      ctx.save();
      ctx.setLineDash([3, 4]);
      ctx.lineWidth = devicePixelRatio;
      state.data.runs.forEach((run, number) => {
        ctx.strokeStyle = several ? colour(number) : css("--faint");
        place(run, run.restarts).forEach(x => {
          if (x === null) return;
          const at = Math.round(plot.valToPos(x, "x", true));
          if (at < bbox.left || at > bbox.left + bbox.width) return;
          ctx.beginPath();
          ctx.moveTo(at, bbox.top);
          ctx.lineTo(at, bbox.top + bbox.height);
          ctx.stroke();
        });
      });
      ctx.restore();
    };
    const isLone = lines.filter(line => !line.faint).length === 1;
    const tell = plot => {
      const at = plot.cursor.idxs || [];
      keys.replaceChildren(...lines.flatMap((line, number) => {
        if (line.faint) return [];
        const index = at[number + 1], value = known(index) ? plot.data[number + 1][index] : null;
        if (isLone && !several && !known(value)) return [];
        const swatch = make("i", { style: { "border-color": line.hue, "border-top-style": line.dash.length ? "dashed" : "solid" } });
        const where = known(index) && isLone ? ` at ${ticked(plot.data[0][index])}` : "";
        return [make("span", {}, swatch, isLone && !several ? "" : line.text, known(value) ? make("b", {}, ` ${short(value)}`) : "", where)];
      }));
    };
    const plot = new uPlot({
      width: width(), height: height(),
      legend: { show: false },
      cursor: { drag: { x: true, y: false, uni: 20 }, points: { size: 6 }, sync: { key: state.axis, setSeries: false },
        dataIdx: (plot, series, index) => nearest(plot.data[series], index) },
      scales: { x: { time: false }, y: { distr: isLog ? 3 : 1, range: isLog ? undefined : (plot, low, high) => ranged(low, high, chart.floor) } },
      axes: [{ ...axis, size: 30, values: (plot, values) => values.map(ticked) },
        { ...axis, size: 58, grid: { ...axis.grid, filter: (plot, splits) => splits.map(value => (isLog && !isPower(value) ? null : value)) }, values: (plot, values) => values.map(value => (known(value) ? short(value) : "")) }],
      series: [{}, ...lines.map(line => ({
        stroke: line.faint ? line.hue + "48" : line.hue, width: line.faint ? 1 : 1.6, dash: line.dash, spanGaps: true,
        points: { show: Boolean(chart.dots), size: 5 } }))],
      hooks: { draw: [marks], setCursor: [tell] },
    }, tables.length > 1 ? uPlot.join(tables) : tables[0], box);
    tell(plot);
    state.plots.push({ plot, width, height });
  };

  /** Returns the index nearest to `index` at which there is a value. */
  const nearest = (values, index) => {
    for (let gap = 0; gap < values.length; gap++) {
      if (known(values[index - gap])) return index - gap;
      if (known(values[index + gap])) return index + gap;
    }
    return index;
  };

  const ranged = (low, high, floor) => {
    if (low === null) return [0, 1];
    if (floor) return [0, high > 0 ? high * 1.08 : 1];
    const room = (high - low || Math.abs(high) || 1) * 0.06;
    return [low - room, high + room];
  };

  const isPower = value => Math.abs(Math.log10(value) - Math.round(Math.log10(value))) < 1e-9;

  const ticked = value => {
    if (Math.abs(value) >= 1e9) return `${value / 1e9} G`;
    if (Math.abs(value) >= 1e6) return `${value / 1e6} M`;
    return value.toLocaleString("en", { maximumFractionDigits: 4 });
  };

  // --- tables --------------------------------------------------------------------------------------------------------

  const table = (heads, rows, numeric = []) => make("div", { className: "scroll" }, make("table", {},
    heads ? make("thead", {}, make("tr", {}, ...heads.map((text, column) =>
      make("th", { className: numeric.includes(column) ? "n" : "" }, text)))) : null,
    make("tbody", {}, ...rows.map(row => make("tr", {}, ...row.map((text, column) =>
      make(column === 0 ? "th" : "td", { className: numeric.includes(column) ? "n" : "" }, text)))))));

  /** Adds what the run directories hold beside the logs. */
  const drawFacts = main => {
    const runs = state.data.runs.filter(run => run.facts), several = runs.length > 1;
    const section = (title, ...children) => {
      if (children.some(Boolean)) main.append(make("h2", {}, title), ...children.filter(Boolean));
    };
    const of = run => (several ? ` of ${run.name}` : "");
    const pictures = runs.filter(run => run.facts.picture);
    section("Crops and masks", pictures.length ? make("div", { className: "tables" }, ...pictures.map(run =>
      make("figure", {}, make("img", { src: run.facts.picture, alt: `crops and masks${of(run)}` }),
        several ? make("figcaption", { className: "kind" }, run.name) : null))) : null);
    const keys = [...new Set(runs.flatMap(run => Object.keys(run.facts.config)))].sort();
    const value = (run, key) => (key in run.facts.config ? run.facts.config[key] : "–");
    const configured = runs.filter(run => Object.keys(run.facts.config).length);
    const differing = keys.filter(key => new Set(configured.map(run => value(run, key))).size > 1);
    const rows = chosen => chosen.map(key => [key, ...configured.map(run => value(run, key))]);
    const heads = several ? ["key", ...configured.map(run => run.name)] : null;
    section(several ? "Differences of configuration" : "Configuration",
      several && configured.length > 1 ? (differing.length ? table(heads, rows(differing)) : make("p", {}, "None.")) : null,
      keys.length ? make("details", {}, make("summary", {}, `All ${keys.length} keys`), table(heads, rows(keys))) : null);
    const lists = runs.filter(run => run.facts.checkpoints.length);
    section("Checkpoints", lists.length ? make("div", { className: "tables" }, ...lists.map(run => make("div", {},
      several ? make("h3", {}, run.name) : null,
      table(["name", "step", "epoch", "loss", "size"], run.facts.checkpoints.map(one =>
        [one.name, whole(one.step), whole(one.epoch), short(one.loss), size(one.bytes)]), [1, 2, 3, 4])))) : null);
    const history = runs.filter(run => run.restarts.length || run.facts.turns.length);
    section("Restarts and changes", history.length ? make("div", { className: "tables" }, ...history.map(run => make("div", {},
      several ? make("h3", {}, run.name) : null,
      run.restarts.length ? make("p", {}, `Begun again at step ${run.restarts.slice(0, 50).map(whole).join(", ")}` +
        (run.restarts.length > 50 ? ` and ${run.restarts.length - 50} more.` : ".")) : null,
      run.facts.turns.length ? table(["step", "changed there"], run.facts.turns.map(turn =>
        [whole(turn.step), turn.changes.join("; ") || `went on from ${turn.from}`])) : null))) : null);
    const told = runs.filter(run => Object.keys(run.facts.environment).length);
    const facts = [...new Set(told.flatMap(run => Object.keys(run.facts.environment)))];
    section("Environment", told.length ? table(several ? ["", ...told.map(run => run.name)] : null, facts.map(fact =>
      [fact, ...told.map(run => (fact in run.facts.environment ? String(run.facts.environment[fact]) : "–"))])) : null);
    const notes = runs.flatMap(run => run.facts.notes);
    section("Not read", notes.length ? table(null, notes.map(note => [note])) : null);
  };

  // --- all of it -----------------------------------------------------------------------------------------------------

  const drawAxis = () => {
    const can = axis => axis === "steps" || state.data.runs.every(run => run.clock[axis].some(known));
    document.getElementById("axis").replaceChildren("against", ...Object.keys(AXES).filter(can).map(axis => make("button", {
      type: "button", textContent: AXES[axis], ariaPressed: String(axis === state.axis),
      onclick: () => { state.axis = axis; drawAll(); },
    })));
  };

  const drawAll = () => {
    const main = document.getElementById("main"), taken = new Set(), at = scrollY;
    const open = [...main.querySelectorAll("details")].map(details => details.open);
    state.plots.forEach(({ plot }) => plot.destroy());
    state.plots = [];
    state.isStale = false;
    main.replaceChildren();
    drawHeads();
    drawAxis();
    for (const [title, charts] of SECTIONS) {
      const box = make("div", { className: "charts" }), heading = make("h2", {}, title);
      main.append(heading, box);
      for (const chart of charts) {
        chart.marked = new Set();
        const found = curvesOf(chart, taken);
        chart.marked.forEach(name => taken.add(name));
        const groups = chart.each ? [...chart.marked].map(name => found.filter(one => one.name === name)) : [found];
        for (const group of groups) {
          const isNothing = !group.length || (chart.mustVary && isFlat(group));
          if (!isNothing) draw(box, chart.each ? { ...chart, title: "" } : chart, group);
        }
      }
      if (!box.childElementCount) { heading.remove(); box.remove(); }
    }
    drawFacts(main);
    main.querySelectorAll("details").forEach((details, number) => { details.open = Boolean(open[number]); });
    const made = new Date(state.data.now * 1000).toISOString().slice(0, 16).replace("T", " ");
    document.getElementById("foot").textContent = `trainer ${state.data.program} · ${made} UTC · drag in a chart to look closer, double-click to see all`;
    scrollTo(0, at);
  };

  /** Adds what came since to what is there. Returns false where there is too much to go on with. */
  const merge = more => {
    if (more.runs.length !== state.data.runs.length) return false;
    return more.runs.every((fresh, number) => {
      const run = state.data.runs[number];
      if (fresh.is_whole) { state.data.runs[number] = fresh; return true; }
      for (const [name, curve] of Object.entries(fresh.curves)) {
        const old = run.curves[name] || (run.curves[name] = { steps: [], values: [] });
        if (old.steps.length + curve.steps.length > MOST_POINTS) return false;
        old.steps.push(...curve.steps);
        old.values.push(...curve.values);
        if (old.means) {
          const rest = curve.means || curve;
          old.means.steps.push(...rest.steps);
          old.means.values.push(...rest.values);
        }
      }
      for (const [name, column] of Object.entries(fresh.clock)) run.clock[name].push(...column);
      for (const name of ["next", "head", "restarts", "warnings"]) run[name] = fresh[name];
      return true;
    });
  };

  const poll = async () => {
    try {
      const from = state.data.runs.map(run => run.next.join("-")).join(",");
      const answer = await fetch(`data.json?from=${from}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(answer.status);
      const more = await answer.json();
      const isNew = more.runs.some((fresh, number) => fresh.is_whole || String(fresh.next) !== String(state.data.runs[number].next));
      if (merge(more)) { state.data.now = more.now; state.data.program = more.program; } else location.reload();
      state.failed = 0;
      // Whoever is looking closer at a chart goes on doing so; what came since is drawn after that.
      const isZoomed = state.plots.some(({ plot }) => plot.scales.x.min > plot.data[0][0] || plot.scales.x.max < plot.data[0].at(-1));
      state.isStale ||= isNew;
      if (state.isStale && !isZoomed && !document.querySelector(".u-over:hover")) drawAll(); else drawHeads();
    } catch {
      state.failed++;
      drawHeads();
    }
    setTimeout(poll, POLL);
  };

  drawAll();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  let resized = 0;
  new ResizeObserver(() => {
    cancelAnimationFrame(resized);
    resized = requestAnimationFrame(() => state.plots.forEach(({ plot, width, height }) => {
      if (plot.width !== width()) plot.setSize({ width: width(), height: height() });
    }));
  }).observe(document.getElementById("main"));
  if (LIVE) setTimeout(poll, POLL);
})();

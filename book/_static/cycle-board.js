/* The interactive figure "cycle-board": a learning-rate schedule, and the "optimal" rate that the
 * estimate of Smith & Topin (eq. 8) reports along it if every gradient is noise; beside it what the
 * same estimate reported while a network was trained, where that was recorded.
 *
 * data-config: {"n_steps", "runs": [{"label", "low", "high", "anneal", "momentum", "lag", "shape",
 * "steps", "estimate", "rate"}], "start"}. A run's last three keys are lists: the estimate after so
 * many updates and the rate then in use; `start` is the place in `runs` of the first one shown.
 * Without a run of the chosen settings the schedule has n_steps updates, with one as many as it has.
 */
(function () {
  "use strict";

  const M = typeof CycleMath !== "undefined" ? CycleMath : null;
  const { svg, html, show, line } = ReproWidget;
  const UPPER = { width: 340, height: 138, left: 50, right: 12, top: 8, bottom: 24 };
  const LOWER = { width: 340, height: 236, left: 50, right: 12, top: 8, bottom: 42 };
  const FEWEST = 50; // updates: two snapshots at the longest lag, and something to see between them
  const MOST = 2000;

  const CONTROLS = [
    { key: "low", min: 0.01, max: 1, step: 0.01, digits: 2 },
    { key: "high", min: 0.01, max: 4, step: 0.01, digits: 2 },
    { key: "anneal", min: 0, max: 0.5, step: 0.01, digits: 2 },
    { key: "momentum", min: 0, max: 0.99, step: 0.01, digits: 2 },
    { key: "lag", min: 1, max: 20, step: 1, digits: 0 },
  ];
  const LABELS = {
    low: "lowest learning rate",
    anneal: "share of the run for the final anneal",
    momentum: "momentum μ",
    lag: "lag k, updates between snapshots",
  };
  const HIGH = {
    "one cycle": "highest learning rate",
    constant: "learning rate",
    "piecewise constant": "learning rate at the start",
  };
  /** Does a setting matter to a shape? Only a cycle has a lowest rate and an anneal. */
  const matters = (key, shape) => shape === "one cycle" || (key !== "low" && key !== "anneal");
  const CYCLE = { shape: "one cycle", low: 0.1, high: 3, anneal: 0, momentum: 0.9, lag: 1 };
  const CONSTANT = { shape: "constant", low: 0.1, high: 0.1, anneal: 0, momentum: 0.9, lag: 1 };
  const PRESETS = [
    { label: "the paper’s cycle", settings: CYCLE, free: "anneal" },
    { label: "constant 0.1", settings: CONSTANT },
    { label: "constant 0.35", settings: { ...CONSTANT, low: 0.35, high: 0.35 } },
    { label: "no momentum", settings: { ...CONSTANT, momentum: 0 } },
  ];

  const numbers = (list) => Array.isArray(list) && list.length > 1 && list.every(Number.isFinite);
  const within = (run) => ({ key, max }) => Number.isFinite(run[key]) && run[key] >= 0 && run[key] <= max;
  const usableRun = (run) =>
    run &&
    typeof run.label === "string" &&
    M.SHAPES.includes(run.shape) &&
    CONTROLS.every(within(run)) &&
    run.low > 0 &&
    run.high >= run.low &&
    Number.isInteger(run.lag) &&
    run.lag > 0 &&
    [run.steps, run.estimate, run.rate].every((list) => numbers(list) && list.length === run.steps.length) &&
    run.steps.every((step, i) => Number.isInteger(step) && step > (i ? run.steps[i - 1] : -1)) &&
    run.steps[run.steps.length - 1] >= FEWEST &&
    run.steps[run.steps.length - 1] <= MOST &&
    run.rate.every((rate) => rate > 0);
  const usable = (c) =>
    Number.isInteger(c.n_steps) &&
    c.n_steps >= FEWEST &&
    c.n_steps <= MOST &&
    Array.isArray(c.runs) &&
    c.runs.length > 0 &&
    c.runs.every(usableRun) &&
    Number.isInteger(c.start) &&
    c.start >= 0 &&
    c.start < c.runs.length;

  /** Are these the same settings, as far as they matter, whatever they say about the key `free`? */
  const same = (a, b, free) =>
    a.shape === b.shape &&
    CONTROLS.every(({ key }) => key === free || !matters(key, a.shape) || Math.abs(a[key] - b[key]) < 1e-9);
  const settingsOf = ({ shape, low, high, anneal, momentum, lag }) => ({ shape, low, high, anneal, momentum, lag });

  /**
   * The named settings, each with the run that was recorded there, and the runs that have no name.
   * Of a run that was read at several lags one has a button; the slider leads to the others.
   */
  function choices(runs) {
    const named = PRESETS.map(({ label, settings, free }) => {
      const run = runs.find((one) => same(one, settings, free));
      return { label, settings: run ? settingsOf(run) : settings, run };
    });
    const others = runs.filter((run) => !named.some((choice) => choice.run && same(run, choice.settings, "lag")));
    return [...named, ...others.map((run) => ({ label: run.label, settings: settingsOf(run), run }))];
  }

  /** All that follows from the settings. */
  function consequences(settings, runs, otherwise) {
    const run = runs.find((one) => same(one, settings)) || null;
    const n = run ? run.steps[run.steps.length - 1] : otherwise;
    const rates = M.schedule(settings, n);
    const noise = M.noiseEstimate(rates, settings.momentum, settings.lag);
    return { run, n, rates, noise, ...M.echo(settings.momentum, settings.lag) };
  }

  const ratios = ({ estimate, rate }) => estimate.map((value, i) => value / rate[i]);
  /** Those of the last tenth of the run, at least the last one. */
  const lateRatios = (curve, n) => {
    const from = Math.min(0.9 * n, curve.steps[curve.steps.length - 1]);
    return ratios(curve).filter((_, i) => curve.steps[i] >= from);
  };

  /** What the estimator says to noise, and what it said to a network. */
  function describe({ shape, momentum, lag }, { run, n, noise, correlation, ratio }) {
    const often = lag === 1 ? "after every update" : `after every ${lag} updates`;
    const varies = shape === "constant" ? "" : " (at a constant rate; less while it rises, more while it falls)";
    const theory =
      `Fed with nothing but noise, the estimator reports ${show(ratio, 2)} times the rate in use${varies}: ` +
      `1/\u2060√(2(1\u00a0−\u00a0ρ)), where ρ\u00a0=\u00a0${show(correlation, 2)} is the correlation of successive steps at ` +
      `momentum ${show(momentum, 2)} and snapshots ${often}. It is an echo of the schedule: curves like the ` +
      "paper’s Fig.\u00a05 can be drawn without a loss function.";
    const late = (curve) => show(M.median(lateRatios(curve, n)), 2);
    const median = (curve) => show(M.median(ratios(curve)), 2);
    const measured = run
      ? `A network in training made it report ${median(run)} times the rate in the median of the run, ` +
        `where noise gives ${median(noise)}, and ${late(run)} times over the last tenth, ` +
        `where noise gives ${late(noise)}.`
      : "No training run was recorded with these settings; the buttons lead to those that were.";
    return `${theory} ${measured}`;
  }

  function legend(after, entries) {
    const list = html("p", { class: "repro-widget-legend" });
    const items = Object.keys(entries).map((key) => {
      const item = html("span", {}, list);
      html("i", { class: entries[key] }, item);
      item.append(key);
      return item;
    });
    after.after(list);
    return items;
  }

  function start(host) {
    const c = ReproWidget.config(host, "the static picture stays");
    if (!c || !usable(c)) {
      if (c) console.warn("cycle-board: data-config lacks something or has it in another shape; the static picture stays");
      return;
    }
    const state = { ...settingsOf(c.runs[c.start]), smooth: false };
    const { n, box } = ReproWidget.open("What does the learning-rate estimate see?");
    html("p", {
      class: "repro-widget-note",
      text:
        "Choose a schedule. Below it stands the “optimal learning rate” that the paper’s estimator would report along " +
        "it if there were no loss function at all and every gradient were noise.",
    }, box);
    const buttons = html("div", { class: "repro-board-buttons", role: "group", "aria-label": "Settings by name" }, box);
    const columns = html("div", { class: "repro-cycle" }, box);
    const pictures = html("div", {}, columns);
    const upper = ReproWidget.panel(pictures, UPPER, "The learning rate in use");
    const lower = ReproWidget.panel(pictures, LOWER, "");
    const shown = legend(lower.heading, { "rate in use": "rate", "estimate: noise": "noise", "estimate: network": "measured" });
    const desk = html("div", {}, columns);
    const status = ReproWidget.status(box);
    const schedule = ReproWidget.everyFrame(draw);
    const change = (edit) => {
      Object.assign(state, edit);
      fill();
      schedule();
    };

    const presets = choices(c.runs).map(({ label, settings }) => {
      const node = html("button", { type: "button", class: "quiet", text: label }, buttons);
      node.addEventListener("click", () => change(settings));
      return { node, settings };
    });

    const side = html("div", { class: "repro-board-side" }, desk);
    const shapes = html("fieldset", {}, side);
    html("legend", { text: "Shape of the schedule" }, shapes);
    const radios = M.SHAPES.map((shape) => {
      const label = html("label", {}, shapes);
      const radio = html("input", { type: "radio", name: `repro-shape-${n}` }, label);
      label.append(shape);
      radio.addEventListener("change", () => {
        // a constant rate gives no cycle to look at
        const low = state.low < state.high ? state.low : Math.max(0.01, Math.round(10 * state.high) / 100);
        change({ shape, low });
      });
      return radio;
    });
    const sliders = CONTROLS.map(({ key, min, max, step, digits }) => {
      const { row, range } = ReproWidget.slider(desk, `repro-${key}-${n}`, "", { min, max, step });
      const value = html("span", { class: "repro-widget-value", "aria-hidden": "true" }, row);
      range.addEventListener("input", () => {
        const edit = { [key]: Number(range.value) };
        // the lowest rate cannot be above the highest: whichever is moved takes the other along
        if (key === "low") edit.high = Math.max(state.high, edit.low);
        if (key === "high") edit.low = Math.min(state.low, edit.high);
        change(edit);
      });
      return { key, digits, range, value, label: row.querySelector("label") };
    });
    const below = html("div", { class: "repro-board-side" }, desk);
    const option = html("label", {}, below);
    const checkbox = html("input", { type: "checkbox", id: `repro-smooth-${n}` }, option);
    option.append("smoothed as in the paper: L ← 0.9 L + 0.1 ε*, from\u00a00.1");
    checkbox.addEventListener("change", () => change({ smooth: checkbox.checked }));
    html("p", { class: "repro-widget-note", text: "The multiples in the sentences are those without smoothing." }, below);

    function fill() {
      radios.forEach((radio, k) => (radio.checked = M.SHAPES[k] === state.shape));
      for (const { key, digits, range, value, label } of sliders) {
        range.value = state[key];
        range.disabled = !matters(key, state.shape);
        label.textContent = LABELS[key] || HIGH[state.shape];
        value.textContent = range.disabled ? "not used" : show(state[key], digits);
        range.setAttribute("aria-valuetext", value.textContent);
      }
      for (const { node, settings } of presets) node.setAttribute("aria-pressed", String(same(state, settings)));
      checkbox.checked = state.smooth;
    }

    /** Axes over the run and up to `top`, and a function that draws a list of values over its steps. */
    function plotIn({ picture }, size, labels, n, top) {
      picture.textContent = "";
      const plot = ReproWidget.axes(picture, size, { x0: 0, x1: n, y0: 0, y1: top }, labels, stepTicks(n));
      return (name, steps, values) =>
        svg("path", { class: name, d: line(values.map((v, i) => [plot.x(steps[i]), plot.y(v)])) }, plot.inside);
    }

    function draw() {
      const result = consequences(state, c.runs, c.n_steps);
      const { run, n: length, rates, noise, ratio } = result;
      const every = rates.map((_, t) => t + 1);
      const drawn = (curve) => (state.smooth ? M.smoothed(curve.estimate, curve.steps, state.lag) : curve.estimate);
      const [expected, measured] = [drawn(noise), run ? drawn(run) : []];
      const highest = Math.max(...rates);
      plotIn(upper, UPPER, { x: "", y: "rate" }, length, 1.08 * highest)("rate", every, rates);
      // a few bursts of a network must not flatten everything else
      const noisy = Math.max(...expected, highest);
      const top = Math.max(1.08 * noisy, Math.min(1.04 * Math.max(0, ...measured), 1.6 * noisy));
      const put = plotIn(lower, LOWER, { x: "updates", y: "estimate" }, length, top);
      put("rate", every, rates);
      if (run) put("measured", run.steps, measured);
      put("noise", noise.steps, expected);
      shown[2].classList.toggle("is-absent", !run);
      const times = `${show(ratio, 2)} × the rate`;
      lower.heading.textContent =
        state.shape === "constant"
          ? `Noise only: ${show(ratio * state.high, 2)} = ${times} ${show(state.high, 2)}`
          : `Noise only: about ${times} in use`;
      const words = describe(state, result);
      if (status.textContent !== words) status.textContent = words; // else it is read out again
      upper.picture.setAttribute("aria-label", `The learning rate over ${length} updates, ${state.shape}, between ${show(Math.min(...rates), 3)} and ${show(highest, 2)}.`);
      lower.picture.setAttribute("aria-label", `The rate in use and the estimate from noise${run ? ", and the one of a network in training" : ""}, over ${length} updates. ${words}`);
    }

    fill();
    draw();
    ReproWidget.goLive(host, box);
  }

  /** At most six round numbers of updates. */
  function stepTicks(n) {
    const step = [10, 20, 50, 100, 200, 500].find((s) => n / s <= 5);
    return Array.from({ length: Math.floor(n / step) + 1 }, (_, k) => ({ at: k * step, text: String(k * step) }));
  }

  if (M) ReproWidget.run("cycle-board", start);
  else console.warn("cycle-board: cycle-math.js is missing; the static picture stays");
})();

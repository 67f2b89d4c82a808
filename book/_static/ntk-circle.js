/* The interactive figure "ntk-circle": a network of chosen width learns points on a circle; its
 * function beside the law of infinitely wide networks, its tangent kernel beside the limit, and the
 * limit kernel's shape from depth to depth.
 *
 * data-config: {"angles": [γ], "points": [[γ, y]], "widths": [n], "times": [t], "f": [w][t][γ],
 * "kernel": [w][t][γ], "mean": [t][γ], "sd": [t][γ], "limit": [γ], "depths": [L], "shapes":
 * [depth][γ], "start": {"width", "time", "depth"}}; the start is given as places in the lists.
 * Nothing is computed but what the sentences say about the numbers.
 */
(function () {
  "use strict";

  const { svg, html, show, line } = ReproWidget;
  const SIZE = { width: 340, height: 250, left: 50, right: 12, top: 12, bottom: 42 };
  /** A normal law has 80 % of its mass within so many standard deviations. */
  const EIGHTY = 1.2816;
  const PACE = 300; // milliseconds from one time to the next

  const flat = (lists) => lists.flat(Infinity);
  const shaped = (value, [length, ...inner]) =>
    length === undefined
      ? Number.isFinite(value)
      : Array.isArray(value) && value.length === length && value.every((v) => shaped(v, inner));

  /** Are all lists there, and as long as one another? */
  function complete(c) {
    const lists = ["angles", "points", "widths", "times", "depths"];
    if (!c || !lists.every((key) => Array.isArray(c[key]) && c[key].length)) return false;
    const [angles, points, widths, times, depths] = lists.map((key) => c[key].length);
    const wanted = {
      angles: [angles],
      points: [points, 2],
      widths: [widths],
      times: [times],
      depths: [depths],
      f: [widths, times, angles],
      kernel: [widths, times, angles],
      mean: [times, angles],
      sd: [times, angles],
      limit: [angles],
      shapes: [depths, angles],
    };
    return Object.keys(wanted).every((key) => shaped(c[key], wanted[key]));
  }

  /** Multiples of π/2 between two angles. */
  function angleTicks(low, high) {
    const list = [];
    for (let k = Math.ceil(low / (Math.PI / 2) - 0.01); k <= high / (Math.PI / 2) + 0.01; k++) {
      const count = k % 2 ? k : k / 2;
      const text = `${count < 0 ? "−" : ""}${Math.abs(count) === 1 ? "" : Math.abs(count)}π${k % 2 ? "/2" : ""}`;
      list.push({ at: (k * Math.PI) / 2, text: k ? text : "0" });
    }
    return list;
  }

  const percent = (share) => `${show(100 * share, 0)}\u00a0%`;
  const time = (t) => String(Number(t.toPrecision(3)));
  const sum = (values) => values.reduce((a, b) => a + b, 0);

  /** What the numbers of one width and time say. The last angle may be the first one again. */
  function describe(c, w, t) {
    const once = c.angles.map((_, i) => i).filter((i) => c.angles[i] - c.angles[0] < 2 * Math.PI - 0.01);
    const on = (values) => once.map((i) => values[i]);
    const kernel = on(c.kernel[w][t]);
    const above = sum(kernel) / sum(on(c.limit)) - 1;
    const side = `${percent(Math.abs(above))} ${above > 0 ? "above" : "below"} its limit`;
    const level = Math.abs(above) < 0.005 ? "within half a percent of its limit" : side;
    const start = on(c.kernel[w][0]);
    const way = Math.sqrt(sum(kernel.map((v, i) => (v - start[i]) ** 2)) / sum(start.map((v) => v * v)));
    const moved = way < 0.005 ? "by less than half a percent" : `by ${percent(way)}`;
    const within = once.filter((i) => Math.abs(c.f[w][t][i] - c.mean[t][i]) <= EIGHTY * c.sd[t][i]);
    return (
      `Width ${c.widths[w]} at t = ${time(c.times[t])}: the kernel is on average ${level}` +
      `${t ? ` and has moved ${moved} since t = ${time(c.times[0])}` : ""}; the function is inside ` +
      `the limit’s 80\u00a0% band at ${percent(within.length / once.length)} of the angles.`
    );
  }

  function describeDepth(c, d) {
    const least = Math.min(...c.shapes[d]);
    return `Depth ${c.depths[d]}: the smallest value on the circle is ${percent(least)} of the value at γ = 0.`;
  }

  /** A panel with axes over all angles and over every value that will ever be drawn in it. */
  function plotIn(parent, c, title, keys, label, values) {
    const { heading, picture } = ReproWidget.panel(parent, SIZE, title);
    const legend = html("p", { class: "repro-widget-legend" });
    for (const key in keys) {
      const item = html("span", {}, legend);
      html("i", { class: keys[key] }, item);
      item.append(key);
    }
    heading.after(legend);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const room = 0.05 * (high - low || 1);
    const frame = { x0: c.angles[0], x1: c.angles[c.angles.length - 1], y0: low < 0 ? low - room : 0, y1: high + room };
    const labels = { x: "angle γ on the circle", y: label };
    const plot = ReproWidget.axes(picture, SIZE, frame, labels, angleTicks(frame.x0, frame.x1));
    const on = (values) => values.map((v, i) => [plot.x(c.angles[i]), plot.y(v)]);
    const path = (name, values) => svg("path", { class: name, d: values ? line(on(values)) : "" }, plot.inside);
    return { picture, plot, on, path };
  }

  function start(host) {
    const c = ReproWidget.config(host, "the static picture stays");
    if (!complete(c)) {
      if (c) console.warn("ntk-circle: data-config lacks a list, or its lists do not fit; the static picture stays");
      return;
    }
    const given = (list, place) => Math.min(list.length - 1, Math.max(0, Math.round(Number(place)) || 0));
    const first = c.start || {};
    const state = {
      time: given(c.times, first.time),
      width: given(c.widths, first.width),
      depth: given(c.depths, first.depth),
    };
    const { n, box } = ReproWidget.open("A network learns four points on a circle");
    const panels = html("div", { class: "repro-widget-rows" }, box);

    const edge = (t, side) => c.mean[t].map((m, i) => m + side * EIGHTY * c.sd[t][i]);
    const edges = c.times.map((_, t) => [edge(t, -1), edge(t, 1)]);
    const learned = plotIn(
      panels,
      c,
      "What the network computes",
      {
        "network of width n": "curve",
        "infinite width: mean, 80\u00a0% band": "mean",
        "data": "datum",
      },
      "f(x(γ)) at time t",
      flat([c.f, edges, c.points.map(([, y]) => y)]),
    );
    const band = learned.path("band");
    const mean = learned.path("mean");
    const f = learned.path("curve");
    for (const [angle, y] of c.points) {
      svg("circle", { class: "datum", cx: learned.plot.x(angle), cy: learned.plot.y(y), r: 4.5 }, learned.plot.front);
    }

    const desk = html("div", { class: "repro-widget-desk" }, panels);
    const button = html("button", { type: "button" }, desk);
    const inputs = {};
    const choice = (parent, key, label, list, words) => {
      const limits = { min: 0, max: list.length - 1, step: 1 };
      const { row, range } = ReproWidget.slider(parent, `repro-${key}-${n}`, label, limits);
      const value = html("span", { class: "repro-widget-value", "aria-hidden": "true" }, row);
      const fill = () => {
        range.value = state[key];
        value.textContent = words(list[state[key]]);
        range.setAttribute("aria-valuetext", value.textContent);
      };
      inputs[key] = { range, fill };
      range.addEventListener("input", () => set(key, Number(range.value)));
    };
    choice(desk, "time", "time t of training, on a logarithmic scale", c.times, (t) => `t = ${time(t)}`);
    choice(desk, "width", "width n of the hidden layers", c.widths, (w) => `n = ${w}`);
    const status = ReproWidget.status(desk);

    const tangent = plotIn(
      panels,
      c,
      "Its tangent kernel",
      { "network of width n": "curve", "infinite width": "limit" },
      "Θ(x(0), x(γ))",
      flat([c.kernel, c.limit]),
    );
    tangent.path("limit", c.limit);
    const kernel = tangent.path("curve");

    const shape = plotIn(
      panels,
      c,
      "The limit kernel, depth by depth",
      { "depth L": "curve", "other depths": "others" },
      "kernel / its value at γ = 0",
      flat(c.shapes),
    );
    c.shapes.forEach((values) => shape.path("others", values));
    const chosen = shape.path("curve");
    const side = html("div", {}, panels);
    choice(side, "depth", "depth L, in layers of weights", c.depths, (d) => `L = ${d}`);
    const depthStatus = html("p", { class: "repro-widget-note", role: "status", "aria-live": "polite" }, side);

    const calm = matchMedia("(prefers-reduced-motion: reduce)");
    const last = c.times.length - 1;
    let playing = null;

    function draw() {
      const { time: t, width: w, depth: d } = state;
      const [low, high] = edges[t].map(learned.on);
      band.setAttribute("d", `${line([...low, ...high.reverse()])}Z`);
      mean.setAttribute("d", line(learned.on(c.mean[t])));
      f.setAttribute("d", line(learned.on(c.f[w][t])));
      kernel.setAttribute("d", line(tangent.on(c.kernel[w][t])));
      chosen.setAttribute("d", line(shape.on(c.shapes[d])));
      const words = describe(c, w, t);
      status.textContent = words;
      depthStatus.textContent = describeDepth(c, d);
      learned.picture.setAttribute("aria-label", `The network’s function of the angle, the band of infinitely wide networks, and ${c.points.length} data points. ${words}`);
      tangent.picture.setAttribute("aria-label", `The network’s tangent kernel between the point at angle 0 and all others, and its limit. ${words}`);
      shape.picture.setAttribute("aria-label", `The limit kernel divided by its value at angle 0, for depths ${c.depths[0]} to ${c.depths[c.depths.length - 1]}. ${depthStatus.textContent}`);
    }

    const schedule = ReproWidget.everyFrame(draw);

    function set(key, place) {
      if (key === "time") stop();
      state[key] = place;
      inputs[key].fill();
      schedule();
    }

    // Whoever asked for little motion moves time by hand: one press, one step.
    function name() {
      button.textContent = playing ? "Pause" : calm.matches ? "One step of time" : "Play";
    }

    function stop() {
      clearInterval(playing);
      playing = null;
      status.setAttribute("aria-live", "polite");
      name();
    }

    function step() {
      state.time = state.time < last ? state.time + 1 : 0;
      inputs.time.fill();
      schedule();
    }

    button.addEventListener("click", () => {
      if (playing) {
        stop();
        return;
      }
      step();
      if (calm.matches || state.time === last) return;
      status.setAttribute("aria-live", "off"); // a sentence three times a second is not to be read out
      playing = setInterval(() => {
        step();
        if (state.time === last) stop();
      }, PACE);
      name();
    });
    calm.addEventListener("change", stop);

    name();
    for (const key in inputs) inputs[key].fill();
    draw();
    ReproWidget.goLive(host, box);
  }

  ReproWidget.run("ntk-circle", start);
})();

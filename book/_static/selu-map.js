/* The interactive figure "selu-map": sliders for alpha, lambda, omega, tau and the starting point;
 * a cobweb of the variance and a field of arrows in the (mean, variance) plane.
 *
 * It replaces the static picture inside <div class="repro-interactive" data-widget="selu-map"
 * data-config='{"alpha": …, "lambda": …, "omega": …, "tau": …, "mu": …, "nu": …}'>; every key may
 * be left out. Colors come from the style sheet, so the theme switch needs no redrawing.
 */
(function () {
  "use strict";

  const M = typeof SeluMath !== "undefined" ? SeluMath : null;
  const { svg, html, show, axes, line } = ReproWidget;
  const LAYERS = 40;
  const SIZE = { width: 340, height: 300, left: 44, right: 10, top: 12, bottom: 42 };

  const CONTROLS = [
    { key: "alpha", label: "α, depth of the negative side", min: 0, max: 4, step: 0.001 },
    { key: "lambda", label: "λ, scale", min: 0.5, max: 1.8, step: 0.001 },
    { key: "omega", label: "ω, sum of a unit’s weights", min: -1.5, max: 1.5, step: 0.01 },
    { key: "tau", label: "τ, sum of squared weights", min: 0.3, max: 3, step: 0.01 },
    { key: "mu", label: "mean at the start, μ₀", min: -1, max: 1, step: 0.01 },
    { key: "nu", label: "variance at the start, ν₀", min: 0.02, max: 3, step: 0.01 },
  ];

  const at = (p) => `(${show(p.mu, 2)}, ${show(p.nu, 2)})`;
  const power = (value) => {
    const [digits, exponent] = value.toExponential(1).split("e");
    const raised = String(Number(exponent)).replace(/./g, (c) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(c)]);
    return `${digits}·10${raised}`;
  };

  function trajectory(s) {
    const path = [{ mu: s.mu, nu: s.nu }];
    for (let i = 0; i < LAYERS; i++) {
      const last = path[path.length - 1];
      const next = M.momentMap(last.mu, last.nu, s.omega, s.tau, s.alpha, s.lambda);
      if (!(next.nu > 1e-12 && next.nu < 1e6 && Math.abs(next.mu) < 1e4)) break;
      path.push(next);
    }
    return path;
  }

  function mark(plot, frame, xv, yv, point) {
    if (xv < frame.x0 || xv > frame.x1 || yv < frame.y0 || yv > frame.y1) return;
    svg("circle", { class: point.attracting ? "fixed" : "fixed repelling", cx: plot.x(xv), cy: plot.y(yv), r: 5.5 }, plot.front);
  }

  function drawCobweb(root, s, fixed, path) {
    root.textContent = "";
    const top = Math.max(2.5, ...fixed.map((p) => 1.25 * p.nu).filter((v) => v < 20), Math.min(s.nu * 1.1, 6));
    const frame = { x0: 0, x1: top, y0: 0, y1: top };
    const plot = axes(root, SIZE, frame, { x: "variance ν of a layer", y: "variance of the next layer" });
    const resting = fixed.find((p) => p.attracting) || fixed[0];
    const held = resting ? resting.mu : path[path.length - 1].mu;
    svg("line", { class: "diagonal", x1: plot.x(0), y1: plot.y(0), x2: plot.x(top), y2: plot.y(top) }, plot.inside);
    const curve = [];
    for (let i = 0; i <= 120; i++) {
      const nu = Math.max(1e-6, (top * i) / 120);
      curve.push([plot.x(nu), plot.y(M.momentMap(held, nu, s.omega, s.tau, s.alpha, s.lambda).nu)]);
    }
    svg("path", { class: "curve", d: line(curve) }, plot.inside);
    let web = `M${plot.x(path[0].nu)} ${plot.y(0)}`;
    for (let i = 0; i + 1 < path.length; i++) {
      web += `V${plot.y(path[i + 1].nu).toFixed(2)}H${plot.x(path[i + 1].nu).toFixed(2)}`;
    }
    svg("path", { class: "web", d: web }, plot.inside);
    svg("circle", { class: "start", cx: plot.x(path[0].nu), cy: plot.y(0), r: 4 }, plot.front);
    fixed.forEach((p) => mark(plot, frame, p.nu, p.nu, p));
  }

  function drawField(root, s, fixed, path) {
    root.textContent = "";
    const high = Math.max(2.5, ...fixed.map((p) => 1.25 * p.nu).filter((v) => v < 20), Math.min(s.nu * 1.1, 6));
    const wide = Math.max(1, ...fixed.map((p) => 1.4 * Math.abs(p.mu)).filter((v) => v < 6));
    const frame = { x0: -wide, x1: wide, y0: 0, y1: high };
    const plot = axes(root, SIZE, frame, { x: "mean μ", y: "variance ν" });
    const across = 11;
    const up = 9;
    const cell = (plot.x(frame.x1) - plot.x(frame.x0)) / across;
    for (let i = 0; i < across; i++) {
      for (let k = 0; k < up; k++) {
        const mu = frame.x0 + ((i + 0.5) / across) * (frame.x1 - frame.x0);
        const nu = ((k + 0.5) / up) * high;
        const next = M.momentMap(mu, nu, s.omega, s.tau, s.alpha, s.lambda);
        let dx = plot.x(next.mu) - plot.x(mu);
        let dy = plot.y(next.nu) - plot.y(nu);
        const length = Math.hypot(dx, dy);
        if (!(length > 1.5)) continue;
        // long steps are shortened smoothly: the direction is what counts
        const drawn = (0.92 * cell * length) / (length + 0.5 * cell);
        dx *= drawn / length;
        dy *= drawn / length;
        const x = plot.x(mu) - dx / 2;
        const y = plot.y(nu) - dy / 2;
        svg("line", { class: "arrow", x1: x, y1: y, x2: x + dx, y2: y + dy }, plot.inside);
        const ux = dx / drawn;
        const uy = dy / drawn;
        const tip = Math.min(5, drawn * 0.5);
        const corner = (side) => `${x + dx - tip * ux - side * 0.45 * tip * uy} ${y + dy - tip * uy + side * 0.45 * tip * ux}`;
        svg("path", { class: "arrow-head", d: `M${x + dx} ${y + dy}L${corner(1)}L${corner(-1)}Z` }, plot.inside);
      }
    }
    svg("path", { class: "web", d: line(path.map((p) => [plot.x(p.mu), plot.y(p.nu)])) }, plot.inside);
    path.slice(1).forEach((p) => svg("circle", { class: "start", cx: plot.x(p.mu), cy: plot.y(p.nu), r: 1.8 }, plot.inside));
    svg("circle", { class: "start", cx: plot.x(path[0].mu), cy: plot.y(path[0].nu), r: 4.5 }, plot.inside);
    fixed.forEach((p) => mark(plot, frame, p.mu, p.nu, p));
    return { plot, frame };
  }

  function describe(s, fixed, path) {
    const point = fixed.find((p) => p.attracting) || fixed[0];
    const end = path[path.length - 1];
    const layers = path.length - 1;
    const held = s.omega === 0 ? "" : " In the cobweb the curve holds the mean at its value at the fixed point; the staircase follows both.";
    if (!point) {
      const fate = end.nu > s.nu ? "grows from layer to layer without bound" : "shrinks towards zero from layer to layer";
      return { state: "none", text: `No fixed point with a positive variance: started at ν₀ = ${show(s.nu, 2)}, the variance ${fate}.` };
    }
    const where = `(μ*, ν*) = (${show(point.mu, 4)}, ${show(point.nu, 4)})`;
    if (!point.attracting) {
      return {
        state: "repelling",
        text: `The fixed point ${where} repels: the spectral radius of the Jacobian is ${show(point.radius, 4)}, so a small deviation grows by that factor at every layer. After ${layers} layers the start (${show(s.mu, 2)}, ${show(s.nu, 2)}) is at ${at(end)}.${held}`,
      };
    }
    const error = Math.hypot(end.mu - point.mu, end.nu - point.nu);
    const arrived = error < 1e-3
      ? `The start (${show(s.mu, 2)}, ${show(s.nu, 2)}) reaches it: after ${layers} layers the distance is ${error < 1e-9 ? "below 10⁻⁹" : power(error)}.`
      : `The start (${show(s.mu, 2)}, ${show(s.nu, 2)}) is at ${at(end)} after ${layers} layers.`;
    const rest = fixed.filter((p) => p !== point);
    const others = rest.map((p) => ` Another fixed point, ${at(p)}, ${p.attracting ? "attracts" : "repels"}.`).join("");
    return {
      state: "attracting",
      text: `The fixed point ${where} attracts: the spectral radius of the Jacobian is ${show(point.radius, 4)}, so a small deviation shrinks by that factor at every layer. ${arrived}${others}${held}`,
    };
  }

  function start(host) {
    const given = ReproWidget.config(host, "the paper's parameters are used") || {};
    const first = { alpha: M.ALPHA, lambda: M.LAMBDA, omega: 0, tau: 1, mu: 0.6, nu: 2.2 };
    for (const control of CONTROLS) {
      const value = Number(given[control.key] ?? (control.key === "lambda" ? given.scale : undefined));
      if (Number.isFinite(value)) first[control.key] = Math.min(control.max, Math.max(control.min, value));
    }
    const state = { ...first };
    const { n, box } = ReproWidget.open("Where do mean and variance go, layer after layer?");
    const panels = html("div", { class: "repro-widget-panels" }, box);
    const cobweb = ReproWidget.panel(panels, SIZE, "The variance, as a cobweb").picture;
    const field = ReproWidget.panel(panels, SIZE, "Mean and variance, one arrow a layer").picture;
    field.classList.add("repro-click");
    const status = ReproWidget.status(box);

    const controls = html("div", { class: "repro-widget-controls" }, box);
    const inputs = {};
    for (const control of CONTROLS) {
      const limits = { min: control.min, max: control.max, step: control.step };
      const { row, range } = ReproWidget.slider(controls, `repro-${control.key}-${n}`, control.label, limits);
      const number = html("input", { type: "number", "aria-label": `${control.label}, as a number`, ...limits }, row);
      inputs[control.key] = { range, number };
      range.addEventListener("input", () => set(control, Number(range.value), range));
      number.addEventListener("input", () => {
        if (number.value !== "" && Number.isFinite(Number(number.value))) set(control, Number(number.value), number);
      });
      number.addEventListener("change", () => fill());
    }

    const solve = html("div", { class: "repro-widget-solve" }, box);
    const target = (label, value, limits) => {
      const wrapper = html("label", { text: label }, solve);
      return html("input", { type: "number", value, step: 0.05, ...limits }, wrapper);
    };
    const targetMu = target("target mean μ*", "0", { min: -2, max: 2 });
    const targetNu = target("target variance ν*", "2", { min: 0.05, max: 10 });
    const button = html("button", { type: "button", text: "Make (μ*, ν*) attracting" }, solve);
    const reset = html("button", { type: "button", class: "quiet", text: "Back to the paper" }, solve);
    const answer = html("p", { role: "status", "aria-live": "polite" }, solve);

    let drawn = null;
    const schedule = ReproWidget.everyFrame(draw);

    function fill(except) {
      for (const control of CONTROLS) {
        const { range, number } = inputs[control.key];
        const value = state[control.key];
        if (range !== except) range.value = value;
        if (number !== except) number.value = Number(value.toFixed(control.step < 0.01 ? 4 : 2));
        range.setAttribute("aria-valuetext", show(value, control.step < 0.01 ? 3 : 2));
      }
    }

    function set(control, value, source) {
      state[control.key] = Math.min(control.max, Math.max(control.min, value));
      answer.textContent = "";
      fill(source);
      schedule();
    }

    function draw() {
      const fixed = M.fixedPoints(state.omega, state.tau, state.alpha, state.lambda);
      const path = trajectory(state);
      drawCobweb(cobweb, state, fixed, path);
      drawn = drawField(field, state, fixed, path);
      const words = describe(state, fixed, path);
      status.dataset.state = words.state;
      status.textContent = words.text;
      cobweb.setAttribute("aria-label", `Cobweb diagram of the variance from layer to layer. ${words.text}`);
      field.setAttribute("aria-label", `Arrows show how one layer moves mean and variance; a line follows the start through ${path.length - 1} layers. ${words.text}`);
      host.dataset.state = words.state;
    }

    field.addEventListener("click", (event) => {
      const frame = field.getBoundingClientRect();
      const px = ((event.clientX - frame.left) / frame.width) * SIZE.width;
      const py = ((event.clientY - frame.top) / frame.height) * SIZE.height;
      const { plot, frame: f } = drawn;
      const mu = f.x0 + ((px - plot.x(f.x0)) / (plot.x(f.x1) - plot.x(f.x0))) * (f.x1 - f.x0);
      const nu = f.y0 + ((py - plot.y(f.y0)) / (plot.y(f.y1) - plot.y(f.y0))) * (f.y1 - f.y0);
      if (mu < f.x0 || mu > f.x1 || nu < f.y0 || nu > f.y1) return;
      state.mu = Math.min(1, Math.max(-1, mu));
      state.nu = Math.min(3, Math.max(0.02, nu));
      fill();
      schedule();
    });

    button.addEventListener("click", () => {
      const mu = Number(targetMu.value);
      const nu = Number(targetNu.value);
      if (!Number.isFinite(mu) || targetMu.value === "" || !(nu > 0)) {
        answer.textContent = "The target needs a mean and a variance above zero.";
        return;
      }
      const solution = M.parametersFor(mu, nu, state.omega, state.tau);
      const aim = `(${show(mu, 2)}, ${show(nu, 2)})`;
      if (!solution) {
        answer.textContent = `No positive α and λ make ${aim} a fixed point at ω = ${show(state.omega, 2)}, τ = ${show(state.tau, 2)}.`;
        return;
      }
      const values = `α = ${show(solution.alpha, 5)}, λ = ${show(solution.lambda, 5)}`;
      state.alpha = solution.alpha;
      state.lambda = solution.lambda;
      fill();
      schedule();
      answer.textContent = solution.radius < 1
        ? `${values} make ${aim} attracting, with spectral radius ${show(solution.radius, 4)}.`
        : `${values} make ${aim} a fixed point, but a repelling one (spectral radius ${show(solution.radius, 4)}); no other choice makes it attract.`;
    });

    reset.addEventListener("click", () => {
      Object.assign(state, first);
      answer.textContent = "";
      fill();
      schedule();
    });

    fill();
    draw();
    ReproWidget.goLive(host, box);
  }

  if (M) ReproWidget.run("selu-map", start);
  else console.warn("selu-map: selu-math.js is missing; the static picture stays");
})();

/* What the interactive figures share: nodes, numbers, axes, sliders, and the way a figure takes the
 * place of the static picture inside <div class="repro-interactive" data-widget="NAME"
 * data-config="JSON">. Colors come from the style sheet, so the theme switch needs no redrawing.
 */
const ReproWidget = (function () {
  "use strict";

  const SVG = "http://www.w3.org/2000/svg";
  const STEPS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.25, 0.5, 1, 2, 5];

  let count = 0;

  function svg(name, attributes, parent) {
    const node = document.createElementNS(SVG, name);
    for (const key in attributes) node.setAttribute(key, attributes[key]);
    if (parent) parent.appendChild(node);
    return node;
  }

  function html(name, properties, parent) {
    const node = document.createElement(name);
    for (const key in properties) {
      if (key === "text") node.textContent = properties[key];
      else node.setAttribute(key, properties[key]);
    }
    if (parent) parent.appendChild(node);
    return node;
  }

  const minus = (text) => text.replace(/-/g, "−");
  const show = (value, digits) => {
    const text = value.toFixed(digits === undefined ? 3 : digits);
    return minus(/^-0\.?0*$/.test(text) ? text.slice(1) : text);
  };

  /** Round values between two ends, at most seven of them, as {at, text}. */
  function ticks(low, high) {
    const step = STEPS.find((s) => (high - low) / s <= 6.01) || 10;
    const list = [];
    for (let k = Math.ceil(low / step - 1e-9); k * step <= high + 1e-9; k++) {
      list.push({ at: k * step, text: minus(String(Number((k * step).toFixed(6)))) });
    }
    return list;
  }

  /** Axes over [x0, x1] × [y0, y1], with given ticks of x or round ones; returns the two scales and
   * two groups to draw in: one cut at the axes, one in front of all. */
  function axes(parent, size, frame, labels, xTicks) {
    const { width, height, left, right, top, bottom } = size;
    const x = (v) => left + ((v - frame.x0) / (frame.x1 - frame.x0)) * (width - left - right);
    const y = (v) => height - bottom - ((v - frame.y0) / (frame.y1 - frame.y0)) * (height - top - bottom);
    const text = (content, attributes) => {
      svg("text", { "text-anchor": "middle", ...attributes }, parent).textContent = content;
    };
    for (const tick of xTicks || ticks(frame.x0, frame.x1)) {
      svg("line", { class: "grid", x1: x(tick.at), x2: x(tick.at), y1: y(frame.y0), y2: y(frame.y1) }, parent);
      text(tick.text, { x: x(tick.at), y: height - bottom + 16 });
    }
    for (const tick of ticks(frame.y0, frame.y1)) {
      svg("line", { class: "grid", x1: x(frame.x0), x2: x(frame.x1), y1: y(tick.at), y2: y(tick.at) }, parent);
      text(tick.text, { x: left - 7, y: y(tick.at) + 4, "text-anchor": "end" });
    }
    svg("path", { class: "axis", d: `M${left} ${top}V${height - bottom}H${width - right}` }, parent);
    text(labels.x, { class: "axis-title", x: (left + width - right) / 2, y: height - 6 });
    const turned = `translate(11 ${(top + height - bottom) / 2}) rotate(-90)`;
    text(labels.y, { class: "axis-title", x: 0, y: 0, transform: turned });
    const id = `repro-clip-${++count}`;
    const clip = svg("clipPath", { id }, parent);
    svg("rect", { x: left, y: top, width: width - left - right, height: height - top - bottom }, clip);
    return { x, y, inside: svg("g", { "clip-path": `url(#${id})` }, parent), front: svg("g", {}, parent) };
  }

  /** The path through [x, y] pairs on the screen. */
  const line = (pairs) => pairs.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(2)} ${y.toFixed(2)}`).join("");

  /** An empty figure: its box and the number that makes its ids its own. */
  function open(title) {
    const n = ++count;
    const box = html("div", { class: "repro-widget", role: "group", "aria-labelledby": `repro-title-${n}` });
    html("p", { class: "repro-widget-title", id: `repro-title-${n}`, text: title }, box);
    return { n, box };
  }

  /** A titled picture; whoever draws it gives it an aria-label. */
  function panel(parent, size, title) {
    const part = html("div", { class: "repro-widget-panel" }, parent);
    const heading = html("p", { class: "repro-widget-title", text: title }, part);
    const picture = svg("svg", { viewBox: `0 0 ${size.width} ${size.height}`, role: "img" }, part);
    return { heading, picture };
  }

  function status(parent) {
    return html("p", { class: "repro-widget-status", role: "status", "aria-live": "polite" }, parent);
  }

  /** A labeled slider and the row it stands in. */
  function slider(parent, id, label, limits) {
    const row = html("div", { class: "repro-widget-row" }, parent);
    html("label", { for: id, text: label }, row);
    return { row, range: html("input", { type: "range", id, ...limits }, row) };
  }

  /** Returns a function that asks for `draw` at the next frame, once however often it is called. */
  function everyFrame(draw) {
    let pending = false;
    return () => {
      if (pending) return;
      pending = true;
      requestAnimationFrame(() => {
        pending = false;
        draw();
      });
    };
  }

  /** What the page gives the script, or null where it is not JSON. */
  function config(host, otherwise) {
    try {
      return JSON.parse(host.dataset.config || "{}");
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      console.warn(`${host.dataset.widget}: data-config is not JSON; ${otherwise}`, error);
      return null;
    }
  }

  /** Put `box` in the place of the picture. */
  function goLive(host, box) {
    const figure = host.querySelector("figure");
    if (figure) figure.insertBefore(box, figure.firstChild);
    else host.appendChild(box);
    host.classList.add("is-live");
  }

  /** Call `start` with every place of the page that waits for the script `name`. */
  function run(name, start) {
    const all = () => {
      document.querySelectorAll(`.repro-interactive[data-widget="${name}"]:not(.is-live)`).forEach(start);
    };
    if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", all);
    else all();
  }

  return { svg, html, minus, show, axes, line, open, panel, status, slider, everyFrame, config, goLive, run };
})();

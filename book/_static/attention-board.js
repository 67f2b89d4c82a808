/* The interactive figure "attention-board": two sequences of tokens in the plane, to be dragged; the
 * max-margin matrix of chosen tokens with its separating lines and support tokens, and the path of
 * gradient descent, both computed anew at every move.
 *
 * data-config: {"tokens": two lists of [x, y], "queries": two [x, y], "head": [x, y], "steps",
 * "learning_rate"}. Colors come from the style sheet, so the theme switch needs no redrawing.
 */
(function () {
  "use strict";

  const M = typeof AttentionMath !== "undefined" ? AttentionMath : null;
  const Words = M && typeof AttentionWords !== "undefined" ? AttentionWords : null;
  const { svg, html, show, line } = ReproWidget;
  const SIZE = { width: 340, height: 340, left: 44, right: 10, top: 10, bottom: 44 };
  const COLORS = ["one", "two"];
  const COORDINATES = { x: "first coordinate", y: "second coordinate" };
  const SHORTEST = 0.2; // a query or a head of length zero says nothing
  const REACH = 0.94; // directions and paths end at this share of the board
  const TAP = 4; // a pointer that moves less, in pixels, asks for the token instead of dragging it
  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowDown: [0, -1], ArrowUp: [0, 1] };

  const isPoint = (p) => Array.isArray(p) && p.length === 2 && p.every(Number.isFinite);
  const isVector = (p) => isPoint(p) && M.norm(p) > 0;
  const isSequence = (list) =>
    Array.isArray(list) && list.length > 1 && list.length <= Words.LETTERS[0].length && list.every(isPoint);
  const two = (list, test) => Array.isArray(list) && list.length === 2 && list.every(test);
  const usable = (c) =>
    two(c.tokens, isSequence) &&
    two(c.queries, isVector) &&
    isVector(c.head) &&
    Number.isInteger(c.steps) &&
    c.steps > 0 &&
    c.steps <= 5000 &&
    Number.isFinite(c.learning_rate) &&
    c.learning_rate > 0;

  const where = ([x, y]) => `(${show(x, 2)}, ${show(y, 2)})`;
  const hundredth = (value) => Math.round(100 * value) / 100 + 0; // + 0: no negative zero
  const within = (limit) => (value) => hundredth(Math.min(limit, Math.max(-limit, value)));
  const set = (node, attributes) => {
    for (const key in attributes) {
      const value = attributes[key];
      node.setAttribute(key, typeof value === "number" ? Number(value.toFixed(2)) : value);
    }
  };

  /** Reproducible normal numbers: everybody's third problem is the same. */
  function normals(seed) {
    let state = seed;
    const uniform = () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state + 0.5) / 4294967296;
    };
    return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  function randomProblem(tokens, normal, limit) {
    const point = () => [normal(), normal()];
    const unit = () => {
      const p = point();
      return p.map((value) => value / M.norm(p));
    };
    const placed = () => point().map((value) => within(limit)(0.4 * limit * value));
    return { tokens: tokens.map((list) => list.map(placed)), queries: [unit(), unit()], head: unit() };
  }

  function star(r) {
    const corner = (_, k) => {
      const radius = k % 2 ? 0.45 * r : r;
      return [radius * Math.sin((k * Math.PI) / 5), -radius * Math.cos((k * Math.PI) / 5)];
    };
    return `${line(Array.from({ length: 10 }, corner))}Z`;
  }

  function legend(parent) {
    const list = html("p", { class: "repro-widget-legend" }, parent);
    const item = (text, draw) => {
      const entry = html("span", {}, list);
      draw(svg("svg", { viewBox: "-13 -8 26 16", width: 26, height: 16, "aria-hidden": "true" }, entry));
      entry.append(text);
    };
    const token = (state, r, x) => (icon) => {
      const group = svg("g", { class: `token one ${state}`, transform: `translate(${x || 0} 0)` }, icon);
      svg("circle", { class: "dot", r }, group);
      svg("rect", { class: "frame", x: -7, y: -7, width: 14, height: 14, rx: 2 }, group);
      svg("circle", { class: "ring", r: r + 4 }, group);
    };
    item("token: the larger, the more attention", (icon) => [token("", 2.5, -7), token("", 6, 4)].forEach((draw) => draw(icon)));
    item("highest score v·x; the greener, the higher", (icon) => {
      svg("rect", { class: "shade", x: -12, y: -8, width: 24, height: 16 }, icon);
      svg("path", { class: "star", d: star(6) }, icon);
    });
    item("token asked for", token("asked", 3));
    item("support token", token("support", 3));
    item("support token with a higher score", token("support spoiler", 3));
    item("separating line and margin", (icon) => {
      svg("path", { class: "strip", d: "M-12 -6H12V6H-12Z" }, icon);
      svg("path", { class: "edge", d: "M-12 -6H12M-12 6H12" }, icon);
      svg("path", { class: "separator", d: "M-12 0H12" }, icon);
    });
    item("direction Wz of the max-margin W", (icon) => svg("path", { class: "ray one", d: "M-9 0H9" }, icon));
    item("Wz during gradient descent, length on a logarithmic scale", (icon) => {
      svg("path", { class: "way one", d: "M-11 4C-6 -5 0 2 8 -3" }, icon);
      svg("circle", { class: "tip one", cx: 8, cy: -3, r: 3 }, icon);
    });
  }

  /** Of eight places around a point on the screen, the one farthest from all others. */
  function freest([x, y], distance, others) {
    const around = Array.from({ length: 8 }, (_, k) => {
      const angle = (k * Math.PI) / 4;
      return [distance * Math.cos(angle), distance * Math.sin(angle)];
    });
    const room = ([dx, dy]) => Math.min(30, ...others.map(([u, v]) => Math.hypot(x + dx - u, y + dy - v)));
    return around.reduce((best, place) => (room(place) > room(best) + 0.5 ? place : best));
  }

  /** A square picture of [-limit, limit]²; its points can be moved, so it is no image. */
  function board(parent, title, limit) {
    const { heading, picture } = ReproWidget.panel(parent, SIZE, title);
    picture.setAttribute("role", "application");
    const frame = { x0: -limit, x1: limit, y0: -limit, y1: limit };
    const { x, y, inside, front } = ReproWidget.axes(picture, SIZE, frame, COORDINATES);
    const to = (p) => [x(p[0]), y(p[1])];
    const from = (event) => {
      const box = picture.getBoundingClientRect();
      const unit = (2 * limit * SIZE.width) / (x(limit) - x(-limit)) / box.width;
      const [left, top] = to([0, 0]).map((value) => (value * box.width) / SIZE.width);
      return [(event.clientX - box.left - left) * unit, (box.top + top - event.clientY) * unit];
    };
    return { heading, picture, limit, inside, front, to, from };
  }

  /** A point that is dragged, or moved with the arrow keys; `press` answers a tap or Enter, and
   * `hold` hears when a drag begins and ends. */
  function movable(place, kind, text, { read, move, press, hold }) {
    const group = svg("g", { class: kind, tabindex: 0, role: "button" }, place.front);
    svg("circle", { class: "hit", r: 15 }, group);
    const dot = svg("circle", { class: "dot", r: 6 }, group);
    const label = svg("text", { class: "letter", "text-anchor": "middle" }, group);
    label.textContent = text;
    const put = (p) => move(p.map(within(place.limit)));
    let grip = null;
    const release = (event) => {
      if (!grip) return;
      if (grip.moved) hold(false);
      else if (press && event.type === "pointerup") press();
      grip = null;
    };
    group.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      group.setPointerCapture(event.pointerId);
      const [x, y] = place.from(event);
      const [px, py] = read();
      grip = { dx: px - x, dy: py - y, x: event.clientX, y: event.clientY, moved: false };
    });
    group.addEventListener("pointermove", (event) => {
      if (!grip) return;
      if (!grip.moved) {
        if (Math.hypot(event.clientX - grip.x, event.clientY - grip.y) < TAP) return;
        grip.moved = true;
        hold(true);
      }
      const [x, y] = place.from(event);
      put([x + grip.dx, y + grip.dy]);
    });
    group.addEventListener("pointerup", release);
    group.addEventListener("pointercancel", release);
    // not every browser obeys touch-action inside a picture: a finger on a token must not scroll
    group.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });
    group.addEventListener("keydown", (event) => {
      const arrow = ARROWS[event.key];
      const enter = press && (event.key === "Enter" || event.key === " ");
      if (!arrow && !enter) return;
      event.preventDefault();
      if (enter) press();
      else put(read().map((value, k) => value + (event.shiftKey ? 0.25 : 0.05) * arrow[k]));
    });
    const to = (p, distance, others) => {
      const at = place.to(p);
      const [dx, dy] = freest(at, distance, others.map(place.to));
      set(group, { transform: `translate(${at.map((value) => value.toFixed(2)).join(" ")})` });
      set(label, { x: dx, y: dy + 4 });
      return [dx, dy];
    };
    return { group, dot, to };
  }

  /** The board of sequence i; returns its picture and the function that draws it. */
  function sequenceBoard(parent, i, { id, limit, state, change, hold }) {
    const place = board(parent, `Sequence ${i + 1}`, limit);
    const { inside, to } = place;
    const color = COLORS[i];
    place.heading.classList.add("repro-board-name", color);
    const shade = svg("linearGradient", { id, gradientUnits: "userSpaceOnUse" }, inside);
    svg("stop", { class: "low", offset: 0 }, shade);
    svg("stop", { class: "high", offset: 1 }, shade);
    const [x, y] = to([-limit, limit]);
    const [right, bottom] = to([limit, -limit]);
    svg("rect", { x, y, width: right - x, height: bottom - y, fill: `url(#${id})` }, inside);
    const paths = {};
    for (const kind of ["strip", "edge", "separator", "ray", "way"]) {
      paths[kind] = svg("path", { class: `${kind} ${color}` }, inside);
    }
    const tip = svg("circle", { class: `tip ${color}`, r: 3.5 }, inside);
    const points = state.tokens[i].map((_, t) => {
      const point = movable(place, `token ${color}`, Words.name(t, i), {
        hold,
        read: () => state.tokens[i][t],
        move: (p) => change(() => (state.tokens[i][t] = p)),
        press: () =>
          change(() => {
            state.asked = [...(state.asked || M.best(M.scores(state.tokens, state.head)))];
            state.asked[i] = t;
          }),
      });
      const frame = svg("rect", { class: "frame", rx: 3 }, point.group);
      const ring = svg("circle", { class: "ring" }, point.group);
      const mark = svg("path", { class: "star", d: star(6) }, point.group);
      return { ...point, frame, ring, mark };
    });

    /** Where the margins of w against the chosen token x are 0, 1/2 and 1, and w itself. */
    function separation(w, x) {
      const length = M.norm(w);
      const along = w.map((value) => value / length);
      const border = (margin, turn) =>
        [-turn, turn].map((s) => {
          const [u, v] = x.map((value, k) => value - (margin / length) * along[k]);
          return to([u - 9 * s * along[1], v + 9 * s * along[0]]);
        });
      return {
        strip: `${line([...border(0, 1), ...border(1, -1)])}Z`,
        edge: line(border(0, 1)) + line(border(1, 1)),
        separator: line(border(0.5, 1)),
        ray: line([[0, 0], along.map((value) => REACH * limit * value)].map(to)),
      };
    }

    function drawPath(along, step) {
      const scale = (REACH * limit) / Math.log1p(Math.max(...along.map(M.norm)));
      const now = along.slice(0, step + 1).map((p) => {
        const length = M.norm(p);
        return to(length ? p.map((value) => (value * scale * Math.log1p(length)) / length) : p);
      });
      set(paths.way, { d: line(now) });
      set(tip, { cx: now[step][0], cy: now[step][1] });
    }

    function draw({ best, wanted, machine, spoilers, path }) {
      const z = state.queries[i];
      const list = state.tokens[i];
      const far = state.head.map((value) => (1.4 * limit * value) / M.norm(state.head));
      const [[x1, y1], [x2, y2]] = [far.map((value) => -value), far].map(to);
      set(shade, { x1, y1, x2, y2 });
      const w = machine ? M.apply(machine.W, z) : [0, 0];
      const none = { strip: "", edge: "", separator: "", ray: "" };
      const drawn = M.norm(w) ? separation(w, list[wanted[i]]) : none;
      for (const kind in drawn) set(paths[kind], { d: drawn[kind] });
      drawPath(path.map((W) => M.apply(W, z)), state.step);

      const weights = M.attention(path[state.step], state.tokens, state.queries)[i];
      points.forEach(({ group, dot, frame, ring, mark, to: go }, t) => {
        const r = 3.2 + 7.3 * Math.sqrt(weights[t]);
        const half = r + 4;
        set(dot, { r });
        set(ring, { r: half });
        set(frame, { x: -half, y: -half, width: 2 * half, height: 2 * half });
        const [dx, dy] = go(list[t], r + 11, list.filter((_, u) => u !== t));
        set(mark, { transform: `translate(${-dx} ${-dy})` });
        const flags = {
          asked: t === wanted[i],
          best: t === best[i],
          support: machine !== null && machine.support[i][t],
          spoiler: machine !== null && spoilers[i][t],
        };
        for (const key in flags) group.classList.toggle(key, flags[key]);
        const words = [`attention ${show(100 * weights[t], 0)} %`];
        if (flags.best) words.push("highest score");
        if (flags.support) words.push(flags.spoiler ? "support token with a higher score" : "support token");
        set(group, {
          "aria-pressed": String(flags.asked),
          "aria-label": `Token ${Words.name(t, i)} of sequence ${i + 1} at ${where(list[t])}: ${words.join(", ")}`,
        });
      });
    }

    return { picture: place.picture, draw };
  }

  /** Queries and head as arrows; returns the function that draws them. */
  function compass(parent, { state, change, hold }) {
    const place = board(parent, "Queries z₁, z₂ and head v", 1.5);
    place.picture.setAttribute("aria-label", "The two queries and the head, as arrows from the origin.");
    const [cx, cy] = place.to([0, 0]);
    svg("circle", { class: "diagonal", cx, cy, r: place.to([1, 0])[0] - cx }, place.inside);
    const arrow = (label, color, says, read, write) => {
      const shaft = svg("path", { class: `shaft ${color}` }, place.inside);
      const move = (p) => {
        const length = M.norm(p);
        if (length) change(() => write(length < SHORTEST ? p.map((value) => (value * SHORTEST) / length) : p));
      };
      return { shaft, says, read, ...movable(place, `handle ${color}`, label, { read, move, hold }) };
    };
    const query = (i) =>
      arrow(["z₁", "z₂"][i], COLORS[i], `Query of sequence ${i + 1}`, () => state.queries[i], (p) => (state.queries[i] = p));
    const arrows = [query(0), query(1), arrow("v", "head", "Head", () => state.head, (p) => (state.head = p))];
    return () => {
      const tips = arrows.map(({ read }) => read());
      arrows.forEach(({ shaft, group, says, to }, k) => {
        set(shaft, { d: line([[0, 0], tips[k]].map(place.to)) });
        to(tips[k], 15, [[0, 0], ...tips.filter((_, other) => other !== k)]);
        set(group, { "aria-label": `${says}, at ${where(tips[k])}` });
      });
    };
  }

  /** Buttons, the two starts of descent and a word on the queries; returns what fills them. */
  function controls(parent, { n, state, limit, change, first }) {
    const note = html("p", { class: "repro-widget-note" }, parent);
    const starts = html("fieldset", {}, parent);
    html("legend", { text: "Gradient descent starts" }, starts);
    const radios = ["at W = 0", `at ${Words.FAR} times the max-margin W of the tokens asked for`].map((text, k) => {
      const label = html("label", {}, starts);
      const radio = html("input", { type: "radio", name: `repro-start-${n}` }, label);
      label.append(text);
      radio.addEventListener("change", () => change(() => (state.far = k === 1)));
      return radio;
    });
    const row = html("div", { class: "repro-board-buttons" }, parent);
    const button = (text, properties, press) => {
      const node = html("button", { type: "button", text, ...properties }, row);
      node.addEventListener("click", () => change(press));
      return node;
    };
    button("New random problem", {}, () => {
      Object.assign(state, randomProblem(state.tokens, state.normal, limit), { asked: null });
    });
    const ask = button("Ask for the highest scores", { class: "quiet" }, () => (state.asked = null));
    button("Back to the start", { class: "quiet" }, () => Object.assign(state, first()));
    return () => {
      const cosine = Math.max(-1, Math.min(1, M.correlation(...state.queries)));
      note.textContent =
        `The queries enclose ${show((Math.acos(cosine) * 180) / Math.PI, 0)}°. At 90° each sequence has ` +
        "its separating line for itself; otherwise the tokens of one turn the line of the other.";
      radios.forEach((radio, k) => (radio.checked = state.far === (k === 1)));
      ask.disabled = state.asked === null;
    };
  }

  function start(host) {
    const c = ReproWidget.config(host, "the static picture stays");
    if (!c || !usable(c)) {
      if (c) console.warn("attention-board: data-config lacks something or has it in another shape; the static picture stays");
      return;
    }
    const copy = (points) => points.map((p) => [...p]);
    const first = () => ({
      tokens: c.tokens.map(copy),
      queries: copy(c.queries),
      head: [...c.head],
      asked: null,
      far: false,
      step: c.steps,
      normal: normals(1),
    });
    const state = first();
    const limit = Math.max(2, Math.ceil(10 * Math.max(...c.tokens.flat(2).map(Math.abs)) + 2) / 10);
    const { n, box } = ReproWidget.open("Which tokens does attention select?");
    html("p", {
      class: "repro-widget-note",
      text:
        "Drag tokens and arrows, or focus one and use the arrow keys. Click a token, or press Enter on it, to ask " +
        "for it: what if attention were to select this one? The max-margin W is the smallest matrix that lifts " +
        "the logits of the tokens asked for above all others of their sequence by 1.",
    }, box);
    legend(box);
    const rows = html("div", { class: "repro-widget-rows repro-board" }, box);
    const schedule = ReproWidget.everyFrame(draw);
    const shared = {
      n,
      limit,
      state,
      first,
      change: (edit) => {
        edit();
        schedule();
      },
      // a sentence at every move of a drag is not to be read out
      hold: (held) => statuses.forEach((p) => p.setAttribute("aria-live", held ? "off" : "polite")),
    };
    const one = sequenceBoard(rows, 0, { ...shared, id: `repro-score-${n}-1` });
    const desk = html("div", {}, rows);
    const { row, range } = ReproWidget.slider(desk, `repro-step-${n}`, "steps k of gradient descent", { min: 0, max: c.steps, step: 1 });
    const shown = html("span", { class: "repro-widget-value", "aria-hidden": "true" }, row);
    range.addEventListener("input", () => shared.change(() => (state.step = Number(range.value))));
    const statuses = [ReproWidget.status(desk), ReproWidget.status(desk)];
    const boards = [one, sequenceBoard(rows, 1, { ...shared, id: `repro-score-${n}-2` })];
    const drawArrows = compass(rows, shared);
    const fill = controls(html("div", { class: "repro-board-side" }, rows), shared);

    function draw() {
      const result = Words.consequences(state, c.learning_rate, c.steps);
      const machine = Words.aboutMachine(state, result);
      statuses[0].dataset.state = machine.state;
      [machine.text, Words.aboutDescent(state, result)].forEach((text, k) => {
        if (statuses[k].textContent !== text) statuses[k].textContent = text; // else it is read out again
      });
      boards.forEach((one, i) => {
        one.draw(result);
        one.picture.setAttribute("aria-label", `The tokens of sequence ${i + 1}. ${machine.text}`);
      });
      drawArrows();
      fill();
      range.value = state.step;
      shown.textContent = `k = ${state.step}`;
      range.setAttribute("aria-valuetext", shown.textContent);
    }

    draw();
    ReproWidget.goLive(host, box);
  }

  if (Words) ReproWidget.run("attention-board", start);
  else console.warn("attention-board: attention-math.js or attention-words.js is missing; the static picture stays");
})();

/* One layer of attention in the plane, in double precision: its max-margin matrix and the path of
 * gradient descent (Tarzanagh et al. 2023).
 *
 * tokens: [sequence][token] = [x, y]; queries: [sequence] = [x, y]; head: [x, y]; scores:
 * [sequence][token]; selected: [sequence], the place of one token each. A matrix is the list
 * [w11, w12, w21, w22]; the attention of sequence i is softmax over t of <x_it, W z_i>, and its
 * answer <v, sum_t s_t x_it> is to be large: all labels are 1.
 */
(function (root, factory) {
  "use strict";
  if (typeof module === "object" && module.exports) {
    module.exports = factory();
  } else {
    root.AttentionMath = factory();
  }
})(typeof self !== "undefined" ? self : this, function () {
  "use strict";

  /** Below this share of its largest value a pivot counts as zero. */
  const SINGULAR = 1e-11;
  /** How far a margin may stay under 1, or exceed it and still count as 1. */
  const SLACK = 1e-6;

  const dot = (a, b) => a.reduce((sum, value, k) => sum + value * b[k], 0);
  const norm = (a) => Math.hypot(...a);
  const minus = (a, b) => a.map((value, k) => value - b[k]);
  const outer = (x, z) => [x[0] * z[0], x[0] * z[1], x[1] * z[0], x[1] * z[1]];
  const apply = (W, z) => [W[0] * z[0] + W[1] * z[1], W[2] * z[0] + W[3] * z[1]];
  const correlation = (A, B) => dot(A, B) / (norm(A) * norm(B));

  const scores = (tokens, head) => tokens.map((list) => list.map((x) => dot(x, head)));
  const best = (rows) => rows.map((row) => row.indexOf(Math.max(...row)));

  /** Solve a symmetric positive definite system, or return null where it is singular. */
  function solve(matrix, right) {
    const m = matrix.map((row, i) => [...row, right[i]]);
    const size = m.length;
    for (let k = 0; k < size; k++) {
      if (!(m[k][k] > SINGULAR * matrix[k][k])) return null;
      for (let i = k + 1; i < size; i++) {
        const factor = m[i][k] / m[k][k];
        for (let j = k; j <= size; j++) m[i][j] -= factor * m[k][j];
      }
    }
    const x = new Array(size);
    for (let k = size - 1; k >= 0; k--) {
      x[k] = m[k][size];
      for (let j = k + 1; j < size; j++) x[k] -= m[k][j] * x[j];
      x[k] /= m[k][k];
    }
    return x;
  }

  /** Call `visit` with every set of one to `most` of the numbers below `count`. */
  function subsets(count, most, visit, chosen = []) {
    if (chosen.length) visit(chosen);
    if (chosen.length === most) return;
    for (let k = chosen.length ? chosen[chosen.length - 1] + 1 : 0; k < count; k++) {
      subsets(count, most, visit, [...chosen, k]);
    }
  }

  /**
   * The smallest W (Frobenius) with <x_selected - x_t, W z> >= 1 for every other token, as
   * {W, duals, margins, support}, each of the last three [sequence][token]; null where no W does it.
   *
   * The dual problem, max sum(mu) - |sum(mu_j A_j)|^2 / 2 over mu >= 0 with one row A_j for each
   * constraint, has a solution on independent rows, so on at most four of them: all such sets are
   * tried. Each one's mu, where not negative, bounds |W|^2 = sum(mu) from below; the best bound is
   * attained, unless the constraints contradict one another.
   */
  function attSvm(tokens, queries, selected) {
    const rows = [];
    tokens.forEach((list, i) => {
      list.forEach((x, t) => {
        if (t !== selected[i]) rows.push({ i, t, a: outer(minus(list[selected[i]], x), queries[i]) });
      });
    });
    const gram = rows.map((p) => rows.map((q) => dot(p.a, q.a)));
    let bound = 0;
    let found = [];
    subsets(rows.length, 4, (set) => {
      const mu = solve(
        set.map((p) => set.map((q) => gram[p][q])),
        set.map(() => 1),
      );
      if (mu === null || mu.some((value) => value < 0)) return;
      const total = mu.reduce((sum, value) => sum + value, 0);
      if (total > bound) {
        bound = total;
        found = set.map((p, k) => [rows[p], mu[k]]);
      }
    });
    const W = [0, 0, 0, 0];
    const duals = tokens.map((list) => list.map(() => 0));
    for (const [row, mu] of found) {
      duals[row.i][row.t] = mu;
      row.a.forEach((value, k) => (W[k] += mu * value));
    }
    const margins = tokens.map((list) => list.map(() => 0));
    for (const row of rows) margins[row.i][row.t] = dot(row.a, W);
    if (!rows.every((row) => margins[row.i][row.t] >= 1 - SLACK)) return null;
    const support = margins.map((row, i) => row.map((value, t) => t !== selected[i] && value <= 1 + SLACK));
    return { W, duals, margins, support };
  }

  /** Is there a line that separates one point of a list strictly from all others? */
  function separable(points, chosen) {
    const around = points.map((p) => minus(points[chosen], p)).filter((_, t) => t !== chosen);
    if (around.some((p) => norm(p) === 0)) return false;
    // yes where the directions to the others leave free more than half a turn
    const angles = around.map(([x, y]) => Math.atan2(y, x)).sort((a, b) => a - b);
    const gaps = angles.map((a, k) => (k + 1 < angles.length ? angles[k + 1] : angles[0] + 2 * Math.PI) - a);
    return Math.max(...gaps) > Math.PI + 1e-9;
  }

  function attention(W, tokens, queries) {
    return tokens.map((list, i) => {
      const direction = apply(W, queries[i]);
      const logits = list.map((x) => dot(x, direction));
      const top = Math.max(...logits);
      const weights = logits.map((a) => Math.exp(a - top));
      const total = weights.reduce((sum, value) => sum + value, 0);
      return weights.map((value) => value / total);
    });
  }

  /**
   * The direction of steepest descent of the loss mean(log(1 + exp(-f_i))) at W, of norm 1, or null
   * where the gradient is zero. Its coefficients r_t = s_t (score_t - f) sigmoid(-f) are scaled by
   * the largest of them before they leave the logarithm, and that of the token with the highest
   * attention is minus the sum of the others; so nothing is lost where softmax is 0 and 1 in double
   * precision.
   */
  function steepest(W, tokens, queries, rows) {
    const terms = [];
    tokens.forEach((list, i) => {
      const direction = apply(W, queries[i]);
      const logits = list.map((x) => dot(x, direction));
      const top = logits.indexOf(Math.max(...logits));
      const weights = logits.map((a) => Math.exp(a - logits[top]));
      const total = weights.reduce((sum, value) => sum + value, 0);
      const above = rows[i].map((score) => score - rows[i][top]);
      const mean = dot(weights, above) / total;
      const slope = -Math.log(total) - Math.log1p(Math.exp(rows[i][top] + mean));
      list.forEach((x, t) => {
        const gain = above[t] - mean;
        if (t === top || gain === 0) return;
        const size = logits[t] - logits[top] + slope + Math.log(Math.abs(gain));
        terms.push({ size, sign: Math.sign(gain), a: outer(minus(x, list[top]), queries[i]) });
      });
    });
    const largest = Math.max(...terms.map((term) => term.size));
    const sum = [0, 0, 0, 0];
    for (const { size, sign, a } of terms) {
      const r = sign * Math.exp(size - largest);
      a.forEach((value, k) => (sum[k] += r * value));
    }
    const length = norm(sum);
    return length > 0 ? sum.map((value) => value / length) : null;
  }

  /** W after 0, 1, …, `steps` steps of normalized gradient descent; it rests at a zero gradient. */
  function descend(tokens, queries, rows, { start, learningRate, steps }) {
    const path = [start];
    for (let k = 0; k < steps; k++) {
      const W = path[k];
      const direction = steepest(W, tokens, queries, rows);
      path.push(direction ? W.map((value, j) => value + learningRate * direction[j]) : W);
    }
    return path;
  }

  return { apply, attention, attSvm, best, correlation, descend, dot, norm, scores, separable, steepest };
});

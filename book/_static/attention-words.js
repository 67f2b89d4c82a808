/* What the figure "attention-board" has to say: the consequences of its points, and two sentences
 * about them. Points, scores and matrices are those of attention-math.js.
 */
(function (root, factory) {
  "use strict";
  if (typeof module === "object" && module.exports) {
    module.exports = factory(require("./attention-math.js"));
  } else {
    root.AttentionWords = factory(root.AttentionMath);
  }
})(typeof self !== "undefined" ? self : this, function (M) {
  "use strict";

  /** Where descent starts, if not at zero: at so many times the max-margin matrix. */
  const FAR = 10;
  const ZERO = "W\u00a0=\u00a00";
  const LETTERS = ["abcdef", "pqrstu"];

  const name = (t, i) => LETTERS[i][t];
  const named = (places) => places.map(name).join(" and ");
  const listed = (words) => words.join(", ").replace(/, ([^,]*)$/, " and $1");
  const marked = (flags) => flags.flatMap((row, i) => row.flatMap((on, t) => (on ? [name(t, i)] : [])));
  const percent = (share) => (share > 0.99 ? "over 99\u00a0%" : `${(100 * share).toFixed(0)}\u00a0%`);
  const decimals = (value, digits) => value.toFixed(digits).replace("-", "−");
  const same = (a, b) => a.every((t, i) => t === b[i]);

  /**
   * All that follows from the state: {best, wanted, machine, spoilers, path}. `asked`: the tokens
   * asked for, null for the best ones; `far`: does descent start at FAR times their max-margin
   * matrix, where there is one; `spoilers`: support tokens whose scores are not lower.
   */
  function consequences({ tokens, queries, head, asked, far }, learningRate, steps) {
    const scores = M.scores(tokens, head);
    const best = M.best(scores);
    const wanted = asked || best;
    const machine = M.attSvm(tokens, queries, wanted);
    const spoilers =
      machine && machine.support.map((row, i) => row.map((on, t) => on && scores[i][t] >= scores[i][wanted[i]]));
    const start = far && machine ? machine.W.map((value) => FAR * value) : [0, 0, 0, 0];
    const path = M.descend(tokens, queries, scores, { start, learningRate, steps });
    return { best, wanted, machine, spoilers, path };
  }

  /** The max-margin matrix of the tokens asked for, as {state, text}. */
  function aboutMachine({ tokens }, { best, wanted, machine, spoilers }) {
    const top = same(wanted, best);
    const intro = top
      ? `The highest scores are at tokens ${named(best)}.`
      : `You ask for tokens ${named(wanted)}; the highest scores are at ${named(best)}.`;
    if (!machine) {
      const stuck = wanted.flatMap((t, i) => (M.separable(tokens[i], t) ? [] : [name(t, i)]));
      const why = stuck.length
        ? `no straight line cuts off ${stuck.join(" or ")} from the other tokens of its sequence`
        : "a line cuts off each of them, but with both queries on one line no W does it for both";
      return { state: "none", text: `${intro} No W makes attention select them: ${why}.` };
    }
    const held = marked(machine.support);
    const solution =
      `The max-margin W for ${top ? "them" : named(wanted)} has norm ${decimals(M.norm(machine.W), 2)} and rests on ` +
      `the support ${held.length > 1 ? "tokens" : "token"} ${listed(held)}.`;
    if (top) {
      return { state: "best", text: `${intro} ${solution} Nothing scores higher: this choice is globally optimal.` };
    }
    const wrong = marked(spoilers);
    const verdict = wrong.length
      ? `Since ${listed(wrong)} ${wrong.length > 1 ? "score" : "scores"} higher than the token asked for, the choice is not locally optimal.`
      : `${held.length > 1 ? "All of these score" : "It scores"} lower than the token asked for: the choice is locally optimal.`;
    return { state: wrong.length ? "repelling" : "local", text: `${intro} ${solution} ${verdict}` };
  }

  /** What attention does after `step` steps of descent. */
  function aboutDescent({ tokens, queries, step, far }, { best, wanted, machine, path }) {
    const W = path[step];
    const away = far && machine !== null;
    const start = away ? `${FAR} times this W` : far ? `${ZERO}, for want of a max-margin W` : ZERO;
    const lead = `After ${step} ${step === 1 ? "step" : "steps"} of gradient descent from ${start},`;
    if (M.norm(W) === 0) return `${lead} all tokens of a sequence have the same attention.`;
    const weights = M.attention(W, tokens, queries);
    const chosen = M.best(weights);
    const shares = chosen.map((t, i) => weights[i][t]);
    const settled = Math.min(...shares) > 0.9;
    const where = chosen.map((t, i) => `${name(t, i)} (${percent(shares[i])})`).join(" and ");
    const rank = same(chosen, best) ? "the highest scores" : "not the highest scores";
    const on = settled ? `attention selects ${where}, ${rank}` : `attention is still spread, with most of it on ${where}`;
    const kept = same(chosen, wanted);
    const fate = !away ? "" : kept ? " It stays with the tokens asked for." : " It has left the tokens asked for.";
    const target = kept ? machine : M.attSvm(tokens, queries, chosen);
    const direction = target
      ? `The correlation of W with the max-margin W of these tokens is ${decimals(M.correlation(W, target.W), 4)}.`
      : "No W sets these tokens apart from the others, so there is no direction to settle in.";
    return `${lead} ${on}.${fate} ${direction}`;
  }

  return { FAR, LETTERS, aboutDescent, aboutMachine, consequences, name };
});

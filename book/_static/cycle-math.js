/* Learning-rate schedules, and what the learning-rate estimate of Smith & Topin (eq. 8) reports when
 * every gradient is noise.
 *
 * Heavy ball in Caffe's form on gradients g_t ~ N(0, 1), independent: u_t = mu u_{t-1} - eta_t g_t is
 * the update of iteration t. D_i is the sum of the i-th `lag` updates, the difference of successive
 * snapshots of the weights; the estimate is eta sqrt(E D_i^2 / E (D_i - D_{i+1})^2), where eta is the
 * rate of the last update of D_{i+1}. (For Gaussian D the paper's absolute values give the same
 * ratio.) No loss function enters.
 */
(function (root, factory) {
  "use strict";
  if (typeof module === "object" && module.exports) {
    module.exports = factory();
  } else {
    root.CycleMath = factory();
  }
})(typeof self !== "undefined" ? self : this, function () {
  "use strict";

  const SHAPES = ["one cycle", "constant", "piecewise constant"];
  const DROPS = [5 / 8, 7 / 8]; // of the run, where a piecewise constant rate falls tenfold
  const FINAL = 0.01; // the anneal of a cycle ends at this share of its lowest rate

  /**
   * The rate of each of `n` updates. One cycle: a triangle from `low` to `high` and back over the
   * first (1 - anneal) n updates, then linearly towards low / 100. The two other shapes know one
   * rate only, `high`.
   */
  function schedule({ shape, low, high, anneal }, n) {
    const turn = (1 - anneal) * n;
    const cycle = (t) => {
      if (t >= turn) return low + ((FINAL - 1) * low * (t - turn)) / (n - turn);
      return low + (high - low) * (1 - Math.abs((2 * t) / turn - 1));
    };
    const drop = (t) => high * 0.1 ** DROPS.filter((share) => t >= share * n).length;
    const rate = { "one cycle": cycle, constant: () => high, "piecewise constant": drop }[shape];
    return Array.from({ length: n }, (_, t) => rate(t));
  }

  /** Correlation of successive increments D, and estimate / rate, at a constant rate in the long run. */
  function echo(mu, lag) {
    const left = 1 - mu ** lag;
    const variance = (lag * (1 + mu)) / (1 - mu) - (2 * mu * left) / (1 - mu) ** 2;
    const covariance = (mu * left * left) / (1 - mu) ** 2;
    const correlation = covariance / variance;
    return { correlation, ratio: 1 / Math.sqrt(2 * (1 - correlation)) };
  }

  /**
   * The estimate along a schedule, from zero velocity, as {steps, rate, estimate}: after `steps`
   * updates, with `rate` in use. The second moments of the update u, the older sum of updates D and
   * the newer one E are exact: u becomes mu u + noise and the newer sum grows by the new u.
   */
  function noiseEstimate(rates, mu, lag) {
    const found = { steps: [], rate: [], estimate: [] };
    let [uu, uD, uE, DD, DE, EE] = [0, 0, 0, 0, 0, 0];
    rates.forEach((eta, t) => {
      uu = mu * mu * uu + eta * eta;
      uD *= mu;
      DE += uD;
      EE += 2 * mu * uE + uu;
      uE = mu * uE + uu;
      const steps = t + 1;
      if (steps % lag) return;
      if (steps > lag) {
        found.steps.push(steps);
        found.rate.push(eta);
        found.estimate.push(eta * Math.sqrt(DD / (DD - 2 * DE + EE)));
      }
      [uD, DD] = [uE, EE];
      uE = DE = EE = 0;
    });
    return found;
  }

  /**
   * The authors' moving average L <- 0.9 L + 0.1 x, L = 0.1 before the first value. Of a thinned
   * list each value stands for those `lag` apart since the one before.
   */
  function smoothed(values, steps, lag) {
    let level = 0.1;
    return values.map((value, i) => {
      const keep = 0.9 ** (i ? (steps[i] - steps[i - 1]) / lag : 1);
      level = keep * level + (1 - keep) * value;
      return level;
    });
  }

  /** The middle one of the values, or the mean of the two in the middle. */
  function median(values) {
    const sorted = [...values].sort((a, b) => a - b);
    const half = sorted.length >> 1;
    return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
  }

  return { SHAPES, echo, median, noiseEstimate, schedule, smoothed };
});

/* How SELU moves the mean and variance of a layer, in double precision.
 *
 * mu, nu: mean and variance of a layer's activations; omega, tau: sum and sum of squares of a
 * unit's weights; alpha, lambda: SELU's two parameters. A unit receives z ~ N(m, x) with
 * m = mu omega and x = nu tau. Klambauer et al. 2017, equations (3) to (5); the forms with erfcx
 * are those of reproductions.kernels.gaussian_moments and do not overflow.
 */
(function (root, factory) {
  "use strict";
  if (typeof module === "object" && module.exports) {
    module.exports = factory();
  } else {
    root.SeluMath = factory();
  }
})(typeof self !== "undefined" ? self : this, function () {
  "use strict";

  const ALPHA = 1.6732632423543773;
  const LAMBDA = 1.0507009873554805;
  const SQRT_PI = Math.sqrt(Math.PI);

  /** exp(y^2) erfc(y): a series of positive terms below 2, a continued fraction above. */
  function erfcx(y) {
    if (y < 0) return 2 * Math.exp(y * y) - erfcx(-y);
    if (y > 1e8) return 1 / (SQRT_PI * y);
    if (y < 2) {
      let term = y;
      let sum = y;
      for (let n = 1; term > 1e-17 * sum; n++) {
        term *= (2 * y * y) / (2 * n + 1);
        sum += term;
      }
      return Math.exp(y * y) - (2 / SQRT_PI) * sum;
    }
    let tail = y;
    for (let n = y < 4 ? 90 : 40; n > 0; n--) tail = y + n / 2 / tail;
    return 1 / (SQRT_PI * tail);
  }

  function erfc(y) {
    return y < 0 ? 2 - erfc(-y) : erfcx(y) * Math.exp(-y * y);
  }

  /** E[exp(k z); z < 0] for z ~ N(m, x), k = 1 or 2. */
  function expBelowZero(k, m, x, s) {
    const y = (m + k * x) / (Math.SQRT2 * s);
    return y >= 0
      ? 0.5 * Math.exp((-m * m) / (2 * x)) * erfcx(y)
      : 0.5 * Math.exp(k * m + (k * k * x) / 2) * erfc(y);
  }

  function pieces(m, x) {
    const s = Math.sqrt(x);
    const density = Math.exp((-m * m) / (2 * x)) / (s * Math.sqrt(2 * Math.PI));
    const above = 0.5 * erfc(-m / (Math.SQRT2 * s));
    const below = 0.5 * erfc(m / (Math.SQRT2 * s));
    return {
      m,
      x,
      above,
      below,
      density,
      // for m << 0 the two terms cancel; this form is used where it matters, see momentMap
      positive: m * above + x * density,
      a: expBelowZero(1, m, x, s),
      b: expBelowZero(2, m, x, s),
    };
  }

  /** Mean and variance after one layer. */
  function momentMap(mu, nu, omega, tau, alpha, lambda) {
    const p = pieces(mu * omega, nu * tau);
    const mean = lambda * (p.positive + alpha * (p.a - p.below));
    const second = (p.m * p.m + p.x) * p.above + p.m * p.x * p.density;
    if (p.m >= 0) {
      const square = second + alpha * alpha * (p.b - 2 * p.a + p.below);
      return { mu: mean, nu: lambda * lambda * square - mean * mean };
    }
    // shifted by the saturation value -lambda alpha, so that saturated inputs do not cancel
    const shifted = p.positive + alpha * (p.above + p.a);
    const square = second + 2 * alpha * p.positive + alpha * alpha * (p.above + p.b);
    return { mu: mean, nu: lambda * lambda * (square - shifted * shifted) };
  }

  /** Jacobian of momentMap in (mu, nu), by Stein's identity: [[a, b], [c, d]]. */
  function jacobian(mu, nu, omega, tau, alpha, lambda) {
    const p = pieces(mu * omega, nu * tau);
    const next = momentMap(mu, nu, omega, tau, alpha, lambda).mu;
    const d1 = lambda * (p.above + alpha * p.a);
    const d2 = (lambda / 2) * (alpha * p.a + (1 - alpha) * p.density);
    const ff = lambda * lambda * (p.positive + alpha * alpha * (p.b - p.a));
    const h = lambda * lambda * (p.above + alpha * alpha * (2 * p.b - p.a));
    return [
      [omega * d1, tau * d2],
      [2 * omega * (ff - next * d1), tau * (h - 2 * next * d2)],
    ];
  }

  /** Largest modulus of an eigenvalue of a 2 x 2 matrix: errors shrink by it at every layer. */
  function spectralRadius(j) {
    const half = (j[0][0] + j[1][1]) / 2;
    const discriminant = ((j[0][0] - j[1][1]) / 2) ** 2 + j[0][1] * j[1][0];
    return discriminant >= 0
      ? Math.abs(half) + Math.sqrt(discriminant)
      : Math.sqrt(half * half - discriminant);
  }

  /** Solve g(y) = 0 on a bracket by bisection mixed with the secant rule. */
  function root(g, low, high, gLow, gHigh) {
    for (let i = 0; i < 100 && high - low > 1e-15 * (Math.abs(low) + Math.abs(high)); i++) {
      let y = low - (gLow * (high - low)) / (gHigh - gLow);
      if (i % 3 === 2 || !(y > low && y < high)) y = (low + high) / 2;
      const value = g(y);
      if (value === 0) return y;
      if (value > 0 === gLow > 0) {
        low = y;
        gLow = value;
      } else {
        high = y;
        gHigh = value;
      }
    }
    return (low + high) / 2;
  }

  /** The mean that stays where it is while the variance is held at nu; NaN if none is near. */
  function restingMean(nu, omega, tau, alpha, lambda) {
    const gap = (mu) => momentMap(mu, nu, omega, tau, alpha, lambda).mu - mu;
    const atZero = gap(0);
    if (atZero === 0 || omega === 0) return atZero;
    let near = 0;
    let gNear = atZero;
    for (let step = 0.02; step < 1e4; step *= 1.6) {
      const far = near + Math.sign(atZero) * step;
      const gFar = gap(far);
      if (gFar > 0 !== atZero > 0) {
        return far > near ? root(gap, near, far, gNear, gFar) : root(gap, far, near, gFar, gNear);
      }
      near = far;
      gNear = gFar;
    }
    return NaN;
  }

  /** Fixed points with a variance in [1e-4, 1e4], smallest variance first. */
  function fixedPoints(omega, tau, alpha, lambda) {
    const gap = (logNu) => {
      const nu = Math.exp(logNu);
      const mu = restingMean(nu, omega, tau, alpha, lambda);
      return momentMap(mu, nu, omega, tau, alpha, lambda).nu - nu;
    };
    const steps = 48;
    const edge = Math.log(1e4);
    const found = [];
    let before = -edge;
    let gBefore = gap(before);
    for (let i = 1; i <= steps; i++) {
      const after = -edge + (2 * edge * i) / steps;
      const gAfter = gap(after);
      if (Number.isFinite(gBefore) && Number.isFinite(gAfter) && gBefore > 0 !== gAfter > 0) {
        const nu = Math.exp(root(gap, before, after, gBefore, gAfter));
        const mu = restingMean(nu, omega, tau, alpha, lambda);
        const radius = spectralRadius(jacobian(mu, nu, omega, tau, alpha, lambda));
        found.push({ mu, nu, radius, attracting: radius < 1 });
      }
      before = after;
      gBefore = gAfter;
    }
    return found;
  }

  /** (alpha, lambda), both positive, that make (mu, nu) a fixed point; null where there is none.
   *
   * The mean gives lambda (Ez + alpha r) = mu, the second moment lambda^2 (k1 + alpha^2 k2) =
   * nu + mu^2; eliminating lambda leaves a quadratic in alpha. Of two roots the one with the
   * smaller spectral radius is returned.
   */
  function parametersFor(mu, nu, omega, tau) {
    const p = pieces(mu * omega, nu * tau);
    const r = p.a - p.below;
    const k1 = (p.m * p.m + p.x) * p.above + p.m * p.x * p.density;
    const k2 = p.b - 2 * p.a + p.below;
    const q = nu + mu * mu;
    const A = q * r * r - mu * mu * k2;
    const B = 2 * q * p.positive * r;
    const C = q * p.positive * p.positive - mu * mu * k1;
    let roots;
    if (mu === 0) {
      roots = [-p.positive / r];
    } else {
      const discriminant = B * B - 4 * A * C;
      if (discriminant < 0) return null;
      const t = -0.5 * (B + Math.sign(B || 1) * Math.sqrt(discriminant));
      roots = [t / A, C / t];
    }
    let best = null;
    for (const alpha of roots) {
      if (!(alpha > 0 && Number.isFinite(alpha))) continue;
      const drift = p.positive + alpha * r;
      if (mu !== 0 && drift > 0 !== mu > 0) continue;
      const lambda = Math.sqrt(q / (k1 + alpha * alpha * k2));
      const radius = spectralRadius(jacobian(mu, nu, omega, tau, alpha, lambda));
      if (best === null || radius < best.radius) best = { alpha, lambda, radius };
    }
    return best;
  }

  return {
    ALPHA,
    LAMBDA,
    erfcx,
    erfc,
    momentMap,
    jacobian,
    spectralRadius,
    fixedPoints,
    parametersFor,
  };
});

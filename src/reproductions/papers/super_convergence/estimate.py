"""The learning-rate estimate of Smith and Topin (2017), and what it reports of pure noise.

The paper estimates an "optimal" learning rate from three successive weight vectors (eqs. 3-8).
AdaSecant (Gulcehre et al. 2014) takes the step over the change of the gradient as the Newton rate
of each weight (eq. 7). Plain gradient descent, theta_{i+1} = theta_i - eps g_i, lets one read the
gradients off the weights, and the sums of absolute values over all weights make one global rate
(eq. 8):

    eps* = eps sum_j |D_i|_j / sum_j |D_i - D_{i+1}|_j,    D_i = theta_{i+1} - theta_i.

On a quadratic, f = a x^2 / 2, it is 1/a whatever eps. With momentum D_i is no longer -eps g_i, and
eq. 8 is no longer eq. 7: ``secant_rate`` is eq. 7 with the gradients that momentum leaves.

The null model: let the gradients be independent noise, the same at every step and of no curvature
at all. The increments of heavy ball are then Gaussian and correlated only through the momentum, and
eps*/eps is a number that no loss function enters (``estimate_under_noise``), or a curve that the
schedule alone determines (``noise_estimate_curve``).

Two forms of momentum agree while the rate is constant and differ when it varies:
``caffe``, v <- mu v - eta g, theta <- theta + v (the authors'); and ``torch``, b <- mu b + g,
theta <- theta - eta b.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from reproductions._validate import choice, finite, positive_integer, within

__all__ = [
    "RateEstimator",
    "estimate_under_noise",
    "learning_rate_estimate",
    "noise_estimate_curve",
    "noise_ratio",
    "secant_rate",
    "smoothed",
]

FORMS = ("caffe", "torch")


class RateEstimator:
    """Streams the estimate of eq. 8 from the updates of a training loop.

    Fed the updates themselves, it is spared the cancellation in differences of stored float32
    weights. With ``lag`` k the increments D_i are sums of k updates, as between snapshots taken
    every k iterations. Two increments are kept, and scalars per estimate; on a GPU nothing is read
    back before ``values``.

    Args:
        learning_rate: the rate, where it is constant: a number, or a tensor of the shape of the
            replicas; else give ``add`` the rate of every update.
        lag: k, updates to an increment.
    """

    def __init__(self, learning_rate: torch.Tensor | float | None = None, *, lag: int = 1) -> None:
        self.lag = positive_integer("lag", lag)
        self.learning_rate = None if learning_rate is None else _rate(learning_rate)
        self._sum: torch.Tensor | None = None
        self._n_summed = 0
        self._previous: torch.Tensor | None = None
        self._ratios: list[torch.Tensor] = []
        self._rates: list[torch.Tensor | float] = []

    def add(self, increment: torch.Tensor, rate: torch.Tensor | float | None = None) -> None:
        """Take in one update theta_{t+1} - theta_t.

        Args:
            increment: (..., n_weights), leading dimensions for replicas; it may be overwritten
                afterwards.
            rate: the learning rate of this update, a number or one of shape (...). An estimate
                multiplies by that of its last update, the rate in use when it is made. (The
                authors multiply by that of its first; the ratio to the rate is the same.)

        Raises:
            ValueError: if there is no rate, or it is not a finite number of at least 0 (tensors on
                a GPU are not looked at), or shapes do not fit.
        """
        if increment.ndim == 0:
            raise ValueError("increment must have the shape (..., n_weights), got a number")
        if rate is None and self.learning_rate is None:
            raise ValueError("rate must be given, as the estimator was made without learning_rate")
        rate = self.learning_rate if rate is None else _rate(rate)
        if isinstance(rate, torch.Tensor) and rate.shape != increment.shape[:-1]:
            raise ValueError(
                f"rate must be a number or have the shape {tuple(increment.shape[:-1])} of the "
                f"replicas, got {tuple(rate.shape)}"
            )
        increment = increment.detach()
        if self._sum is None:
            # half precision would lose the sum of many small updates
            dtype = torch.promote_types(increment.dtype, torch.float32)
            self._sum = increment.to(dtype, copy=True)
        else:
            self._sum += increment
        self._n_summed += 1
        if self._n_summed == self.lag:
            self._push(self._sum, rate)
            self._sum, self._n_summed = None, 0

    def values(self) -> torch.Tensor:
        """The estimates so far, (n_estimates, ...), float64, on the device of the increments.

        n_estimates = floor(updates / lag) - 1. An estimate is infinite where two increments are
        equal (no curvature), NaN where both are zero.
        """
        if not self._ratios:
            return torch.empty(0, dtype=torch.float64)
        ratios = torch.stack(self._ratios)
        if not any(isinstance(rate, torch.Tensor) for rate in self._rates):
            rates = torch.tensor(self._rates, dtype=torch.float64, device=ratios.device)
            return ratios * rates.reshape(-1, *[1] * (ratios.ndim - 1))
        shape = ratios.shape[1:]
        rates = [
            torch.as_tensor(rate, dtype=torch.float64, device=ratios.device).expand(shape)
            for rate in self._rates
        ]
        return ratios * torch.stack(rates)

    def state(self) -> dict:
        """What has been taken in so far: tensors and numbers, for a checkpoint."""
        return {
            "sum": self._sum,
            "n_summed": self._n_summed,
            "previous": self._previous,
            "ratios": self._ratios,
            "rates": self._rates,
        }

    def restore(self, state: dict, device: torch.device | str) -> None:
        """Go on from a ``state``."""

        def moved(value):
            return value.to(device) if isinstance(value, torch.Tensor) else value

        self._sum, self._previous = moved(state["sum"]), moved(state["previous"])
        self._n_summed = state["n_summed"]
        self._ratios = [moved(ratio) for ratio in state["ratios"]]
        self._rates = [moved(rate) for rate in state["rates"]]

    def _push(self, increment: torch.Tensor, rate: torch.Tensor | float) -> None:
        """Take in a whole increment D_i, which is kept."""
        if self._previous is not None:
            if increment.shape != self._previous.shape:
                raise ValueError(
                    f"increment must keep the shape {tuple(self._previous.shape)}, got "
                    f"{tuple(increment.shape)}"
                )
            above = self._previous.abs().sum(-1, dtype=torch.float64)
            below = (self._previous - increment).abs().sum(-1, dtype=torch.float64)
            self._ratios.append(above / below)
            self._rates.append(rate)
        self._previous = increment


def learning_rate_estimate(
    trajectory: Iterable[torch.Tensor],
    *,
    learning_rate: torch.Tensor | Sequence[float] | float,
    lag: int = 1,
) -> torch.Tensor:
    """The authors' estimate of the optimal learning rate from a run's weights (eq. 8).

    eps*_i = eps sum_j |D_i|_j / sum_j |D_i - D_{i+1}|_j with D_i = theta_{(i+1)k} - theta_{ik} for
    lag k. For gradient descent on f = sum_j a_j x_j^2 / 2 and k = 1 this is
    sum a_j |x_j| / sum a_j^2 |x_j|, independent of eps; momentum breaks the identity.

    Args:
        trajectory: the weights after every iteration, theta_0, theta_1, ..., each of shape
            (..., n_weights) with leading dimensions for replicas. It is consumed as a stream; two
            snapshots and two increments are in memory at a time.
        learning_rate: eps: a number; or a tensor of the shape (...) of the replicas; or one rate
            an iteration, (n,) or (n, ...) with n at least the number of updates. Where both
            readings fit, it is one rate a replica; (n, 1) is then one an iteration. An estimate
            uses the rate of the last update in it.
        lag: k, iterations between snapshots.

    Returns:
        (n_estimates, ...), float64, one for each pair of neighboring increments.

    Raises:
        ValueError: for fewer than 2 lag updates, weights that change their shape, rates of wrong
            shape or number, or a lag below 1.
    """
    estimator = RateEstimator(lag=lag)
    rate_at = None
    snapshot, n = None, -1
    for n, theta in enumerate(trajectory):
        theta = _weights(theta, snapshot)
        if rate_at is None:
            rate_at = _rates(learning_rate, theta.shape[:-1])
        if n % lag:
            continue
        # float64, so that nothing is lost beyond what the stored weights have lost already
        theta = theta.detach().to(torch.float64, copy=True)
        if n:
            estimator._push(theta - snapshot, rate_at(n - 1))
        snapshot = theta
    if n < 2 * lag:
        raise ValueError(
            f"trajectory must hold at least 2 lag + 1 = {2 * lag + 1} weight vectors, got {n + 1}"
        )
    return estimator.values()


def secant_rate(
    trajectory: Iterable[torch.Tensor],
    *,
    learning_rate: torch.Tensor | Sequence[float] | float,
    momentum: float,
    form: str = "caffe",
) -> torch.Tensor:
    """The secant estimate of eq. 7 as one global rate, with momentum accounted for.

    eps*_t = sum_j |D_t|_j / sum_j |g_{t+1} - g_t|_j, with the gradients that the increments imply:
    eta_t g_t = mu D_{t-1} - D_t (``caffe``) or g_t = mu D_{t-1} / eta_{t-1} - D_t / eta_t
    (``torch``). The first step starts from rest, D_{-1} = 0. On f = a x^2 / 2 this is 1/a for every
    momentum and schedule; without momentum and at a constant rate it is eq. 8. Weight decay in the
    gradient counts as part of the loss, and gradients of different batches differ by their noise.

    Args:
        trajectory: the weights after every iteration, each (..., n_weights), as a stream.
        learning_rate: as in ``learning_rate_estimate``, and positive.
        momentum: mu, in [0, 1).
        form: how the momentum enters, ``caffe`` or ``torch``.

    Returns:
        (n_updates - 1, ...), float64.

    Raises:
        ValueError: for fewer than 2 updates, rates that are not positive or of wrong shape or
            number, momentum outside [0, 1), or an unknown form.
    """
    choice("form", form, FORMS)
    momentum = _one_momentum(momentum)
    estimates = []
    theta = step = scaled_step = gradient = rate_at = None
    for n, after in enumerate(trajectory):
        after = _weights(after, theta).detach().to(torch.float64, copy=True)
        if n == 0:
            theta, step, scaled_step = after, torch.zeros_like(after), torch.zeros_like(after)
            rate_at = _rates(learning_rate, after.shape[:-1], positive=True)
            continue
        rate = torch.as_tensor(rate_at(n - 1), dtype=torch.float64, device=after.device)
        rate = rate[..., None]
        earlier, earlier_scaled = step, scaled_step
        step = after - theta
        scaled_step = step / rate
        carried = earlier / rate if form == "caffe" else earlier_scaled
        latest = momentum * carried - scaled_step
        if gradient is not None:
            estimates.append(earlier.abs().sum(-1) / (latest - gradient).abs().sum(-1))
        theta, gradient = after, latest
    if not estimates:
        raise ValueError("trajectory must hold at least 3 weight vectors")
    return torch.stack(estimates)


def smoothed(estimates: torch.Tensor, start: float = 0.1, keep: float = 0.9) -> torch.Tensor:
    """The authors' running mean, L_i = keep L_{i-1} + (1 - keep) eps*_i with L_{-1} = start.

    Started at 0.1, it carries a bias of keep^(i+1) (0.1 - eps*), for some 30 entries.

    Args:
        estimates: (n, ...).
        start: L before the first estimate.
        keep: weight of the past, in [0, 1].

    Returns:
        (n, ...), float64.

    Raises:
        ValueError: for a keep outside [0, 1] or a start that is not finite.
    """
    keep = within("keep", keep, 0.0, 1.0).item()
    estimates = torch.as_tensor(estimates, dtype=torch.float64)
    mean = finite("start", start).to(estimates.device).expand(estimates.shape[1:])
    means = torch.empty_like(estimates)
    for i, estimate in enumerate(estimates):
        mean = keep * mean + (1 - keep) * estimate
        means[i] = mean
    return means


def estimate_under_noise(momentum: torch.Tensor | float, lag: int = 1) -> torch.Tensor:
    """eps* / eps where every gradient is independent noise: 1 / sqrt(2 (1 - rho_k)).

    The updates of heavy ball are then an AR(1) sequence, of covariance proportional to mu^|h| at
    distance h. Increments of k updates have, up to the same factor,

        V = k + 2 sum_{h<k} (k - h) mu^h = k (1 + mu)/(1 - mu) - 2 mu (1 - mu^k)/(1 - mu)^2,
        C = mu (sum_{h<k} mu^h)^2        = mu (1 - mu^k)^2/(1 - mu)^2

    as variance and covariance of neighbors; rho_k = C / V, and Var(D_i - D_{i+1}) = 2 (V - C).
    The mean of |.| of a centered Gaussian is proportional to its standard deviation, with sums over
    many weights in place of means; noise of unequal size in the weights changes nothing.

    Args:
        momentum: mu in [0, 1), a number or any tensor.
        lag: k, updates to an increment.

    Returns:
        The ratio, float64, of the shape of ``momentum``: 1 / sqrt(2 (1 - mu)) for lag 1, and
        1 / sqrt(2) = 0.707 for mu = 0 and every lag.

    Raises:
        ValueError: for momentum outside [0, 1) or a lag below 1.
    """
    positive_integer("lag", lag)
    momentum = _momentum(momentum)
    # the finite sums, as the closed forms lose all digits for mu near 1
    h = torch.arange(lag, dtype=torch.float64, device=momentum.device)
    powers = momentum[..., None] ** h
    variance = 2 * ((lag - h) * powers).sum(-1) - lag
    covariance = momentum * powers.sum(-1) ** 2
    return (variance / (2 * (variance - covariance))).sqrt()


def noise_ratio(
    momentum: float,
    lag: int = 1,
    *,
    n_weights: int,
    n_steps: int,
    generator: torch.Generator,
    epoch: int | None = None,
) -> float:
    """eps* / eps measured on a simulated run of heavy ball whose gradients are pure noise.

    Args:
        momentum: mu in [0, 1).
        lag: updates to an increment.
        n_weights: weights, each with standard normal gradients; the sums of eq. 8 run over them.
        n_steps: updates, at least 2 lag; the velocity starts in its stationary law.
        generator: source of randomness.
        epoch: the noise of so many successive gradients sums to zero, as that of batches drawn
            without replacement does over an epoch; None draws them independently.

    Returns:
        The mean over the run's estimates; with ``epoch`` over those after the first epoch.

    Raises:
        ValueError: for bad sizes or momentum outside [0, 1).
    """
    positive_integer("n_weights", n_weights)
    positive_integer("lag", lag)
    positive_integer("n_steps", n_steps, low=2 * lag)
    momentum = _one_momentum(momentum)
    if epoch is not None:
        positive_integer("epoch", epoch, low=2)
        positive_integer("n_steps", n_steps, low=epoch + 2 * lag)
    estimator = RateEstimator(1.0, lag=lag)
    velocity = _normal(n_weights, generator) / math.sqrt(1 - momentum**2)
    total = torch.zeros_like(velocity)
    gradients: list[torch.Tensor] = []
    for step in range(n_steps):
        if epoch is None:
            gradient = _normal(n_weights, generator)
        else:
            if step % epoch == 0:
                gradients = [_normal(n_weights, generator) for _ in range(epoch)]
                total = sum(gradients) / epoch
            gradient = gradients[step % epoch] - total
        velocity = momentum * velocity - gradient
        estimator.add(velocity)
    first = 0 if epoch is None else -(-epoch // lag)
    return estimator.values()[first:].mean().item()


def noise_estimate_curve(
    schedule: torch.Tensor | Sequence[float],
    momentum: torch.Tensor | float,
    lag: int = 1,
    *,
    form: str = "caffe",
) -> torch.Tensor:
    """What the estimate reports along a schedule if every gradient is independent noise.

    The updates, from rest, are u_t = -c_t z_t with z_t = mu_t z_{t-1} + e_t g_t; for ``caffe``
    c_t = 1 and e_t = eta_t, for ``torch`` c_t = eta_t and e_t = 1. Hence w_t = Var z_t =
    mu_t^2 w_{t-1} + e_t^2 and, for t <= t', E u_t u_t' = c_t c_t' w_t mu_{t+1} ... mu_{t'}. The
    estimate i is eta sqrt(E D_i^2 / E (D_i - D_{i+1})^2), exact for many weights, with eta the
    rate of the last update in it. No loss function enters.

    Args:
        schedule: (n_steps,) rates eta_t.
        momentum: mu in [0, 1), a number or one an iteration, (n_steps,).
        lag: updates to an increment.
        form: how the momentum enters, ``caffe`` or ``torch``.

    Returns:
        (floor(n_steps / lag) - 1,), float64: entry i belongs to the updates i lag, ...,
        (i + 2) lag - 1. NaN where all its rates are 0 in the form ``torch``, or up to there in
        the form ``caffe``.

    Raises:
        ValueError: for a schedule that is no vector of at least 2 lag rates of at least 0, momentum
            outside [0, 1) or of another length, a lag below 1, or an unknown form.
    """
    positive_integer("lag", lag)
    choice("form", form, FORMS)
    rates = within("schedule", schedule, 0.0)
    if rates.ndim != 1 or len(rates) < 2 * lag:
        raise ValueError(
            f"schedule must be a vector of at least 2 lag = {2 * lag} rates, got shape "
            f"{tuple(rates.shape)}"
        )
    n_steps = len(rates)
    momentum = _momentum(momentum).to(rates.device)
    if momentum.shape not in {(), (n_steps,)}:
        raise ValueError(
            f"momentum must be a number or one for each of {n_steps} steps, got shape "
            f"{tuple(momentum.shape)}"
        )
    momentum = momentum.expand(n_steps)
    noise = rates if form == "caffe" else torch.ones_like(rates)
    factor = torch.ones_like(rates) if form == "caffe" else rates
    variance, variances = 0.0, []
    for mu, size in zip(momentum.tolist(), noise.tolist(), strict=True):
        variance = mu**2 * variance + size**2
        variances.append(variance)
    variances = torch.tensor(variances, dtype=torch.float64, device=rates.device)

    def windows(vector: torch.Tensor) -> torch.Tensor:
        return vector.unfold(0, 2 * lag, lag)

    def second_moment(signs: torch.Tensor) -> torch.Tensor:
        """E (sum_t signs_t u_t)^2 over each window."""
        weights = signs * windows(factor)
        ahead = torch.zeros_like(weights)
        for t in reversed(range(2 * lag - 1)):
            ahead[:, t] = windows(momentum)[:, t + 1] * (ahead[:, t + 1] + weights[:, t + 1])
        return (weights * windows(variances) * (weights + 2 * ahead)).sum(1)

    earlier = torch.arange(2 * lag, device=rates.device) < lag
    above = second_moment(earlier.double())
    below = second_moment(torch.where(earlier, 1.0, -1.0).double())
    return windows(rates)[:, -1] * (above / below).sqrt()


def _normal(n: int, generator: torch.Generator) -> torch.Tensor:
    return torch.randn(n, generator=generator, dtype=torch.float64, device=generator.device)


def _weights(theta: torch.Tensor, earlier: torch.Tensor | None) -> torch.Tensor:
    """One snapshot of a trajectory, of the shape of those before it."""
    theta = torch.as_tensor(theta)
    if theta.ndim == 0 or (earlier is not None and theta.shape != earlier.shape):
        wanted = "(..., n_weights)" if earlier is None else str(tuple(earlier.shape))
        raise ValueError(
            f"trajectory must hold weight vectors of shape {wanted}, got {tuple(theta.shape)}"
        )
    return theta


def _momentum(momentum: torch.Tensor | float) -> torch.Tensor:
    tensor = within("momentum", momentum, 0.0, 1.0)
    if (tensor == 1).any():
        raise ValueError("momentum must be below 1, got 1")
    return tensor


def _one_momentum(momentum: float) -> float:
    tensor = _momentum(momentum)
    if tensor.numel() != 1:
        raise ValueError(f"momentum must be one number, got shape {tuple(tensor.shape)}")
    return tensor.item()


def _rate(rate: torch.Tensor | float) -> torch.Tensor | float:
    """A rate for one update; numbers stay numbers, so that nothing waits for a device."""
    if isinstance(rate, torch.Tensor) and rate.is_cuda:
        return rate
    tensor = within("learning_rate", rate, 0.0)
    return tensor if tensor.ndim else tensor.item()


def _rates(learning_rate, replicas: torch.Size, *, positive: bool = False):
    """A function of the iteration that gives its rate, a number or a tensor of the replicas."""
    rates = within("learning_rate", learning_rate, 0.0, open_low=positive)
    if rates.ndim == 0:
        return lambda t: rates.item()
    if rates.shape == replicas:
        return lambda t: rates
    if rates.ndim > 1:
        try:
            rates = rates.expand(len(rates), *replicas)
        except RuntimeError as error:
            raise ValueError(
                f"learning_rate must be a number, of the shape {tuple(replicas)} of the replicas, "
                f"or one an iteration; got shape {tuple(rates.shape)}"
            ) from error

    def at(t: int) -> torch.Tensor | float:
        if t >= len(rates):
            raise ValueError(
                f"learning_rate must hold a rate for every update, got {len(rates)} rates and at "
                f"least {t + 1} updates"
            )
        return rates[t] if rates.ndim > 1 else rates[t].item()

    return at

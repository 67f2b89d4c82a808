"""The attention that is left on support tokens, read off the multipliers of the SVM.

The direction of W tells which token is selected; the law here tells how far the others are behind,
up to one constant. On the ball ||W||_F <= R the minimum of the loss satisfies W / R = -G / ||G||
with

    -n G = sum_it sigmoid(-m_i) s_it (m_i - gamma_it) X_it z_i^T,   m_i = sum_t s_it gamma_it,

and as R grows m_i -> gamma_i,sel: the negative gradient becomes a nonnegative combination of the
(x_sel - x_t) z^T with weights sigmoid(-gamma_sel) s_t (gamma_sel - gamma_t). The max-margin
solution is such a combination too, with its multipliers mu. Both directions agree in the limit, so
the weights are proportional, and with log(s_sel / s_t) = a_sel - a_t

    a_sel - a_t = const + log[(gamma_sel - gamma_t) sigmoid(-gamma_sel) / mu_t]

on every support token, the constant one number a problem. Gradient descent with normalized steps
adds up such directions and obeys the same law.
"""

from __future__ import annotations

import torch

from .optimality import scores

__all__ = ["margin_residuals", "predicted_margins", "residual_spread", "shuffled_duals"]

#: share of a problem's largest multiplier from which a token counts as support
SUPPORT = 1e-9


def predicted_margins(
    tokens: torch.Tensor,
    labels: torch.Tensor,
    queries: torch.Tensor,
    head: torch.Tensor,
    selected: torch.Tensor,
    duals: torch.Tensor,
) -> torch.Tensor:
    """log[(gamma_sel - gamma_t) sigmoid(-gamma_sel) / mu_t], (..., n, T), NaN off the support.

    The logits' margins a_sel - a_t at large norm, up to one constant a problem. NaN too for a
    support token whose score is not below the selected one's: where there is one the selection is
    not locally optimal and nothing is predicted.

    Args:
        tokens: (..., n, T, d).
        labels: +-1, (..., n).
        queries: not needed, since they enter through mu; here so that a problem fits as a whole.
        head: v, (..., d).
        selected: (..., n).
        duals: mu of the max-margin problem of ``selected``, (..., n, T).

    Raises:
        ValueError: multipliers of another shape than (..., n, T).
    """
    gamma = scores(tokens, labels, head)
    if duals.shape[-2:] != gamma.shape[-2:]:
        raise ValueError(
            f"duals must be (..., {gamma.shape[-2]}, {gamma.shape[-1]}), got {tuple(duals.shape)}"
        )
    best = gamma.gather(-1, selected[..., None])
    prediction = (best - gamma).log() + torch.nn.functional.logsigmoid(-best) - duals.log()
    support = (duals > SUPPORT * duals.amax((-2, -1), keepdim=True)) & (gamma < best)
    return prediction.masked_fill(~support, torch.nan)


def margin_residuals(margins: torch.Tensor, predicted: torch.Tensor) -> torch.Tensor:
    """Measured margins minus predicted ones, each problem's mean taken off, (..., n, T).

    Natural logarithms of attention ratios (nats); NaN where ``predicted`` is.

    Args:
        margins: a_sel - a_t of a trained W, (..., n, T).
        predicted: from :func:`predicted_margins`.
    """
    difference = margins - predicted
    return difference - difference.nanmean((-2, -1), keepdim=True)


def residual_spread(residuals: torch.Tensor) -> torch.Tensor:
    """Standard deviation of each problem's residuals in nats, (...); NaN for fewer than two.

    Of ``margins`` themselves, centered by :func:`margin_residuals` against a prediction that is 0
    on the support, it is the spread that there is to explain.
    """
    count = (~residuals.isnan()).sum((-2, -1))
    return (residuals.square().nansum((-2, -1)) / (count - 1)).sqrt()


def shuffled_duals(duals: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Permute each problem's positive multipliers among its support tokens, (..., n, T).

    A control: the multipliers of a problem stay the same numbers, at other tokens.
    """
    flat = duals.flatten(-2)
    zero = (flat <= 0).double()
    chance = torch.rand(flat.shape, generator=generator, dtype=torch.float64)
    # both orders name the support first, one in its own order and one at random
    place = zero.argsort(dim=-1, stable=True)
    source = (chance + 2.0 * zero).argsort(dim=-1)
    return flat.scatter(-1, place, flat.gather(-1, source)).view_as(duals)

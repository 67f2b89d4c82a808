import math

import pytest
import torch

from reproductions.kernels.token_descent import token_descent
from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.optimality import margins, optimal
from reproductions.papers.attention_svm.problems import Problems, default_start, draw
from reproductions.papers.attention_svm.regularization import ball_minimum
from reproductions.papers.attention_svm.second_order import (
    margin_residuals,
    predicted_margins,
    residual_spread,
    shuffled_duals,
)

PROBLEMS = draw(range(30), n=6, n_tokens=8, d=10)
BEST = optimal(PROBLEMS.tokens, PROBLEMS.labels, PROBLEMS.head)
DUALS = att_svm(PROBLEMS.tokens, PROBLEMS.queries, BEST).duals


def measured(W):
    return margins(W, PROBLEMS.tokens, PROBLEMS.queries, BEST)


def spread(W, duals=DUALS):
    predicted = predicted_margins(*PROBLEMS, BEST, duals)
    return residual_spread(margin_residuals(measured(W), predicted))


def test_the_law_holds_along_the_regularization_path():
    medians = [spread(ball_minimum(*PROBLEMS, R)).median().item() for R in (30.0, 300.0, 10_000.0)]
    assert medians[0] > 2 * medians[1] > 10 * medians[2]
    assert medians[2] < 0.02
    # further out all of them obey
    far = ball_minimum(*PROBLEMS, 1e6)
    assert spread(far).max() < 0.02
    # there is something to explain
    support = torch.where(DUALS > 0, 0.0, math.nan)
    assert residual_spread(margin_residuals(measured(far), support)).median() > 1.2


def test_other_multipliers_predict_nothing():
    far = ball_minimum(*PROBLEMS, 1e6)
    g = torch.Generator().manual_seed(0)
    shuffled = DUALS.clone()
    for b in range(len(shuffled)):
        values = shuffled[b][shuffled[b] > 0]
        shuffled[b][shuffled[b] > 0] = values[torch.randperm(len(values), generator=g)]
    assert spread(far, shuffled).min() > 0.3
    assert spread(far, shuffled).median() > 1.0
    # nor does the score's gap without them
    assert spread(far, (DUALS > 0).double()).median() > 0.5


def test_the_law_holds_for_descent_and_for_locally_optimal_selections():
    problems = draw(range(60), n=6, n_tokens=8, d=10)
    run = token_descent(
        *problems, default_start(range(60), 10), learning_rate=0.1, n_steps=10_000,
        record=(2000, 10_000),
    )  # fmt: skip
    found = []
    for logits in run.logits:
        selected = logits.argmax(-1)
        svm = att_svm(problems.tokens, problems.queries, selected)
        predicted = predicted_margins(*problems, selected, svm.duals)
        gap = logits.gather(-1, selected[..., None]) - logits
        found.append(residual_spread(margin_residuals(gap, predicted)))
    best = optimal(problems.tokens, problems.labels, problems.head)
    other = (run.logits[-1].argmax(-1) != best).any(-1)
    assert 10 < other.sum() < 30
    for kind in (other, ~other):
        assert 0.03 < found[0][kind].median() < 0.3
        assert found[1][kind].median() < 0.02


def test_prediction_by_hand_and_where_there_is_none():
    # scores 0.5, -1, 0.25, 1 with label 1 and their negatives with label -1
    tokens = torch.tensor([0.5, -1.0, 0.25, 1.0]).double()[:, None].expand(2, 4, 1)
    one = Problems(tokens, torch.tensor([1.0, -1.0]), torch.ones(2, 1), torch.ones(1).double())
    duals = torch.tensor([[0.0, 2.0, 0.5, 1.0], [3.0, 1.0, 0.0, 1e-15]]).double()
    found = predicted_margins(*one, torch.tensor([0, 2]), duals)
    # none for the selected tokens, for support tokens of higher score, for a multiplier of rounding
    expected = torch.full((2, 4), math.nan).double()
    expected[0, 1] = math.log(1.5 / 2.0 / (1.0 + math.exp(0.5)))
    expected[0, 2] = math.log(0.25 / 0.5 / (1.0 + math.exp(0.5)))
    expected[1, 0] = math.log(0.25 / 3.0 / (1.0 + math.exp(-0.25)))
    torch.testing.assert_close(found, expected, equal_nan=True)


def test_residuals_are_centered_over_the_support_of_each_problem():
    nan = math.nan
    predicted = torch.tensor([[[nan, 1.0, 2.0], [nan, 3.0, nan]], [[nan, 5.0, nan], [nan] * 3]])
    measured = torch.tensor([[[0.0, 2.0, 4.0], [0.0, 9.0, 7.0]], [[0.0, 1.0, 9.0], [9.0] * 3]])
    found = margin_residuals(measured, predicted)
    expected = torch.tensor([[[nan, -2.0, -1.0], [nan, 3.0, nan]], [[nan, 0.0, nan], [nan] * 3]])
    torch.testing.assert_close(found, expected, equal_nan=True)
    spreads = residual_spread(found)
    assert spreads[0].item() == pytest.approx(math.sqrt(14 / 2))
    # a single token on the support tells nothing
    assert spreads[1].isnan()
    # a constant more for a problem changes nothing
    moved = measured + torch.tensor([100.0, -7.0])[:, None, None]
    torch.testing.assert_close(margin_residuals(moved, predicted), expected, equal_nan=True)


def test_multipliers_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"duals must be \(\.\.\., 6, 8\), got \(30, 6, 7\)"):
        predicted_margins(*PROBLEMS, BEST, DUALS[..., 1:])


def test_shuffled_multipliers_are_the_same_numbers_at_other_support_tokens():
    generator = torch.Generator().manual_seed(3)
    duals = torch.rand(50, 4, 5, generator=generator, dtype=torch.float64)
    duals[torch.rand(duals.shape, generator=generator) < 0.4] = 0.0
    shuffled = shuffled_duals(duals, generator)
    assert torch.equal(shuffled > 0, duals > 0)
    assert torch.equal(shuffled.flatten(1).sort(1).values, duals.flatten(1).sort(1).values)
    # of about twelve positive ones each stays at its place with a chance of one in twelve
    stayed = (shuffled == duals)[duals > 0].double().mean()
    assert 0.04 < stayed < 0.16

import math
import statistics

import pytest
import torch

from reproductions.kernels.token_descent import Descent
from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.nuclear import att_svm_nuclear
from reproductions.papers.attention_svm.optimality import optimal, scores
from reproductions.papers.attention_svm.outcomes import (
    correlation,
    first_step_separates,
    largest_attention,
    outcome,
    runner_up,
    standard_error,
)
from reproductions.papers.attention_svm.plain import attention_loss
from reproductions.papers.attention_svm.problems import draw

P = draw(range(60), n=3, n_tokens=4, d=5)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_correlation_is_the_cosine_of_an_angle():
    a, b = normal(7, 4, 4, seed=1), normal(7, 4, 4, seed=2)
    for one, other, found in zip(a, b, correlation(a, b), strict=True):
        wanted = torch.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(correlation(b, a), correlation(a, b))
    # no length counts, but the sign does, and no rotation of one side
    size = torch.logspace(-3, 3, 7, dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(correlation(-a * size, b / size), -correlation(a, b))
    rotation = torch.linalg.qr(normal(4, 4, seed=3)).Q
    torch.testing.assert_close(correlation(rotation @ a, rotation @ b), correlation(a, b))
    assert (correlation(rotation @ a, b) - correlation(a, b)).abs().max() > 0.1
    torch.testing.assert_close(correlation(a, a), torch.ones(7, dtype=torch.float64))


def test_correlation_of_nothing_is_not_a_number():
    assert correlation(normal(3, 3), torch.zeros(3, 3)).isnan()
    assert correlation(normal(3, 3), torch.full((3, 3), torch.nan)).isnan()


def test_standard_error_by_the_textbook():
    values = [1.0, 2.0, 4.0, 4.0, 9.0]
    for given in (values, torch.tensor(values), torch.tensor(values)[:, None]):
        found = standard_error(given)
        low, high = found["spread"]
        assert found["n_seeds"] == 5
        assert (low + high) / 2 == pytest.approx(4, abs=1e-12)
        assert (high - low) / 2 == pytest.approx(statistics.stdev(values) / math.sqrt(5))
    # of shares: sqrt(p (1 - p) / (n - 1))
    low, high = standard_error(torch.arange(20) < 5)["spread"]
    assert (high - low) / 2 == pytest.approx(math.sqrt(0.25 * 0.75 / 19))
    assert standard_error([0.3]) == {"spread": None, "n_seeds": 1}


def test_largest_attention_is_a_mean_over_sequences():
    weights = torch.tensor([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [[0.4, 0.3, 0.3], [0, 1, 0]]])
    run = Descent(torch.arange(1), weights[None].log(), torch.zeros(1, 2, 1, 1), None)
    torch.testing.assert_close(largest_attention(run), torch.tensor([[0.75, 0.7]]))


def logits_for(selected, n_tokens, size):
    """``size`` at the selected tokens, 0 at all others."""
    return size * torch.nn.functional.one_hot(selected, n_tokens).double()


def test_saturated_means_every_sequence_and_99_percent():
    best = optimal(P.tokens, P.labels, P.head)
    edge = math.log(99 * 3)  # e^a / (e^a + 3) = 0.99
    assert outcome(logits_for(best, 4, edge + 1e-6), P).saturated.all()
    assert not outcome(logits_for(best, 4, edge - 1e-6), P).saturated.any()
    one_is_late = logits_for(best, 4, edge + 1)
    one_is_late[7, 2] /= 2
    assert outcome(one_is_late, P).saturated.tolist() == [b != 7 for b in range(60)]


def test_globally_means_the_optimal_token_in_every_sequence():
    best = optimal(P.tokens, P.labels, P.head)
    assert outcome(logits_for(best, 4, 1e-3), P).globally.all()
    elsewhere = best.clone()
    elsewhere[11, 0] = (best[11, 0] + 1) % 4
    assert outcome(logits_for(elsewhere, 4, 9.0), P).globally.tolist() == [
        b != 11 for b in range(60)
    ]


def locally_optimal(selected, W=None):
    """By the definition: no token with a multiplier (or of margin 1 under W) scores as high."""
    kinds = []
    for b, alpha in enumerate(selected.tolist()):
        x, z, y = P.tokens[b], P.queries[b], P.labels[b]
        mu = att_svm(x, z, selected[b]).duals
        good = True
        for i, a in enumerate(alpha):
            for t in {0, 1, 2, 3} - {a}:
                tight = (
                    mu[i, t] > 0 if W is None else abs((x[i, a] - x[i, t]) @ W[b] @ z[i] - 1) < 1e-6
                )
                good &= not tight or bool(y[i] * P.head[b] @ (x[i, a] - x[i, t]) > 0)
        kinds.append(good)
    return kinds


def test_locally_means_that_no_support_token_scores_higher():
    selected = torch.randint(4, (60, 3), generator=torch.Generator().manual_seed(3))
    selected[:30] = runner_up(P)[:30]
    kinds = outcome(logits_for(selected, 4, 5.0), P)
    wanted = locally_optimal(selected)
    assert 5 < sum(wanted) < 55
    assert kinds.locally.tolist() == wanted
    assert outcome(logits_for(optimal(*P[:2], P.head), 4, 5.0), P).locally.all()


def test_another_solution_may_decide_what_is_support():
    drawn = torch.randint(4, (60, 3), generator=torch.Generator().manual_seed(8))
    selected = torch.where(torch.arange(60)[:, None] < 40, runner_up(P), drawn)
    logits = logits_for(selected, 4, 5.0)
    W = att_svm_nuclear(P.tokens, P.queries, selected, tolerance=1e-9).W
    found = outcome(logits, P, w=W)
    assert found.locally.tolist() == locally_optimal(selected, W)
    default = outcome(logits, P)
    assert not torch.equal(found.locally, default.locally)
    assert torch.equal(found.globally, default.globally)


def test_an_infeasible_selection_is_not_locally_optimal():
    twins = P._replace(tokens=P.tokens[:, :, [0, 0, 2, 3]])
    kinds = outcome(logits_for(torch.zeros(60, 3, dtype=torch.int64), 4, 5.0), twins)
    assert not kinds.locally.any()


def test_several_moments_at_once():
    logits = 3 * normal(4, 60, 3, 4, seed=5)
    together = outcome(logits, P)
    for k in range(4):
        for whole, one in zip(together, outcome(logits[k], P), strict=True):
            assert torch.equal(whole[k], one)


@pytest.mark.parametrize(("d", "separated"), [(4, 9), (10, 17), (50, 46)])
def test_first_step_against_a_step(d, separated):
    drawn = draw(range(200), n=6, n_tokens=8, d=d)
    found = first_step_separates(drawn)
    assert found.sum() == separated
    zero = torch.zeros(200, d, d, dtype=torch.float64, requires_grad=True)
    (G,) = torch.autograd.grad(attention_loss(zero, *drawn).sum(), zero)
    best = drawn.labels[..., None] * torch.einsum("bntd,bd->bnt", drawn.tokens, drawn.head)
    # the length of the step does not matter
    for length in (1e-3, 1e3):
        logits = torch.einsum("bntd,bde,bne->bnt", drawn.tokens, -length * G, drawn.queries)
        assert torch.equal(found, (logits.argmax(2) == best.argmax(2)).all(1))


def test_first_step_of_a_problem_without_a_gradient():
    # equal scores everywhere: no step, and none of the tokens has the largest logit
    assert not first_step_separates(P._replace(head=torch.zeros_like(P.head))).any()


@pytest.mark.parametrize("sequence", [0, 2])
def test_runner_up_moves_one_sequence_to_the_second_score(sequence):
    found = runner_up(P, sequence)
    best = optimal(P.tokens, P.labels, P.head)
    for b in range(60):
        for i in range(3):
            gamma = [(P.labels[b, i] * P.head[b] @ x).item() for x in P.tokens[b, i]]
            rank = sorted(gamma, reverse=True).index(gamma[found[b, i]])
            assert rank == (1 if i == sequence else 0)
    assert ((found != best).sum(1) == 1).all()
    assert torch.equal(best, optimal(P.tokens, P.labels, P.head))


def test_runner_up_of_two_equal_scores_is_the_other_one():
    twins = P._replace(tokens=P.tokens[:, :, [1, 1, 1, 1]])
    assert (runner_up(twins)[:, 0] != optimal(twins.tokens, twins.labels, twins.head)[:, 0]).all()
    assert scores(twins.tokens, twins.labels, twins.head).std(-1).max() < 1e-15


LOGITS = torch.zeros(60, 3, 4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: outcome(LOGITS[..., :3], P),
            r"logits must be those of tokens \(60, 3, 4\), got \(60, 3, 3\)",
        ),
        # it would fit by broadcasting
        (
            lambda: outcome(LOGITS[0], P),
            r"logits must be those of tokens \(60, 3, 4\), got \(3, 4\)",
        ),
        (
            lambda: outcome(LOGITS.masked_fill(LOGITS == 0, math.nan), P),
            "logits must be finite, got nan",
        ),
        (lambda: outcome(LOGITS, P, w=torch.zeros(60, 4, 4)), r"W must be \(..., 5, 5\), got"),
        (
            lambda: first_step_separates(P._replace(head=P.head[:, :4])),
            r"head must be \(..., 5\), got \(60, 4\)",
        ),
        (
            lambda: first_step_separates(P._replace(queries=0 * P.queries)),
            "queries must not be zero",
        ),
        (
            lambda: first_step_separates(P._replace(labels=2 * P.labels)),
            r"labels must be \+1 or -1, got -?2",
        ),
        (lambda: runner_up(P, 3), "sequence must be from 0 to 2, got 3"),
        (lambda: runner_up(P, -1), "sequence must be an integer of at least 0, got -1"),
        (
            lambda: runner_up(P._replace(tokens=P.tokens[:, :, :1])),
            "tokens must be at least 2 a sequence, got 1",
        ),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()

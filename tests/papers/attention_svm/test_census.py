import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from reproductions.kernels.token_descent import token_descent
from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.census import census, feasible_share
from reproductions.papers.attention_svm.optimality import is_locally_optimal, optimal
from reproductions.papers.attention_svm.problems import default_start, draw


@pytest.mark.parametrize(("n", "n_tokens", "d"), [(3, 4, 2), (3, 4, 6), (3, 4, 12)])
def test_a_census_is_its_parts(n, n_tokens, d):
    seeds = range(30, 70)
    found = census(seeds, n=n, n_tokens=n_tokens, d=d, n_steps=300)
    drawn = draw(seeds, n=n, n_tokens=n_tokens, d=d)
    run = token_descent(*drawn, default_start(seeds, d), learning_rate=0.1, n_steps=300)
    selected = run.logits[0].argmax(-1)
    best = optimal(drawn.tokens, drawn.labels, drawn.head)
    assert torch.equal(found.outcome.globally, (selected == best).all(1))
    assert torch.equal(found.outcome.locally, is_locally_optimal(*drawn, selected))
    assert torch.equal(found.outcome.saturated, (run.attention[0].amax(2) > 0.99).all(1))
    for b in range(40):
        svm = att_svm(drawn.tokens[b], drawn.queries[b], best[b])
        assert found.feasible[b] == svm.feasible
        tight = (svm.duals > 0).double().sum() / (n * (n_tokens - 1))
        torch.testing.assert_close(
            found.tight[b],
            tight if svm.feasible else tight * torch.nan,
            equal_nan=True,
            rtol=1e-12,
            atol=0,
        )
        assert found.all_support[b] == bool(svm.feasible and tight == 1)


def test_every_kind_is_seen():
    # what the comparison with the parts, and the chapter's bars, would otherwise not show
    low, high = (census(range(30, 70), n=3, n_tokens=4, d=d, n_steps=300) for d in (2, 6))
    assert 0 < low.feasible.sum() < 40
    assert not low.all_support[~low.feasible].any()
    for kinds in (low.outcome, high.outcome):
        assert 0 < kinds.globally.sum() < kinds.locally.sum() <= 40
    wide = census(range(30, 70), n=3, n_tokens=4, d=12, n_steps=300)
    assert 0 < wide.all_support.sum() < 40
    # in the plane directions need longer to settle
    assert low.outcome.saturated.sum() < high.outcome.saturated.sum()


@pytest.mark.parametrize(("n", "n_tokens"), [(6, 8), (10, 5), (3, 3), (1, 4), (2, 2)])
def test_with_enough_dimensions_every_problem_is_feasible(n, n_tokens):
    # the paper's theorem
    d = max(n, n_tokens - 1)
    assert feasible_share(range(100), n=n, n_tokens=n_tokens, d=d) == 1
    # far below it none is: on a line there are but two tokens, +1 and -1
    assert feasible_share(range(100), n=6, n_tokens=8, d=1) == 0


def test_on_a_line_two_tokens_must_differ():
    # d = max(n, T - 1) is not enough here, since two tokens are equal half the time
    drawn = draw(range(300), n=1, n_tokens=2, d=1)
    differ = (drawn.tokens[:, 0, 0] != drawn.tokens[:, 0, 1]).double().mean().item()
    assert differ == pytest.approx(0.5, abs=0.12)
    assert feasible_share(range(300), n=1, n_tokens=2, d=1) == differ


def separable(tokens, queries, selected):
    """By a linear program: the widest margin of a W with entries in [-1, 1]."""
    rows = [
        np.outer(x[a] - other, z).ravel()
        for x, z, a in zip(tokens, queries, selected, strict=True)
        for t, other in enumerate(x)
        if t != a
    ]
    rows = np.array(rows)
    program = linprog(
        np.r_[np.zeros(rows.shape[1]), -1],
        A_ub=np.c_[-rows, np.ones(len(rows))],
        b_ub=np.zeros(len(rows)),
        bounds=(-1, 1),
    )
    return -program.fun > 1e-7


@pytest.mark.parametrize(("n", "n_tokens", "d"), [(6, 8, 2), (6, 8, 3), (15, 5, 4), (3, 3, 1)])
def test_feasible_share_against_a_linear_program(n, n_tokens, d):
    drawn = draw(range(100), n=n, n_tokens=n_tokens, d=d)
    best = optimal(drawn.tokens, drawn.labels, drawn.head)
    wanted = [
        separable(x.numpy(), z.numpy(), a.tolist())
        for x, z, a in zip(drawn.tokens, drawn.queries, best, strict=True)
    ]
    assert 0 < sum(wanted) < 90
    share = feasible_share(range(100), n=n, n_tokens=n_tokens, d=d)
    assert share == pytest.approx(sum(wanted) / 100, abs=1e-12)

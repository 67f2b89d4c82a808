import itertools

import pytest
import torch

from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.nuclear import att_svm_nuclear
from reproductions.papers.attention_svm.optimality import (
    is_locally_optimal,
    margins,
    optimal,
    scores,
    support,
)
from reproductions.papers.attention_svm.problems import draw

P = draw(range(20), n=3, n_tokens=4, d=5)
W = torch.randn(20, 5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
S = torch.tensor([2, 0, 3])


def test_scores_and_margins_by_their_sums():
    gamma, margin = scores(P.tokens, P.labels, P.head), margins(W, P.tokens, P.queries, S)
    assert gamma.shape == margin.shape == (20, 3, 4)
    for b, i, t in itertools.product((0, 7), range(3), range(4)):
        x, z = P.tokens[b, i], P.queries[b, i]
        assert gamma[b, i, t].item() == pytest.approx(
            (P.labels[b, i] * P.head[b].dot(x[t])).item(), abs=1e-14
        )
        wanted = (x[S[i]] - x[t]) @ W[b] @ z
        assert margin[b, i, t].item() == pytest.approx(wanted.item(), abs=1e-13)
    assert torch.equal(optimal(P.tokens, P.labels, P.head), gamma.argmax(-1))
    # W of two more runs, in front
    both = margins(torch.stack([W, 2 * W]), P.tokens, P.queries, S)
    torch.testing.assert_close(both[1], 2 * margin)


def test_support_are_the_tokens_with_a_multiplier():
    # generically a tight constraint has mu > 0 and the other way round
    drawn = draw(range(100), n=6, n_tokens=8, d=10)
    selected = optimal(drawn.tokens, drawn.labels, drawn.head)
    found = att_svm(drawn.tokens, drawn.queries, selected)
    tight = support(found.W, drawn.tokens, drawn.queries, selected)
    assert torch.equal(tight, found.duals > 0)
    assert tight.sum() / (100 * 42) == pytest.approx(0.473, abs=0.001)
    # with that slack no token is left out or let in by rounding: the next margins are far off
    for slack in (1e-9, 1e-4):
        assert torch.equal(
            support(found.W, drawn.tokens, drawn.queries, selected, slack=slack), tight
        )
    assert not torch.equal(
        support(found.W, drawn.tokens, drawn.queries, selected, slack=0.5), tight
    )
    mask = torch.ones(6, 8, dtype=torch.bool)
    mask[2] = False
    masked = support(found.W, drawn.tokens, drawn.queries, selected, mask=mask)
    assert torch.equal(masked, tight & mask)


def by_definition(tokens, labels, queries, head, selected):
    """One problem: every token with a margin of 1 in its max-margin solution scores lower."""
    found = att_svm(tokens, queries, selected)
    if not found.feasible:
        return False
    for i, alpha in enumerate(selected.tolist()):
        for t in range(tokens.shape[1]):
            margin = (tokens[i, alpha] - tokens[i, t]) @ found.W @ queries[i]
            rise = labels[i] * head.dot(tokens[i, t] - tokens[i, alpha])
            if t != alpha and abs(margin - 1) < 1e-6 and rise >= 0:
                return False
    return True


@pytest.mark.parametrize("d", [2, 5])
def test_local_optimality_of_every_selection(d):
    drawn = draw(range(6), n=3, n_tokens=4, d=d)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    found = is_locally_optimal(*(t[:, None] for t in drawn), every)
    assert found.shape == (6, 64)
    wanted = [[by_definition(*(t[b] for t in drawn), s) for s in every] for b in range(6)]
    assert found.tolist() == wanted
    assert 6 < found.sum() < 300
    feasible = att_svm(drawn.tokens[:, None], drawn.queries[:, None], every).feasible
    assert not found[~feasible].any()
    assert bool((~feasible).any()) == (d == 2)
    # the globally optimal selection is always among them, if it is feasible
    best = optimal(drawn.tokens, drawn.labels, drawn.head)
    there = att_svm(drawn.tokens, drawn.queries, best).feasible
    assert torch.equal(is_locally_optimal(*drawn, best), there)
    # and the worst is not: all of its support tokens score higher
    worst = optimal(drawn.tokens, -drawn.labels, drawn.head)
    assert not is_locally_optimal(*drawn, worst).any()


def test_a_tie_is_not_optimal():
    # the support token has the very score of the selected one
    tokens = torch.tensor([[[1.0, 0.0], [1.0, 1.0], [0.0, 3.0]]])
    arguments = tokens, torch.ones(1), torch.tensor([[0.0, 1.0]]), torch.tensor([1.0, 0.0])
    assert not is_locally_optimal(*arguments, torch.tensor([0]))
    lower = tokens - torch.tensor([[[0.0], [1e-3], [0.0]]])
    assert is_locally_optimal(lower, *arguments[1:], torch.tensor([0]))


def test_other_solutions_have_other_support_tokens():
    drawn = draw(range(100), n=6, n_tokens=8, d=10)
    best = optimal(drawn.tokens, drawn.labels, drawn.head)
    selected = best.clone()
    gamma = scores(drawn.tokens, drawn.labels, drawn.head)
    selected[:, 0] = gamma[:, 0].argsort(-1)[:, -2]
    frobenius = is_locally_optimal(*drawn, selected)
    solution = att_svm(drawn.tokens, drawn.queries, selected).W
    assert torch.equal(is_locally_optimal(*drawn, selected, W=solution), frobenius)
    nuclear = att_svm_nuclear(drawn.tokens, drawn.queries, selected).W
    by_nuclear = is_locally_optimal(*drawn, selected, W=nuclear)
    assert not torch.equal(by_nuclear, frobenius)
    # only the best token of the first sequence scores higher: is it a support token?
    at = support(nuclear, drawn.tokens, drawn.queries, selected)
    tight = at[:, 0].gather(1, best[:, :1])[:, 0]
    assert torch.equal(by_nuclear, ~tight)
    # a masked token cannot undo it
    mask = (gamma <= gamma.gather(2, selected[..., None])) | (torch.arange(6) > 0)[:, None]
    assert is_locally_optimal(*drawn, selected, mask=mask).all()


def test_infeasible_selections_are_not_locally_optimal():
    drawn = P.part(slice(0, 2))
    best = optimal(drawn.tokens, drawn.labels, drawn.head)
    tokens = drawn.tokens.clone()
    tokens[0, 1] = tokens[0, 1, :1]
    assert is_locally_optimal(tokens, *drawn[1:], best).tolist() == [False, True]


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda: scores(P.tokens, 2 * P.labels, P.head), r"labels must be \+1 or -1, got -?2"),
        (lambda: scores(P.tokens, P.labels[:, :2], P.head), r"labels must be \(..., 3\)"),
        (lambda: scores(P.tokens, P.labels, P.head[:, :4]), r"head must be \(..., 5\)"),
        (lambda: scores(P.tokens[0, 0], P.labels, P.head), r"tokens must be \(..., n, T, d\)"),
        (lambda: optimal(P.tokens / 0, P.labels, P.head), "tokens must be finite"),
        (lambda: margins(W[:, :4], P.tokens, P.queries, S), r"W must be \(..., 5, 5\)"),
        (lambda: margins(W, P.tokens, P.queries, S + 1), "selected must be from 0 to 3, got 4"),
        (lambda: margins(W, P.tokens, P.queries[:, :2], S), r"queries must be \(..., 3, 5\)"),
        (
            lambda: support(W, P.tokens, P.queries, S, mask=torch.ones(3, 4)),
            r"mask must be a tensor of torch\.bool",
        ),
        (
            lambda: is_locally_optimal(*P, S[None].expand(3, 3)),
            r"selected must have leading axes that fit \(20,\), got \(3,\)",
        ),
    ],
)
def test_bad_arguments(call, match):
    with pytest.raises(ValueError, match=match):
        call()

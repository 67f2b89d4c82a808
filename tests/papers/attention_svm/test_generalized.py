import cvxpy
import pytest
import torch

from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.generalized import finite_part, generalized_svm
from reproductions.papers.attention_svm.problems import draw


def problems(n_problems, n, n_tokens, d):
    drawn = draw(range(n_problems), n=n, n_tokens=n_tokens, d=d)
    return drawn.tokens, drawn.queries


def some(*shape, seed=0, share=0.4):
    generator = torch.Generator().manual_seed(seed)
    kept = torch.rand(shape, generator=generator) < share
    kept[..., 0] |= ~kept.any(-1)
    return kept


def logits(w, tokens, queries):
    return torch.einsum("...ntd,...de,...ne->...nt", tokens, w, queries)


def spread(values, kept):
    """Largest minus smallest value over the kept tokens of each sequence."""
    high = values.masked_fill(~kept, -torch.inf).amax(-1)
    return high - values.masked_fill(~kept, torch.inf).amin(-1)


def lead(values, kept):
    """By how much the smallest value of a kept token exceeds the largest of another."""
    low = values.masked_fill(~kept, torch.inf).amin(-1)
    return low - values.masked_fill(kept, -torch.inf).amax(-1)


def differences_to_the_first(tokens, kept):
    first = kept.long().argmax(-1)
    return tokens.take_along_dim(first[..., None, None], dim=-2) - tokens


@pytest.mark.parametrize(("n", "n_tokens", "d"), [(3, 4, 4), (3, 4, 10), (3, 4, 2), (4, 6, 5)])
def test_conditions_of_karush_kuhn_and_tucker(n, n_tokens, d):
    tokens, queries = problems(60, n, n_tokens, d)
    kept = some(60, n, n_tokens)
    found = generalized_svm(tokens, queries, kept)
    ok = found.feasible
    assert ok.sum() > 5
    w, mu, kept = found.W[ok], found.duals[ok], kept[ok]
    tokens, queries = tokens[ok], queries[ok]
    values = logits(w, tokens, queries)
    assert spread(values, kept).max() < 1e-9
    assert lead(values, kept).min() > 1 - 1e-9
    assert (mu[~kept] >= 0).all()
    built = torch.einsum("bnt,bntd,bne->bde", mu, differences_to_the_first(tokens, kept), queries)
    assert (built - w).abs().max() < 1e-9 * w.abs().max()
    margin = values.masked_fill(~kept, torch.inf).amin(-1, keepdim=True) - values
    complementarity = torch.where(kept, 0.0, mu * (margin - 1)).abs().sum((1, 2))
    assert (complementarity <= 1e-9 * mu.abs().sum((1, 2))).all()
    torch.testing.assert_close(
        (mu * ~kept).sum((1, 2)), w.square().sum((1, 2)), rtol=1e-9, atol=1e-12
    )
    # Control: without the multipliers of the equalities W is another matrix.
    without = torch.einsum(
        "bnt,bntd,bne->bde", mu * ~kept, differences_to_the_first(tokens, kept), queries
    )
    assert (without - w).abs().amax((1, 2)).median() > 1e-2 * w.abs().amax((1, 2)).median()


def test_agreement_with_a_conic_solver():
    tokens, queries = problems(4, 3, 4, 5)
    kept = some(4, 3, 4)
    ours = generalized_svm(tokens, queries, kept).W
    for b in range(4):
        w = cvxpy.Variable((5, 5))
        limits = []
        for x, z, keep in zip(tokens[b], queries[b], kept[b], strict=True):
            for t in range(4):
                for u in range(4):
                    margin = (x[t] - x[u]).numpy() @ w @ z.numpy()
                    if keep[t] and not keep[u]:
                        limits.append(margin >= 1)
                    elif keep[t] and keep[u] and t < u:
                        limits.append(margin == 0)
        cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(w)), limits).solve(solver="CLARABEL")
        theirs = torch.as_tensor(w.value)
        assert (theirs - ours[b]).norm() < 1e-4 * ours[b].norm()


def test_one_token_kept_is_the_svm_of_a_selection():
    tokens, queries = problems(40, 6, 8, 2)
    selected = torch.arange(6).expand(40, 6)
    kept = torch.arange(8) == selected[..., None]
    general, one = generalized_svm(tokens, queries, kept), att_svm(tokens, queries, selected)
    assert torch.equal(general.feasible, one.feasible)
    assert 0 < one.feasible.sum() < 40
    torch.testing.assert_close(general.W, one.W, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_everything_kept_needs_no_w():
    tokens, queries = problems(3, 3, 4, 5)
    found = generalized_svm(tokens, queries, torch.ones(3, 4, dtype=torch.bool))
    assert found.feasible.all()
    assert (found.W == 0).all()
    assert (found.duals == 0).all()


def test_a_token_between_kept_ones_cannot_be_cut_off():
    tokens, queries = problems(3, 2, 3, 5)
    kept = torch.tensor([True, True, False]).expand(3, 2, 3)
    tokens[1, 0, 2] = 0.3 * tokens[1, 0, 0] + 0.7 * tokens[1, 0, 1]
    # here it is all that is dropped, and its difference to the kept ones' line is rounding
    kept = kept.clone()
    kept[1, 1] = True
    found = generalized_svm(tokens, queries, kept)
    assert found.feasible.tolist() == [True, False, True]
    # equal tokens, one kept and one not, and two equal ones that are kept
    tokens, queries = problems(2, 2, 3, 5)
    tokens[0, 1, 2] = tokens[0, 1, 0]
    tokens[1, 1, 1] = tokens[1, 1, 0]
    found = generalized_svm(tokens, queries, torch.tensor([True, True, False]).expand(2, 3))
    assert found.feasible.tolist() == [False, True]
    assert lead(logits(found.W[1], tokens[1], queries[1]), kept[0]).min() > 1 - 1e-9


@pytest.mark.parametrize("d", [4, 10])
def test_finite_part_has_the_ratios_and_is_least(d):
    tokens, queries = problems(30, 3, 4, d)
    kept = some(30, 3, 4, share=0.6)
    generator = torch.Generator().manual_seed(3)
    a = torch.randn(30, 3, 4, generator=generator, dtype=torch.float64).softmax(-1)
    w = finite_part(tokens, queries, a, kept)
    assert spread(logits(w, tokens, queries) - a.log(), kept).max() < 1e-10
    # Control: other tokens' ratios are not among the conditions.
    assert spread(logits(w, tokens, queries) - a.log(), torch.ones_like(kept)).max() > 0.1
    # least: in the span of the differences of kept tokens, so that what leaves their margins
    # alone, such as the generalized SVM, is orthogonal to it
    grows = generalized_svm(tokens, queries, kept).W
    product = (w * grows).sum((1, 2)) / (w.norm(dim=(1, 2)) * grows.norm(dim=(1, 2)))
    assert product.nan_to_num(0.0).abs().max() < 1e-10
    # what tokens that are not kept receive, and the scale of attention, play no part
    other = torch.where(kept, 0.5 * a, 0.0)
    torch.testing.assert_close(finite_part(tokens, queries, other, kept), w, rtol=1e-9, atol=1e-9)


def test_finite_part_by_hand():
    tokens = torch.tensor([[[1.0, 2.0, 0.0], [0.0, -1.0, 1.0], [5.0, 5.0, 5.0]]])
    queries = torch.tensor([[2.0, 0.0, -1.0]])
    attention = torch.tensor([[0.75, 0.25, 0.0]])
    w = finite_part(tokens, queries, attention, torch.tensor([[True, True, False]]))
    delta = torch.tensor([1.0, 3.0, -1.0]).double()
    ratio = torch.tensor(3.0).double().log()
    wanted = ratio * torch.outer(delta, queries[0].double()) / (11 * 5)
    torch.testing.assert_close(w, wanted, rtol=1e-13, atol=1e-15)


def test_finite_part_of_ratios_that_cannot_be_had():
    # on a line with one query the differences are multiples of one another: least squares
    tokens = torch.tensor([[[0.0], [1.0], [2.0]]])
    queries, kept = torch.tensor([[1.0]]), torch.tensor([[True, True, True]])
    logs = torch.tensor([[0.0, 0.4, 0.6]]).double()
    w = finite_part(tokens, queries, logs.softmax(-1), kept)
    # argmin (w - 0.4)^2 + (2 w - 0.6)^2
    assert w.item() == pytest.approx(1.6 / 5, rel=1e-6)
    assert (finite_part(tokens, queries, logs.softmax(-1), kept & False | logs.eq(0)) == 0).all()


def test_leading_axes():
    tokens, queries = problems(6, 3, 4, 5)
    kept = some(2, 1, 3, 4)
    a = torch.rand(3, 3, 4, generator=torch.Generator().manual_seed(0)) + 0.1
    tokens, queries = tokens.view(2, 3, 3, 4, 5), queries.view(2, 3, 3, 5)
    found = generalized_svm(tokens, queries, kept)
    assert found.duals.shape == (2, 3, 3, 4)
    w = finite_part(tokens, queries, a / 2, kept)
    for i, j in ((0, 2), (1, 0)):
        alone = generalized_svm(tokens[i, j], queries[i, j], kept[i, 0])
        torch.testing.assert_close(alone.W, found.W[i, j], rtol=1e-9, atol=1e-9)
        one = finite_part(tokens[i, j], queries[i, j], a[j] / 2, kept[i, 0])
        torch.testing.assert_close(one, w[i, j], rtol=1e-9, atol=1e-9)


X, Z = problems(2, 3, 4, 5)
KEPT = some(2, 3, 4)
EVEN = torch.full((2, 3, 4), 0.25)


@pytest.mark.parametrize(
    ("kept", "match"),
    [
        (KEPT & False, "kept must name at least one token in each sequence"),
        (KEPT.double(), r"kept must be a tensor of torch\.bool, got torch\.float64"),
        (KEPT[:, :2], r"kept must be \(..., 3, 4\), got \(2, 2, 4\)"),
        (KEPT[[0, 1, 1]], r"kept must have leading axes that fit \(2,\), got \(3,\)"),
    ],
)
def test_bad_arguments(kept, match):
    with pytest.raises(ValueError, match=match):
        generalized_svm(X, Z, kept)
    with pytest.raises(ValueError, match=match):
        finite_part(X, Z, torch.full(kept.shape, 0.25), kept)


@pytest.mark.parametrize(
    ("attention", "match"),
    [
        (EVEN * ~KEPT, "attention must be positive where a token is kept"),
        (EVEN - 1, r"attention must be in \[0, 1\], got -0.75"),
        (EVEN / 0, "attention must be finite"),
        (EVEN[..., :3], r"attention must be \(..., 3, 4\), got \(2, 3, 3\)"),
    ],
)
def test_bad_attention(attention, match):
    with pytest.raises(ValueError, match=match):
        finite_part(X, Z, attention, KEPT)

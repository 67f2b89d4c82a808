import pytest
import torch
from torch.linalg import matrix_norm, svdvals

from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.conic import conic_svm, numerical_rank
from reproductions.papers.attention_svm.nuclear import att_svm_nuclear
from reproductions.papers.attention_svm.optimality import margins, optimal
from reproductions.papers.attention_svm.problems import draw


def problems(count, n, n_tokens, d):
    drawn = draw(range(count), n=n, n_tokens=n_tokens, d=d)
    return drawn.tokens, drawn.queries, optimal(drawn.tokens, drawn.labels, drawn.head)


def least_margin(w, tokens, queries, selected):
    value = margins(w, tokens, queries, selected)
    return value.scatter(-1, selected[..., None], torch.inf).amin((-2, -1))


def distance(w, to):
    return (w - to).norm(dim=(-2, -1)) / to.norm(dim=(-2, -1))


def test_each_norm_has_its_solution():
    arguments = problems(5, 3, 4, 5)
    ours = {"frobenius": att_svm(*arguments).W}
    ours["nuclear"] = att_svm_nuclear(*arguments, tolerance=1e-9).W
    for norm, other in (("frobenius", "nuclear"), ("nuclear", "frobenius")):
        theirs = conic_svm(*arguments, norm=norm, solver="CLARABEL")
        assert theirs.dtype is torch.float64
        assert distance(theirs, ours[norm]).max() < 1e-4
        # the two solutions are far from one another, so that this says which is which
        assert distance(theirs, ours[other]).min() > 0.05


def test_any_leading_axes():
    tokens, queries, selected = problems(4, 2, 3, 3)
    options = {"norm": "frobenius", "solver": "CLARABEL"}
    flat = conic_svm(tokens, queries, selected, **options)
    single = conic_svm(tokens[2], queries[2], selected[2], **options)
    torch.testing.assert_close(single, flat[2], rtol=0, atol=1e-12)
    square = conic_svm(*(t.unflatten(0, (2, 2)) for t in (tokens, queries, selected)), **options)
    torch.testing.assert_close(square, flat.unflatten(0, (2, 2)), rtol=0, atol=1e-12)
    # one problem and several selections
    several = torch.tensor([[0, 0], [1, 2]])
    found = conic_svm(tokens[0], queries[0], several, **options)
    assert found.shape == (2, 3, 3)
    assert distance(found, att_svm(tokens[0], queries[0], several).W).max() < 1e-4


@pytest.mark.parametrize("solver", ["CLARABEL", "SCS"])
@pytest.mark.parametrize("norm", ["frobenius", "nuclear"])
def test_infeasible_problems_are_not_a_number(norm, solver):
    arguments = problems(12, 6, 8, 2)
    feasible = att_svm(*arguments).feasible
    assert 0 < feasible.sum() < 12
    found = conic_svm(*arguments, norm=norm, solver=solver)
    assert torch.equal(found.isfinite().all((1, 2)), feasible)
    assert torch.equal(found.isnan().all((1, 2)), ~feasible)


def test_a_solver_that_gives_up_leaves_nothing(monkeypatch):
    import cvxpy

    def give_up(*_, **__):
        raise cvxpy.SolverError("no progress")

    arguments = problems(2, 2, 3, 3)
    monkeypatch.setattr(cvxpy.Problem, "solve", give_up)
    assert conic_svm(*arguments, norm="nuclear", solver="SCS").isnan().all()


def test_the_published_count_of_ranks_measures_the_solver():
    arguments = problems(8, 5, 5, 10)
    certified = att_svm_nuclear(*arguments, tolerance=1e-9)
    assert certified.gap.max() < 1e-9
    rank = numerical_rank(certified.W, 1e-7)
    loose, tight = (
        conic_svm(*arguments, norm="nuclear", solver=name) for name in ("SCS", "CLARABEL")
    )
    # as published: singular values above 1e-7 in the answer of SCS
    published = numerical_rank(loose, 1e-7, relative=False)
    assert (published >= rank).all()
    assert published.double().mean() > rank.double().mean() + 1.5
    # the same count in a more accurate answer, or a line above the noise, gives the true rank
    assert torch.equal(numerical_rank(tight, 1e-7, relative=False), rank)
    assert torch.equal(numerical_rank(loose, 1e-3), rank)
    assert rank.double().mean() < 3
    # SCS meets the constraints only roughly, and is off in the norm by no more than that
    short, met = (1 - least_margin(w, *arguments) for w in (loose, tight))
    assert short.max() > 1e-6 > 1e-8 > met.max()
    norm = matrix_norm(certified.W, "nuc")
    torch.testing.assert_close(matrix_norm(loose, "nuc"), norm, rtol=1e-4, atol=0)


def test_rank_counts_singular_values_above_the_line():
    g = torch.Generator().manual_seed(0)
    u, v = (
        torch.linalg.qr(torch.randn(3, 4, 4, generator=g, dtype=torch.float64)).Q for _ in range(2)
    )
    values = torch.tensor([[50, 4e-2, 3e-6, 0], [2, 1, 1, 1], [4e-4, 3e-4, 0, 0]]).double()
    w = u @ values.diag_embed() @ v.mT
    torch.testing.assert_close(svdvals(w), values, rtol=1e-9, atol=1e-12)
    # in units of the largest
    assert numerical_rank(w, 1e-3).tolist() == [1, 4, 2]
    assert numerical_rank(w, 1e-4).tolist() == [2, 4, 2]
    assert numerical_rank(1e5 * w, 1e-4).tolist() == [2, 4, 2]
    # in units of the matrix
    assert numerical_rank(w, 1e-3, relative=False).tolist() == [2, 4, 0]
    assert numerical_rank(w, 1e-6, relative=False).tolist() == [3, 4, 2]
    assert numerical_rank(1e5 * w, 1e-6, relative=False).tolist() == [3, 4, 2]
    assert numerical_rank(w[0], 1e-4) == 2
    assert numerical_rank(torch.zeros(3, 3), 1e-3) == 0


TOKENS, QUERIES, SELECTED = problems(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"norm": "spectral"}, "norm must be one of frobenius, nuclear; got 'spectral'"),
        ({"solver": "SIMPLEX"}, "solver must be one of .*SCS.*; got 'SIMPLEX'"),
        ({"selected": SELECTED + 4}, "selected must be from 0 to 3, got"),
        ({"selected": SELECTED[:, :2]}, r"selected must be \(..., 3\), got \(2, 2\)"),
        ({"queries": QUERIES[..., :4]}, r"queries must be \(..., 3, 5\), got \(2, 3, 4\)"),
        ({"queries": 0 * QUERIES}, "queries must not be zero, got 6 that are"),
        ({"tokens": TOKENS / 0}, "tokens must be finite, got"),
    ],
)
def test_errors_name_argument_and_value(changed, message):
    arguments = {
        "tokens": TOKENS,
        "queries": QUERIES,
        "selected": SELECTED,
        "norm": "frobenius",
        "solver": "CLARABEL",
    }
    with pytest.raises(ValueError, match=message):
        conic_svm(**arguments | changed)


@pytest.mark.parametrize(
    ("w", "tolerance", "message"),
    [
        (torch.eye(2), 0.0, "tolerance must be greater than 0, got 0"),
        # of a problem without a solution; it would have no singular value above anything
        (torch.full((2, 2), torch.nan), 1e-3, "w must be finite, got nan"),
    ],
)
def test_rank_errors_name_argument_and_value(w, tolerance, message):
    with pytest.raises(ValueError, match=message):
        numerical_rank(w, tolerance)

import importlib

import pytest
import torch
from scipy.optimize import linprog, nnls

from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.conic import conic_svm
from reproductions.papers.attention_svm.optimality import margins, optimal
from reproductions.papers.attention_svm.problems import draw


def problems(n_problems, n, n_tokens, d):
    drawn = draw(range(n_problems), n=n, n_tokens=n_tokens, d=d)
    return drawn.tokens, drawn.queries, optimal(drawn.tokens, drawn.labels, drawn.head)


def others(selected, n_tokens):
    return torch.arange(n_tokens) != selected[..., None]


def differences(tokens, selected):
    return tokens.take_along_dim(selected[..., None, None], dim=-2) - tokens


def defects(found, tokens, queries, selected):
    """How far W and mu are from the conditions of Karush, Kuhn and Tucker, worst of the batch."""
    w, mu = found.W, found.duals
    value = margins(w, tokens, queries, selected)
    built = torch.einsum("bnt,bntd,bne->bde", mu, differences(tokens, selected), queries)
    total = mu.sum((1, 2))
    return {
        "constraints": (1 - value)[others(selected, tokens.shape[2])].max().item(),
        "multipliers": -mu.min().item(),
        "stationarity": ((built - w).norm(dim=(1, 2)) / w.norm(dim=(1, 2))).max().item(),
        "complementarity": ((mu * (value - 1)).abs().sum((1, 2)) / total).max().item(),
        "duality": (w.square().sum((1, 2)) / total - 1).abs().max().item(),
    }


@pytest.mark.parametrize(
    ("n", "n_tokens", "d"),
    [
        (1, 2, 1),
        (1, 2, 3),
        (6, 8, 2),
        (6, 8, 3),
        (6, 8, 4),
        (6, 8, 10),
        (15, 5, 6),
        (15, 15, 20),
        (6, 8, 200),
    ],
)
def test_conditions_of_karush_kuhn_and_tucker(n, n_tokens, d):
    # norms of W reach 1e4 at d = 2 and 3, where a Gram matrix would lose half the digits
    tokens, queries, selected = problems(4 if d == 200 else 60, n, n_tokens, d)
    found = att_svm(tokens, queries, selected)
    ok = found.feasible
    assert ok.any()
    assert found.W[~ok].isnan().all()
    part = type(found)(*(t[ok] for t in found))
    for name, defect in defects(part, tokens[ok], queries[ok], selected[ok]).items():
        assert defect < 1e-9, name
    assert (found.duals[ok].gather(2, selected[ok][..., None]) == 0).all()
    # Control: the solution of one selection does not solve another.
    other = (selected[ok] + 1) % n_tokens
    assert defects(part, tokens[ok], queries[ok], other)["constraints"] > 1


def test_one_constraint_by_hand():
    tokens = torch.tensor([[[1.0, 2.0, 0.0], [0.0, -1.0, 1.0]]])
    queries = torch.tensor([[2.0, 0.0, -1.0]])
    found = att_svm(tokens, queries, torch.tensor([0]))
    # W = delta z^T / (|delta|^2 |z|^2), and mu = |W|^2
    delta = torch.tensor([1.0, 3.0, -1.0]).double()
    wanted = torch.outer(delta, queries[0].double()) / (11 * 5)
    torch.testing.assert_close(found.W, wanted, rtol=1e-13, atol=1e-15)
    duals = torch.tensor([[0.0, 1 / 55]], dtype=torch.float64)
    torch.testing.assert_close(found.duals, duals, rtol=1e-13, atol=0)


def test_orthogonal_queries_decouple():
    # W = sum_i w_i z_i^T / |z_i|^2 with w_i the vector SVM of sequence i alone
    tokens, queries, selected = problems(20, 4, 6, 5)
    basis = torch.linalg.qr(queries.mT)[0].mT * torch.tensor([0.5, 1.0, 2.0, 3.0])[:, None]

    def apart(z):
        return sum(
            att_svm(tokens[:, i : i + 1], z[:, i : i + 1], selected[:, i : i + 1]).W
            for i in range(4)
        )

    together = att_svm(tokens, basis, selected).W
    torch.testing.assert_close(together, apart(basis), rtol=1e-9, atol=1e-9)
    # Control: other queries do not.
    assert (att_svm(tokens, queries, selected).W - apart(queries)).abs().amax((1, 2)).min() > 0.05


def test_agreement_with_a_conic_solver():
    tokens, queries, selected = problems(6, 4, 5, 3)
    ours = att_svm(tokens, queries, selected)
    theirs = conic_svm(tokens, queries, selected, norm="frobenius", solver="CLARABEL")
    assert ours.feasible.all()
    scale = ours.W.norm(dim=(1, 2))
    assert ((ours.W - theirs).norm(dim=(1, 2)) / scale).max() < 1e-4
    # scaled until it satisfies every constraint, theirs is not shorter
    least = margins(theirs, tokens, queries, selected)[others(selected, 5)].view(6, -1).amin(1)
    assert (theirs.norm(dim=(1, 2)) / least / scale).min() > 1 - 1e-12


def test_feasibility_is_that_of_a_linear_program():
    tokens, queries, selected = problems(40, 6, 8, 2)
    rows = torch.einsum("bntd,bne->bntde", differences(tokens, selected), queries)
    rows = rows[others(selected, 8)].view(40, 42, 4)
    # sum mu_j row_j = 0 with mu >= 0 of sum 1 exists if and only if no W separates
    certificates = [
        linprog([0] * 42, A_eq=[*r.T.tolist(), [1] * 42], b_eq=[0, 0, 0, 0, 1]).status for r in rows
    ]
    assert set(certificates) == {0, 2}
    feasible = att_svm(tokens, queries, selected).feasible
    assert feasible.tolist() == [status == 2 for status in certificates]


def test_share_of_feasible_problems_in_the_plane():
    tokens, queries, selected = problems(200, 6, 8, 2)
    assert att_svm(tokens, queries, selected).feasible.sum() == 29
    # and nothing is separated on a line, everything from d = max(n, T - 1) on
    assert not att_svm(*problems(50, 6, 8, 1)).feasible.any()
    assert att_svm(*problems(200, 6, 8, 7)).feasible.all()


def test_equal_tokens_cannot_be_told_apart():
    tokens, queries, selected = problems(5, 3, 4, 6)
    twin = (selected + 1) % 4
    tokens[2, 1, twin[2, 1]] = tokens[2, 1, selected[2, 1]]
    tokens[4] = tokens[4, :, :1]
    found = att_svm(tokens, queries, selected)
    assert found.feasible.tolist() == [True, True, False, True, False]
    assert found.W[2].isnan().all()
    # two equal tokens that are not selected do no harm: the same W as without one of them
    tokens, queries, selected = problems(5, 3, 4, 6)
    selected = torch.zeros_like(selected)
    tokens[:, :, 3] = tokens[:, :, 2]
    with_twin, without = (att_svm(t, queries, selected).W for t in (tokens, tokens[:, :, :3]))
    torch.testing.assert_close(with_twin, without, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("gap", [1e-2, 1e-4, 1e-6])
def test_nearly_equal_tokens(gap):
    tokens, queries, _ = problems(20, 6, 8, 10)
    generator = torch.Generator().manual_seed(5)
    nearby = gap * torch.randn(20, 6, 10, generator=generator, dtype=torch.float64)
    tokens[:, :, 1] = tokens[:, :, 0] + nearby
    selected = torch.zeros(20, 6, dtype=torch.int64)
    found = att_svm(tokens, queries, selected)
    assert found.feasible.all()
    assert found.W.norm(dim=(1, 2)).min() > 0.1 / gap
    for name, defect in defects(found, tokens, queries, selected).items():
        assert defect < 1e-8, name


def test_units():
    tokens, queries, selected = problems(10, 6, 8, 10)
    found = att_svm(tokens, queries, selected)
    for c in (1e-9, 1e-3, 1e6):
        scaled = att_svm(c * tokens, queries, selected)
        torch.testing.assert_close(c * scaled.W, found.W, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(c**2 * scaled.duals, found.duals, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(
            c * att_svm(tokens, c * queries, selected).W, found.W, rtol=1e-9, atol=1e-10
        )


def test_order_of_tokens_and_sequences_does_not_matter():
    tokens, queries, selected = problems(10, 6, 8, 10)
    found = att_svm(tokens, queries, selected)
    order, turn = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 7, 0, 1, 6, 5, 3, 4])
    place = turn.argsort()
    moved = att_svm(tokens[:, order][:, :, turn], queries[:, order], place[selected[:, order]])
    torch.testing.assert_close(moved.W, found.W, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(moved.duals, found.duals[:, order][:, :, turn], atol=1e-9, rtol=1e-9)


def test_leading_axes_broadcast():
    tokens, queries, _ = problems(6, 3, 4, 5)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)
    many = att_svm(tokens[0], queries[0], every)
    assert many.W.shape == (64, 5, 5)
    assert many.duals.shape == (64, 3, 4)
    for k in (0, 17, 63):
        alone = att_svm(tokens[0], queries[0], every[k])
        assert alone.feasible == many.feasible[k]
        torch.testing.assert_close(alone.W, many.W[k], rtol=1e-10, atol=1e-10, equal_nan=True)
    block = att_svm(tokens.view(2, 3, 3, 4, 5), queries.view(2, 3, 3, 5), every[:3])
    assert block.feasible.shape == (2, 3)
    torch.testing.assert_close(
        block.W[1, 2], att_svm(tokens[5], queries[5], every[2]).W, rtol=1e-10, atol=1e-10
    )
    assert att_svm(tokens[:0], queries[:0], every[:0]).W.shape == (0, 5, 5)


def test_masked_tokens_are_not_compared():
    tokens, queries, _ = problems(8, 4, 6, 7)
    selected = torch.zeros(8, 4, dtype=torch.int64)
    short = att_svm(tokens[:, :, :4], queries, selected)
    mask = torch.ones(4, 6, dtype=torch.bool)
    mask[:, 4:] = False
    found = att_svm(tokens, queries, selected, mask=mask)
    torch.testing.assert_close(found.W, short.W, rtol=1e-10, atol=1e-10)
    assert (found.duals[..., 4:] == 0).all()
    # of different numbers in each sequence and problem: a masked token is as good as any that is
    # far behind the selected one
    generator = torch.Generator().manual_seed(2)
    mask = torch.rand(8, 4, 6, generator=generator) < 0.6
    mask[..., 0] = True
    found = att_svm(tokens, queries, selected, mask=mask)
    behind = tokens[:, :, :1] - 1e3 * (queries @ found.W.mT)[:, :, None]
    moved = att_svm(torch.where(mask[..., None], tokens, behind), queries, selected)
    torch.testing.assert_close(found.W, moved.W, rtol=1e-8, atol=1e-8)
    assert (found.W - att_svm(tokens, queries, selected).W).abs().amax((1, 2)).min() > 1e-3


def test_nothing_to_separate():
    tokens, queries, _ = problems(2, 3, 4, 5)
    selected = torch.zeros(2, 3, dtype=torch.int64)
    for found in (
        att_svm(tokens[:, :, :1], queries, selected),
        att_svm(tokens, queries, selected, mask=torch.eye(3, 4)[:1].bool().expand(3, 4)),
    ):
        assert found.feasible.all()
        assert (found.W == 0).all()
        assert (found.duals == 0).all()


def test_wrong_multipliers_are_refused(monkeypatch):
    # in the place of a solver that stops early
    def without_the_largest(a, b, maxiter):
        u, rest = nnls(a, b, maxiter=maxiter)
        u[u.argmax()] = 0
        return u, rest

    module = importlib.import_module("reproductions.papers.attention_svm.att_svm")
    monkeypatch.setattr(module, "nnls", without_the_largest)
    with pytest.raises(RuntimeError, match="must satisfy every constraint"):
        att_svm(*problems(3, 6, 8, 10))


X, Z, S = problems(2, 3, 4, 5)
NAN = torch.full_like(X, torch.nan)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((NAN, Z, S), "tokens must be finite, got nan"),
        ((X[0, 0], Z, S), r"tokens must be \(..., n, T, d\), none of them 0; got \(4, 5\)"),
        ((X[:, :, :0], Z, S), r"tokens must be .* got \(2, 3, 0, 5\)"),
        ((X, Z[:, :2], S), r"queries must be \(..., 3, 5\), got \(2, 2, 5\)"),
        ((X, Z / 0, S), "queries must be finite"),
        ((X, Z * torch.tensor([1, 0, 1])[:, None], S), "queries must not be zero, got 2 that are"),
        ((X, Z[[0, 1, 1]], S), r"queries must have leading axes that fit \(2,\), got \(3,\)"),
        ((X, Z, S[:, :2]), r"selected must be \(..., 3\), got \(2, 2\)"),
        ((X, Z, S.double()), "selected must be a tensor of torch.int64, got torch.float64"),
        ((X, Z, S + 4), "selected must be from 0 to 3, got"),
        ((X, Z, -1 - S), "selected must be from 0 to 3, got -"),
    ],
)
def test_bad_arguments(arguments, match):
    with pytest.raises(ValueError, match=match):
        att_svm(*arguments)


def test_bad_mask():
    with pytest.raises(ValueError, match=r"mask must be \(..., 3, 4\), got \(3, 3\)"):
        att_svm(X, Z, S, mask=torch.ones(3, 3, dtype=torch.bool))
    with pytest.raises(
        ValueError, match=r"mask must be a tensor of torch\.bool, got torch.float32"
    ):
        att_svm(X, Z, S, mask=torch.ones(3, 4))
    with pytest.raises(ValueError, match="selected must name tokens that mask allows"):
        att_svm(X, Z, S, mask=others(S, 4))

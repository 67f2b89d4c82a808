import pytest
import torch
from torch.linalg import matrix_norm, svdvals

from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.conic import conic_svm
from reproductions.papers.attention_svm.nuclear import att_svm_nuclear
from reproductions.papers.attention_svm.optimality import margins, optimal
from reproductions.papers.attention_svm.problems import draw, plane


def problems(n_problems, n, n_tokens, d):
    drawn = draw(range(n_problems), n=n, n_tokens=n_tokens, d=d)
    return drawn.tokens, drawn.queries, optimal(drawn.tokens, drawn.labels, drawn.head)


def least_margin(w, tokens, queries, selected):
    value = margins(w, tokens, queries, selected)
    return value.scatter(-1, selected[..., None], torch.inf).amin((-2, -1))


def nuclear(w):
    return matrix_norm(w, "nuc")


def cosine(a, b):
    return (a * b).sum((-2, -1)) / (a.norm(dim=(-2, -1)) * b.norm(dim=(-2, -1)))


def test_the_paper_s_three_tokens_in_the_plane():
    drawn = plane("three tokens")
    arguments = drawn.tokens, drawn.queries, optimal(drawn.tokens, drawn.labels, drawn.head)
    least, found = att_svm(*arguments), att_svm_nuclear(*arguments)
    assert found.gap.item() < 1e-9
    assert least.W.norm().item() == pytest.approx(8.6857, abs=5e-5)
    assert nuclear(found.W).item() == pytest.approx(9.75481, abs=5e-6)
    assert cosine(found.W, least.W).item() == pytest.approx(0.8904, abs=5e-5)
    values = svdvals(found.W[0])
    assert values[1] < 1e-12 * values[0]


def test_one_constraint_by_hand():
    # delta z^T / (|delta|^2 |z|^2) in both norms, as it has rank one
    tokens, queries, selected = problems(20, 1, 2, 3)
    found, least = att_svm_nuclear(tokens, queries, selected), att_svm(tokens, queries, selected)
    torch.testing.assert_close(found.W, least.W, rtol=1e-8, atol=1e-9)
    delta = (tokens[:, 0, 0] - tokens[:, 0, 1]).norm(dim=1)
    wanted = 1 / (delta * queries[:, 0].norm(dim=1))
    torch.testing.assert_close(nuclear(found.W), wanted, rtol=1e-9, atol=0)


def test_symmetric_problem_by_hand():
    # Tokens e_1 ... e_T, the first selected, orthonormal queries: W = u (sum_i z_i)^T with
    # u_1 - u_t = 1 and |u|^2 = (T - 1) / T. Every constraint is tight and the dual not unique.
    tokens, queries = torch.eye(8).expand(6, 8, 8), torch.eye(6, 8)
    found = att_svm_nuclear(tokens, queries, torch.zeros(6, dtype=torch.int64))
    assert found.gap < 1e-9
    assert nuclear(found.W).item() == pytest.approx((6 * 7 / 8) ** 0.5, rel=1e-9)
    u = torch.tensor([7 / 8] + 7 * [-1 / 8], dtype=torch.float64)
    torch.testing.assert_close(found.W, u[:, None] * queries.sum(0), rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(("n", "n_tokens", "d"), [(3, 4, 3), (6, 8, 10)])
def test_agreement_with_a_conic_solver(n, n_tokens, d):
    arguments = problems(4, n, n_tokens, d)
    found = att_svm_nuclear(*arguments)
    theirs = conic_svm(*arguments, norm="nuclear", solver="CLARABEL")
    distance = (found.W - theirs).norm(dim=(1, 2)) / found.W.norm(dim=(1, 2))
    assert distance.max() < 1e-3
    # scaled until it satisfies every constraint, theirs is not better by more than our gap
    theirs = theirs / least_margin(theirs, *arguments)[:, None, None]
    assert (nuclear(theirs) >= nuclear(found.W) * (1 - 2 * found.gap)).all()


@pytest.mark.parametrize(
    ("n", "n_tokens", "d"),
    [(6, 8, 2), (6, 8, 3), (6, 8, 4), (5, 5, 20), (10, 5, 10), (6, 8, 50), (2, 2, 1)],
)
def test_certified_gap(n, n_tokens, d):
    # in few dimensions |W| is 1e2 to 1e4, and a first-order method does not arrive
    tokens, queries, selected = problems(3 if d == 50 else 40, n, n_tokens, d)
    found = att_svm_nuclear(tokens, queries, selected)
    least = att_svm(tokens, queries, selected)
    ok = least.feasible
    assert ok.any()
    assert found.W[~ok].isnan().all()
    assert (found.gap[~ok] == torch.inf).all()
    assert ((found.gap[ok] >= 0) & (found.gap[ok] < 1e-8)).all()
    w, w_least = found.W[ok], least.W[ok]
    torch.testing.assert_close(
        least_margin(w, tokens[ok], queries[ok], selected[ok]),
        torch.ones(len(w), dtype=torch.float64),
        rtol=0,
        atol=1e-10,
    )
    # each solution is a competitor of the other in its norm
    assert (nuclear(w) <= nuclear(w_least) * (1 + 1e-9)).all()
    assert (w_least.norm(dim=(1, 2)) <= w.norm(dim=(1, 2)) * (1 + 1e-9)).all()
    # Control: they are not the same. In the plane the constraints leave no choice.
    if d > 2:
        assert (nuclear(w) < 0.99 * nuclear(w_least)).double().mean() > 0.5


def test_gap_bounds_how_far_a_loose_solution_is_from_the_best():
    arguments = problems(30, 6, 8, 10)
    best = att_svm_nuclear(*arguments, tolerance=1e-10)
    assert best.gap.max() < 1e-9
    loose = att_svm_nuclear(*arguments, tolerance=0.1)
    excess = 1 - nuclear(best.W) / nuclear(loose.W)
    assert (excess <= loose.gap + 1e-9).all()
    assert loose.gap.max() <= 0.1
    # Control: the bound is not an empty one.
    assert excess.median() > 1e-6
    assert (excess / loose.gap).median() > 0.05


def test_what_rounding_does_not_permit_is_said():
    arguments = problems(5, 6, 8, 10)
    found = att_svm_nuclear(*arguments, tolerance=1e-17)
    assert (found.gap > 1e-17).any()
    assert found.gap.max() < 1e-9


def test_rank_is_low_and_the_same_for_every_threshold():
    for n, d in ((5, 5), (5, 20), (10, 10)):
        arguments = problems(20, n, 5, d)
        found, least = att_svm_nuclear(*arguments), att_svm(*arguments)
        ok = least.feasible
        values = svdvals(found.W[ok])
        values = values / values[:, :1]
        ranks = torch.stack([(values > t).sum(1) for t in (1e-4, 1e-5, 1e-6, 1e-7)])
        assert (ranks == ranks[0]).all()
        # Frobenius solutions have all the rank that d permits and the queries of those sequences
        # that have a support token; nuclear ones have far less
        supported = (least.duals[ok] > 0).any(2).sum(1).clamp_max(d)
        assert torch.equal(torch.linalg.matrix_rank(least.W[ok], rtol=1e-7), supported)
        assert ranks[0].double().mean() < 0.6 * supported.double().mean()
    # a conic solver finds the same ranks if its small singular values are not counted
    arguments = problems(5, 5, 5, 5)
    values = svdvals(conic_svm(*arguments, norm="nuclear", solver="CLARABEL"))
    ours = svdvals(att_svm_nuclear(*arguments).W)
    assert torch.equal((values > 1e-3 * values[:, :1]).sum(1), (ours > 0.1e-6).sum(1))


def test_equal_constraints():
    # rows of the linear system are the same: tokens that appear twice, queries that do
    tokens, queries, _ = problems(10, 6, 8, 10)
    selected = torch.zeros(10, 6, dtype=torch.int64)
    tokens[:, :, 5:] = tokens[:, :, 2:5]
    twice, once = (att_svm_nuclear(t, queries, selected) for t in (tokens, tokens[:, :, :5]))
    assert twice.gap.max() < 1e-8
    torch.testing.assert_close(twice.W, once.W, rtol=1e-5, atol=1e-5)
    same = att_svm_nuclear(tokens[:, :2], queries[:, :1].expand(-1, 2, -1), selected[:, :2])
    assert same.gap[same.gap.isfinite()].max() < 1e-8
    # one query: W = w z^T / |z|^2, both norms are |w| / |z|
    both = att_svm(tokens[:, :2], queries[:, :1].expand(-1, 2, -1), selected[:, :2])
    torch.testing.assert_close(same.W, both.W, rtol=1e-5, atol=1e-5, equal_nan=True)


def test_units_rotations_and_order():
    tokens, queries, selected = problems(8, 6, 8, 10)
    found = att_svm_nuclear(tokens, queries, selected)

    def same(w):
        torch.testing.assert_close(w, found.W, rtol=1e-5, atol=1e-5)

    for c in (1e-6, 1e6):
        same(c * att_svm_nuclear(c * tokens, queries, selected).W)
        same(c * att_svm_nuclear(tokens, c * queries, selected).W)
    generator = torch.Generator().manual_seed(1)
    left, right = torch.linalg.qr(
        torch.randn(2, 10, 10, generator=generator, dtype=torch.float64)
    ).Q
    turned = att_svm_nuclear(tokens @ left, queries @ right, selected)
    same(left @ turned.W @ right.mT)
    order, turn = torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([2, 7, 0, 1, 6, 5, 3, 4])
    place = turn.argsort()
    same(
        att_svm_nuclear(
            tokens[:, order][:, :, turn], queries[:, order], place[selected[:, order]]
        ).W
    )


def test_leading_axes_masks_and_nothing_to_do():
    tokens, queries, _ = problems(6, 3, 5, 5)
    every = torch.cartesian_prod(*[torch.arange(4)] * 3)[::9]
    mask = torch.arange(5) < 4
    many = att_svm_nuclear(tokens[0], queries[0], every, mask=mask.expand(3, 5))
    assert many.W.shape == (8, 5, 5)
    for k in range(8):
        alone = att_svm_nuclear(tokens[0, :, :4], queries[0], every[k])
        torch.testing.assert_close(alone.W, many.W[k], rtol=1e-5, atol=1e-5, equal_nan=True)
    one = torch.arange(5) == 2
    nothing = att_svm_nuclear(tokens, queries, torch.full((3,), 2), mask=one.expand(3, 5))
    assert (nothing.W == 0).all()
    assert (nothing.gap == 0).all()
    # a problem without any constraint beside one with some and one that is infeasible
    masks = torch.stack([one, mask, mask])[:, None].expand(3, 3, 5)
    tokens[2, 1, 3] = tokens[2, 1, 2]
    mixed = att_svm_nuclear(tokens[:3], queries[:3], torch.full((3,), 2), mask=masks)
    assert (mixed.W[0] == 0).all()
    assert mixed.gap[1] < 1e-9
    assert mixed.W[1].norm() > 0.5
    assert mixed.W[2].isnan().all()
    assert att_svm_nuclear(tokens[:0], queries[:0], every[:0]).W.shape == (0, 5, 5)


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_bad_tolerance(tolerance):
    with pytest.raises(ValueError, match="tolerance must be"):
        att_svm_nuclear(*problems(1, 2, 3, 4), tolerance=tolerance)

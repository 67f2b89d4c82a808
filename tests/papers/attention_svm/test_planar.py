import math

import pytest
import torch

from reproductions.papers.attention_svm.descent import normalised_gd
from reproductions.papers.attention_svm.optimality import margins
from reproductions.papers.attention_svm.outcomes import correlation
from reproductions.papers.attention_svm.planar import (
    level_line,
    log_length,
    planar_run,
    small_factors,
)
from reproductions.papers.attention_svm.problems import plane
from reproductions.papers.shared import log_steps

N_STEPS = 2000
STEPS = log_steps(N_STEPS, 200)


@pytest.fixture(scope="module", params=["three tokens", "five tokens"])
def run(request):
    return planar_run(request.param, n_steps=N_STEPS, generator=torch.Generator().manual_seed(0))


def matrices(run, path):
    """W(k) from W(k) z_1 and W(k) z_2."""
    return torch.linalg.solve(run.problem.queries[0], path).mT


def test_paths_end_in_the_direction_of_their_own_solution(run):
    W, KQ = (matrices(run, path) for path in (run.path, run.factor_path))
    assert correlation(W[-1], run.frobenius) > 0.9995
    assert correlation(KQ[-1], run.nuclear) > 0.997
    # the two directions differ, so neither is reached by chance
    assert correlation(run.frobenius, run.nuclear) < 0.95
    assert correlation(W[-1], run.nuclear) < 0.95
    assert correlation(KQ[-1], run.frobenius) < 0.95
    # and it takes the way to get there
    assert correlation(W[1], run.frobenius) < 0.98
    assert correlation(KQ[20], run.nuclear) < 0.98


def test_the_solutions_separate_the_selected_tokens(run):
    tokens, labels, queries, head = (t[0] for t in run.problem)
    assert torch.equal(run.selected, (labels[:, None] * (tokens @ head)).argmax(1))
    for w in (run.frobenius, run.nuclear):
        assert w.shape == (2, 2)
        least = margins(w, tokens, queries, run.selected).scatter(1, run.selected[:, None], 9.0)
        assert least.min().item() == pytest.approx(1, abs=1e-6)
    norms = [torch.linalg.matrix_norm(w, "nuc") for w in (run.frobenius, run.nuclear)]
    assert norms[1] < norms[0] * 0.999
    assert run.frobenius.norm() < run.nuclear.norm() * 0.999


def test_paths_hold_the_states_at_steps_even_in_their_logarithm(run):
    assert run.path.shape == run.factor_path.shape == (len(STEPS), 2, 2)
    assert torch.equal(run.path[0], torch.zeros(2, 2, dtype=torch.float64))
    assert torch.equal(run.factor_path[0], run.path[0])
    W = matrices(run, run.path)
    zero = torch.zeros(1, 2, 2, dtype=torch.float64)
    for k in (1, 40, 100):
        wanted = normalised_gd(*run.problem, zero, 0.1, STEPS[k])[0]
        torch.testing.assert_close(W[k], wanted, rtol=1e-9, atol=1e-12)
        # a path holds what W makes of each query, a row for each
        for i, z in enumerate(run.problem.queries[0]):
            torch.testing.assert_close(run.path[k, i], wanted @ z, rtol=1e-9, atol=1e-12)


def test_it_is_the_problem_of_that_name(run):
    name = "three tokens" if run.problem.tokens.shape[2] == 3 else "five tokens"
    assert all(torch.equal(a, b) for a, b in zip(run.problem, plane(name), strict=True))


def test_factors_start_from_the_generator():
    g = torch.Generator().manual_seed(4)
    K, Q = small_factors(500, 3, g)
    assert K.shape == Q.shape == (500, 3, 3)
    assert K.dtype is Q.dtype is torch.float64
    assert not Q.any()
    assert K.mean().abs() < 4 * 0.1 / 4500**0.5
    assert K.std().item() == pytest.approx(0.1, rel=0.05)
    again = small_factors(500, 3, torch.Generator().manual_seed(4))[0]
    assert torch.equal(K, again)
    # the generator has moved on
    assert (small_factors(500, 3, g)[0] - K).abs().min() > 0

    def ends(seed):
        found = planar_run("five tokens", n_steps=20, generator=torch.Generator().manual_seed(seed))
        return found.path[-1], found.factor_path[-1]

    (w, kq), (same_w, other_kq) = ends(0), ends(1)
    assert torch.equal(w, same_w)
    assert (kq - other_kq).abs().max() > 1e-3


@pytest.mark.parametrize(
    ("name", "n_steps", "message"),
    [
        ("two tokens", 10, "name must be one of three tokens, five tokens; got 'two tokens'"),
        ("five tokens", 0, "n_steps must be an integer of at least 1, got 0"),
    ],
)
def test_errors_name_argument_and_value(name, n_steps, message):
    with pytest.raises(ValueError, match=message):
        planar_run(name, n_steps=n_steps, generator=torch.Generator())


def test_a_level_line_is_where_it_says_and_across_w():
    w = torch.tensor([3.0, -4.0], dtype=torch.float64)
    ends = level_line(w, 2.5, half=7.0)
    torch.testing.assert_close(ends @ w, torch.full((2,), 2.5, dtype=torch.float64))
    assert (ends[1] - ends[0]).norm().item() == pytest.approx(14.0)
    assert ((ends[1] - ends[0]) @ w).abs() < 1e-12


def test_logarithmic_lengths_keep_directions_and_order():
    vectors = torch.tensor([[0.0, 0.0], [0.3, 0.4], [0.0, -5.0], [99.0, 0.0]]).double()
    shown = log_length(vectors, 1.5)
    assert shown[0].tolist() == [0.0, 0.0]
    assert shown[3].tolist() == pytest.approx([1.5, 0.0])
    length = shown.norm(dim=1)
    assert (length.diff() > 0).all()
    # log(1.5) against log(100)
    assert length[1].item() == pytest.approx(1.5 * math.log(1.5) / math.log(100))
    torch.testing.assert_close(shown[1] / length[1], vectors[1] / 0.5)

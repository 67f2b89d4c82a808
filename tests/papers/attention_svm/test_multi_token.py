import math

import pytest
import torch

from reproductions.papers.attention_svm.descent import loss_and_gradient
from reproductions.papers.attention_svm.generalized import generalized_svm
from reproductions.papers.attention_svm.heads import relu_head
from reproductions.papers.attention_svm.multi_token import (
    MultiToken,
    Prediction,
    active_svm,
    multi_token_run,
    relu_problems,
)
from reproductions.papers.attention_svm.optimality import margins
from reproductions.papers.attention_svm.problems import Problems, default_start


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def run():
    return multi_token_run(range(1, 401), 4)


@pytest.fixture(scope="module")
def prediction(run):
    return run.predict()


def test_problems_are_drawn_in_the_order_of_the_authors():
    found = relu_problems([1, 7], n=3, n_tokens=4, d=6)
    g = torch.Generator().manual_seed(7)
    V = torch.randn(6, 6, generator=g)
    X = torch.randn(3, 4, 6, generator=g)
    Y = torch.randn(3, generator=g)
    Z = torch.randn(3, 6, generator=g)
    torch.testing.assert_close(found.head[1].float(), V / V.norm())
    torch.testing.assert_close(found.tokens[1].float(), X / X.norm(dim=-1, keepdim=True))
    assert torch.equal(found.labels[1] > 0, Y > 0)
    assert (found.labels.abs() == 1).all()
    torch.testing.assert_close(found.queries[1].float(), Z / Z.norm(dim=-1, keepdim=True))
    assert {t.dtype for t in found} == {torch.float64}


def test_the_run_is_the_descent_with_these_seeds():
    run = multi_token_run(range(1, 9), 5, n=2, n_tokens=3, n_steps=20, record=(0, 7, 20))
    problems = relu_problems(range(1, 9), n=2, n_tokens=3, d=5)
    negative = (problems.labels < 0).any(-1)
    assert run.seeds.tolist() == (negative.nonzero()[:, 0] + 1).tolist()
    assert 0 < len(run.seeds) < run.n_seeds == 8
    assert run.steps.tolist() == [0, 7, 20]
    start = default_start(run.seeds.tolist(), 5)
    torch.testing.assert_close(run.W[0], start)
    part = problems.part(negative)
    W = start.clone()
    for _ in range(7):
        gradient = loss_and_gradient(W, *part[:3], relu_head(part.head))[1]
        W -= 0.1 * gradient / gradient.norm(dim=(1, 2), keepdim=True)
    torch.testing.assert_close(run.W[1], W)
    logits = torch.einsum("bitd,bde,bie->bit", part.tokens, W, part.queries)
    torch.testing.assert_close(run.attention[1], logits.softmax(-1))


def made(attention):
    """A run with this attention (B, n, T), on problems of dimension 6."""
    attention = torch.tensor(attention, dtype=torch.float64)
    problems = relu_problems(range(len(attention)), n=2, n_tokens=3, d=6)
    return MultiToken(
        torch.arange(len(attention)), 9, problems, torch.tensor([5]), attention[None],
        random(1, len(attention), 6, 6),
    )  # fmt: skip


def test_the_funnel_by_hand():
    even = [1 / 3, 1 / 3, 1 / 3]
    run = made(
        [
            [[1 - 1e-6, 1e-6, 0.0], even],  # accepted: at the threshold is masked
            [[1 - 2e-6, 2e-6, 0.0], even],  # ambiguous
            [[0.999, 1e-3, 0.0], even],  # ambiguous: at the threshold is not kept
            [[0.998, 2e-3, 0.0], even],  # accepted, two kept
            [even, even],  # nothing masked
            [[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]],  # accepted, one kept everywhere
        ]
    )
    assert run.ambiguous.tolist() == [[False, True, True, False, False, False]]
    assert run.masking.tolist() == [[True, True, True, True, False, True]]
    assert tuple(run.funnel()) == (9, 6, 4, 3, 3)
    found = run.predict()
    assert found.which.tolist() == [0, 3, 5]
    assert found.kept.long().tolist() == [
        [[1, 0, 0], [1, 1, 1]], [[1, 1, 0], [1, 1, 1]], [[1, 0, 0], [1, 0, 0]],
    ]  # fmt: skip
    assert found.several.tolist() == [[False, True], [True, True], [False, False]]
    assert found.leak.tolist() == [1e-6, 0.0, 0.0]
    # with one token kept in every sequence nothing is finite and both SVMs are one
    assert found.finite[2].norm() == 0
    torch.testing.assert_close(found.svm[2], found.single[2])
    # kept tokens share the direction, and the finite part has their ratios
    tokens, _, queries, _ = run.problems.part(3)
    gap = margins(found.svm[1], tokens, queries, torch.tensor([0, 0]))
    assert gap[0, 1].abs() < 1e-10
    assert gap[0, 2] > 1 - 1e-10
    ratio = margins(found.finite[1], tokens, queries, torch.tensor([0, 0]))[0, 1]
    assert ratio.item() == pytest.approx(math.log(0.998 / 2e-3))


def test_two_equal_tokens_are_no_accepted_run():
    run = made([[[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]] * 2)
    run.problems.tokens[1, 0, 1] = run.problems.tokens[1, 0, 0]
    assert tuple(run.funnel()) == (9, 2, 2, 2, 1)
    assert run.predict().which.tolist() == [0]


def test_a_run_without_an_accepted_problem():
    run = made([[[0.5, 0.5 - 1e-4, 1e-4], [0.2, 0.3, 0.5]]])
    assert tuple(run.funnel()) == (9, 1, 0, 0, 0)
    assert run.predict().misfits(run.W[0][:0]).shape == (0, 3)


def test_misfits_by_hand():
    e = torch.eye(4, dtype=torch.float64)[:3].view(3, 1, 2, 2)
    none = torch.zeros(1)
    found = Prediction(none, none, none, none, finite=e[0], svm=e[1], single=e[2])
    misfits = found.misfits(e[0] + 3.0 * e[1] + 2.0 * e[2])
    expected = [1 - math.sqrt(10 / 14), 1 - 3 / math.sqrt(14), 1 - 2 / math.sqrt(14)]
    assert misfits[0].tolist() == pytest.approx(expected)
    # the multiple of W^mm is fitted, that of W^fin is not
    assert found.misfits(e[0] - 7.0 * e[1])[0, 0].item() == pytest.approx(0.0, abs=1e-14)
    assert found.misfits(5.0 * e[0] + e[1])[0, 0].item() > 0.1


def test_the_generalized_svm_predicts_w(run, prediction):
    misfits = prediction.misfits(run.W[-1][prediction.which])
    assert 60 < len(misfits) < 110
    mean = misfits.mean(0)
    assert 0.02 < mean[0] < 0.05
    assert mean[0] < mean[1] < mean[2]
    # the control: what was predicted for another problem
    other = prediction.misfits(run.W[-1][prediction.which.roll(1)])
    assert other[:, 1].median() > 0.5
    # the more is left on masked tokens the worse
    logs = torch.stack([prediction.leak, misfits[:, 0]]).log10()
    assert torch.corrcoef(logs)[0, 1] > 0.5
    assert prediction.leak.max() <= 1e-6


def test_several_tokens_are_mostly_kept_by_sequences_without_a_gradient(run, prediction):
    assert (run.problems.labels[prediction.which][prediction.silent] < 0).double().mean() > 0.9
    several = prediction.several
    assert 0.2 < several.double().mean() < 0.45
    assert prediction.silent[several].double().mean() > 0.7
    assert prediction.silent[~several].double().mean() < 0.1
    # without its silent sequences the loss has the same gradient, but for the factor 1 / n
    silent = run.silent[-1]
    some = (silent.any(-1) & ~silent.all(-1)).nonzero()[:5, 0].tolist()
    assert len(some) == 5
    for b in some:
        one, live = run.problems.part(b), ~silent[b]
        full = loss_and_gradient(run.W[-1, b], *one[:3], relu_head(one.head))[1]
        rest = Problems(one.tokens[live], one.labels[live], one.queries[live], one.head)
        part = loss_and_gradient(run.W[-1, b], *rest[:3], relu_head(rest.head))[1]
        torch.testing.assert_close(full, part * live.double().mean(), rtol=1e-9, atol=0.0)


def test_more_steps_of_the_exact_descent_accept_more_runs():
    long = multi_token_run(
        range(1, 201), 4, n_steps=6000, record=(2000, 4000, 6000), gradient="exact"
    )
    accepted = [long.funnel(k).accepted for k in range(3)]
    assert accepted[0] < accepted[1] < accepted[2]
    # but most of those that were ambiguous stay so
    stay = long.ambiguous[0] & long.ambiguous[-1]
    assert stay.sum() > 0.6 * long.ambiguous[0].sum()
    # predictions made half way hold at the end, without the attention there
    early = long.predict(0)
    misfits = early.misfits(long.W[-1][early.which])
    live = ~early.silent.any(-1)
    assert live.sum() > 5
    assert misfits[live, 0].median() < 1e-3
    # for runs with a silent sequence they do not, which has no part in the growth of W
    assert misfits[~live, 0].median() > 5 * misfits[live, 0].median()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: relu_problems([], n=2, n_tokens=3, d=4), "seeds must name at least one problem"),
        (lambda: relu_problems([-1], n=2, n_tokens=3, d=4), "seed must be an integer of at least"),
        (lambda: relu_problems([1], n=0, n_tokens=3, d=4), "n must be an integer of at least 1"),
        (lambda: relu_problems([1], n=2, n_tokens=1, d=4), "n_tokens must be an integer of at"),
        (lambda: multi_token_run([1], 0), "d must be an integer of at least 1, got 0"),
        (lambda: multi_token_run([1], 4, gradient="fast"), "gradient must be one of"),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_seeds_without_a_negative_label_are_refused():
    labels = relu_problems(range(50), n=2, n_tokens=2, d=3).labels
    positive = (labels > 0).all(-1).nonzero()[:, 0].tolist()
    assert positive
    with pytest.raises(ValueError, match="seeds must name a problem with a label of -1, got none"):
        multi_token_run(positive, 3, n=2, n_tokens=2)


def test_the_svm_of_active_sequences_is_that_of_a_problem_without_the_silent_ones():
    run = multi_token_run(range(1, 61), 4, n_steps=1500, gradient="exact")
    prediction = run.predict()
    found = active_svm(run.problems.part(prediction.which), prediction)
    assert 0 < prediction.silent.any(1).sum() < len(found)
    differ = 0
    for a, which in enumerate(prediction.which):
        active = ~prediction.silent[a]
        tokens, queries = (t[which][active] for t in (run.problems.tokens, run.problems.queries))
        alone = generalized_svm(tokens, queries, prediction.kept[a][active]).W
        torch.testing.assert_close(found[a], alone, rtol=1e-7, atol=1e-9)
        differ += (found[a] - prediction.svm[a]).norm() > 1e-3
    # with all sequences it is another matrix, or nothing was left out
    assert differ > 3


def test_nothing_is_predicted_where_all_sequences_are_silent():
    run = multi_token_run(range(1, 61), 4, n_steps=1500, gradient="exact")
    prediction = run.predict()
    problems = run.problems.part(prediction.which)
    mute = prediction._replace(silent=torch.ones_like(prediction.silent))
    assert active_svm(problems, mute).isnan().all()

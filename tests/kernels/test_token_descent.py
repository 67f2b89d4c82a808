import math
import re

import pytest
import torch

import reproductions.kernels.token_descent as kernel
from reproductions.kernels.token_descent import token_descent, token_gradient


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(*shape, seed=0):
    drawn = normal(*shape, seed=seed)
    return drawn / drawn.norm(dim=-1, keepdim=True)


def problems(*lead, n=3, T=4, d=5, seed=0):
    """Tokens, labels, queries and heads on the unit sphere."""
    labels = normal(*lead, n, seed=seed + 1).sign()
    queries = unit(*lead, n, d, seed=seed + 2)
    return unit(*lead, n, T, d, seed=seed), labels, queries, unit(*lead, d, seed=seed + 3)


def relu_head(o):
    """Sum of relu(o V), V fixed."""
    V = normal(o.shape[-1], 7, seed=99)
    inside = o @ V
    return inside.relu().sum(-1), (inside > 0).double() @ V.T


def quadratic_head(o):
    return o[..., 0] - 0.1 * o.square().sum(-1), torch.eye(o.shape[-1])[0].double() - 0.2 * o


def causal(n, T):
    """Row i sees its first 1 + i mod T tokens."""
    return torch.arange(T) <= torch.arange(n)[:, None] % T


def agree(one, two, tolerance):
    """Two descents, record by record."""
    assert one.steps.tolist() == two.steps.tolist()
    for a, b in zip(
        (one.logits, one.W, *(one.factors or ())),
        (two.logits, two.W, *(two.factors or ())),
        strict=True,
    ):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


SIZES = {"Gram matrix": (3, 4, 5), "weights": (5, 6, 3)}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("gradient", ["exact", "plain"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("head", [None, relu_head, quadratic_head])
@pytest.mark.parametrize("start", ["W", "pair", "penalty", "W, GD", "pair, GD", "penalty, GD"])
def test_forms_agree_with_autograd(size, gradient, masked, head, start):
    n, T, d = size
    tokens, labels, queries, v = problems(2, 3, n=n, T=T, d=d)
    begin = normal(2, 3, d, d, seed=7)
    if "W" not in start:
        begin = normal(2, 3, d, 4, seed=7), normal(2, 3, d, 4, seed=8)
    rates = torch.linspace(0.03, 0.01, 60)
    how = {
        "learning_rate": 10 * rates if "GD" in start else rates,
        "n_steps": 60,
        "record": (0, 1, 30, 60),
        "mask": causal(n, T) if masked else None,
        "gradient": gradient,
        "penalty": 1e-2 if "penalty" in start else 0.0,
        "normalized": "GD" not in start,
    }
    arguments = tokens, labels, queries, v if head is None else head, begin
    found = token_descent(*arguments, **how)
    agree(found, token_descent(*arguments, **how, backend="naive"), 1e-10)
    # the run has gone somewhere, so that agreement is not that of two starts
    assert (found.W[-1] - found.W[0]).flatten(2).norm(dim=-1).min() > 0.02


def test_sizes_take_both_forms():
    # what the ids above promise
    names = []
    for n, T, d in SIZES.values():
        data = kernel.problems(*problems(1, n=n, T=T, d=d), torch.zeros(d, d), None)
        plan = kernel.schedule(0.1, 1, None, "exact", 0.0, True, False)
        names.append(kernel._form("auto", data, plan).__name__)
    assert names == ["KernelForm", "WeightForm"]


def test_two_tokens_by_hand():
    # one row, two tokens: G is always a negative multiple of delta z^T, delta = better - worse
    tokens, labels, queries, v = problems(n=1, T=2, d=3)
    delta = tokens[0, 0] - tokens[0, 1]
    delta = delta * (labels[0] * (delta @ v)).sign()
    wanted = torch.outer(delta, queries[0])
    for backend in ("naive", "batched"):
        run = token_descent(
            tokens,
            labels,
            queries,
            v,
            torch.zeros(3, 3),
            learning_rate=[0.5, 0.25, 0.125],
            n_steps=3,
            record=(0, 1, 3),
            backend=backend,
        )
        lengths = torch.tensor([0, 0.5, 0.875])[:, None, None]
        torch.testing.assert_close(run.W, lengths * wanted / wanted.norm(), rtol=1e-14, atol=1e-14)
        assert run.attention[-1, 0].argmax() == (
            0 if torch.equal(delta, tokens[0, 0] - tokens[0, 1]) else 1
        )


def test_loss_and_gradient_are_those_of_autograd():
    data, W = problems(4), normal(4, 5, 5, seed=8)
    for head in (data[3], 100 * data[3], relu_head):
        found = token_gradient(*data[:3], head, W)
        leaf = W.clone().requires_grad_()
        attention = torch.einsum("bntd,bde,bne->bnt", data[0], leaf, data[2]).softmax(-1)
        o = torch.einsum("bnt,bntd->bnd", attention, data[0])
        h = head(o)[0] if callable(head) else torch.einsum("bnd,bd->bn", o, head)
        loss = torch.log1p(torch.exp(-data[1] * h)).mean(-1)
        (G,) = torch.autograd.grad(loss.sum(), leaf)
        torch.testing.assert_close(found.loss, loss.detach(), rtol=1e-13, atol=0)
        scaled = found.direction * found.log_norm.exp()[:, None, None]
        torch.testing.assert_close(scaled, G, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("masked", [False, True])
def test_gram_matrix_and_weights_are_one_descent(monkeypatch, masked):
    data, W = problems(7, n=6, T=8, d=10), normal(7, 10, 10, seed=4)
    mask = causal(6, 8) if masked else None
    runs = []
    for kernel_form in (True, False):
        monkeypatch.setattr(kernel, "_kernel_is_cheaper", lambda _, answer=kernel_form: answer)
        runs.append(
            token_descent(*data, W, learning_rate=0.1, n_steps=400, record=(0, 3, 400), mask=mask)
        )
    agree(*runs, 1e-9)
    logits = torch.einsum("bntd,sbde,bne->sbnt", data[0], runs[0].W, data[2])
    seen = torch.ones(6, 8, dtype=torch.bool) if mask is None else mask
    torch.testing.assert_close(runs[0].logits[..., seen], logits[..., seen], rtol=1e-12, atol=1e-12)
    assert (runs[0].logits[..., ~seen] == -math.inf).all()
    attention = logits.masked_fill(~seen, -math.inf).softmax(-1)
    torch.testing.assert_close(runs[0].attention, attention, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("start", ["W", "pair"])
def test_masked_tokens_might_as_well_not_be_there(start):
    tokens, labels, queries, v = problems(3, T=6)
    begin = torch.zeros(5, 5) if start == "W" else (normal(5, 5, seed=1), normal(5, 5, seed=2))
    kept = torch.tensor([True, False, True, True, False, True])
    how = {"learning_rate": 0.1, "n_steps": 80}
    run = token_descent(tokens, labels, queries, v, begin, mask=kept.expand(3, 3, 6), **how)
    alone = token_descent(tokens[:, :, kept], labels, queries, v, begin, **how)
    torch.testing.assert_close(run.W, alone.W, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(run.logits[..., kept], alone.logits, rtol=1e-11, atol=1e-11)
    assert (run.attention[..., ~kept] == 0).all()
    other = token_descent(tokens, labels, queries, v, begin, **how)
    assert (run.W - other.W).abs().max() > 0.1


def test_order_of_tokens_and_rows_does_not_matter():
    tokens, labels, queries, v = problems()
    rows, places = torch.tensor([2, 0, 1]), torch.tensor([3, 1, 0, 2])
    how = {"learning_rate": 0.1, "n_steps": 100}
    run = token_descent(tokens, labels, queries, v, torch.zeros(5, 5), **how)
    turned = token_descent(
        tokens[rows][:, places], labels[rows], queries[rows], v, torch.zeros(5, 5), **how
    )
    torch.testing.assert_close(turned.W, run.W, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(
        turned.logits, run.logits[:, rows][:, :, places], rtol=1e-11, atol=1e-11
    )


@pytest.mark.parametrize("backend", ["naive", "batched"])
@pytest.mark.parametrize("gradient", ["exact", "plain"])
def test_no_gradient_no_step(backend, gradient):
    tokens, labels, queries, v = problems()
    W = normal(5, 5, seed=3)
    how = {"learning_rate": 0.1, "n_steps": 5, "gradient": gradient, "backend": backend}
    # one token four times in every row; then different tokens with scores that are equal exactly
    same = tokens[:, :1].expand(3, 4, 5)
    along = torch.tensor([1.0, 0, 0, 0, 0])
    level = tokens.clone()
    level[..., 0] = 0.25
    single = tokens[:, :1]
    for x, head in ((same, v), (level, along), (single, v)):
        run = token_descent(x, labels, queries, head, W, **how)
        if gradient == "exact" and backend == "batched":
            assert torch.equal(run.W[-1], W)
        assert torch.isfinite(run.W).all()
    # Control: the tokens are not what keeps it still.
    assert not torch.equal(token_descent(level, labels, queries, v, W, **how).W[-1], W)


def test_a_factor_without_gradient_stays_while_the_other_moves():
    data, K = problems(), 0.1 * normal(5, 5, seed=4)
    for gradient in ("exact", "plain"):
        run = token_descent(
            *data,
            (K, torch.zeros(5, 5)),
            learning_rate=0.1,
            n_steps=2,
            record=(0, 1, 2),
            gradient=gradient,
        )
        assert torch.equal(run.factors[0][1], K)
        assert run.factors[1][1].norm() == pytest.approx(0.1, abs=1e-12)
        assert (run.factors[0][2] - K).norm() == pytest.approx(0.1, abs=1e-12)
        assert torch.equal(run.W, run.factors[0] @ run.factors[1].mT)


def test_batches_are_their_problems_one_by_one(monkeypatch):
    for name in ("KernelForm", "WeightForm", "FactorForm"):
        # several blocks, the last one short
        monkeypatch.setitem(kernel._BLOCK, getattr(kernel, name), 8 * 3 * 300)
    for T in (4, 30):
        data = problems(5, 2, T=T)
        for start in (normal(5, 2, 5, 5), (normal(5, 2, 5, 3), normal(5, 2, 5, 3, seed=1))):
            for gradient in ("exact", "plain"):
                how = {"learning_rate": 0.1, "n_steps": 20, "gradient": gradient}
                run = token_descent(*data, start, **how, record=(5, 20))
                for b in ((0, 0), (3, 1), (4, 1)):
                    begin = start[b] if isinstance(start, torch.Tensor) else [t[b] for t in start]
                    one = token_descent(*(t[b] for t in data), begin, **how, record=(5, 20))
                    torch.testing.assert_close(run.W[:, *b], one.W, rtol=1e-12, atol=1e-13)
                    torch.testing.assert_close(
                        run.logits[:, *b], one.logits, rtol=1e-12, atol=1e-13
                    )


def test_axes_in_front_broadcast():
    # many starts of one problem, one mask for all, and nothing at all
    tokens, labels, queries, v = problems()
    starts = normal(4, 5, 5)
    how = {"learning_rate": 0.1, "n_steps": 10}
    run = token_descent(tokens, labels, queries, v, starts, mask=causal(3, 4), **how)
    assert run.W.shape == (1, 4, 5, 5)
    assert run.logits.shape == (1, 4, 3, 4)
    one = token_descent(tokens, labels, queries, v, starts[2], mask=causal(3, 4), **how)
    torch.testing.assert_close(run.W[:, 2], one.W, rtol=1e-13, atol=1e-14)
    assert one.W.shape == (1, 5, 5)
    none = token_descent(*problems(0), torch.zeros(5, 5), **how, record=(0, 10))
    assert none.W.shape == (2, 0, 5, 5)
    assert none.logits.shape == (2, 0, 3, 4)
    assert token_gradient(*problems(0), torch.zeros(5, 5)).log_norm.shape == (0,)
    per_start = token_descent(tokens, labels, queries, relu_head, starts, **how)
    alone = token_descent(tokens, labels, queries, relu_head, starts[1], **how)
    torch.testing.assert_close(per_start.W[:, 1], alone.W, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("gradient", ["exact", "plain"])
def test_records_and_going_on_from_one(gradient):
    data, how = problems(2), {"gradient": gradient}
    rates = [0.2 / (1 + k) for k in range(12)]
    whole = token_descent(
        *data, torch.zeros(5, 5), learning_rate=rates, n_steps=12, record=(0, 5, 12), **how
    )
    assert whole.steps.tolist() == [0, 5, 12]
    assert (whole.W[0] == 0).all()
    assert (whole.logits[0] == 0).all()
    last = token_descent(*data, torch.zeros(5, 5), learning_rate=rates, n_steps=12, **how)
    assert last.steps.tolist() == [12]
    assert torch.equal(last.W[0], whole.W[2])
    on = token_descent(*data, whole.W[1], learning_rate=rates[5:], n_steps=7, **how)
    torch.testing.assert_close(on.W[0], whole.W[2], rtol=1e-12, atol=1e-13)
    still = token_descent(*data, whole.W[1], learning_rate=0.1, n_steps=0, **how)
    assert torch.equal(still.W[0], whole.W[1])


def test_inputs_are_left_alone_and_need_not_be_float64():
    data = problems(2)
    start = normal(2, 5, 5).requires_grad_()
    given = [t.clone() for t in (*data, start)]
    run = token_descent(*data, start, learning_rate=0.1, n_steps=4)
    assert not run.W.requires_grad
    assert all(torch.equal(a, b) for a, b in zip(given, (*data, start), strict=True))
    tokens, labels, queries, v = data
    single = token_descent(
        tokens.float(),
        labels.long(),
        queries.float(),
        v.float(),
        start.float(),
        learning_rate=0.1,
        n_steps=4,
    )
    assert single.W.dtype == torch.float64
    torch.testing.assert_close(single.W, run.W, rtol=1e-5, atol=1e-5)


TOKENS, LABELS, QUERIES, HEAD = problems(2)
WEIGHTS = torch.zeros(5, 5)


def with_entry(tensor, index, value):
    tensor = tensor.clone()
    tensor[index] = value
    return tensor


BAD = [
    ({"tokens": TOKENS[0, 0]}, r"tokens must have shape \(..., n, T, d\), got \(4, 5\)"),
    ({"tokens": TOKENS[:, :, :0]}, r"tokens must have shape \(..., n, T, d\), got \(2, 3, 0, 5\)"),
    ({"tokens": with_entry(TOKENS, (0, 0, 0, 0), math.nan)}, "tokens must be finite, got nan"),
    ({"labels": LABELS[:, :2]}, r"labels must have shape \(..., 3\), got \(2, 2\)"),
    ({"labels": LABELS * 2}, r"labels must be \+1 or -1, got -?2"),
    ({"labels": with_entry(LABELS, (1, 1), 0.0)}, r"labels must be \+1 or -1, got 0"),
    ({"queries": QUERIES[..., :4]}, r"queries must have shape \(..., 3, 5\), got \(2, 3, 4\)"),
    ({"queries": with_entry(QUERIES, (1, 2), 0.0)}, r"queries must not be zero.* index \(1, 2\)"),
    ({"queries": with_entry(QUERIES, (0, 0), math.inf)}, "queries must be finite, got inf"),
    ({"head": HEAD[:, :3]}, r"head must have shape \(..., 5\), got \(2, 3\)"),
    ({"head": "relu"}, "head must be a real number or a tensor, got 'relu'"),
    ({"head": lambda o: (o, o)}, r"head must return a value of shape \(2, 3\), got \(2, 3, 5\)"),
    (
        {"head": lambda o: (o.sum(-1), o.sum(-1))},
        r"head must return a gradient of shape \(2, 3, 5\), got \(2, 3\)",
    ),
    ({"start": torch.zeros(5, 4)}, r"start must have shape \(..., 5, 5\), got \(5, 4\)"),
    ({"start": (WEIGHTS,)}, r"start must be W or a pair \(K, Q\), got 1 tensors"),
    ({"start": (torch.ones(4, 2), torch.ones(5, 2))}, r"start\[0\] must have shape \(..., 5, 2\)"),
    ({"start": (torch.ones(5, 2), torch.ones(5, 3))}, r"start\[1\] must have shape \(..., 5, 2\)"),
    ({"start": torch.zeros(3, 5, 5)}, r"batch axes must broadcast.* tokens \(2,\).*start \(3,\)"),
    ({"learning_rate": 0.0}, "learning_rate must be greater than 0, got 0"),
    ({"learning_rate": math.nan}, "learning_rate must be finite, got nan"),
    (
        {"learning_rate": [0.1, 0.1]},
        r"learning_rate must be one number or n_steps=3 of them, got shape \(2,\)",
    ),
    ({"learning_rate": [0.1, -0.1, 0.1]}, "learning_rate must be greater than 0, got -0.1"),
    ({"n_steps": -1}, "n_steps must be an integer of at least 0, got -1"),
    ({"record": (2, 1)}, "record must be ascending step numbers.* n_steps=3, got 1 after 2"),
    ({"record": (1, 1)}, "record must be ascending step numbers.* got 1 after 1"),
    ({"record": (0, 4)}, "record must be ascending step numbers.* got 4 after 0"),
    ({"record": (-1,)}, "record must be ascending step numbers.* got -1"),
    ({"record": ()}, "record must name at least one step, got none"),
    ({"record": (0.5,)}, r"record must be ascending step numbers.* got 0\.5"),
    ({"mask": torch.ones(3, 4)}, r"mask must be a bool tensor, got torch\.float32"),
    ({"mask": [True]}, "mask must be a bool tensor, got list"),
    ({"mask": torch.ones(4, 3) > 0}, r"mask must have shape \(..., 3, 4\), got \(4, 3\)"),
    (
        {"mask": with_entry(torch.ones(3, 4) > 0, 1, False)},
        r"mask must leave every row a token, got none at index \(1,\)",
    ),
    ({"gradient": "stable"}, "gradient must be one of exact, plain; got 'stable'"),
    ({"backend": "cuda"}, "backend must be one of auto, naive, batched, triton; got 'cuda'"),
    ({"penalty": 1e-3}, r"penalty must be 0 unless start is a pair \(K, Q\), got 0\.001"),
    ({"penalty": -1.0}, "penalty must be at least 0, got -1"),
    ({"penalty": [0.1, 0.1]}, r"penalty must be one number, got shape \(2,\)"),
]


@pytest.mark.parametrize(("bad", "sentence"), BAD, ids=[sentence[:40] for _, sentence in BAD])
def test_bad_arguments_are_named(bad, sentence):
    good = {
        "tokens": TOKENS,
        "labels": LABELS,
        "queries": QUERIES,
        "head": HEAD,
        "start": WEIGHTS,
        "learning_rate": 0.1,
        "n_steps": 3,
    }
    assert token_descent(**good).W.shape == (1, 2, 5, 5)
    with pytest.raises(ValueError, match=sentence) as caught:
        token_descent(**good | bad)
    assert "\n" not in str(caught.value)


def test_gradient_names_its_own_argument():
    with pytest.raises(ValueError, match=re.escape("W must have shape (..., 5, 5), got (5, 4)")):
        token_gradient(TOKENS, LABELS, QUERIES, HEAD, torch.zeros(5, 4))

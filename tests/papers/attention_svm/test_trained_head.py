import mpmath
import pytest
import torch

from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.optimality import optimal, scores
from reproductions.papers.attention_svm.outcomes import correlation
from reproductions.papers.attention_svm.problems import default_start, draw
from reproductions.papers.attention_svm.trained_head import train_with_head

P = draw(range(8), n=4, n_tokens=5, d=6)
START = default_start(range(8), 6)


def loss(W, v, problems):
    tokens, labels, queries, _ = problems
    total = 0.0
    for i in range(labels.shape[1]):
        logits = (tokens[:, i] @ W @ queries[:, i, :, None])[..., 0]
        answer = (logits.softmax(1)[..., None] * tokens[:, i]).sum(1)
        total = total + torch.log1p(torch.exp(-labels[:, i] * (answer * v).sum(1)))
    return total / labels.shape[1]


def gradients(W, v, problems):
    """By automatic differentiation."""
    W, v = W.detach().requires_grad_(), v.detach().requires_grad_()
    return torch.autograd.grad(loss(W, v, problems).sum(), (W, v))


def test_both_follow_automatic_differentiation():
    W, v = START, P.head
    for _ in range(100):
        G, g = gradients(W, v, P)
        W = W - 0.1 * G / G.norm(dim=(1, 2), keepdim=True)
        v = v - 0.1 * g / g.norm(dim=1, keepdim=True)
    found = train_with_head(P, START, learning_rate=0.1, n_steps=100)
    torch.testing.assert_close(found.W, W, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.head, v, rtol=0, atol=1e-9)
    logits = torch.einsum("bntd,bde,bne->bnt", P.tokens, found.W, P.queries)
    torch.testing.assert_close(found.logits, logits, rtol=0, atol=1e-12)
    # the head has moved a long way, and taken W elsewhere than it would go by itself
    assert torch.cosine_similarity(v, P.head).max() < 0.99
    assert v.norm(dim=1).min() > 3
    assert loss(W, v, P).max() < 0.5 * loss(START, P.head, P).min()


def test_the_data_are_left_as_they_were():
    before = [t.clone() for t in (*P, START)]
    train_with_head(P, START, learning_rate=0.1, n_steps=3)
    assert all(torch.equal(a, b) for a, b in zip((*P, START), before, strict=True))
    found = train_with_head(P, START, learning_rate=0.1, n_steps=0)
    assert torch.equal(found.W, START)
    assert torch.equal(found.head, P.head)


def far_away():
    """Three problems that select well by W of norm 3000 and a head of length 5000."""
    many = draw(range(40), n=4, n_tokens=5, d=6)
    gamma = scores(many.tokens, many.labels, many.head)
    few = many.part((gamma.amax(2).amin(1) > 0.3).nonzero()[:3, 0])
    best = optimal(few.tokens, few.labels, few.head)
    W = att_svm(few.tokens, few.queries, best).W
    return few._replace(head=5000 * few.head), 3000 * W / W.norm(dim=(1, 2), keepdim=True)


def test_it_moves_on_where_automatic_differentiation_sees_nothing():
    few, W = far_away()
    for slope in gradients(W, few.head, few):
        assert not slope.any()
    found = train_with_head(few, W, learning_rate=0.5, n_steps=1)
    # differences from numbers of size 5000 have eleven digits
    steps = (W - found.W) / 0.5, (few.head - found.head) / 0.5
    for b in range(3):
        for step, slope in zip(steps, precise_gradients(few.part(b), W[b]), strict=True):
            wanted = torch.tensor([float(x) for x in slope], dtype=torch.float64)
            torch.testing.assert_close(step[b].flatten(), wanted, rtol=0, atol=1e-9)
    # so it does for as long as one likes
    later = train_with_head(few, W, learning_rate=0.5, n_steps=200)
    assert (later.W - W).norm(dim=(1, 2)).min() > 60
    assert (later.head - few.head).norm(dim=1).min() > 60


def precise_gradients(problem, W):
    """Unit gradients in W and in v, by the sums that define them, with digits enough for them."""
    with mpmath.workdps(3000):
        x, y, z, v = (mpmath_of(t) for t in problem)
        W = mpmath_of(W)
        size = len(v)
        in_W, in_v = [mpmath.mpf(0)] * size**2, [mpmath.mpf(0)] * size
        for X, label, query in zip(x, y, z, strict=True):
            keys = [dot(row, query) for row in W]
            weights = [mpmath.exp(dot(token, keys)) for token in X]
            s = [w / mpmath.fsum(weights) for w in weights]
            gamma = [label * dot(token, v) for token in X]
            f = dot(s, gamma)
            pull = 1 / (1 + mpmath.exp(f))
            for token, share, score in zip(X, s, gamma, strict=True):
                in_a = -pull * share * (score - f)
                for j in range(size):
                    in_v[j] -= pull * label * share * token[j]
                    for k in range(size):
                        in_W[size * j + k] += in_a * token[j] * query[k]
        return [[t / mpmath.sqrt(dot(slope, slope)) for t in slope] for slope in (in_W, in_v)]


def mpmath_of(tensor):
    return [mpmath_of(t) for t in tensor] if tensor.ndim else mpmath.mpf(tensor.item())


def dot(a, b):
    return mpmath.fsum(p * q for p, q in zip(a, b, strict=True))


def test_attention_goes_to_the_machine_of_the_tokens_selected():
    # what the chapter reports; the selection is another than with a fixed head
    many = draw(range(20), n=6, n_tokens=8, d=10)
    found = train_with_head(many, default_start(range(20), 10), learning_rate=0.1, n_steps=500)
    selected = found.logits.argmax(2)
    W = att_svm(many.tokens, many.queries, selected).W
    assert correlation(found.W, W).median() > 0.96
    first, last = (
        (selected == optimal(many.tokens, many.labels, v)).all(1).double().mean()
        for v in (many.head, found.head)
    )
    assert first < 0.2 < 0.5 < last


def test_a_gradient_of_zero_leaves_its_parameter():
    # with v = 0 all tokens score the same: only the head can move, and then both do
    blank = P._replace(head=torch.zeros_like(P.head))
    one = train_with_head(blank, START, learning_rate=0.1, n_steps=1)
    assert torch.equal(one.W, START)
    torch.testing.assert_close(one.head.norm(dim=1), torch.full((8,), 0.1).double())
    two = train_with_head(blank, START, learning_rate=0.1, n_steps=2)
    torch.testing.assert_close((two.W - START).norm(dim=(1, 2)), torch.full((8,), 0.1).double())
    # two opposite tokens with equal attention: the head cannot move
    mirror = P._replace(tokens=torch.stack([P.tokens[:, :, 0], -P.tokens[:, :, 0]], 2))
    stuck = train_with_head(mirror, 0 * START, learning_rate=0.1, n_steps=1)
    assert torch.equal(stuck.head, P.head)
    torch.testing.assert_close(stuck.W.norm(dim=(1, 2)), torch.full((8,), 0.1).double())


def test_any_leading_axes():
    flat = train_with_head(P, START, learning_rate=0.1, n_steps=5)
    folded = P._make(t.unflatten(0, (2, 4)) for t in P)
    found = train_with_head(folded, START.unflatten(0, (2, 4)), learning_rate=0.1, n_steps=5)
    single = train_with_head(P.part(3), START[3], learning_rate=0.1, n_steps=5)
    for one, other, last in zip(flat, found, single, strict=True):
        torch.testing.assert_close(one.unflatten(0, (2, 4)), other, rtol=0, atol=1e-13)
        torch.testing.assert_close(one[3], last, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"learning_rate": 0.0}, "learning_rate must be greater than 0, got 0"),
        ({"learning_rate": float("nan")}, "learning_rate must be finite, got nan"),
        ({"n_steps": -1}, "n_steps must be an integer of at least 0, got -1"),
        ({"n_steps": 1.5}, "n_steps must be an integer of at least 0, got 1.5"),
        # it would fit by broadcasting
        ({"start": START[0]}, r"start must have the shape \(8, 6, 6\), got \(6, 6\)"),
        ({"start": START[..., :5]}, r"start must have the shape \(8, 6, 6\), got \(8, 6, 5\)"),
        ({"start": START / 0}, "start must be finite, got"),
        ({"problems": P._replace(labels=P.labels[:, :3])}, r"labels must have shape .* got \(8, 3"),
        ({"problems": P._replace(labels=P.labels + 2)}, r"labels must be \+1 or -1, got"),
        ({"problems": P._replace(queries=0 * P.queries)}, "queries must not be zero vectors"),
    ],
)
def test_errors_name_argument_and_value(changed, message):
    arguments = {"problems": P, "start": START, "learning_rate": 0.1, "n_steps": 2}
    with pytest.raises(ValueError, match=message):
        train_with_head(**arguments | changed)

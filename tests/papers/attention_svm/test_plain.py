import math

import torch

from reproductions.kernels.token_descent import token_descent
from reproductions.papers.attention_svm.descent import gradient_direction, loss_and_gradient
from reproductions.papers.attention_svm.plain import attention_loss, autograd_descent
from reproductions.papers.attention_svm.problems import default_start, draw

P = draw(range(6), n=4, n_tokens=5, d=3)
START = default_start(range(6), 3)


def test_loss_against_a_loop():
    W = 4 * START
    found = attention_loss(W, *P)
    assert found.shape == (6,)
    for b in range(6):
        x, y, z, v = (t[b].tolist() for t in P)
        w = W[b].tolist()
        total = 0.0
        for i in range(4):
            logits = [
                sum(x[i][t][j] * w[j][k] * z[i][k] for j in range(3) for k in range(3))
                for t in range(5)
            ]
            weights = [math.exp(a) for a in logits]
            answer = [sum(weights[t] * x[i][t][j] for t in range(5)) for j in range(3)]
            output = sum(a * c for a, c in zip(answer, v, strict=True)) / sum(weights)
            total += math.log(1 + math.exp(-y[i] * output)) / 4
        assert abs(found[b].item() - total) < 1e-14


def test_loss_and_its_gradient_are_those_of_the_kernel():
    W = (4 * START).requires_grad_()
    loss = attention_loss(W, *P)
    (G,) = torch.autograd.grad(loss.sum(), W)
    for one, other in zip(loss_and_gradient(W.detach(), *P), (loss, G), strict=True):
        torch.testing.assert_close(one, other.detach(), rtol=1e-12, atol=1e-15)
    # W and not its transpose
    turned, _ = loss_and_gradient(W.detach().mT, *P)
    assert (turned - loss).abs().min() > 1e-5


def test_no_overflow_at_a_large_loss():
    wrong = P._replace(head=-3000 * P.labels[:, :1] * P.tokens[:, 0, 0])
    assert attention_loss(START, *wrong).isfinite().all()
    assert attention_loss(START, *wrong).max() > 100


def test_any_leading_axes():
    halves = [t.unflatten(0, (2, 3)) for t in (START, *P)]
    torch.testing.assert_close(
        attention_loss(*halves), attention_loss(START, *P).unflatten(0, (2, 3))
    )
    torch.testing.assert_close(
        attention_loss(START[0], *(t[0] for t in P)), attention_loss(START, *P)[0]
    )


def test_descent_is_that_of_the_kernel():
    n_steps = 60
    found = autograd_descent(START, P, learning_rate=0.1, n_steps=n_steps)
    for gradient in ("exact", "plain"):
        run = token_descent(*P, START, learning_rate=0.1, n_steps=n_steps, gradient=gradient)
        torch.testing.assert_close(found, run.W[-1], rtol=1e-10, atol=1e-11)
    assert not found.requires_grad
    assert torch.equal(autograd_descent(START, P, learning_rate=0.1, n_steps=0), START)
    # each problem has taken steps of that length, whatever the others did
    one = autograd_descent(START, P, learning_rate=0.1, n_steps=1)
    torch.testing.assert_close((one - START).norm(dim=(1, 2)), torch.full((6,), 0.1).double())
    alone = autograd_descent(START[2:3], P.part(slice(2, 3)), learning_rate=0.1, n_steps=n_steps)
    torch.testing.assert_close(alone[0], found[2], rtol=1e-12, atol=1e-12)


def test_descent_fails_where_attention_is_saturated():
    # what the exact direction is for
    far = autograd_descent(START, P, learning_rate=0.1, n_steps=60)
    far = 1e5 * far / far.norm(dim=(1, 2), keepdim=True)
    assert not autograd_descent(far, P, learning_rate=0.1, n_steps=1).isfinite().any()
    assert (gradient_direction(far, *P).norm(dim=(1, 2)) - 1).abs().max() < 1e-12

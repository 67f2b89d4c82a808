import math

import numpy as np
import pytest
import torch

from reproductions.papers.ntk import networks
from reproductions.papers.ntk.networks import draw, in_blocks, seeds_from, widths_of

WIDTHS = (3, 7, 5, 2)
BETA = 0.3
X = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def plain(weights, biases, x, beta, activation=torch.relu):
    """The network as the paper writes it, one network, (N, n_L)."""
    for layer, (w, b) in enumerate(zip(weights, biases, strict=True)):
        x = (activation(x) if layer else x) @ w.T / math.sqrt(w.shape[1]) + beta * b
    return x


def jacobian(weights, biases, x, beta, output, activation=torch.relu):
    """(N, P), one derivative per parameter, by autograd."""
    n = len(weights)

    def f(*parameters):
        return plain(parameters[:n], parameters[n:], x, beta, activation)[:, output]

    parts = torch.autograd.functional.jacobian(f, (*weights, *biases))
    return torch.cat([part.flatten(1) for part in parts], 1)


def one(nets, r):
    return [w[r] for w in nets.weights], [b[r] for b in nets.biases]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("widths", [(2, 1), (1, 2, 1), (3, 40, 40, 1)])
def test_a_network_is_its_seed_s_whatever_is_drawn_beside_it(widths, dtype):
    seeds = [5, 8, 0, 2**32 - 1, 17]
    options = {"bias_scale": BETA, "dtype": dtype}
    together = draw(widths, seeds, **options)
    assert len(together) == 5
    x = torch.linspace(-1, 1, 4 * widths[0], dtype=torch.float64).view(4, -1)
    for r, seed in enumerate(seeds):
        alone = draw(widths, [seed], **options)
        for many, single in zip(
            together.weights + together.biases, alone.weights + alone.biases, strict=True
        ):
            assert torch.equal(many[r], single[0])
            assert many.dtype is dtype
        torch.testing.assert_close(
            together.outputs(x)[r], alone.outputs(x)[0], rtol=1e-5, atol=1e-6
        )
    # five seeds, five networks
    assert together.weights[0].flatten(1).unique(dim=0).shape[0] == 5


def test_every_parameter_is_standard_normal_and_drawn_once():
    nets = draw((3, 30, 20, 2), range(1000), bias_scale=BETA, dtype=torch.float64)
    for t in nets.weights + nets.biases:
        n = t.numel()
        assert abs(t.mean()) < 4 / math.sqrt(n)
        assert abs(t.square().mean() - 1) < 4 * math.sqrt(2 / n)
        # the fourth moment tells a Gaussian from other laws of this variance: Var z^4 = 96
        assert abs(t.pow(4).mean() - 3) < 4 * math.sqrt(96 / n)
    flat = torch.cat([t.flatten(1) for t in nets.weights + nets.biases], 1)
    assert flat.shape == (1000, 3 * 30 + 30 * 20 + 20 * 2 + 30 + 20 + 2)
    # no number serves two parameters, within a network or in two of them
    assert flat.unique().numel() == flat.numel()


def test_shapes_and_the_meaning_of_depth():
    assert widths_of(3, 16, 4) == (3, 16, 16, 16, 1)
    assert widths_of(3, 16, 1) == (3, 1)
    assert widths_of(2, 8, 2, n_outputs=5) == (2, 8, 5)
    nets = draw(WIDTHS, [1, 2], bias_scale=BETA)
    assert [tuple(w.shape) for w in nets.weights] == [(2, 7, 3), (2, 5, 7), (2, 2, 5)]
    assert [tuple(b.shape) for b in nets.biases] == [(2, 7), (2, 5), (2, 2)]


@pytest.mark.parametrize(
    ("name", "function"), [("relu", torch.relu), ("erf", torch.erf), (torch.sin, torch.sin)]
)
def test_outputs_and_kernel_are_those_of_the_plain_network(name, function):
    nets = draw(WIDTHS, [3, 4], bias_scale=BETA, activation=name, dtype=torch.float64)
    z = X[:2] + 0.1
    for r in range(2):
        w, b = one(nets, r)
        expected = plain(w, b, X, BETA, function)
        for k in (0, 1):
            torch.testing.assert_close(
                nets.outputs(X, output=k)[r], expected[:, k], rtol=0, atol=1e-13
            )
        first, second = (jacobian(w, b, X, BETA, k, function) for k in (0, 1))
        other = jacobian(w, b, z, BETA, 1, function)
        for found, theta in (
            (nets.kernel(X, output=1), second @ second.T),
            (nets.kernel(X, output=(0, 1)), first @ second.T),
            (nets.kernel(X, z, output=(0, 1)), first @ other.T),
        ):
            torch.testing.assert_close(found[r], theta, rtol=1e-12, atol=1e-12)


def test_inputs_take_the_dtype_of_the_networks():
    nets = draw((3, 7, 1), [3], bias_scale=BETA)
    assert nets.outputs(X).dtype is torch.float32
    assert nets.kernel(X, X[:2]).dtype is torch.float32
    assert nets.kernel(X, X[:2]).shape == (1, 6, 2)


def test_a_copy_has_parameters_of_its_own():
    nets = draw((3, 7, 1), [3], bias_scale=BETA, activation="erf")
    before = nets.outputs(X)
    copy = nets.copy()
    assert torch.equal(copy.outputs(X), before)
    for t in copy.weights + copy.biases:
        t.zero_()
    assert torch.equal(nets.outputs(X), before)
    assert not copy.outputs(X).any()


def test_blocks_hold_every_seed_once_in_order_and_no_more_than_fits(monkeypatch):
    size = 4 * (4 * 7 + 8)
    monkeypatch.setattr(networks, "_BLOCK", {"cpu": 3 * size + 1})
    widths, seeds = (3, 7, 1), [9, 4, 1, 7, 3, 8, 2]
    blocks = list(in_blocks(widths, seeds, bias_scale=BETA))
    assert [len(block) for block in blocks] == [3, 3, 1]
    together = draw(widths, seeds, bias_scale=BETA)
    for layer in range(2):
        parts = torch.cat([block.weights[layer] for block in blocks])
        assert torch.equal(parts, together.weights[layer])
        assert torch.equal(
            torch.cat([block.biases[layer] for block in blocks]), together.biases[layer]
        )
    # numbers of twice the size: half as many; a network larger than a block comes alone
    blocks = in_blocks(widths, seeds, bias_scale=BETA, dtype=torch.float64)
    assert [len(block) for block in blocks] == [1] * 7
    monkeypatch.setattr(networks, "_BLOCK", {"cpu": 1})
    assert [len(block) for block in in_blocks(widths, seeds, bias_scale=BETA)] == [1] * 7


def test_seeds_are_different_and_the_first_ones_stay():
    n = 200_000
    seeds = seeds_from(1, n)
    assert len(seeds) == len(set(seeds)) == n
    assert seeds_from(1, 10) == seeds[:10]
    assert not set(seeds_from(2, 10)) & set(seeds[:10])
    assert 0 <= min(seeds) <= max(seeds) < 2**32
    # what they are made of does repeat itself
    words = np.random.SeedSequence(1).generate_state(n, np.uint32)
    assert len(np.unique(words)) < n


def test_integers_of_numpy_are_seeds():
    first, second = (draw((2, 1), s, bias_scale=0.0) for s in (np.arange(3), [0, 1, 2]))
    assert torch.equal(first.weights[0], second.weights[0])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw((3,), [0], bias_scale=0.1), r"widths must name at least input .* got \(3,\)"),
        (lambda: draw((3, 0, 1), [0], bias_scale=0.1), r"widths\[1\] must be an integer .* got 0"),
        (lambda: draw((3, 1), [], bias_scale=0.1), "seeds must name at least one network"),
        (lambda: draw((3, 1), [0], bias_scale=-0.1), "bias_scale must be at least 0, got -0.1"),
        (lambda: draw((3, 1), [0], bias_scale=math.inf), "bias_scale must be finite, got inf"),
        (lambda: next(in_blocks((3,), [0], bias_scale=0.1)), "widths must name at least input"),
        (lambda: next(in_blocks((3, 1), [], bias_scale=0.1)), "seeds must name at least one"),
        (lambda: widths_of(3, 8, 0), "depth must be an integer of at least 1, got 0"),
        (lambda: seeds_from(0, 0), "n must be an integer of at least 1, got 0"),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()

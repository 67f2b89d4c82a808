import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from reproductions.kernels.structured_ntk import gram, sweep
from reproductions.papers.ntk.costs import jacobian_cost, structured_cost
from reproductions.papers.ntk.networks import draw, widths_of

SHAPES = [(7, 1), (7, 5, 1), (3, 5, 6, 4, 1), (2, 9, 9, 9, 9, 1)]
BETA = 0.3


def setting(widths, n_inputs):
    """One network, and as many inputs."""
    nets = draw(widths, [1], bias_scale=BETA, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    return nets, torch.randn(n_inputs, widths[0], generator=g, dtype=torch.float64)


def baddbmm_in_place(total, left, right, **_):
    # of three shapes; the counter knows the product that adds, but not this form of it
    batch, rows, inner = left
    return 2 * batch * rows * inner * right[-1]


def multiply_adds(work):
    """Those of the matrix products in ``work()``, and what it returns."""
    known = {torch.ops.aten.baddbmm_: baddbmm_in_place}
    with FlopCounterMode(display=False, custom_mapping=known) as counter:
        found = work()
    return counter.get_total_flops() // 2, found


@pytest.mark.parametrize("n_inputs", [1, 10, 64])
@pytest.mark.parametrize("widths", SHAPES)
def test_the_structured_form_costs_what_it_is_seen_to_do(widths, n_inputs):
    nets, x = setting(widths, n_inputs)
    swept, now = multiply_adds(lambda: sweep(nets.weights, nets.biases, x, **nets.options))
    contracted, _ = multiply_adds(lambda: gram(now, bias_scale=BETA))
    cost = structured_cost(widths, n_inputs)
    assert sum(t.numel() for t in now.inputs + now.signals) == cost.numbers
    # the way back ends at the first layer's sums and starts from a row of the last layer's weights,
    # and the last signal is one: these products are counted, but not formed
    layers = {0, len(nets.weights) - 1}
    not_formed = n_inputs * sum(nets.weights[k].numel() for k in layers) + n_inputs**2
    assert cost.operations == swept + contracted + not_formed


@pytest.mark.parametrize("n_inputs", [1, 10, 64])
@pytest.mark.parametrize("widths", SHAPES)
def test_the_jacobian_costs_what_it_is_seen_to_do(widths, n_inputs):
    nets, x = setting(widths, n_inputs)
    x.requires_grad_()
    layers = [
        (w[0], BETA * b[0], w.shape[2] ** -0.5)
        for w, b in zip(nets.weights, nets.biases, strict=True)
    ]

    def there_and_back():
        a, inputs, sums = x, [], []
        for w, b, scale in layers:
            inputs.append(a * scale)
            sums.append(inputs[-1] @ w.T + b)
            a = torch.relu(sums[-1])
        signals = torch.autograd.grad(sums[-1].sum(), [*sums, x])
        return inputs, signals[:-1]

    passes, (inputs, signals) = multiply_adds(there_and_back)
    # of each weight a product of signal and input, of each bias the signal
    parts = [(g[:, :, None] * a[:, None]).flatten(1) for a, g in zip(inputs, signals, strict=True)]
    jacobian = torch.cat([*parts, *(BETA * g for g in signals)], 1).detach()
    contracted, theta = multiply_adds(lambda: jacobian @ jacobian.T)
    torch.testing.assert_close(theta, nets.kernel(x.detach())[0], rtol=1e-10, atol=1e-12)
    cost = jacobian_cost(widths, n_inputs)
    assert jacobian.numel() == cost.numbers
    assert passes + contracted == cost.operations


def test_the_structure_saves_half_the_number_of_inputs_and_the_width():
    # N^2 P beside 2 N P, and N P numbers beside N sum (n_l + n_{l+1})
    wide = widths_of(10, 10**6, 3)
    full, short = jacobian_cost(wide, 256), structured_cost(wide, 256)
    assert full.operations / short.operations == pytest.approx(1 + 256 / 2, rel=1e-3)
    assert full.numbers / short.numbers == pytest.approx(10**6 / 4, rel=1e-3)
    # with one input there is nothing to save in operations
    full, short = jacobian_cost(wide, 1), structured_cost(wide, 1)
    assert full.operations / short.operations == pytest.approx(3 / 2, rel=1e-3)


@pytest.mark.parametrize("cost", [jacobian_cost, structured_cost])
@pytest.mark.parametrize(
    ("widths", "n_inputs", "message"),
    [
        ((7,), 5, r"widths must name at least input and output, got \(7,\)"),
        ((7, 0, 1), 5, r"widths\[1\] must be an integer of at least 1, got 0"),
        ((7, 2.5, 1), 5, r"widths\[1\] must be an integer of at least 1, got 2.5"),
        ((7, 1), 0, "n_inputs must be an integer of at least 1, got 0"),
    ],
)
def test_errors_name_argument_and_value(cost, widths, n_inputs, message):
    with pytest.raises(ValueError, match=message):
        cost(widths, n_inputs)

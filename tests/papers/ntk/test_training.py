import math

import pytest
import torch

from reproductions.kernels.dual_kernel import dual_kernel
from reproductions.papers.ntk import networks
from reproductions.papers.ntk.limits import circle
from reproductions.papers.ntk.networks import draw, seeds_from, widths_of
from reproductions.papers.ntk.training import (
    Movement,
    descend,
    dissipation_errors,
    linearized,
    movement,
    product_target,
    trained_outputs,
)

X = circle([-2.2, -0.6, 0.5, 1.9, 2.6])
Y = product_target(X)
PROBE = circle([-1.0, 0.0, 2.2])
BETA = 0.3
DOUBLE = {"bias_scale": BETA, "dtype": torch.float64}


def plain(parameters, x, activation=torch.relu):
    """The network as the paper writes it, weights before biases, (N,)."""
    layers = len(parameters) // 2
    for layer, (w, b) in enumerate(zip(parameters[:layers], parameters[layers:], strict=True)):
        x = (activation(x) if layer else x) @ w.T / math.sqrt(w.shape[1]) + BETA * b
    return x[:, 0]


def value_and_jacobian(parameters, x, activation):
    """Outputs (N,) and their derivatives (N, P) by autograd."""

    def f(*parameters):
        return plain(parameters, x, activation)

    parts = torch.autograd.functional.jacobian(f, parameters)
    return f(*parameters), torch.cat([part.flatten(1) for part in parts], 1)


def parameters_of(nets, r):
    return [t[r].clone() for t in nets.weights + nets.biases]


def test_the_target_is_the_product_of_the_coordinates():
    angles = torch.linspace(-3, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(product_target(circle(angles)), (2 * angles).sin() / 2)


@pytest.mark.parametrize(("name", "function"), [("relu", torch.relu), ("erf", torch.erf)])
def test_descent_is_that_of_a_plain_optimizer_on_the_mean_square_cost(name, function):
    widths = widths_of(2, 6, 3)
    nets = draw(widths, [1, 2, 3], activation=name, **DOUBLE)
    start = nets.copy()
    targets = torch.stack([Y, -Y, Y + 1])
    descend(nets, X, targets, learning_rate=0.7, steps=5)
    for r in range(3):
        parameters = [p.requires_grad_() for p in parameters_of(start, r)]
        optimizer = torch.optim.SGD(parameters, lr=0.7)
        for _ in range(5):
            optimizer.zero_grad()
            (0.5 * (plain(parameters, X, function) - targets[r]).square().mean()).backward()
            optimizer.step()
        for found, expected, old in zip(
            parameters_of(nets, r), parameters, parameters_of(start, r), strict=True
        ):
            torch.testing.assert_close(found, expected.detach(), rtol=1e-12, atol=1e-12)
            assert (found - old).norm() > 1e-3
    # one row of targets is that row for every network
    shared, alone = draw(widths, [1, 2], **DOUBLE), draw(widths, [2], **DOUBLE)
    descend(shared, X, Y, learning_rate=0.7, steps=5)
    descend(alone, X, Y, learning_rate=0.7, steps=5)
    torch.testing.assert_close(shared.weights[1][1], alone.weights[1][0], rtol=1e-12, atol=0)


def test_the_observer_sees_every_step_before_it_is_taken():
    nets = draw(widths_of(2, 6, 3), [1, 2], **DOUBLE)
    start, seen = nets.copy(), []
    descend(
        nets,
        X,
        Y,
        learning_rate=0.5,
        steps=4,
        observe=lambda step, now: seen.append((step, now.outputs.clone(), now.outputs)),
    )
    assert [step for step, *_ in seen] == [0, 1, 2, 3]
    for step, outputs, kept in seen:
        partly = start.copy()
        descend(partly, X, Y, learning_rate=0.5, steps=step)
        torch.testing.assert_close(outputs, partly.outputs(X), rtol=1e-12, atol=1e-13)
        # later steps leave alone what it was given
        assert torch.equal(outputs, kept)


def test_no_steps_change_nothing():
    nets = draw(widths_of(2, 6, 3), [1], **DOUBLE)
    start = nets.copy()
    descend(nets, X, Y, learning_rate=0.5, steps=0)
    assert all(torch.equal(a, b) for a, b in zip(nets.weights, start.weights, strict=True))
    found = movement(6, [1], X, Y, PROBE, depth=3, learning_rate=0.5, steps=0, **DOUBLE)
    assert not found.kernel.any()
    assert not found.nonlinearity.any()


def test_movement_reports_the_network_before_and_after():
    options = {"depth": 3, "learning_rate": 0.5, "steps": 8}
    found = movement(6, [4, 5], X, Y, PROBE, **options, **DOUBLE)
    nets = draw(widths_of(2, 6, 3), [4, 5], **DOUBLE)
    torch.testing.assert_close(found.before, nets.kernel(PROBE), rtol=1e-12, atol=0)
    old = nets.copy()
    descend(nets, X, Y, learning_rate=0.5, steps=8)
    torch.testing.assert_close(found.after, nets.kernel(PROBE), rtol=1e-12, atol=0)
    torch.testing.assert_close(found.function, nets.outputs(PROBE), rtol=1e-12, atol=1e-13)
    cost = (nets.outputs(X) - Y).square().sum(1) / (2 * len(X))
    torch.testing.assert_close(found.cost, cost, rtol=1e-12, atol=0)
    assert found.weights.shape == (2, 3)
    assert found.activations.shape == (2, 2)
    for r in range(2):
        layers = []
        for parameters in (parameters_of(nets, r), parameters_of(old, r)):
            a, hidden = PROBE, []
            for w, b in zip(parameters[:2], parameters[3:5], strict=True):
                a = torch.relu(a @ w.T / math.sqrt(w.shape[1]) + BETA * b)
                hidden.append(a)
            layers.append((parameters[:3], hidden))
        (weights, hidden), (weights_0, hidden_0) = layers
        for row, new, before in (
            (found.weights[r], weights, weights_0),
            (found.activations[r], hidden, hidden_0),
        ):
            expected = [
                ((p - q).norm() / q.norm()).item() for p, q in zip(new, before, strict=True)
            ]
            assert row.tolist() == pytest.approx(expected, rel=1e-10)
            assert min(expected) > 1e-3


def moved(**fields):
    """A movement of which only some fields matter."""
    empty = torch.zeros(2, 0)
    return Movement(**(dict.fromkeys(Movement._fields, empty) | fields))


def test_the_measures_of_movement_on_kernels_that_are_known():
    before = torch.eye(3, dtype=torch.float64)[None] * torch.tensor([1.0, 2.0])[:, None, None]
    after = before.clone()
    after[0] *= 1.5
    after[1, 0, 1] = after[1, 1, 0] = 3.0
    function, linear = torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 4.0], [1, 1]])
    found = moved(before=before, after=after, function=function, linear=linear)
    # the inflation is of the diagonal, the movement of all of it
    assert found.inflation.tolist() == pytest.approx([0.5, 0.0])
    assert found.kernel.tolist() == pytest.approx([0.5, math.sqrt(18 / 12)])
    assert found.nonlinearity.tolist() == pytest.approx([math.sqrt(25 / 2), 0.0])


def test_the_share_of_the_lower_layers_of_a_way_that_is_known():
    start, way = torch.tensor([1.0, -2.0]), torch.tensor([3.0, 4.0])
    for alone, expected in (
        ([3.0, 4.0], 1.0),
        ([0.0, 0.0], 0.0),
        # a quarter of the way and a detour at right angles, and as far the other way
        ([0.75 - 8.0, 1.0 + 6.0], 0.25),
        ([-3.0, -4.0], -1.0),
        # toward the end, beside it: 3 . 1 / 25
        ([1.0, 0.0], 0.12),
    ):
        lower = start + torch.tensor(alone)
        found = moved(start=start[None], function=(start + way)[None], lower=lower[None])
        assert found.share_of_lower_layers.tolist() == pytest.approx([expected], abs=1e-6)
    nowhere = moved(start=start[None], function=start[None], lower=start[None])
    assert nowhere.share_of_lower_layers.isnan().all()


def test_the_lower_layers_alone_are_the_trained_network_on_its_first_last_layer():
    options = {"depth": 3, "learning_rate": 0.5, "steps": 8}
    found = movement(6, [4, 5], X, Y, PROBE, **options, **DOUBLE)
    nets = draw(widths_of(2, 6, 3), [4, 5], **DOUBLE)
    start = nets.copy()
    descend(nets, X, Y, learning_rate=0.5, steps=8)
    shares = []
    for r in range(2):
        new, old = parameters_of(nets, r), parameters_of(start, r)

        def with_old(*which, new=new, old=old):
            mixed = [old[i] if i in which else p for i, p in enumerate(new)]
            return plain(mixed, PROBE)

        # parameters 2 and 5: weights and bias of the third layer
        f_0, f_t, lower = with_old(*range(6)), with_old(), with_old(2, 5)
        torch.testing.assert_close(found.start[r], f_0, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(found.lower[r], lower, rtol=1e-12, atol=1e-14)
        for other in (f_0, f_t, with_old(2), with_old(5), with_old(0, 3), with_old(1, 4)):
            assert (lower - other).abs().max() > 1e-3
        way, alone = f_t - f_0, lower - f_0
        shares.append(((alone @ way) / (way @ way)).item())
    assert found.share_of_lower_layers.tolist() == pytest.approx(shares, rel=1e-10)


def test_below_the_only_layer_there_is_nothing_to_share():
    options = {"depth": 1, "learning_rate": 0.5, "steps": 8}
    found = movement(6, [4, 5], X, Y, PROBE, **options, **DOUBLE)
    assert (found.function - found.start).abs().max(1).values.min() > 1e-2
    torch.testing.assert_close(found.lower, found.start, rtol=1e-13, atol=1e-14)
    assert found.share_of_lower_layers.abs().max() < 1e-12


def test_experiments_do_not_depend_on_the_blocks_they_run_in(monkeypatch):
    seeds, options = seeds_from(3, 5), {"depth": 3, "learning_rate": 0.5, "steps": 6, **DOUBLE}

    def all_of_them():
        return (
            *movement(6, seeds, X, Y, PROBE, **options),
            *trained_outputs(6, seeds, X, Y, PROBE, **options),
        )

    whole = all_of_them()
    monkeypatch.setattr(networks, "_BLOCK", {"cpu": 1300})
    for one, other in zip(whole, all_of_them(), strict=True):
        assert len(one) == 5
        assert one.dtype is torch.float64
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["relu", "erf"])
def test_the_linearization_is_gradient_descent_in_the_space_of_parameters(name):
    steps, rate = 40, 0.8
    options = {"depth": 3, "learning_rate": rate, "steps": steps, "activation": name, **DOUBLE}
    found = movement(6, [4, 5], X, Y, PROBE, **options)
    nets = draw(widths_of(2, 6, 3), [4, 5], **DOUBLE)
    for r in range(2):
        parameters = tuple(parameters_of(nets, r))

        (f, rows), (f_probe, rows_probe) = (
            value_and_jacobian(parameters, x, getattr(torch, name)) for x in (X, PROBE)
        )
        moved = torch.zeros(rows.shape[1], dtype=torch.float64)
        for _ in range(steps):
            moved -= rate * rows.T @ (f + rows @ moved - Y) / len(X)
        expected = f_probe + rows_probe @ moved
        torch.testing.assert_close(found.linear[r], expected, rtol=0, atol=1e-12)
        # which is not what the network does, nor what it was
        assert (found.function[r] - expected).abs().max() > 1e-3
        assert (f_probe - expected).abs().max() > 1e-2


def test_what_is_linear_in_its_parameters_has_a_kernel_that_stays():
    options = {"learning_rate": 0.8, "steps": 30, **DOUBLE}

    def found(depth, activation):
        return movement(16, [1, 2], X, Y, PROBE, depth=depth, activation=activation, **options)

    flat = found(1, "linear")
    assert not flat.kernel.any()
    assert flat.nonlinearity.max() < 1e-13
    assert flat.weights.shape == (2, 1)
    assert flat.weights.min() > 1e-2
    assert flat.activations.shape == (2, 0)
    # linear in its inputs is not enough, and a kink is not needed
    for other in (found(2, "linear"), found(2, "relu")):
        assert other.kernel.min() > 1e-2
        assert other.nonlinearity.min() > 1e-4


def test_wide_networks_move_less_and_keep_closer_to_their_linearization():
    options = {"depth": 3, "learning_rate": 1.0, "steps": 50, "bias_scale": 0.1}
    narrow, wide = (movement(n, seeds_from(n, 20), X, Y, PROBE, **options) for n in (16, 128))
    # exponents -1, -1/2 and about -0.6: by 8, 2.8 and 3.5
    assert 4 < narrow.kernel.mean() / wide.kernel.mean() < 16
    assert 1.8 < narrow.activations.mean() / wide.activations.mean() < 4.5
    assert 2 < narrow.nonlinearity.mean() / wide.nonlinearity.mean() < 7


def test_the_linearization_of_a_kernel_that_is_blind_to_a_direction():
    # two inputs that the kernel takes for one: it learns their mean and leaves their difference
    theta = torch.ones(1, 2, 2, dtype=torch.float64)
    cross = torch.ones(1, 3, 2, dtype=torch.float64)
    residual = torch.tensor([[-3.0, -1.0]], dtype=torch.float64)
    found = linearized(theta, cross, residual, learning_rate=0.25, steps=3)
    # the eigenvalue of Theta / N is 1
    expected = 2.0 * (1 - 0.75**3)
    assert found.flatten().tolist() == pytest.approx([expected] * 3, rel=1e-12)


def test_trained_outputs_are_those_of_movement_and_reach_the_targets():
    options = {"depth": 3, "learning_rate": 1.0, "bias_scale": 0.1}
    seeds = seeds_from(7, 4)
    short = trained_outputs(32, seeds, X, Y, PROBE, steps=20, **options)
    moved = movement(32, seeds, X, Y, PROBE, steps=20, **options)
    assert torch.equal(short.function, moved.function)
    assert torch.equal(short.cost, moved.cost)
    at_data = trained_outputs(32, seeds, X, Y, X, steps=400, **options)
    assert (at_data.function - Y).abs().max() < 1e-2
    assert at_data.cost.max() < 1e-5
    assert short.cost.min() > 1e-3


def test_the_cost_falls_at_the_squared_norm_of_its_derivative_in_the_network_s_own_kernel():
    nets = draw(widths_of(2, 32, 4), [1, 2, 3], **DOUBLE)
    start = nets.copy()
    found = dissipation_errors(nets, X, Y, [1e-3, 5e-4, 2.5e-4])
    assert found.shape == (3, 3)
    assert torch.equal(nets.weights[0], start.weights[0])
    assert found.abs().max() < 1e-2
    ratios = found[:-1] / found[1:]
    assert ((ratios - 2).abs() < 0.05).all()
    # the limit kernel is another one: the error stays as the step shrinks
    theta = dual_kernel(X, depth=4, bias_scale=BETA)[1]
    wrong = dissipation_errors(nets, X, Y, [1e-3, 5e-4], theta=theta)
    assert wrong.abs().min() > 2e-2
    assert ((wrong[0] / wrong[1] - 1).abs() < 0.05).all()
    # and the own one, handed in, is the own one
    first = draw(widths_of(2, 32, 4), [1], **DOUBLE)
    again = dissipation_errors(first, X, Y, [1e-3], theta=first.kernel(X)[0])
    torch.testing.assert_close(again[0, 0], found[0, 0], rtol=1e-6, atol=0)


def test_the_dissipation_takes_targets_of_each_network():
    nets = draw(widths_of(2, 32, 4), [1, 2], **DOUBLE)
    both = dissipation_errors(nets, X, torch.stack([Y, Y + 1]), [1e-3])
    for r, y in enumerate((Y, Y + 1)):
        alone = dissipation_errors(nets, X, y, [1e-3])
        torch.testing.assert_close(both[0, r], alone[0, r], rtol=1e-8, atol=0)


def descent(x=X, y=Y, learning_rate=0.5, steps=1):
    nets = draw(widths_of(2, 4, 2), [1, 2], **DOUBLE)
    descend(nets, x, y, learning_rate=learning_rate, steps=steps)


def moving(y=Y, learning_rate=0.5, steps=1):
    options = {"depth": 2, "learning_rate": learning_rate, "steps": steps, **DOUBLE}
    movement(4, [1, 2], X, y, PROBE, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: descent(y=Y[:4]), r"y must have shape \(5,\) or \(2, 5\), got \(4,\)"),
        (lambda: descent(y=Y[:, None]), r"y must have shape .* got \(5, 1\)"),
        (lambda: descent(y=Y * math.nan), "y must be finite, got nan"),
        (lambda: descent(x=X / 0), "x must be finite, got"),
        (lambda: descent(x=X[:0], y=Y[:0]), r"x must have shape .* at least 1, got \(0, 2\)"),
        (lambda: descent(learning_rate=0.0), "learning_rate must be greater than 0, got 0"),
        (lambda: descent(learning_rate=math.inf), "learning_rate must be finite, got inf"),
        (lambda: descent(steps=-1), "steps must be an integer of at least 0, got -1"),
        (lambda: moving(y=torch.stack([Y, Y])), r"y must have shape \(5,\), the same .* \(2, 5\)"),
        (lambda: moving(y=Y * math.nan), "y must be finite"),
        (lambda: moving(learning_rate=100.0), "learning_rate must be less than 2 / lambda_1"),
        (lambda: moving(learning_rate=-1.0), "learning_rate must be greater than 0, got -1"),
        (
            lambda: trained_outputs(
                4, [1], X, Y[:2], PROBE, depth=2, learning_rate=1.0, steps=1, **DOUBLE
            ),
            r"y must have shape \(5,\)",
        ),
        (
            lambda: linearized(
                torch.eye(2)[None],
                torch.ones(1, 2, 3),
                torch.ones(1, 2),
                learning_rate=1.0,
                steps=1,
            ),
            r"theta and cross must be .* got \(1, 2, 2\) and \(1, 2, 3\)",
        ),
        (
            lambda: dissipation_errors(draw((2, 1), [1], **DOUBLE), X, Y[:3], [0.1]),
            r"y must have shape \(5,\) or \(1, 5\), got \(3,\)",
        ),
    ],
)
def test_errors_name_argument_and_value(call, message):
    with pytest.raises(ValueError, match=message):
        call()

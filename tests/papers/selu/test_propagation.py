import math

import pytest
import torch
from torch.nn import functional

from reproductions.papers.selu.propagation import (
    NETWORKS,
    SCALED_TANH,
    mean_field,
    propagate,
    propagate_centered,
    record_depths,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def run(networks, seed=0, **options):
    defaults = {"width": 128, "depth": 100, "n_seeds": 16, "n_inputs": 8, "record": [10, 100]}
    return propagate(networks, generator=generator(seed), **{**defaults, **options})


def batch_norm(z, dim):
    variance, mean = torch.var_mean(z, dim=dim, keepdim=True, correction=0)
    return (z - mean) / torch.sqrt(variance + 1e-5)


ACTIVATIONS = {
    "selu": functional.selu,
    "he_relu": torch.relu,
    "tanh": torch.tanh,
    "scaled_tanh": lambda z: SCALED_TANH * torch.tanh(z),
    "layer_norm_relu": lambda z: torch.relu(batch_norm(z, 1)),
    "batch_norm_relu": lambda z: torch.relu(batch_norm(z, 0)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_states_and_tangents_equal_those_of_automatic_differentiation(name):
    width, depth, n_inputs = 6, 5, 4
    options = {"width": width, "depth": depth, "n_seeds": 1, "n_inputs": n_inputs, "record": [5]}
    trace = propagate(
        [name], generator=generator(3), input_cosine=0.3, dtype=torch.float64, **options
    )[name]
    g = generator(3)
    x, dx = (torch.randn(1, n_inputs, width, generator=g, dtype=torch.float64)[0] for _ in range(2))
    x[1::2] = 0.3 * x[::2] + math.sqrt(1 - 0.3**2) * x[1::2]
    weights = [torch.randn(1, 6, 6, generator=g, dtype=torch.float64)[0] for _ in range(depth)]

    def network(x):
        for w in weights:
            x = ACTIVATIONS[name](x @ w * math.sqrt(NETWORKS[name] / width))
        return x

    y, dy = torch.autograd.functional.jvp(network, x, dx)
    torch.testing.assert_close(trace.mean[0, 0], y.mean(1), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(trace.second_moment[0, 0], y.square().mean(1), rtol=1e-10, atol=0)
    cosine = functional.cosine_similarity(y[::2], y[1::2], dim=1)
    torch.testing.assert_close(trace.cosine[0, 0], cosine, rtol=1e-10, atol=1e-12)
    dim = (0, 1) if name == "batch_norm_relu" else 1
    norm = torch.linalg.vector_norm
    growth = (norm(dy, dim=dim) / norm(dx, dim=dim)).log().expand(n_inputs)
    torch.testing.assert_close(trace.log_growth[0, 0], growth, rtol=1e-9, atol=1e-10)


def test_tangents_grow_as_mean_field_theory_says():
    traces = run(["selu", "he_relu", "scaled_tanh"])
    for name, trace in traces.items():
        growth = trace.log_growth[-1].mean(1)  # one value per network
        error = growth.std().item() / 4
        predicted = mean_field(name, 100, 128).log_growth[-1].item()
        # a relative 2% for the terms of order 1/n^2 that the prediction leaves out
        assert abs(growth.mean().item() - predicted) < 4 * error + 0.02 * abs(predicted)
    # the control: at n = 128 the prediction of infinite width is rejected
    growth = traces["selu"].log_growth[-1].mean(1)
    infinite = 50 * math.log(1.0715749924557993)
    assert growth.mean() < infinite - 4 * growth.std() / 4


def test_log_q_is_held_by_selu_and_walks_under_relu():
    traces = run(["selu", "he_relu"], n_seeds=48, n_inputs=4, width=64, record=[25, 100])
    selu, relu = traces["selu"].log_q_variance, traces["he_relu"].log_q_variance
    predicted = mean_field("selu", 100, 64).log_q_variance
    assert predicted[99].item() == pytest.approx(predicted[24].item(), rel=1e-4)
    # at n = 64 the correction of order 1/n^2 and 192 dependent samples leave room for 30%
    assert selu[1].item() == pytest.approx(predicted[99].item(), rel=0.3)
    walk = mean_field("he_relu", 100, 64).log_q_variance
    assert walk[99].item() == pytest.approx((100 * 5 + 2) / 64, rel=1e-6)
    assert relu[1].item() == pytest.approx(walk[99].item(), rel=0.6)
    assert relu[1] > 20 * selu[1]


def test_two_inputs_part_under_selu_and_meet_under_relu():
    traces = run(["selu", "he_relu"], record=[1, 10, 100])
    assert (traces["selu"].cosine.mean((1, 2)).diff() < 0).all()
    assert (traces["he_relu"].cosine.mean((1, 2)).diff() > 0).all()
    # the arc-cosine kernel at a correlation of 1/2
    expected = (math.sqrt(3) / 2 + (math.pi - math.pi / 3) / 2) / math.pi
    error = traces["he_relu"].cosine[0].mean(1).std().item() / 4
    found = traces["he_relu"].cosine[0].mean().item()
    assert found == pytest.approx(expected, abs=4 * error + 0.01)


def test_batch_normalization_explodes():
    traces = run(["batch_norm_relu", "layer_norm_relu"], n_inputs=16, depth=50, record=[50])
    assert traces["batch_norm_relu"].growth_per_layer.min() > 0.15
    assert traces["layer_norm_relu"].growth_per_layer.abs().max() < 0.05


def test_centered_networks_follow_the_moment_map():
    trace = propagate_centered(
        mean=0.3,
        variance=2.25,
        width=256,
        depth=6,
        n_seeds=32,
        n_inputs=8,
        generator=generator(),
    )
    # 1% for finite width, which lowers the variance by about half its relative fluctuation
    allowed = 4 * trace.variance_error + 0.01 * trace.predicted_variance
    assert ((trace.variance - trace.predicted_variance).abs() < allowed).all()
    assert trace.predicted_variance[0].item() == pytest.approx(1.8785, abs=1e-4)
    # the control: random weights that are not centered follow q -> E selu(sqrt(q) z)^2 instead
    other = mean_field("selu", 1, 256, second_moment=2.25 + 0.09).second_moment[0]
    moment = trace.predicted_variance[0] + trace.predicted_mean[0] ** 2
    assert abs(other - moment) > 4 * trace.variance_error[0]


def test_mean_field_at_its_fixed_points():
    selu = mean_field("selu", 50, 1000)
    torch.testing.assert_close(selu.second_moment, torch.ones(50).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(selu.chi, torch.full_like(selu.chi, 1.07157499245579926))
    # slope of the map 0.78264788: the variance of log q ends at noise / (1 - slope^2)
    variance = selu.log_q_variance
    steps = variance.diff()[5:12]
    torch.testing.assert_close(
        steps[1:] / steps[:-1], torch.full((6,), 0.78264788319681**2).double()
    )
    start = mean_field("selu", 60, 1000, second_moment=5.0).second_moment
    assert start[0] > 1.5
    assert start[-1].item() == pytest.approx(1.0, abs=1e-5)
    tanh = mean_field("tanh", 1000, 256).second_moment[-1].item()
    assert tanh == pytest.approx(1 / 2000, rel=0.01)


def test_record_depths_span_the_range():
    depths = record_depths(1000)
    assert depths[0] == 1
    assert depths[-1] == 1000
    assert depths == sorted(set(depths))
    assert record_depths(1) == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"networks": ["gelu"]}, "gelu"),
        ({"width": 0}, "width"),
        ({"depth": -3}, "-3"),
        ({"n_inputs": 3}, "3"),
        ({"record": [1, 200]}, "200"),
    ],
)
def test_bad_arguments_are_named(options, message):
    networks = options.pop("networks", ["selu"])
    with pytest.raises(ValueError, match=message):
        run(networks, **options)

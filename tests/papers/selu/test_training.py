import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch.nn import functional

from reproductions.kernels.replica import ReplicaMLP
from reproductions.papers.selu.moments import alpha_dropout_affine
from reproductions.papers.selu.training import (
    METHODS,
    LossCurves,
    dropout_moments,
    dropout_through_layers,
    loss_curves,
)


@pytest.fixture(scope="module")
def digits():
    inputs, targets = load_digits(return_X_y=True)
    inputs = torch.tensor(inputs[:600], dtype=torch.float64)
    deviation = inputs.std(0)
    inputs = (inputs - inputs.mean(0)) / torch.where(deviation > 0, deviation, 1.0)
    return inputs, torch.tensor(targets[:600])


def curves(method, data, **options):
    defaults = {"depths": [2], "width": 16, "n_epochs": 3, "learning_rates": [0.05], "seeds": [0]}
    return loss_curves(method, *data, **{**defaults, **options})


@pytest.mark.parametrize("method", METHODS)
def test_rates_depths_and_seeds_do_not_influence_each_other(method, digits):
    together = curves(method, digits, depths=[1, 3], learning_rates=[0.01, 0.1], seeds=[4, 9])
    assert together.loss.shape == (2, 2, 2, 3)
    alone = curves(method, digits, depths=[3], learning_rates=[0.1], seeds=[9])
    torch.testing.assert_close(together.loss[1, 1, 1], alone.loss[0, 0, 0], rtol=1e-8, atol=0)
    assert together.loss[1, 1, 0, 0] != together.loss[1, 1, 1, 0]


def test_the_first_loss_is_that_of_the_initial_network(digits):
    inputs, targets = digits[0][:128], digits[1][:128]
    found = curves("snn", (inputs, targets), n_epochs=1).loss.item()
    net = ReplicaMLP((64, 16, 16, 10), [0], dtype=torch.float64)
    assert found == pytest.approx(
        functional.cross_entropy(net(inputs)[0], targets).item(), rel=1e-9
    )


def test_depth_helps_the_snn_and_hurts_batch_normalization(digits):
    options = {"depths": [4, 16], "width": 32, "n_epochs": 8, "learning_rates": [0.03]}
    snn = curves("snn", digits, seeds=[0, 1], **options).final[:, 0]
    norm = curves("batch_norm", digits, seeds=[0, 1], **options).final[:, 0]
    assert (snn[1] < snn[0]).all()
    assert (norm[1] > norm[0]).all()
    assert (snn < norm).all()


def test_a_diverged_run_is_nan_to_the_end(digits):
    found = curves("snn", digits, depths=[4], learning_rates=[1e4, 0.03], n_epochs=4)
    assert found.loss[0, 0, 0].isnan()[1:].all()
    assert found.loss[0, 1, 0].isfinite().all()
    rates, losses = found.best()
    assert rates.tolist() == [0.03]
    torch.testing.assert_close(losses, found.final[:, 1])


def test_best_leaves_out_a_rate_that_diverged_for_one_seed():
    loss = torch.tensor([[0.5, 0.4, 0.6], [0.1, torch.nan, 0.1], [0.7, 0.2, 0.3]]).double()
    rates, losses = LossCurves("snn", (8,), (1.0, 2.0, 3.0), loss.view(1, 3, 3, 1)).best()
    assert rates.tolist() == [3.0]
    assert losses.flatten().tolist() == pytest.approx([0.7, 0.2, 0.3])
    rates, _ = LossCurves("snn", (8,), (2.0,), loss[1].view(1, 1, 3, 1)).best()
    assert rates.isnan().all()


def test_jitter_is_blind_to_speed_and_sees_noise():
    epochs = torch.arange(9, dtype=torch.float64)
    smooth = (-0.7 * epochs).exp()
    shaken = smooth * (0.2 * (-1.0) ** epochs).exp()
    found = LossCurves("snn", (8,), (1.0,), torch.stack([smooth, shaken]).view(1, 1, 2, 9))
    jitter = found.jitter(9)[0, 0]
    assert jitter[0].item() == pytest.approx(0.0, abs=1e-12)
    # steps alternate between -0.7 - 0.4 and -0.7 + 0.4; four of each
    assert jitter[1].item() == pytest.approx(0.4 * math.sqrt(8 / 7), rel=1e-9)
    with pytest.raises(ValueError, match="last"):
        found.jitter(10)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5])
def test_alpha_dropout_keeps_the_moments_and_plain_dropout_does_not(rate):
    n = 400_000
    options = {"n_samples": n, "generator": torch.Generator().manual_seed(1)}
    alpha = dropout_moments("alpha", rate, **options)
    plain = dropout_moments("plain", rate, **options)
    for found in (alpha, plain):
        assert abs(found.mean) < 4 * found.mean_error + 4 / math.sqrt(n)
    # relative standard error of a variance: sqrt((kurtosis - 1) / n), kurtosis below 8 here
    error = math.sqrt(7 / n)
    assert alpha.variance == pytest.approx(1.0, rel=5 * error)
    assert plain.variance == pytest.approx(1 / (1 - rate), rel=5 * error)
    if rate >= 0.1:
        assert abs(plain.variance - 1) > 5 * error


def test_the_kernel_uses_the_constants_of_the_paper():
    from reproductions.kernels.replica import dropout_affine

    for rate in (0.05, 0.1, 0.2, 0.5):
        _, a, b = dropout_affine("alpha", torch.tensor(rate, dtype=torch.float64))
        expected = alpha_dropout_affine(rate)
        assert (a.item(), b.item()) == pytest.approx(tuple(float(v) for v in expected), rel=1e-12)
    assert a.item() == pytest.approx(0.88640489466593, rel=1e-12)
    assert b.item() == pytest.approx(0.77919393051803, rel=1e-12)


def test_variance_through_layers_of_dropout():
    options = {"width": 128, "depth": 24, "n_seeds": 8, "n_inputs": 8}

    def last(kind, rate=0.1):
        generator = torch.Generator().manual_seed(0)
        mean, variance = dropout_through_layers(kind, rate, generator=generator, **options)
        return mean[-8:].mean().item(), variance[-8:].mean().item()

    assert last("alpha")[1] == pytest.approx(1.0, abs=0.1)
    assert last("alpha")[0] == pytest.approx(0.0, abs=0.05)
    assert last("none")[1] == pytest.approx(1.0, abs=0.1)
    assert last("plain")[1] > 1.4
    assert last("plain", 0.0)[1] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seeds": []}, "seeds"),
        ({"learning_rates": [-0.1]}, "-0.1"),
        ({"n_epochs": 0}, "n_epochs"),
        ({"batch_size": 601}, "601"),
    ],
)
def test_bad_arguments_are_named(options, message, digits):
    with pytest.raises(ValueError, match=message):
        curves("snn", digits, **options)
    with pytest.raises(ValueError, match="weight_norm"):
        curves("weight_norm", digits)
    with pytest.raises(ValueError, match="rate"):
        dropout_moments("alpha", 1.0, n_samples=10, generator=torch.Generator())

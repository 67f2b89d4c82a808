import math

import pytest
import torch
from torch.nn import functional

from reproductions.kernels.replica import ReplicaMLP, dropout_affine

CASES = [
    {"activation": "selu", "dropout": "alpha", "dropout_rate": [0.0, 0.1, 0.3]},
    {"activation": "relu", "initialization": "he", "dropout": "plain", "dropout_rate": 0.5},
    {"activation": "relu", "initialization": "he", "norm": "after"},
    {"activation": "tanh", "norm": "before", "dropout": "plain", "dropout_rate": 0.2},
]
RATES = [0.05, 0.2, 0.01]


def twins(widths, seeds, **options):
    return [
        ReplicaMLP(widths, seeds, dtype=torch.float64, backend=backend, **options)
        for backend in ("naive", "batched")
    ]


def data(*shape, n_classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(n_classes, shape[:-1], generator=generator)


@pytest.mark.parametrize("options", CASES)
@pytest.mark.parametrize("layout", ["shared", "stacked", "padded"])
def test_batched_steps_equal_the_loop_over_networks(options, layout):
    naive, batched = twins((4, 7, 5, 3), [3, 1, 2], **options)
    x, y = data(11, 4) if layout == "shared" else data(3, 11, 4)
    weight = None
    if layout == "padded":
        weight = (torch.arange(11) < torch.tensor([[11], [6], [2]])).double()
    for _ in range(5):
        losses = [net.train_step(x, y, RATES, weight) for net in (naive, batched)]
        torch.testing.assert_close(*losses, rtol=1e-10, atol=1e-10)
    for a, b in zip(naive.parameters, batched.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(naive(x), batched(x), rtol=1e-10, atol=1e-10)
    for a, b in zip(naive.preactivations(x), batched.preactivations(x), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("options", CASES)
def test_steps_move_every_parameter_downhill(options):
    net = ReplicaMLP((4, 7, 5, 3), [3, 1, 2], dtype=torch.float64, **options)
    start = list(net.parameters)
    x, y = data(64, 4)

    def losses():
        return functional.cross_entropy(net(x).flatten(0, 1), y.repeat(3), reduction="none").view(
            3, -1
        )

    first = losses().mean(1)
    for _ in range(60):
        net.train_step(x, y, RATES)
    assert (losses().mean(1) < first - 0.01).all()
    for before, after in zip(start, net.parameters, strict=True):
        assert (before != after).flatten(1).any(1).all()


def test_a_gradient_agrees_with_torch_modules():
    net = ReplicaMLP((4, 6, 3), [5], activation="relu", norm="after", dtype=torch.float64)
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 3)
    ).double()
    with torch.no_grad():
        for layer, k in ((module[0], 0), (module[3], 1)):
            layer.weight.copy_(net.parameters.weights[k][0].T)
            layer.bias.zero_()
    x, y = data(20, 4)
    loss = functional.cross_entropy(module(x), y)
    loss.backward()
    assert net.train_step(x, y, 0.1).item() == pytest.approx(loss.item(), rel=1e-12)
    stepped = module[0].weight.detach() - 0.1 * module[0].weight.grad
    torch.testing.assert_close(net.parameters.weights[0][0].T, stepped, rtol=1e-12, atol=1e-12)
    gain = module[2].weight.detach() - 0.1 * module[2].weight.grad
    torch.testing.assert_close(net.parameters.gains[0][0, 0], gain, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("options", CASES[:3])
def test_a_replica_does_not_depend_on_its_company(options):
    options = {**options, "dropout_rate": 0.1 if "dropout" in options else 0.0}
    alone = ReplicaMLP((4, 7, 3), [8], dtype=torch.float64, **options)
    company = ReplicaMLP((4, 7, 3), [1, 8, 9], dtype=torch.float64, **options)
    x, y = data(30, 4)
    for _ in range(3):
        batches = zip(alone.minibatches(30, 8), company.minibatches([25, 30, 12], 8), strict=True)
        for (i, _), (j, weight) in batches:
            torch.testing.assert_close(i[0], j[1], rtol=0, atol=0)
            a = alone.train_step(x[i], y[i], 0.1)
            b = company.train_step(x[j], y[j], 0.1, weight)
            torch.testing.assert_close(a[0], b[1], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(alone(x)[0], company(x)[1], rtol=1e-10, atol=1e-12)
    assert not torch.allclose(company(x)[0], company(x)[1])


def test_a_diverged_replica_leaves_the_others_alone():
    calm, wild = (ReplicaMLP((4, 7, 7, 3), [1, 2], dtype=torch.float64) for _ in range(2))
    x, y = data(30, 4)
    for _ in range(6):
        calm.train_step(x, y, [0.05, 0.05])
        wild.train_step(x, y, [1e200, 0.05])
    assert torch.isnan(wild(x)[0]).any()
    torch.testing.assert_close(wild(x)[1], calm(x)[1], rtol=1e-12, atol=1e-12)


def test_a_replica_without_rows_stands_still():
    for net in twins((4, 5, 3), [1, 2]):
        x, y = data(2, 6, 4)
        before = [t.clone() for t in net.parameters]
        losses = net.train_step(x, y, 0.1, torch.tensor([[0.0] * 6, [1.0] * 6]))
        assert losses[0] == 0
        assert losses[1] > 0
        for a, b in zip(before, net.parameters, strict=True):
            assert torch.equal(a[0], b[0])
            assert not torch.equal(a[1], b[1])


def test_initial_variance_is_gain_over_fan_in():
    for scheme, gain in (("lecun", 1.0), ("he", 2.0)):
        net = ReplicaMLP((200, 300, 2), [0, 1], initialization=scheme, dtype=torch.float64)
        weight = net.parameters.weights[0]
        # the sample variance of 60,000 normal draws has relative standard error sqrt(2/60000)
        error = (weight.square().mean((1, 2)) * 200 / gain - 1).abs()
        assert (error < 5 * math.sqrt(2 / 60_000)).all()
    first = ReplicaMLP((3, 4, 2), [7, 5]).parameters.weights[1]
    again = ReplicaMLP((3, 4, 2), [5]).parameters.weights[1]
    assert torch.equal(first[1], again[0])


def test_minibatches_visit_each_row_once():
    net = ReplicaMLP((2, 2), [1, 2])
    seen = [[], []]
    for index, weight in net.minibatches([10, 7], 4):
        weight = torch.ones_like(index) if weight is None else weight
        for g in range(2):
            seen[g] += index[g][weight[g] > 0].tolist()
    assert [sorted(s) for s in seen] == [list(range(10)), list(range(7))]
    assert seen[0] != list(range(10))
    assert [len(i[0]) for i, _ in net.minibatches([10, 9], 4, drop_last=True)] == [4, 4]


def test_dropout_affine_keeps_or_inflates_the_variance():
    # exact second moments of y = a (x d + v (1 - d)) + b for x of mean 0 and variance 1
    rate = torch.tensor([0.05, 0.1, 0.5], dtype=torch.float64)
    q = 1 - rate
    v, a, b = dropout_affine("alpha", rate)
    mean = a * v * rate + b
    variance = a**2 * (q + v**2 * rate) - (a * v * rate) ** 2
    torch.testing.assert_close(mean, torch.zeros_like(q), atol=1e-14, rtol=0)
    torch.testing.assert_close(variance, torch.ones_like(q), atol=1e-14, rtol=0)
    v, a, b = dropout_affine("plain", rate)
    torch.testing.assert_close(a**2 * q, 1 / q)
    assert v == 0
    assert not b.any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"widths": (3,)}, "widths"),
        ({"widths": (3, 0, 2)}, "width"),
        ({"activation": "gelu"}, "gelu"),
        ({"backend": "triton"}, "triton"),
        ({"dropout": "alpha", "dropout_rate": 1.0}, "dropout_rate"),
        ({"dropout_rate": 0.5}, "dropout"),
        ({"dropout": "plain", "dropout_rate": [0.1, 0.2]}, "one per replica"),
        ({"seeds": []}, "seeds"),
    ],
)
def test_bad_arguments_are_named(options, message):
    arguments = {"widths": (3, 4, 2), "seeds": [0, 1, 2], **options}
    with pytest.raises(ValueError, match=message):
        ReplicaMLP(**arguments)


def test_bad_inputs_are_named():
    net = ReplicaMLP((3, 4, 2), [0, 1])
    with pytest.raises(ValueError, match="inputs must have shape"):
        net(torch.zeros(5, 4))
    with pytest.raises(ValueError, match="inputs must have shape"):
        net(torch.zeros(3, 5, 3))
    with pytest.raises(ValueError, match="batch_size"):
        next(net.minibatches(3, 4, drop_last=True))

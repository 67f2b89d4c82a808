"""LeNets side by side, against plain torch modules and against one another."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from reproductions.kernels.replica import LeNetSpec, ReplicaLeNet

CAFFE = LeNetSpec()
#: a second map of one pixel
SMALL = LeNetSpec(size=16, channels=3, widths=(4, 6), hidden=7, n_classes=5)
#: a second map of 2 x 2, in which an order of pixels and channels can go wrong
MIDDLE = LeNetSpec(size=20, channels=2, widths=(3, 5), hidden=6, n_classes=4)
SPECS = pytest.mark.parametrize("spec", [CAFFE, SMALL, MIDDLE], ids=["caffe", "small", "middle"])


class Twin(nn.Module):
    """One network as a torch module, layer by layer as in Caffe's file."""

    def __init__(self, spec):
        super().__init__()
        left = spec.size
        for _ in range(2):
            left = (left - 4) // 2
        first, second = spec.widths
        self.layers = nn.Sequential(
            nn.Conv2d(spec.channels, first, 5),
            nn.MaxPool2d(2, 2),
            nn.Conv2d(first, second, 5),
            nn.MaxPool2d(2, 2),
            nn.Flatten(),
            nn.Linear(second * left**2, spec.hidden),
            nn.ReLU(),
            nn.Linear(spec.hidden, spec.n_classes),
        ).to(torch.float64)

    def forward(self, x):
        return self.layers(x)

    def row(self, gradient=False):
        """Parameters or gradients as a row: convolutions as (out, height, width, in)."""
        tensors = [p.grad if gradient else p.detach() for p in self.parameters()]
        return torch.cat(
            [(t.permute(0, 2, 3, 1) if t.dim() == 4 else t).flatten() for t in tensors]
        )

    def take(self, row):
        """Copy a row into the module."""
        place = 0
        for p in self.parameters():
            part = row[place : place + p.numel()]
            place += p.numel()
            if p.dim() == 4:
                part = part.view(len(p), 5, 5, -1).permute(0, 3, 1, 2)
            p.data.copy_(part.view_as(p))
        assert place == len(row)


def network(spec, seeds=(3,), seed=0):
    """Networks whose biases are no longer zeros."""
    net = ReplicaLeNet(spec, seeds, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    for row in net.parameters:
        row += 0.05 * torch.randn(row.shape, generator=generator, dtype=torch.float64)
    return net


def data(spec, images=(6,), labels=None, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (*images, spec.channels, spec.size, spec.size)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    return x, torch.randint(spec.n_classes, labels or images, generator=generator)


def close(a, b, tol=1e-10):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@SPECS
def test_a_network_has_the_parameters_of_its_twin(spec):
    assert spec.n_parameters == sum(p.numel() for p in Twin(spec).parameters())
    # tensor by tensor: convolutions have their inputs last
    found = [
        (*entry.shape[:1], *entry.shape[3:], *entry.shape[1:3])
        if entry.name == "conv"
        else entry.shape
        for entry in spec.entries
    ]
    assert found == [tuple(p.shape) for p in Twin(spec).parameters()]


def test_caffes_network_has_431_080_parameters():
    assert CAFFE.n_parameters == 431_080
    assert [entry.size for entry in CAFFE.entries] == [500, 20, 25_000, 50, 400_000, 500, 5000, 10]


@SPECS
def test_three_steps_agree_with_torch_modules(spec):
    net, twin = network(spec), Twin(spec)
    twin.take(net.parameters[0])
    for step in range(3):
        x, y = data(spec, seed=step)
        before = net.parameters.clone()
        loss, gradient = net.gradients(x, y)
        assert torch.equal(net.parameters, before)
        expected = functional.cross_entropy(twin(x), y)
        twin.zero_grad()
        expected.backward()
        close(loss[0], expected.detach())
        close(gradient[0], twin.row(gradient=True))
        # every tensor has its part in the loss
        for entry in spec.entries:
            assert gradient[0, entry.columns].abs().max() > 1e-3, entry
        net.parameters -= 0.1 * gradient
        for p in twin.parameters():
            p.data -= 0.1 * p.grad
    close(net.parameters[0], twin.row(), 1e-9)
    x, _ = data(spec, (7,), seed=9)
    close(net.logits(x)[0], twin(x).detach(), 1e-9)
    assert int(net.n_averaged) == 3
    # there is nothing to average
    assert net.running.numel() == 0


@SPECS
@pytest.mark.parametrize("images", [(4,), (3, 4)], ids=["shared images", "own images"])
@pytest.mark.parametrize("labels", [(4,), (3, 4)], ids=["shared labels", "own labels"])
def test_every_network_of_a_stack_is_its_twin(spec, images, labels):
    seeds = (3, 1, 2)
    net = network(spec, seeds)
    x, y = data(spec, images, labels)
    losses, gradients = net.gradients(x, y)
    logits = net.logits(x)
    assert (losses.shape, logits.shape) == ((3,), (3, 4, spec.n_classes))
    for k in range(3):
        twin = Twin(spec)
        twin.take(net.parameters[k])
        x_k, y_k = x[k] if len(images) > 1 else x, y[k] if len(labels) > 1 else y
        found = twin(x_k)
        loss = functional.cross_entropy(found, y_k)
        loss.backward()
        close(logits[k], found.detach())
        close(losses[k], loss.detach())
        close(gradients[k], twin.row(gradient=True))
    assert len({round(float(loss), 6) for loss in losses}) == 3


def test_a_stack_equals_its_networks_alone():
    seeds = (3, 1, 2)
    net = network(MIDDLE, seeds)
    for step in range(2):
        x, y = data(MIDDLE, (3, 4), seed=step)
        rows = net.parameters.clone()
        losses, gradients = net.gradients(x, y)
        for k, seed in enumerate(seeds):
            alone = ReplicaLeNet(MIDDLE, [seed], dtype=torch.float64)
            alone.parameters.copy_(rows[k : k + 1])
            loss, gradient = alone.gradients(x[k], y[k])
            close(losses[k], loss[0])
            close(gradients[k], gradient[0])
            close(net.logits(x)[k], alone.logits(x[k])[0])
        net.parameters -= 0.1 * gradients


def test_a_network_that_is_nan_leaves_the_others_alone():
    net = network(SMALL, (3, 1, 2))
    broken = copy.deepcopy(net)
    broken.parameters[1] = float("nan")
    x, y = data(SMALL, (3, 4))
    found = [(*n.gradients(x, y), n.logits(x)) for n in (net, broken)]
    for sound, got in zip(*found, strict=True):
        assert got[1].isnan().any()
        close(got[[0, 2]], sound[[0, 2]], 1e-12)


def test_networks_start_from_their_own_seeds_as_caffes_do():
    net = ReplicaLeNet(SMALL, [5, 6, 5], dtype=torch.float64)
    assert (len(net), net.seeds) == (3, [5, 6, 5])
    assert torch.equal(net.parameters[0], net.parameters[2])
    assert not torch.equal(net.parameters[0], net.parameters[1])
    assert torch.equal(net.parameters[1:2], SMALL.initialize([6]))
    # neither takes from the stream that everybody shares, nor heeds it
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    assert torch.equal(SMALL.initialize([5, 6, 5]), net.parameters)
    torch.random.set_rng_state(state)
    assert torch.equal(SMALL.initialize([5]), net.parameters[:1])
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_are_uniform_within_the_bound_of_xavier_and_biases_zero():
    fans = {"conv": [25, 500], "linear": [800, 500]}
    # the first convolution has 500 weights, so a few networks more
    rows = CAFFE.initialize(range(20))
    for entry in CAFFE.entries:
        part = rows[:, entry.columns]
        if entry.name.endswith("bias"):
            assert (part == 0).all()
            continue
        fan_in = fans[entry.name].pop(0)
        bound = math.sqrt(3 / fan_in)
        assert part.abs().max() <= bound
        assert part.max().item() == pytest.approx(bound, rel=0.01)
        assert part.min().item() == pytest.approx(-bound, rel=0.01)
        # uniform: a variance of a third of the bound's square, a mean of zero
        assert part.std().item() == pytest.approx(math.sqrt(1 / fan_in), rel=0.02)
        assert abs(part.mean().item()) < 0.02 * bound
    assert fans == {"conv": [], "linear": []}
    # the layers of one network are not copies of one stream
    conv, linear = (rows[0, CAFFE.entries[k].columns][:500] for k in (2, 4))
    assert abs(torch.corrcoef(torch.stack([conv, linear]))[0, 1].item()) < 0.2


def test_columns_are_those_of_the_tensors_named():
    places = torch.arange(MIDDLE.n_parameters).double()
    twin = Twin(MIDDLE)
    twin.take(places)
    first, second, third, fourth = (twin.layers[k] for k in (0, 2, 5, 7))
    of = {
        "conv": (first.weight, second.weight),
        "conv bias": (first.bias, second.bias),
        "linear": (third.weight, fourth.weight),
        "linear bias": (third.bias, fourth.bias),
    }
    for names in (*((name,) for name in of), ("conv bias", "linear bias"), tuple(of), ()):
        expected = torch.zeros(MIDDLE.n_parameters)
        for name in names:
            for tensor in of[name]:
                expected[tensor.detach().flatten().long()] = 1
        assert torch.equal(MIDDLE.columns(*names), expected), names
    # a network without batch norm has no scales
    assert not MIDDLE.columns("scale", "shift").any()


def test_gradients_are_written_where_asked():
    net = network(SMALL, (3, 1))
    x, y = data(SMALL)
    out = torch.full_like(net.parameters, float("nan"))
    _, gradient = net.gradients(x, y)
    assert net.gradients(x, y, out=out)[1] is out
    assert torch.equal(out, gradient)
    assert not gradient.requires_grad


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_images_of_another_dtype_are_taken(dtype):
    net = ReplicaLeNet(SMALL, [3, 1], dtype=dtype)
    exact = ReplicaLeNet(SMALL, [3, 1], dtype=torch.float64)
    x, y = data(SMALL)
    x = x.float()
    loss, gradient = net.gradients(x, y)
    assert loss.dtype == gradient.dtype == net.logits(x).dtype == dtype
    expected, expected_gradient = exact.gradients(x, y)
    # 1e-6 is above the rounding errors of float32 and far below anything else
    close(loss.double(), expected, 1e-6)
    close(gradient.double(), expected_gradient, 1e-6)
    assert ReplicaLeNet(SMALL, [3]).parameters.dtype == torch.float32


@pytest.mark.parametrize(("size", "side"), [(16, 1), (20, 2), (24, 3), (28, 4), (32, 5)])
def test_the_side_of_the_last_map(size, side):
    spec = LeNetSpec(size=size, widths=(2, 3), hidden=4, n_classes=2)
    assert spec.side == side
    net, twin = network(spec), Twin(spec)
    twin.take(net.parameters[0])
    x, _ = data(spec, (2,))
    close(net.logits(x)[0], twin(x).detach())


# Caffe's maximum would round an odd side up, torch's down
@pytest.mark.parametrize("size", [1, 4, 8, 12, 13, 14, 15, 17, 18, 22, 26, 27, 29, 30])
def test_sizes_that_leave_odd_sides_are_refused(size):
    with pytest.raises(ValueError, match=rf"size must leave even sides .* got {size}$"):
        LeNetSpec(size=size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be an integer of at least 1, got 0"),
        ({"size": 28.0}, "size must be an integer of at least 1, got 28.0"),
        ({"channels": 0}, "channels must be an integer of at least 1, got 0"),
        ({"hidden": -1}, "hidden must be an integer of at least 1, got -1"),
        ({"n_classes": 0}, "n_classes must be an integer of at least 1, got 0"),
        ({"widths": (20,)}, r"widths must name two convolutions, got \(20,\)"),
        ({"widths": (20, 50, 50)}, "widths must name two convolutions"),
        ({"widths": (20, 0)}, "widths must be an integer of at least 1, got 0"),
        ({"widths": (2.5, 50)}, "widths must be an integer of at least 1, got 2.5"),
    ],
)
def test_specifications_that_make_no_network_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LeNetSpec(**options)


def test_no_seeds_make_no_networks():
    with pytest.raises(ValueError, match="seeds must name at least one replica, got none"):
        ReplicaLeNet(SMALL, [])


@pytest.mark.parametrize(
    "shape",
    [
        # a single image, another size, other channels, images of too many networks
        (3, 16, 16),
        (6, 3, 16, 20),
        (6, 3, 28, 28),
        (6, 1, 16, 16),
        (3, 6, 3, 16, 16),
        (1, 2, 6, 3, 16, 16),
    ],
)
def test_images_of_another_shape_are_refused(shape):
    net, x = ReplicaLeNet(SMALL, [0, 1]), torch.zeros(shape)
    message = (
        r"images must have shape \(batch, 3, 16, 16\) or \(2, batch, 3, 16, 16\), "
        rf"got \({', '.join(map(str, shape))}\)"
    )
    with pytest.raises(ValueError, match=message):
        net.gradients(x, torch.zeros(6, dtype=torch.long))
    with pytest.raises(ValueError, match=message):
        net.logits(x)


def test_statistics_are_refused_because_nothing_is_normalized():
    net = ReplicaLeNet(SMALL, [0])
    x, _ = data(SMALL)
    assert torch.equal(net.logits(x, None), net.logits(x))
    with pytest.raises(ValueError, match="statistics must be None: LeNet normalizes nothing"):
        net.logits(x, torch.ones(1, 2, 0))

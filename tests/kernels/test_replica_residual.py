"""Residual networks side by side, against plain torch modules and against one another."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from reproductions.kernels.replica import ReplicaResNet, ResidualSpec

NARROW = ResidualSpec(blocks=(2, 1), widths=(4, 8), n_classes=5, down="narrow")
WIDE = ResidualSpec(blocks=(1, 2), widths=(4, 8), n_classes=5, down="wide")
#: three stages and a stem of stride 2: the last block averages a window that is cut at the edge
DEEP = ResidualSpec(blocks=(1, 1, 1), widths=(2, 4, 8), channels=1, stem_stride=2, n_classes=3)
SPECS = pytest.mark.parametrize("spec", [NARROW, WIDE, DEEP], ids=["narrow", "wide", "deep"])


class Twin(nn.Module):
    """One network as a torch module, with biases where Caffe has them."""

    def __init__(self, spec, momentum=0.05):
        super().__init__()
        self.spec = spec
        self.conv, self.norm = nn.ModuleList(), nn.ModuleList()

        def unit(into, out, stride):
            self.conv.append(nn.Conv2d(into, out, 3, stride, padding=1))
            self.norm.append(nn.BatchNorm2d(out, momentum=momentum))

        width = spec.widths[0]
        unit(spec.channels, width, spec.stem_stride)
        for stage, n_blocks in enumerate(spec.blocks):
            for block in range(n_blocks):
                into, stride = width, 1
                if stage and not block:
                    stride, width = 2, 2 * width
                out = into if spec.down == "narrow" else width
                unit(into, out, stride)
                unit(out, out, 1)
        self.linear = nn.Linear(width, spec.n_classes)
        self.to(torch.float64)

    def forward(self, x):
        units = iter(zip(self.conv, self.norm, strict=True))

        def unit(h):
            conv, norm = next(units)
            return norm(conv(h))

        def appended(h):
            return torch.cat([h, torch.zeros_like(h)], 1)

        h = functional.relu(unit(x))
        for stage, n_blocks in enumerate(self.spec.blocks):
            for block in range(n_blocks):
                shortcut, halves = h, stage > 0 and block == 0
                if halves:
                    shortcut = functional.avg_pool2d(h, 3, 2, ceil_mode=True)
                    if self.spec.down == "wide":
                        shortcut = appended(shortcut)
                h = unit(functional.relu(unit(h)))
                h = functional.relu(h + shortcut)
                if halves and self.spec.down == "narrow":
                    h = appended(h)
        return self.linear(h.mean((2, 3)))

    def tensors(self):
        """Parameters in the order of a row."""
        for conv, norm in zip(self.conv, self.norm, strict=True):
            yield from (conv.weight, conv.bias, norm.weight, norm.bias)
        yield from (self.linear.weight, self.linear.bias)

    def row(self, gradient=False):
        """Parameters or gradients as a row: convolutions as (out, height, width, in)."""
        tensors = [p.grad if gradient else p.detach() for p in self.tensors()]
        return torch.cat(
            [(t.permute(0, 2, 3, 1) if t.dim() == 4 else t).flatten() for t in tensors]
        )

    def take(self, row):
        """Copy a row into the module."""
        place = 0
        for p in self.tensors():
            part = row[place : place + p.numel()]
            place += p.numel()
            if p.dim() == 4:
                part = part.view(len(p), 3, 3, -1).permute(0, 3, 1, 2)
            p.data.copy_(part.view_as(p))
        assert place == len(row)

    def running(self):
        """Running means and variances, (2, n_statistics)."""
        means = torch.cat([norm.running_mean for norm in self.norm])
        return torch.stack([means, torch.cat([norm.running_var for norm in self.norm])])


def network(spec, seeds=(3,), seed=0, **options):
    """A network whose scales, shifts and biases are no longer zeros and ones."""
    net = ReplicaResNet(spec, seeds, dtype=torch.float64, **options)
    generator = torch.Generator().manual_seed(seed)
    for row in net.parameters:
        row += 0.1 * torch.randn(row.shape, generator=generator, dtype=torch.float64)
    return net


def data(spec, *shape, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, spec.channels, size, size, generator=generator, dtype=torch.float64)
    return x, torch.randint(spec.n_classes, shape, generator=generator)


def close(a, b, tol=1e-10):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


def blocks(n, down):
    return ResidualSpec(blocks=(n, n, n), down=down)


@pytest.mark.parametrize(
    ("spec", "count"),
    [
        (blocks(9, "narrow"), 808_682),
        # convolutions of He et al. 2016, option A, and a bias for each of their channels
        (blocks(9, "wide"), 853_018 + 2_032),
        (ResidualSpec(blocks=(1, 1, 1), stem_stride=2), 75_530),
        (NARROW, None),
        (DEEP, None),
    ],
)
def test_a_network_has_the_parameters_of_its_twin(spec, count):
    found = sum(p.numel() for p in Twin(spec).parameters())
    assert spec.n_parameters == found
    assert count in (None, found)
    assert spec.n_statistics == Twin(spec).running().shape[1]


@SPECS
def test_three_steps_agree_with_torch_modules(spec):
    net, twin = network(spec), Twin(spec)
    twin.take(net.parameters[0])
    biases = spec.columns("conv bias").bool()
    for step in range(3):
        x, y = data(spec, 6, seed=step)
        loss, gradient = net.gradients(x, y)
        expected = functional.cross_entropy(twin(x), y)
        twin.zero_grad()
        expected.backward()
        close(loss[0], expected.detach())
        close(gradient[0], twin.row(gradient=True))
        # batch normalization subtracts what a bias adds
        assert (gradient[0, biases] == 0).all()
        assert gradient[0, ~biases].abs().max() > 0.01
        running = twin.running()
        # the twin's averages hold its biases, which the networks leave out
        running[0] -= (1 - 0.95 ** (step + 1)) * net.parameters[0, biases]
        close(net.running_statistics(corrected=False)[0], running)
        net.parameters -= 0.1 * gradient
        for p in twin.parameters():
            p.data -= 0.1 * p.grad
    close(net.parameters[0], twin.row(), 1e-9)
    for norm, conv in zip(twin.norm, twin.conv, strict=True):
        # as if all of it had been averaged with the bias
        norm.running_mean += 0.95**3 * conv.bias.detach()
    twin.eval()
    x, _ = data(spec, 7, seed=9)
    statistics = net.running_statistics(corrected=False)
    close(net.logits(x, statistics)[0], twin(x).detach(), 1e-9)


@SPECS
def test_evaluation_and_training_agree_on_the_statistics_of_the_batch(spec):
    net = network(spec)
    x, y = data(spec, 6)
    logits = net.logits(x, net.estimated_statistics(x, 6))
    loss, _ = net.gradients(x, y)
    close(functional.cross_entropy(logits[0], y), loss[0])


def batch_statistics(spec, row, x):
    """Means, biased and unbiased variances of every channel that is normalized, by hooks."""
    twin, found = Twin(spec), []
    twin.take(row)
    for conv, norm in zip(twin.conv, twin.norm, strict=True):
        norm.register_forward_hook(
            # without the bias, which the networks leave out
            lambda _, inputs, __, conv=conv: found.append(
                inputs[0].detach() - conv.bias.detach().view(-1, 1, 1)
            )
        )
    twin(x)
    over = (0, 2, 3)
    return [
        torch.stack([torch.cat([t.mean(over) for t in found]), torch.cat(variances)])
        for variances in (
            [t.var(over, correction=0) for t in found],
            [t.var(over, correction=1) for t in found],
        )
    ]


def test_corrected_averages_are_weighted_means_as_in_caffe():
    fractions = (0.5, 0.95, 0.999)
    net = network(NARROW, averaging=fractions)
    seen = []
    for step in range(4):
        x, y = data(NARROW, 5, seed=step)
        seen.append(batch_statistics(NARROW, net.parameters[0], x)[1])
        _, gradient = net.gradients(x, y)
        net.parameters -= 0.1 * gradient
    for k, fraction in enumerate(fractions):
        total, weight = torch.zeros_like(seen[0]), 0.0
        for statistics in seen:
            total, weight = fraction * total + statistics, fraction * weight + 1
        close(net.running_statistics(k)[0], total / weight)
        start = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
        left = fraction**4
        close(
            net.running_statistics(k, corrected=False)[0],
            left * start + (1 - left) * total / weight,
        )


def test_estimated_statistics_are_means_over_full_batches_and_leave_no_trace():
    net = network(WIDE, seeds=(3, 4))
    x, y = data(WIDE, 14)
    net.gradients(x, y)
    running, parameters = net.running.clone(), net.parameters.clone()
    found = net.estimated_statistics(x, 4)
    for k, row in enumerate(net.parameters):
        parts = [batch_statistics(WIDE, row, part)[0] for part in x[:12].split(4)]
        close(found[k], torch.stack(parts).mean(0))
    assert torch.equal(net.running, running)
    assert torch.equal(net.parameters, parameters)
    assert int(net.n_averaged) == 1


@SPECS
@pytest.mark.parametrize("layout", ["shared", "stacked"])
def test_a_stack_equals_its_networks_alone(spec, layout):
    seeds = (3, 1, 2)
    net = network(spec, seeds)
    shape = (6,) if layout == "shared" else (3, 6)
    x, y = data(spec, *shape)
    for _ in range(2):
        rows = net.parameters.clone()
        losses, gradients = net.gradients(x, y)
        statistics = net.estimated_statistics(x if x.dim() == 4 else x[0], 6)
        logits = net.logits(x, statistics)
        for k, seed in enumerate(seeds):
            alone = ReplicaResNet(spec, [seed], dtype=torch.float64)
            alone.parameters.copy_(rows[k : k + 1])
            x_k, y_k = (x, y) if layout == "shared" else (x[k], y[k])
            loss, gradient = alone.gradients(x_k, y_k)
            close(losses[k], loss[0])
            close(gradients[k], gradient[0])
            close(logits[k], alone.logits(x_k, statistics[k : k + 1])[0])
        net.parameters -= 0.1 * gradients
    assert len({round(float(loss), 6) for loss in losses}) == 3


def test_a_network_that_is_nan_leaves_the_others_alone():
    net = network(NARROW, (3, 1, 2), averaging=(0.9, 0.99))
    broken = copy.deepcopy(net)
    broken.parameters[1] = float("nan")
    x, y = data(NARROW, 3, 6)
    found = [(*n.gradients(x, y), n.running_statistics(1)) for n in (net, broken)]
    for sound, got in zip(*found, strict=True):
        assert got[1].isnan().any()
        close(got[[0, 2]], sound[[0, 2]], 1e-12)
    statistics = net.estimated_statistics(x[0], 6)
    close(broken.logits(x, statistics)[[0, 2]], net.logits(x, statistics)[[0, 2]], 1e-12)


def test_ghost_batches_are_halves_that_do_not_see_one_another():
    whole, ghost, halves = (
        network(NARROW, (3, 1), group_size=size, averaging=(0.5,)) for size in (None, 4, None)
    )
    x, y = data(NARROW, 2, 8)
    loss, gradient = ghost.gradients(x, y)
    start = halves.running.clone()
    parts, running = [], []
    for part in (slice(0, 4), slice(4, 8)):
        halves.running.copy_(start)
        parts.append(halves.gradients(x[:, part], y[:, part]))
        running.append(halves.running.clone())
    close(loss, (parts[0][0] + parts[1][0]) / 2)
    close(gradient, (parts[0][1] + parts[1][1]) / 2)
    close(ghost.running, (running[0] + running[1]) / 2)
    # the control: one batch of eight is something else
    assert (whole.gradients(x, y)[1] - gradient).abs().max() > 1e-3


@SPECS
def test_the_unit_of_the_pixels_does_not_matter(spec):
    """But for epsilon: pixels of variance v / 64^2 shift results by a few epsilon 64^2 / v."""
    net, scaled = network(spec), network(spec)
    x, y = data(spec, 8)
    # as large as gray levels, so that epsilon is small beside the variance
    x = 64 * x
    loss, gradient = net.gradients(x, y)
    other, scaled_gradient = scaled.gradients(x / 64, y)
    close(other, loss, 1e-4)
    close(scaled_gradient, gradient, 1e-4)
    # the control: statistics that do not follow the pixels
    statistics = net.estimated_statistics(x, 8)
    difference = net.logits(x / 64, statistics) - net.logits(x, statistics)
    assert difference.abs().max() > 0.1


def test_a_network_starts_from_its_own_seed_as_he_and_caffe_do():
    spec = ResidualSpec(blocks=(2, 2), widths=(16, 32), n_classes=10)
    stack = spec.initialize([5, 6, 5])
    assert torch.equal(stack[0], stack[2])
    assert not torch.equal(stack[0], stack[1])
    assert torch.equal(stack[1:2], spec.initialize([6]))
    rows = spec.initialize(range(50))
    for entry in spec.entries:
        part = rows[:, entry.columns]
        if entry.name == "conv":
            std = math.sqrt(2 / (9 * entry.shape[-1]))
            assert part.std().item() == pytest.approx(std, rel=0.02)
            # normal, not uniform: a fourth moment of 3
            assert ((part / std) ** 4).mean().item() == pytest.approx(3, rel=0.1)
        elif entry.name == "linear":
            bound = math.sqrt(3 / 32)
            assert part.abs().max() <= bound
            assert part.abs().max().item() == pytest.approx(bound, rel=0.01)
            assert part.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02)
        else:
            assert (part == (1.0 if entry.name == "scale" else 0.0)).all()


def test_bfloat16_activations_beside_float32_parameters():
    x, y = data(WIDE, 16)
    exact, coarse = (
        ReplicaResNet(WIDE, [1, 2], compute_dtype=dtype) for dtype in (None, torch.bfloat16)
    )
    (loss, gradient), (near, found) = (n.gradients(x.float(), y) for n in (exact, coarse))
    assert found.dtype == near.dtype == torch.float32
    assert not torch.equal(loss, near)
    torch.testing.assert_close(near, loss, rtol=0.02, atol=0)
    assert (functional.cosine_similarity(found, gradient) > 0.98).all()


def test_gradients_are_written_where_asked():
    net = network(NARROW, (3, 1))
    x, y = data(NARROW, 6)
    out = torch.zeros_like(net.parameters)
    _, gradient = net.gradients(x, y)
    assert net.gradients(x, y, out=out)[1] is out
    assert torch.equal(out, gradient)


@pytest.mark.parametrize("height_and_width", [(7, 8), (8, 7), (10, 10)])
def test_images_that_do_not_halve_are_refused(height_and_width):
    """Of an odd size the pooled shortcut is one pixel smaller than the convolution."""
    spec = ResidualSpec(blocks=(1, 1, 1), widths=(2, 4, 8))
    net, x = ReplicaResNet(spec, [0]), torch.randn(4, 3, *height_and_width)
    with pytest.raises(ValueError, match="images must"):
        net.gradients(x, torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="images must"):
        net.logits(x, torch.ones(1, 2, spec.n_statistics))


@pytest.mark.parametrize(("size", "sound"), [(7, True), (8, True), (9, False), (10, False)])
def test_a_stem_of_stride_2_rounds_sizes_up(size, sound):
    """7 pixels become 4, then 2 and 1; 9 become 5, which do not halve."""
    net, x = network(DEEP), torch.randn(4, 1, size, size, dtype=torch.float64)
    labels = torch.zeros(4, dtype=torch.long)
    if not sound:
        with pytest.raises(ValueError, match="images must"):
            net.gradients(x, labels)
        return
    twin = Twin(DEEP)
    twin.take(net.parameters[0])
    close(net.gradients(x, labels)[0][0], functional.cross_entropy(twin(x), labels).detach())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"blocks": (0, 1), "widths": (4, 8)}, "blocks must be an integer of at least 1, got 0"),
        ({"blocks": (1, 1)}, "as many stages"),
        ({"blocks": (), "widths": ()}, "as many stages"),
        ({"blocks": (1, 1), "widths": (4, 6)}, "twice the one before"),
        ({"blocks": (1, 1, 1), "down": "strided"}, "down must be one of narrow, wide"),
        ({"blocks": (1, 1, 1), "n_classes": 0}, "n_classes"),
        ({"blocks": (1, 1, 1), "channels": 1.5}, "channels"),
    ],
)
def test_specifications_that_make_no_network_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ResidualSpec(**options)


@pytest.mark.parametrize(
    ("seeds", "options", "message"),
    [
        ([], {}, "seeds must name at least one"),
        ([0], {"averaging": ()}, "averaging must name at least one"),
        ([0], {"averaging": (0.9, 1.0)}, "averaging must be below 1"),
        ([0], {"averaging": (-0.1,)}, "averaging must be in"),
        ([0], {"group_size": 0}, "group_size"),
    ],
)
def test_networks_that_cannot_be_are_refused(seeds, options, message):
    with pytest.raises(ValueError, match=message):
        ReplicaResNet(NARROW, seeds, **options)


def test_calls_that_do_not_fit_are_refused():
    net = ReplicaResNet(NARROW, [0, 1], group_size=4)
    x, y = (t.float() if t.is_floating_point() else t for t in data(NARROW, 6))
    with pytest.raises(ValueError, match="no training step has been averaged"):
        net.running_statistics()
    with pytest.raises(ValueError, match="group_size must divide"):
        net.gradients(x, y)
    with pytest.raises(ValueError, match=r"images must have shape \(batch, 3, height, width\)"):
        net.gradients(x[:4, :2], y[:4])
    with pytest.raises(ValueError, match="images must have shape"):
        net.gradients(x[:4].expand(3, -1, -1, -1, -1), y[:4])
    net.gradients(x[:4], y[:4])
    with pytest.raises(ValueError, match=r"average must be in \[0, 0\], got 1"):
        net.running_statistics(1)
    with pytest.raises(ValueError, match="batch_size 7"):
        net.estimated_statistics(x, 7)

import math

import pytest
import torch

from reproductions.kernels.ghost_norm import ghost_norm

FORMS = ("naive", "batched")
LAST, FIRST = torch.channels_last, torch.contiguous_format


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(batch, channels, height=5, width=4, dtype=torch.float64, layout=LAST):
    """x away from 0, scale and shift of both signs, residual, gradient of y."""
    shape = batch, channels, height, width
    images = [3 + 2 * normal(*shape), normal(*shape, seed=1), normal(*shape, seed=2)]
    x, residual, dy = (t.to(dtype).contiguous(memory_format=layout) for t in images)
    narrow = torch.float64 if dtype == torch.float64 else torch.float32
    scale, shift = (normal(channels, seed=seed).to(narrow) for seed in (3, 4))
    return x, scale, shift, residual, dy


def outcome(x, scale, shift, residual, dy, **how):
    """y, mean, variance and the gradients of what may have one."""
    leaves = [t.clone().requires_grad_() for t in (x, scale, shift)]
    if residual is not None:
        leaves.append(residual.clone().requires_grad_())
        how["residual"] = leaves[-1]
    y, mean, variance = ghost_norm(*leaves[:3], **how)
    return [y.detach(), mean, variance, *torch.autograd.grad(y, leaves, dy)]


def close(found, wanted, tolerance):
    assert len(found) == len(wanted)
    for one, two in zip(found, wanted, strict=True):
        error = (one.double() - two).abs().max()
        assert error <= tolerance * (1 + two.abs().max())


# of bfloat16 what comes out and what goes back are rounded to 8 bits
TOLERANCE = {torch.float64: 1e-14, torch.float32: 1e-6, torch.bfloat16: 2.0**-8}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("summed", [False, True])
@pytest.mark.parametrize("backend", FORMS)
def test_forms_agree_with_the_equation_in_float64(backend, summed, relu, dtype):
    for channels in (1, 3, 16, 48):
        for groups, group_size in ((1, 5), (2, 3), (5, 1)):
            x, scale, shift, residual, dy = problem(groups * group_size, channels, dtype=dtype)
            given = x, scale, shift, residual if summed else None, dy
            how = {"group_size": group_size, "relu": relu}
            found = outcome(*given, **how, backend=backend)
            exact = [t if t is None else t.double() for t in given]
            close(found, outcome(*exact, **how, backend="naive"), TOLERANCE[dtype])
            narrow = torch.float64 if dtype == torch.float64 else torch.float32
            wanted = [dtype, narrow, narrow, dtype, narrow, narrow, dtype]
            assert [t.dtype for t in found] == wanted[: len(found)]
            assert found[1].shape == found[2].shape == (groups, channels)


@pytest.mark.parametrize("backend", FORMS)
def test_each_group_is_a_batch_for_torch(backend):
    x, scale, shift, residual, _ = problem(6, 7)
    y, mean, variance = ghost_norm(
        x, scale, shift, group_size=2, residual=residual, relu=True, epsilon=0.3, backend=backend
    )
    layer = torch.nn.BatchNorm2d(7, eps=0.3).double()
    layer.weight.data, layer.bias.data = scale, shift
    for group in range(3):
        rows = slice(2 * group, 2 * group + 2)
        wanted = (layer(x[rows]) + residual[rows]).relu()
        torch.testing.assert_close(y[rows], wanted, rtol=1e-13, atol=1e-13)
        pixels = x[rows].transpose(0, 1).flatten(1)
        torch.testing.assert_close(mean[group], pixels.mean(1), rtol=1e-14, atol=0)
        biased = pixels.var(1, correction=0)
        torch.testing.assert_close(variance[group], biased, rtol=1e-13, atol=0)
    # Control: one group of six is something else.
    assert (ghost_norm(x, scale, shift, epsilon=0.3)[0] - y).abs().max() > 0.1


@pytest.mark.parametrize("backend", FORMS)
def test_by_hand(backend):
    # mean 5, variance 1, and a root of 1 + 3 in the denominator
    x = torch.tensor([4.0, 6.0, 6.0, 4.0]).view(2, 1, 1, 2)
    two, one = torch.tensor([2.0]), torch.tensor([1.0])
    for relu, wanted in ((False, [-1.0, 3.0, 3.0, 1.0]), (True, [0.0, 3.0, 3.0, 1.0])):
        y, mean, variance = ghost_norm(
            x,
            two,
            one,
            residual=torch.tensor([-1.0, 1.0, 1.0, 1.0]).view(2, 1, 1, 2),
            relu=relu,
            epsilon=3.0,
            backend=backend,
        )
        assert y.flatten().tolist() == wanted
        assert (mean.item(), variance.item()) == (5.0, 1.0)
    # a group of a single value is at its mean
    x, two, one = (t.double() for t in (x[:, :, :, :1], two, one))
    y, mean, variance = ghost_norm(x, two, one, group_size=1, backend=backend)
    torch.testing.assert_close(y, torch.ones_like(x), rtol=1e-12, atol=0)
    assert (mean.flatten().tolist(), variance.flatten().tolist()) == ([4.0, 6.0], [0.0, 0.0])


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("relu", [False, True])
def test_gradients_are_those_of_finite_differences(backend, relu):
    leaves = [t.requires_grad_() for t in problem(4, 3, 2, 2)[:4]]

    def function(x, scale, shift, residual):
        how = {"group_size": 2, "residual": residual, "relu": relu, "backend": backend}
        return ghost_norm(x, scale, shift, **how)[0]

    assert torch.autograd.gradcheck(function, leaves)
    # the statistics are constants for whoever receives them
    assert not any(t.requires_grad for t in ghost_norm(*leaves[:3], backend=backend)[1:])


@pytest.mark.parametrize("backend", FORMS)
def test_groups_know_nothing_of_each_other(backend):
    x, scale, shift, residual, dy = problem(6, 5, dtype=torch.float32)
    other = x.clone()
    other[2:4] = 7 * normal(2, 5, 5, 4, seed=9).float()
    runs = [
        outcome(t, scale, shift, residual, dy, group_size=2, relu=True, backend=backend)
        for t in (x, other)
    ]
    kept = torch.tensor([True, True, False, False, True, True])
    for index in (0, 3, 6):
        assert torch.equal(runs[0][index][kept], runs[1][index][kept])
        assert not torch.equal(runs[0][index], runs[1][index])
    for index in (1, 2):
        assert torch.equal(runs[0][index][::2], runs[1][index][::2])
    # NaN stays in its group, and the rectifier does not hide it
    other[2, :, 0, 0] = math.nan
    y = ghost_norm(other, scale, shift, group_size=2, relu=True, backend=backend)[0]
    assert (y.isnan().flatten(1).all(1) == ~kept).all()
    assert not y[kept].isnan().any()


@pytest.mark.parametrize("backend", FORMS)
def test_networks_stacked_along_channels_are_each_as_if_alone(backend):
    networks = [problem(4, 3), [t + 1 for t in problem(4, 3)]]
    stacks = zip(*networks, strict=True)
    x, scale, shift, residual, dy = (torch.cat(t, min(1, t[0].dim() - 1)) for t in stacks)
    how = {"group_size": 2, "relu": True, "backend": backend}
    stacked = outcome(x, scale, shift, residual, dy, **how)
    for number, network in enumerate(networks):
        for whole, part in zip(stacked, outcome(*network, **how), strict=True):
            own = whole.narrow(min(1, whole.dim() - 1), 3 * number, 3)
            torch.testing.assert_close(own, part, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("backend", FORMS)
def test_a_mean_far_from_zero_costs_no_more_than_its_own_digits(backend):
    x = (1000 + normal(8, 3, 16, 16)).float().contiguous(memory_format=LAST)
    scale, shift = torch.ones(3), torch.zeros(3)
    dy = normal(8, 3, 16, 16, seed=5).float()
    found = outcome(x, scale, shift, None, dy, group_size=4, backend=backend)
    exact = [t.double() for t in (x, scale, shift)]
    wanted = outcome(*exact, None, dy.double(), group_size=4, backend="naive")
    # a mean is known to 1000 times 2^-24; torch's x slope + (shift - mean slope) adds to that
    for index, tolerance in {0: 2e-4 if backend == "naive" else 2e-3, 2: 1e-5, 3: 1e-4}.items():
        torch.testing.assert_close(
            found[index].double(), wanted[index], rtol=tolerance, atol=tolerance
        )
    # Control: the mean of squares less the square of the mean would not do.
    pixels = x.view(2, 4, 3, -1)
    naive = pixels.square().mean((1, 3)) - pixels.mean((1, 3)).square()
    assert (naive.double() / wanted[2] - 1).abs().max() > 1e-2


@pytest.mark.parametrize("backend", FORMS)
@pytest.mark.parametrize("group_size", [2, 4])
def test_layout_is_kept_and_does_not_matter(backend, group_size):
    how = {"group_size": group_size, "relu": True, "backend": backend}
    runs = []
    for layout in (LAST, FIRST):
        given = problem(4, 3, layout=layout)
        assert not given[0].is_contiguous(memory_format=LAST if layout is FIRST else FIRST)
        runs.append(outcome(*given, **how))
        assert runs[-1][0].is_contiguous(memory_format=layout)
    # x and residual in different layouts, and an x that is in neither
    x, scale, shift, residual, dy = given
    mixed = x, scale, shift, residual.contiguous(memory_format=LAST), dy
    runs.append(outcome(*mixed, **how))
    assert runs[-1][0].is_contiguous()
    wide = torch.zeros(4, 3, 5, 8, dtype=x.dtype)
    wide[..., ::2] = x
    runs.append(outcome(wide[..., ::2], scale, shift, residual, dy, **how))
    assert runs[-1][0].is_contiguous()
    for run in runs[1:]:
        close(run, runs[0], 1e-14)


@pytest.mark.parametrize("backend", FORMS)
def test_no_gradient_passes_where_the_rectifier_puts_out_zero(backend):
    x, scale, _, residual, dy = problem(4, 3)
    nothing = scale * 0
    found = outcome(x, nothing, nothing, None, dy, relu=True, backend=backend)
    assert all((t == 0).all() for t in (found[0], *found[3:]))
    # y = relu(-|r| or |r|), zero exactly in every second image
    signs = torch.tensor([1.0, 0.0, 1.0, -1.0], dtype=x.dtype).view(4, 1, 1, 1)
    found = outcome(x, nothing, nothing, residual.abs() * signs, dy, relu=True, backend=backend)
    assert torch.equal(found[6], dy * (signs > 0))
    # at the mean, where the slope is not zero
    images = torch.tensor([-1.0, 0.0, 1.0, 0.0], dtype=x.dtype).expand(4, 3, 1, 4)
    one, dy_there = torch.ones_like(scale), dy[:, :, :1]
    found = outcome(images, one, nothing, None, dy_there, relu=True, backend=backend)
    assert torch.equal(found[5], dy_there[..., 2].sum((0, 2)))
    # Control: without the rectifier all of it passes.
    found = outcome(x, nothing, nothing, residual * 0, dy, backend=backend)
    assert torch.equal(found[6], dy)
    assert (found[5] != 0).all()


@pytest.mark.parametrize("backend", FORMS)
def test_bfloat16_is_rounded_once(backend):
    x, scale, shift, residual, _ = problem(4, 3, dtype=torch.bfloat16)
    y, *_ = ghost_norm(x, scale, shift, residual=residual, backend=backend)
    wide, *_ = ghost_norm(x.float(), scale, shift, residual=residual.float(), backend=backend)
    assert torch.equal(y, wide.bfloat16())
    # Control: a sum of what is rounded already differs.
    alone, *_ = ghost_norm(x, scale, shift, backend=backend)
    assert not torch.equal(alone + residual, y)


def test_inputs_are_left_alone():
    given = problem(4, 3, dtype=torch.float32)
    copies = [t.clone() for t in given]
    x, scale, shift, residual, _ = given
    for group_size in (2, 4):
        ghost_norm(x, scale, shift, group_size=group_size, residual=residual, relu=True)
        assert all(torch.equal(a, b) for a, b in zip(given, copies, strict=True))


def test_scale_and_shift_may_be_wider_or_narrower_than_x():
    x, scale, shift, residual, dy = problem(4, 3)
    wanted = outcome(x, scale, shift, residual, dy, relu=True)
    single = outcome(x.float(), scale, shift, residual.float(), dy.float(), relu=True)
    close(single, wanted, 1e-6)
    assert single[0].dtype == torch.float32
    # gradients come back in the precision of what they belong to
    assert single[4].dtype == torch.float64
    double = outcome(x, scale.float(), shift.float(), residual, dy, relu=True)
    close(double, wanted, 1e-6)
    assert (double[0].dtype, double[4].dtype) == (torch.float64, torch.float32)


X, SCALE, SHIFT, RESIDUAL, _ = problem(6, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": X[0]}, r"x must have shape \(batch, channels, height, width\), got \(3, 5, 4\)"),
        ({"x": X[:0]}, r"x must not be empty, got shape \(0, 3, 5, 4\)"),
        ({"x": X.half()}, "x must be float32, float64 or bfloat16, got torch.float16"),
        ({"x": X.numpy()}, "x must be a tensor, got ndarray"),
        ({"scale": 1.0}, "scale must be a tensor, got float"),
        (
            {"scale": SCALE[:2]},
            r"scale must have one value a channel, shape \(3,\); got \(2,\)",
        ),
        ({"scale": SCALE.bfloat16()}, "scale must be float32 or float64, got torch.bfloat16"),
        ({"shift": SHIFT[None]}, r"shift must have one value a channel, .* got \(1, 3\)"),
        ({"shift": SHIFT.to("meta")}, "shift must have the device of x, cpu; got meta"),
        (
            {"residual": RESIDUAL[:, :1]},
            r"residual must have shape \(6, 3, 5, 4\) and dtype torch.float64, .*\(6, 1, 5, 4\)",
        ),
        ({"residual": RESIDUAL.float()}, r"dtype torch.float64, .* and torch.float32"),
        ({"group_size": 4}, "group_size must divide the batch of 6 images, got 4"),
        ({"group_size": 12}, "group_size must divide the batch of 6 images, got 12"),
        ({"group_size": 0}, "group_size must be an integer of at least 1, got 0"),
        ({"group_size": 2.0}, "group_size must be an integer of at least 1, got 2.0"),
        ({"epsilon": 0.0}, "epsilon must be greater than 0, got 0"),
        ({"epsilon": math.nan}, "epsilon must be finite, got nan"),
        ({"backend": "fused"}, "backend must be one of auto, naive, batched, triton; got 'fused'"),
    ],
)
def test_errors_name_argument_and_value(change, message):
    arguments = {"x": X, "scale": SCALE, "shift": SHIFT, "residual": RESIDUAL, **change}
    with pytest.raises(ValueError, match=message):
        ghost_norm(**arguments)

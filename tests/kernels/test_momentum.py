"""The three forms of momentum, against torch.optim, Caffe's formulas and one another."""

import pytest
import torch

from reproductions.kernels.replica import MOMENTUM_FORMS, momentum_step

N = 7


def problem(replicas=1, n_steps=12, seed=0):
    """Start, gradients and rates that change from step to step, float64."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rates = 0.05 + 0.5 * torch.rand(n_steps, generator=generator, dtype=torch.float64)
    return normal(replicas, N), normal(n_steps, replicas, N), rates


def run(start, gradients, rates, form, **options):
    """The trajectory of the parameters, (n_steps + 1, replicas, n), and the increments."""
    theta, velocity = start.clone(), torch.zeros_like(start)
    found, increments = [theta.clone()], []
    for gradient, rate in zip(gradients, rates, strict=True):
        increment = momentum_step(theta, velocity, gradient.clone(), rate, form=form, **options)
        increments.append(increment.clone())
        found.append(theta.clone())
    return torch.stack(found), torch.stack(increments)


def of_torch(start, gradients, rates, groups=None, **options):
    """The trajectory of one row by torch.optim.SGD; groups: [(columns, rate factor, decay)]."""
    theta = start.clone()
    groups = groups or [(slice(None), 1.0, options.pop("weight_decay", 0.0))]
    parts = [
        {"params": [theta[:, columns]], "factor": factor, "weight_decay": decay}
        for columns, factor, decay in groups
    ]
    optimizer = torch.optim.SGD(parts, lr=1.0, **options)
    found = [theta.clone()]
    for gradient, rate in zip(gradients, rates, strict=True):
        for (columns, *_), group in zip(groups, optimizer.param_groups, strict=True):
            group["lr"] = float(rate) * group["factor"]
            group["params"][0].grad = gradient[:, columns].clone()
        optimizer.step()
        found.append(theta.clone())
    return torch.stack(found)


def close(a, b, tol=1e-12):
    torch.testing.assert_close(a, b, rtol=tol, atol=tol)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_form_of_torch_is_torchs(momentum, decay):
    start, gradients, rates = problem()
    found, _ = run(start, gradients, rates, "torch", momentum=momentum, decay=decay)
    expected = of_torch(start, gradients, rates, momentum=momentum, weight_decay=decay)
    close(found, expected)


@pytest.mark.parametrize("form", ["caffe", "nesterov"])
def test_caffes_forms_are_torchs_for_a_constant_rate_only(form):
    start, gradients, rates = problem()
    options = {"momentum": 0.8, "weight_decay": 0.05, "nesterov": form == "nesterov"}
    for schedule, same in ((torch.full_like(rates, 0.2), True), (rates, False)):
        found, _ = run(start, gradients, schedule, form, momentum=0.8, decay=0.05)
        expected = of_torch(start, gradients, schedule, **options)
        if same:
            close(found, expected)
        else:
            assert (found[-1] - expected[-1]).abs().max() > 0.01


def test_caffes_formulas():
    """SGDSolver and NesterovSolver: history h <- r g + m h; what is subtracted from theta."""
    start, gradients, rates = problem()
    for form in ("caffe", "nesterov"):
        theta, history = start.clone(), torch.zeros_like(start)
        for gradient, rate in zip(gradients, rates, strict=True):
            before = history
            history = rate * (gradient + 0.02 * theta) + 0.7 * history
            update = history if form == "caffe" else 1.7 * history - 0.7 * before
            theta = theta - update
        found, _ = run(start, gradients, rates, form, momentum=0.7, decay=0.02)
        close(found[-1], theta)


def test_after_one_change_of_the_rate_caffe_remembers_the_old_one():
    """v = -sum_k m^(i-k) r_k g_k in Caffe; PyTorch has r_i in place of every r_k."""
    start, gradients, _ = problem(n_steps=8)
    rates, momentum = torch.tensor([0.5] * 5 + [0.01] * 3, dtype=torch.float64), 0.9
    for form in ("caffe", "torch"):
        _, increments = run(start, gradients, rates, form, momentum=momentum)
        for i in range(8):
            used = rates if form == "caffe" else rates[i].expand(8)
            expected = -sum(momentum ** (i - k) * used[k] * gradients[k] for k in range(i + 1))
            close(increments[i], expected)
    caffe, torch_ = (run(start, gradients, rates, f, momentum=0.9)[0] for f in ("caffe", "torch"))
    close(caffe[:6], torch_[:6])
    assert (caffe[6] - torch_[6]).abs().max() > 0.1


@pytest.mark.parametrize("form", MOMENTUM_FORMS)
def test_without_momentum_all_forms_are_gradient_descent(form):
    start, gradients, rates = problem()
    found, _ = run(start, gradients, rates, form, momentum=0.0)
    steps = (rates.view(-1, 1, 1) * gradients).cumsum(0)
    close(found[1:], start - steps)


@pytest.mark.parametrize("form", MOMENTUM_FORMS)
def test_increments_are_differences_of_the_parameters(form):
    start, gradients, rates = problem(replicas=2)
    found, increments = run(start, gradients, rates, form, momentum=0.9, decay=0.1)
    close(increments, found.diff(dim=0))


def test_the_increment_of_caffe_is_the_velocity_and_of_the_others_a_tensor_of_its_own():
    for form in MOMENTUM_FORMS:
        start, gradients, _ = problem()
        velocity = torch.zeros_like(start)
        increment = momentum_step(start, velocity, gradients[0], 0.1, momentum=0.9, form=form)
        assert (increment is velocity) == (form == "caffe")
        assert increment.data_ptr() not in (start.data_ptr(), gradients[0].data_ptr())


@pytest.mark.parametrize("form", MOMENTUM_FORMS)
def test_rows_have_rates_momenta_and_decays_of_their_own(form):
    start, gradients, rates = problem(replicas=3)
    factor = torch.tensor([[1.0], [0.1], [2.0]], dtype=torch.float64)
    momentum = torch.tensor([[0.9], [0.0], [0.5]], dtype=torch.float64)
    decay = torch.tensor([[0.0], [0.3], [0.1]], dtype=torch.float64)
    columns = rates.view(-1, 1, 1) * factor
    found, _ = run(start, gradients, columns, form, momentum=momentum, decay=decay)
    for k in range(3):
        alone, _ = run(
            start[k : k + 1],
            gradients[:, k : k + 1],
            rates * float(factor[k]),
            form,
            momentum=float(momentum[k]),
            decay=float(decay[k]),
        )
        close(found[:, k], alone[:, 0])


@pytest.mark.parametrize("form", ["torch", "nesterov", "caffe"])
def test_masks_of_decay_and_multipliers_are_parameter_groups(form):
    start, gradients, rates = problem()
    if form != "torch":
        rates = torch.full_like(rates, 0.1)
    ones = torch.ones(1, N, dtype=torch.float64)
    decay, multiplier = 0.2 * ones, ones[0].clone()
    decay[:, 2:4], multiplier[3:6] = 0.0, 2.0
    found, _ = run(start, gradients, rates, form, momentum=0.6, decay=decay, multiplier=multiplier)
    groups = [
        (slice(0, 2), 1.0, 0.2),
        (slice(2, 3), 1.0, 0.0),
        (slice(3, 4), 2.0, 0.0),
        (slice(4, 6), 2.0, 0.2),
        (slice(6, 7), 1.0, 0.2),
    ]
    nesterov = form == "nesterov"
    close(found, of_torch(start, gradients, rates, groups, momentum=0.6, nesterov=nesterov))


def test_a_row_that_is_nan_leaves_the_others_alone():
    start, gradients, rates = problem(replicas=3)
    broken = gradients.clone()
    broken[2, 1] = float("nan")
    for form in MOMENTUM_FORMS:
        sound, found = (run(start, g, rates, form, momentum=0.9)[0] for g in (gradients, broken))
        assert torch.equal(found[:, [0, 2]], sound[:, [0, 2]])
        assert found[3:, 1].isnan().all()


def test_an_unknown_form_is_refused():
    start, gradients, _ = problem()
    with pytest.raises(ValueError, match="form must be one of caffe, torch, nesterov; got 'adam'"):
        momentum_step(start, start.clone(), gradients[0], 0.1, momentum=0.9, form="adam")

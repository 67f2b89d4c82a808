import math
from itertools import pairwise

import pytest
import torch

from reproductions.kernels.structured_ntk import (
    batched,
    forward,
    gradient_step_,
    gram,
    structured_ntk,
    sweep,
)

BETA = 0.3


def networks(widths, replicas=None, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lead = () if replicas is None else (replicas,)

    def normal(*shape):
        return torch.randn(*lead, *shape, generator=generator, dtype=torch.float64).to(dtype)

    pairs = list(pairwise(widths))
    return [normal(m, n) for n, m in pairs], [normal(m) for _, m in pairs]


def inputs(n, n_0, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, n_0, generator=generator, dtype=torch.float64).to(dtype)


def views_of_one_buffer(weights, biases):
    """The same parameters as views into a flat (R, P + R) buffer, layer after layer, with a gap."""
    columns = [t.flatten(1) for pair in zip(weights, biases, strict=True) for t in pair]
    gap = columns[0].new_full((len(columns[0]), 1), 7.0)
    flat = torch.cat([c for column in columns for c in (column, gap)], 1)
    pieces = flat.split([c for column in columns for c in (column.shape[1], 1)], 1)
    shapes = [t.shape[1:] for pair in zip(weights, biases, strict=True) for t in pair]
    views = [v.unflatten(1, s) for v, s in zip(pieces[::2], shapes, strict=True)]
    return flat, views[::2], views[1::2]


def worst(value, wanted):
    return ((value - wanted).abs().max() / wanted.abs().max()).item()


@pytest.mark.parametrize(
    "activation", ["relu", "erf", "tanh", "linear", torch.sin, lambda t: t, lambda t: 2 * t + t**2]
)
@pytest.mark.parametrize(
    ("widths", "replicas"),
    [
        ((3, 1), None),
        ((5, 7, 1), 3),
        ((2, 9, 4, 1), None),
        ((3, 5, 1, 6, 1), 2),
        ((4,) * 5 + (1,), 1),
    ],
)
@pytest.mark.parametrize(("n", "m"), [(6, 11), (13, 3)])
def test_structured_form_is_the_contraction_of_jacobians(activation, widths, replicas, n, m):
    how = {"bias_scale": BETA, "activation": activation}
    weights, biases = networks(widths, replicas)
    x, z = inputs(n, widths[0]), inputs(m, widths[0], seed=2)
    for other in (None, z):
        value = structured_ntk(weights, biases, x, other, **how)
        wanted = structured_ntk(weights, biases, x, other, **how, backend="naive")
        assert value.shape == wanted.shape
        assert worst(value, wanted) < 1e-12


def test_one_layer_by_hand():
    # Theta = x z / n_0 + beta^2: pins the factors 1/sqrt(n) and beta, which both forms could miss.
    x, z = inputs(4, 3), inputs(5, 3, seed=2)
    for backend in ("naive", "batched"):
        value = structured_ntk(*networks((3, 1)), x, z, bias_scale=BETA, backend=backend)
        torch.testing.assert_close(value, x @ z.T / 3 + BETA**2, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("replicas", [None, 2])
def test_blocks_of_several_outputs(replicas):
    weights, biases = networks((3, 8, 5, 3), replicas)
    x, z = inputs(7, 3), inputs(4, 3, seed=2)
    seen = []
    for output in (0, 2, (0, 2), (2, 1), (1, 1)):
        how = {"bias_scale": BETA, "activation": "tanh", "output": output}
        value = structured_ntk(weights, biases, x, z, **how)
        assert worst(value, structured_ntk(weights, biases, x, z, **how, backend="naive")) < 1e-12
        seen.append(value)
        if isinstance(output, tuple):
            turned = structured_ntk(weights, biases, z, x, **how | {"output": output[::-1]})
            assert worst(turned.mT, value) < 1e-12
            alone = structured_ntk(weights, biases, x, **how)
            again = structured_ntk(weights, biases, x, x, **how)
            assert torch.equal(alone.mT, alone) == (output == (1, 1))
            assert worst(alone, again) < 1e-12
    # Control: no two of the blocks are the same, so none could stand in for another.
    assert all(worst(a, b) > 1e-2 for i, a in enumerate(seen) for b in seen[:i])


@pytest.mark.parametrize("activation", ["relu", "erf", "tanh", "linear", torch.sin])
def test_forward_is_the_forward_half_of_a_sweep(activation):
    drawn = networks((3, 6, 4, 1), 2)
    how = {"bias_scale": BETA, "activation": activation}
    assert torch.equal(forward(*drawn, X, **how), sweep(*drawn, X, **how).outputs)


def test_sweep_and_forward_agree_with_autograd():
    weights, biases = networks((3, 6, 4, 2), 2)
    x = inputs(5, 3)
    how = {"bias_scale": BETA, "activation": "erf", "output": 1}
    found = sweep(weights, biases, x, **how)
    assert torch.equal(forward(weights, biases, x, **how), found.outputs)
    assert [a.shape for a in found.inputs] == [(2, 3, 5), (2, 6, 5), (2, 4, 5)]
    assert [g.shape for g in found.signals] == [(2, 6, 5), (2, 4, 5), (2, 2, 5)]
    for r in range(2):
        a, before = x.T, []
        for w, b in zip(weights, biases, strict=True):
            z = w[r] @ a / math.sqrt(w.shape[-1]) + BETA * b[r][:, None]
            before.append(z.requires_grad_())
            a = torch.erf(z)
        torch.testing.assert_close(found.outputs[r], z[1], rtol=1e-13, atol=1e-13)
        for g, wanted in zip(found.signals, torch.autograd.grad(z[1].sum(), before), strict=True):
            torch.testing.assert_close(g[r], wanted, rtol=1e-13, atol=1e-13)
        a = torch.erf(before[1]).detach()
        torch.testing.assert_close(found.inputs[2][r], a, rtol=1e-13, atol=1e-13)


def test_views_into_one_buffer_and_strided_inputs():
    weights, biases = networks((3, 9, 5, 1), 4)
    _, w, b = views_of_one_buffer(weights, biases)
    x = inputs(40, 6)
    thin = x[::2, ::2]
    assert not any(t.is_contiguous() for t in (*w, *b, thin))
    value = structured_ntk(w, b, thin, bias_scale=BETA)
    wanted = structured_ntk(weights, biases, thin.contiguous(), bias_scale=BETA)
    assert worst(value, wanted) < 1e-14


def test_kernel_in_blocks_of_rows_and_its_symmetry():
    # 300 rows are three blocks; the other argument has no triangle to mirror.
    weights, biases = networks((3, 6, 5, 1), 2)
    x = inputs(300, 3)
    value = structured_ntk(weights, biases, x, bias_scale=BETA)
    assert torch.equal(value, value.mT)
    assert worst(structured_ntk(weights, biases, x, x, bias_scale=BETA), value) < 1e-14
    for rows in (slice(0, 5), slice(126, 131), slice(290, 300)):
        wanted = structured_ntk(weights, biases, x[rows], x, bias_scale=BETA, backend="naive")
        assert worst(value[:, rows], wanted) < 1e-12
    few = structured_ntk(weights, biases, x[:20], bias_scale=BETA)
    assert torch.equal(few, few.mT)


def test_replicas_in_chunks_give_the_same_bits(monkeypatch):
    weights, biases = networks((2, 8, 8, 1), 23, dtype=torch.float32)
    x, z = inputs(5, 2, torch.float32), inputs(12, 2, torch.float32, seed=2)
    pieces = []
    monkeypatch.setattr(
        batched, "sweep", lambda w, *a, **k: pieces.append(len(w[0])) or sweep(w, *a, **k)
    )
    for other in (None, z):
        whole = structured_ntk(weights, biases, x, other, bias_scale=BETA)
        for scratch in (1, 15_000):
            pieces.clear()
            monkeypatch.setitem(batched._SCRATCH, "cpu", scratch)
            assert torch.equal(structured_ntk(weights, biases, x, other, bias_scale=BETA), whole)
            assert len(pieces) > 2
        monkeypatch.setitem(batched._SCRATCH, "cpu", 1 << 24)
        one = [w[7] for w in weights], [b[7] for b in biases]
        assert torch.equal(structured_ntk(*one, x, other, bias_scale=BETA), whole[7])


def test_float32():
    weights, biases = networks((10, 64, 64, 64, 1), 2)
    x = inputs(33, 10)
    wanted = structured_ntk(weights, biases, x, bias_scale=BETA)
    single = [[t.float() for t in part] for part in (weights, biases)]
    for backend in ("batched", "naive"):
        value = structured_ntk(*single, x.float(), bias_scale=BETA, backend=backend)
        assert value.dtype == torch.float32
        assert 0 < worst(value.double(), wanted) < 1e-5


def test_derivative_of_relu_at_zero_is_zero():
    weights, biases = networks((3, 4, 1))
    weights[0].zero_()
    biases[0].zero_()
    x = inputs(5, 3)
    for backend in ("batched", "naive"):
        # only the last bias is left: its derivative is beta
        value = structured_ntk(weights, biases, x, bias_scale=BETA, backend=backend)
        torch.testing.assert_close(value, torch.full_like(value, BETA**2), rtol=1e-15, atol=0)


def test_mean_over_relu_networks_is_the_limit_on_the_diagonal():
    # Theta(x, x) for |x| = 1 in the plane, beta = 0.1: .51, .52, .4025, .2825 at depths 1 to 4,
    # exact in the mean at every width. Control: off the diagonal the mean at width 8 is not the
    # limit .0643538 of Theta(x, -x).
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    for depth, limit in enumerate((0.51, 0.52, 0.4025, 0.2825), start=1):
        drawn = networks((2, *[8] * (depth - 1), 1), 20_000, seed=depth)
        theta = structured_ntk(*drawn, x, bias_scale=0.1)
        error = theta.std(0) / math.sqrt(len(theta)) + 1e-12
        z = (theta.mean(0)[0] - x.new_tensor([limit, 0.0643538])) / error[0]
        assert abs(z[0]) < 4, (depth, z)
    assert z[1] < -8
    assert error[0, 0] < 0.01 * limit


def loss(parameters, x, y, activation):
    """1/(2N) sum (f - y)^2, written down once more, for autograd."""
    layers = len(parameters) // 2
    a = x.T
    for layer in range(layers):
        w, b = parameters[layer], parameters[layers + layer]
        z = w @ a / math.sqrt(w.shape[1]) + BETA * b[:, None]
        a = activation(z)
    return (z[0] - y).square().mean() / 2


@pytest.mark.parametrize("form", ["one network", "stacked", "views"])
@pytest.mark.parametrize("widths", [(3, 6, 5, 1), (3, 70, 70, 1)])
@pytest.mark.parametrize("n", [4, 17])
def test_gradient_step_is_the_step_of_autograd(form, widths, n):
    rate, steps = 0.7, 3
    weights, biases = networks(widths, None if form == "one network" else 3)
    x, y = inputs(n, 3), inputs(n, 1, seed=3)[:, 0]
    stacked = [
        [t.clone() if t.dim() > d else t.clone()[None] for t in part]
        for part, d in ((weights, 2), (biases, 1))
    ]
    wanted = []
    for r in range(len(stacked[0][0])):
        parameters = [t[r].clone().requires_grad_() for part in stacked for t in part]
        for _ in range(steps):
            gradients = torch.autograd.grad(loss(parameters, x, y, torch.tanh), parameters)
            parameters = [
                (p - rate * g).detach().requires_grad_()
                for p, g in zip(parameters, gradients, strict=True)
            ]
        wanted.append(parameters)
    if form == "views":
        flat, weights, biases = views_of_one_buffer(weights, biases)
        used = sum(t[0].numel() for t in (*weights, *biases))
    for _ in range(steps):
        found = sweep(weights, biases, x, bias_scale=BETA, activation="tanh")
        residual = (found.outputs - y) / n
        gradient_step_(weights, biases, found, residual, learning_rate=rate, bias_scale=BETA)
    moved = [t[None] for t in (*weights, *biases)] if form == "one network" else [*weights, *biases]
    for k, tensor in enumerate(moved):
        for r, parameters in enumerate(wanted):
            torch.testing.assert_close(tensor[r], parameters[k], rtol=1e-12, atol=1e-12)
    if form == "views":
        # what lies between the views is left alone
        assert (flat == 7.0).sum() == flat.shape[0] * (flat.shape[1] - used)


def test_step_for_one_output_leaves_the_weights_of_the_others():
    weights, biases = networks((3, 6, 3), 2)
    before = weights[1].clone()
    x = inputs(5, 3)
    found = sweep(weights, biases, x, bias_scale=BETA, output=1)
    gradient_step_(weights, biases, found, found.outputs / 5, learning_rate=0.1, bias_scale=BETA)
    moved = (weights[1] - before).abs().amax((0, 2))
    assert moved[1] > 1e-3
    assert moved[0] == moved[2] == 0


def test_outputs_move_along_the_kernel():
    # df/dt = -(1/N) Theta (f - y). The remainder is of second order, so half the step halves the
    # relative error; a kernel that is off by any factor would leave an error that does not shrink.
    x, z, y = inputs(8, 3), inputs(5, 3, seed=2), inputs(8, 1, seed=3)[:, 0]
    how = {"bias_scale": BETA, "activation": "erf"}
    errors = []
    for rate in (2e-3, 1e-3, 5e-4):
        weights, biases = networks((3, 40, 40, 1))
        found, before = sweep(weights, biases, x, **how), forward(weights, biases, z, **how)
        theta = gram(sweep(weights, biases, z, **how), found, bias_scale=BETA)
        residual = (found.outputs - y) / 8
        gradient_step_(weights, biases, found, residual, learning_rate=rate, bias_scale=BETA)
        moved = (forward(weights, biases, z, **how) - before) / rate
        errors.append(worst(moved, -theta @ residual))
    assert errors[0] < 0.02
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.05)
    assert errors[1] / errors[2] == pytest.approx(2, rel=0.05)


def test_a_diverged_replica_leaves_the_others_alone_and_no_graph_is_kept():
    weights, biases = networks((3, 6, 1), 3)
    x = inputs(5, 3)
    wanted = structured_ntk(weights, biases, x, bias_scale=BETA)
    weights[0][1, 2, 0] = math.nan
    weights = [w.requires_grad_() for w in weights]
    value = structured_ntk(weights, biases, x, bias_scale=BETA)
    assert not value.requires_grad
    assert value[1].isnan().all()
    assert torch.equal(value[[0, 2]], wanted[[0, 2]])
    found = sweep(weights, biases, x, bias_scale=BETA)
    gradient_step_(weights, biases, found, found.outputs, learning_rate=0.1, bias_scale=BETA)
    assert weights[0][0].isfinite().all()


def test_no_inputs():
    drawn = networks((3, 6, 1), 2)
    x, none = inputs(4, 3), inputs(0, 3)
    for backend in ("batched", "naive"):
        how = {"bias_scale": BETA, "backend": backend}
        assert structured_ntk(*drawn, none, **how).shape == (2, 0, 0)
        assert structured_ntk(*drawn, x, none, **how).shape == (2, 4, 0)
        assert structured_ntk(*drawn, none, x, **how).shape == (2, 0, 4)


W, B = networks((3, 5, 4, 1))
MANY, MANY_B = networks((3, 5, 2))
STACK, STACK_B = networks((3, 5, 4, 1), 2)
X = inputs(6, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias_scale": -0.1}, "bias_scale must be at least 0, got -0.1"),
        ({"bias_scale": math.nan}, "bias_scale must be finite, got nan"),
        ({"bias_scale": torch.ones(2)}, r"bias_scale must be one number, got shape \(2,\)"),
        ({"x": X / 0}, "x must be finite, got"),
        ({"z": X * math.nan}, "z must be finite, got nan"),
        (
            {"x": X[:, :2]},
            r"x must have shape \(N, 3\) for weights\[0\] of shape \(5, 3\), got \(6, 2\)",
        ),
        ({"x": X[0]}, r"x must have shape \(N, 3\)"),
        ({"z": X[:, :2]}, r"z must have shape \(M, 3\), got \(6, 2\)"),
        (
            {"weights": [W[0], W[1].T, W[2]]},
            r"weights\[1\] must take what weights\[0\] puts out \(5 units\); got shapes \(5, 4\) "
            r"and \(5, 3\)",
        ),
        (
            {"biases": [B[0], B[0], B[2]]},
            r"biases\[1\] must have shape \(4,\) for weights\[1\] of shape \(4, 5\), got \(5,\)",
        ),
        ({"biases": B[:2]}, "weights and biases must be as many, at least one each; got 3 and 2"),
        ({"weights": [], "biases": []}, "at least one each; got 0 and 0"),
        ({"weights": [W[0][0], *W[1:]]}, r"weights\[0\] must have shape \(n_1, n_0\) or .*\(3,\)"),
        (
            {"weights": [STACK[0], STACK[1][:1], STACK[2]], "biases": STACK_B},
            r"weights\[1\] must have the replicas of weights\[0\]; got shapes \(1, 4, 5\) and "
            r"\(2, 5, 3\)",
        ),
        (
            {"weights": [STACK[0], W[1], STACK[2]], "biases": STACK_B},
            r"weights\[1\] must have the replicas",
        ),
        (
            {"weights": STACK, "biases": [STACK_B[0], STACK_B[1][:1], STACK_B[2]]},
            r"biases\[1\] must have shape \(2, 4\) .* got \(1, 4\)",
        ),
        ({"weights": [w[:0] for w in STACK], "biases": STACK_B}, r"weights\[0\] must not be empty"),
        (
            {"weights": MANY, "biases": MANY_B},
            r"output must name one of the network's 2 outputs \(0 to 1\), got None",
        ),
        (
            {"weights": MANY, "biases": MANY_B, "output": 2},
            "output must be an integer from 0 to 1, got 2",
        ),
        ({"weights": MANY, "biases": MANY_B, "output": (0, -1)}, "from 0 to 1, got -1"),
        ({"weights": MANY, "biases": MANY_B, "output": (0, 1, 1)}, "a pair of integers, got"),
        ({"output": True}, "output must be an integer from 0 to 0, got True"),
        (
            {"x": X.float()},
            r"weights\[0\] must have the dtype of x, torch.float32; got torch.float64",
        ),
        ({"z": X.float()}, "z must have the dtype of x, torch.float64; got torch.float32"),
        (
            {"biases": [b.to("meta") for b in B]},
            r"biases\[0\] must have the device of x, cpu; got meta",
        ),
        ({"x": X.half()}, "x must be float32 or float64, got torch.float16"),
        ({"x": X.numpy()}, "x must be a tensor, got ndarray"),
        ({"activation": "gelu"}, "activation must be one of relu, erf, tanh, linear; got 'gelu'"),
        ({"activation": lambda t: t.sum(0)}, "activation must keep the shape of its argument"),
        ({"activation": lambda t: (t > 0).double()}, "activation must be differentiable"),
        ({"backend": "fast"}, "backend must be one of auto, naive, batched, triton; got 'fast'"),
    ],
)
def test_errors_name_argument_and_value(change, message):
    arguments = {"weights": W, "biases": B, "x": X, "bias_scale": BETA, **change}
    with pytest.raises(ValueError, match=message):
        structured_ntk(**arguments)


def test_the_parts_of_a_training_loop_check_shapes():
    how = {"bias_scale": BETA}
    for function in (sweep, forward):
        with pytest.raises(ValueError, match=r"weights\[1\] must take what weights\[0\] puts out"):
            function([W[0], W[1].T, W[2]], B, X, **how)
        with pytest.raises(ValueError, match="activation must be one of"):
            function(W, B, X, activation="gelu", **how)
    found = sweep(W, B, X, **how)
    step = {"learning_rate": 1.0, "bias_scale": BETA}
    with pytest.raises(ValueError, match=r"residual must have .* outputs, \(6,\), got \(5,\)"):
        gradient_step_(W, B, found, torch.ones(5).double(), **step)
    with pytest.raises(ValueError, match="it has 3 layers, got 2 weights and 2 biases"):
        gradient_step_(W[:2], B[:2], found, found.outputs, **step)
    with pytest.raises(ValueError, match=r"weights\[0\] of shape \(5, 3\), got \(5, 2\)"):
        gradient_step_([W[0][:, :2], *W[1:]], B, found, found.outputs, **step)
    with pytest.raises(ValueError, match=r"signals\[1\] have shapes \(4, 6\) and \(2, 6\)"):
        gram(found, sweep(MANY, MANY_B, X, output=0, **how), **how)
    with pytest.raises(ValueError, match="got 3 and 1 layers"):
        gram(found, sweep([W[0]], [B[0]], X, output=0, **how), **how)


INTERPRETED = """
import json, torch
from reproductions.kernels.structured_ntk import gram, structured_ntk, sweep
from reproductions.kernels.structured_ntk import triton as form
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
normal = lambda *s: torch.randn(*s, generator=generator, dtype=torch.float64)
rows = []
for widths, replicas, n, m, output in (
    ((3, 1), 2, 7, None, None), ((3, 17, 40, 1), None, 21, None, None),
    ((5, 65, 7, 9, 1), 2, 70, None, None), ((3, 35, 33, 1), 2, 130, 66, None),
    ((3, 6, 2), 3, 5, None, 1), ((3, 6, 3), 2, 5, 9, (0, 2)), ((3, 6, 3), None, 5, None, (0, 1)),
    ((3, 6, 3), 2, 20, 9, (1, 1)), ((3, 5, 1), 2, 0, None, None),
):
    lead = () if replicas is None else (replicas,)
    pairs = list(zip(widths, widths[1:]))
    weights = [normal(*lead, b, a) for a, b in pairs]
    biases = [normal(*lead, b) for a, b in pairs]
    x, z = normal(n, widths[0]), None if m is None else normal(m, widths[0])
    for dtype in (torch.float64, torch.float32):
        w, b = ([t.to(dtype) for t in part] for part in (weights, biases))
        inputs = [t if t is None else t.to(dtype) for t in (x, z)]
        how = dict(bias_scale=0.3, activation="erf", output=output)
        value = structured_ntk(w, b, *inputs, **how, backend="triton")
        wanted = structured_ntk(w, b, *inputs, **how, backend="batched")
        error = ((value - wanted).abs().max() / wanted.abs().max()).item() if n else 0.0
        rows.append([str(dtype), value.shape == wanted.shape and value.dtype == dtype, error,
                     m is not None or isinstance(output, tuple) or torch.equal(value, value.mT)])
print(json.dumps(rows))
"""


def test_triton_form_under_the_interpreter(interpret):
    rows = interpret(INTERPRETED)
    assert len(rows) == 18
    for dtype, same_kind, error, symmetric in rows:
        assert same_kind
        assert symmetric
        assert error < (1e-12 if dtype == "torch.float64" else 1e-5)


COMPILED = """
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from reproductions.kernels.structured_ntk import triton as kernel
names = kernel._gram_kernel.arg_names
for kind, dtype in (("*fp32", tl.float32), ("*fp64", tl.float64)):
    pointers = (kind,) * 3
    for symmetric, single in ((True, True), (False, False)):
        # a launch makes a constant of a 1, and a network with one output ends in n_L = 1
        units = ("i32",) * 3 + (("constexpr",) if single else ("i32",))
        signature = dict.fromkeys(names, "constexpr") | dict(
            theta_ptr=kind, inputs=pointers, signals=pointers, other_inputs=pointers,
            other_signals=pointers, units=units, square_ptr=kind, n="i32", m="i32")
        constants = {"SYMMETRIC": symmetric, "SINGLE": single, "DTYPE": dtype,
                     "TILE": 32, "DEPTH": kernel._DEPTH}
        constants |= {(names.index("units"), 3): 1} if single else {}
        source = ASTSource(kernel._gram_kernel, signature, constants)
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
        print(len(made.asm["cubin"]) > 0 and "tf32" not in made.asm["ptx"])
"""


def test_triton_form_compiles_for_a_gpu_that_is_not_here(compile_offline):
    # the interpreter knows nothing of TF32
    assert compile_offline(COMPILED) == ["True"] * 4

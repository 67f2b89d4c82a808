import pytest
import torch

from reproductions.kernels.dual_kernel import dual_kernel


def normal(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close_and_others():
    """Points close to one, to multiples of it and to its opposite; others of many lengths."""
    base = normal(3, seed=1)
    near = [
        scale * (base + 10.0**-k * normal(3, seed=k)) for k in range(10) for scale in (1, 1.7, -1)
    ]
    lengths = torch.tensor([1e-3, 1, 30, 1e3], dtype=torch.float64)[:, None]
    return torch.cat([torch.stack([base, *near]), lengths * normal(4, 3, seed=20)])


def test_triton_that_is_missing_is_an_error(monkeypatch):
    import reproductions.kernels.dual_kernel as module

    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"backend must be .* triton is missing; got 'triton'"):
        dual_kernel(torch.ones(2, 2), depth=2, bias_scale=0.1, backend="triton")


def test_triton_takes_no_function(needs_triton):
    with pytest.raises(ValueError, match=r"backend must be .* is a function; got 'triton'"):
        dual_kernel(
            torch.ones(2, 2), depth=2, bias_scale=0, activation=torch.tanh, backend="triton"
        )


INTERPRETED = """
import json, sys, torch
from reproductions.kernels.dual_kernel import dual_kernel
torch.set_num_threads(1)
worst = []
x = torch.tensor(json.load(sys.stdin), dtype=torch.float64)
for activation in ("relu", "erf"):
    for beta, s in ((0.0, 2.0), (0.1, 1.0)):
        for depths in (dict(depth=4, all_depths=True), dict(depth=2), dict(depth=1)):
            arguments = dict(bias_scale=beta, weight_variance=s, activation=activation, **depths)
            r = dual_kernel(x, **arguments)[0].diagonal(dim1=-2, dim2=-1).sqrt()
            for z in (None, x[:5]):
                scale = r[..., :, None] * r[..., None, : len(x if z is None else z)]
                a, b = (dual_kernel(x, z, backend=backend, **arguments)
                        for backend in ("triton", "batched"))
                for one, two in zip(a, b):
                    assert one.shape == two.shape
                    assert z is not None or (one == one.mT).all()
                    error = (one - two).abs()
                    found = (error / scale).max(), (error / (two.abs() + 1e-2 * scale)).max()
                    worst.append([beta, *(value.item() for value in found)])
sigma, theta = dual_kernel(x, depth=1, bias_scale=0.1, backend="triton")
theta.zero_()
assert (sigma != 0).any()
empty = dual_kernel(x, x[:0], depth=3, bias_scale=0.1, backend="triton")
print(json.dumps([worst, [list(kernel.shape) for kernel in empty]]))
"""


def test_triton_form_under_the_interpreter(interpret):
    points = close_and_others().tolist()
    worst, empty = interpret(INTERPRETED, points)
    assert len(worst) == 48
    for beta, natural, relative_error in worst:
        assert natural < 1e-13
        # Without bias nearly opposite points leave values far below their scale.
        assert relative_error < 1e-12 or beta == 0
    assert len(points) > 32  # more than one tile
    assert empty == [[len(points), 0]] * 2


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from reproductions.kernels.dual_kernel import triton as kernel
p = "*fp64"
names = ("sigma_ptr", "theta_ptr", "cosine_ptr", "unit_ptr", "table_ptr", "parameter_ptr")
signature = dict.fromkeys(names, p) | dict(tile_ptr="*i64")
signature |= dict.fromkeys(("n", "m", "plane", "points", "features", "shift", "depth", "first"),
                           "i32")
signature |= dict.fromkeys(("RELU", "SYMMETRIC", "BLOCK"), "constexpr")
for relu in (True, False):
    constants = {"RELU": relu, "SYMMETRIC": relu, "BLOCK": 32}
    source = ASTSource(kernel._kernel, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    body = compiled.asm["ptx"].split(".entry")[1]
    print(len(compiled.asm["cubin"]) > 0, "fma.rn.f64" in body, "f32" in body)
"""


def test_triton_form_compiles_for_a_gpu_that_is_not_here(compile_offline):
    # nothing may become single precision
    assert compile_offline(COMPILED) == ["True", "True", "False"] * 2

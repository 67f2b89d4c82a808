import pytest
import torch

import reproductions.kernels.token_descent as kernel
from reproductions.kernels.token_descent import token_descent

ARGUMENTS = (
    torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]),
    torch.ones(1),
    torch.tensor([[1.0, 1.0]]),
    torch.tensor([1.0, 0.0]),
)
HOW = {"learning_rate": 0.1, "n_steps": 1, "backend": "triton"}


def test_triton_that_is_missing_is_an_error(monkeypatch):
    monkeypatch.setattr(kernel, "find_spec", lambda _: None)
    with pytest.raises(ValueError, match=r"backend must be batched.* missing; got 'triton'"):
        token_descent(*ARGUMENTS, torch.zeros(2, 2), **HOW)


@pytest.mark.parametrize(
    ("other", "obstacle"),
    [
        ({"start": (torch.ones(2, 2), torch.ones(2, 2))}, "start is a pair"),
        ({"head": lambda o: (o.sum(-1), torch.ones_like(o))}, "head is a function"),
        ({"gradient": "plain"}, "gradient is plain"),
        ({"normalized": False}, "normalized is False"),
        (
            {"tokens": torch.ones(1, 129, 2)},
            "a problem has more than 128 tokens, padded to 1 times 256",
        ),
    ],
)
def test_what_triton_cannot_do_is_an_error(needs_triton, other, obstacle):
    names = ("tokens", "labels", "queries", "head")
    given = dict(zip(names, ARGUMENTS, strict=True)) | {"start": torch.zeros(2, 2)} | HOW
    sentence = f"backend must be batched or auto where {obstacle}; got 'triton'"
    with pytest.raises(ValueError, match=sentence):
        token_descent(**given | other)
    # and elsewhere it is no obstacle
    assert torch.isfinite(token_descent(**given | other | {"backend": "auto"}).W).all()


INTERPRETED = """
import json, torch
from reproductions.kernels.token_descent import token_descent
torch.set_num_threads(1)

def normal(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)

found = []
for n, T, d, masked, length in (
    (6, 8, 10, False, 0), (6, 8, 3, True, 0), (3, 5, 4, True, 2500), (1, 3, 2, False, 2500),
    (5, 1, 2, False, 0), (2, 2, 3, False, 30), (16, 8, 5, False, 0),
):
    generator = torch.Generator().manual_seed(n)
    data = normal(3, n, T, d), normal(3, n).sign(), normal(3, n, d), normal(3, d)
    mask = None
    if masked:
        mask = normal(3, n, T) > 0
        mask[..., 0] = True
    start = torch.zeros(d, d)
    if length:
        start = token_descent(*data, start, mask=mask, learning_rate=0.1, n_steps=200).W[-1]
        start = length * start / start.norm(dim=(-2, -1), keepdim=True)
    how = dict(learning_rate=torch.linspace(0.1, 0.05, 12), n_steps=12, record=(0, 1, 12))
    a, b = (token_descent(*data, start, mask=mask, **how, backend=backend)
            for backend in ("triton", "batched"))
    seen = torch.isfinite(b.logits)
    assert (torch.isfinite(a.logits) == seen).all()
    scale = 1 + b.logits[seen].abs().max()
    found.append([
        ((a.W - b.W).abs().max() / (1 + b.W.abs().max())).item(),
        ((a.logits - b.logits)[seen].abs().max() / scale).item(),
        (b.W[-1] - b.W[0]).norm(dim=(-2, -1)).max().item(),
    ])
# several batch axes, none, and nothing to do
plain = dict(learning_rate=0.1, n_steps=2, backend="triton")
shapes = [list(token_descent(*(t[index] for t in data), start, **plain).W.shape)
          for index in (0, slice(0, 0), slice(None))]
still = token_descent(*data, start + 1, learning_rate=0.1, n_steps=0, backend="triton").W
print(json.dumps([found, shapes, bool((still == 1).all())]))
"""


def test_triton_form_under_the_interpreter(interpret):
    found, shapes, still = interpret(INTERPRETED)
    assert len(found) == 7
    for index, (weights, logits, moved) in enumerate(found):
        assert weights < 1e-11
        assert logits < 1e-11
        # Rows of one token have no gradient; all others move.
        assert moved == 0 if index == 4 else moved > 0.1
    assert shapes == [[1, 5, 5], [1, 0, 5, 5], [1, 3, 5, 5]]
    assert still


COMPILED = """
import re
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from reproductions.kernels.token_descent import triton as kernel
names = ("a_ptr", "coefficient_ptr", "gram_ptr", "gamma_ptr", "rate_ptr")
signature = dict.fromkeys(names, "*fp64") | dict.fromkeys(("steps", "n", "T"), "i32")
signature |= dict.fromkeys(("ROWS", "TOKENS"), "constexpr")
for rows, tokens, warps in ((8, 8, 4), (16, 8, 8), (1, 4, 4)):
    source = ASTSource(kernel._kernel, signature, {"ROWS": rows, "TOKENS": tokens})
    target = GPUTarget("cuda", 90, 32)
    compiled = triton.compile(source, target=target, options={"num_warps": warps})
    body = compiled.asm["ptx"].split(".entry")[1]
    # the exponential looks at its argument's upper half as at a float32, and computes nothing in it
    single = re.search(r"(add|sub|mul|fma|div|ex2|lg2|cvt)\\.[a-z0-9.]*f32", body)
    print(len(compiled.asm["cubin"]) > 0, "fma.rn.f64" in body, single is not None)
"""


def test_triton_form_compiles_for_a_gpu_that_is_not_here(compile_offline):
    # nothing may become single precision
    assert compile_offline(COMPILED) == ["True", "True", "False"] * 3

"""The neural tangent kernel of finite fully connected networks, without their Jacobian.

``naive`` contracts Jacobians from autograd, ``batched`` takes one sweep and a few matrix products,
``triton`` forms the products and their sum in one kernel. :func:`sweep` and
:func:`gradient_step_` are the two halves of a training loop for which no autograd is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch

from reproductions._validate import choice

from . import batched, naive
from .batched import Sweep, forward, gradient_step_, gram, sweep
from .checks import prepare

__all__ = ["Sweep", "forward", "gradient_step_", "gram", "structured_ntk", "sweep"]

BACKENDS = ("auto", "naive", "batched", "triton")


def structured_ntk(
    weights: Sequence[torch.Tensor],
    biases: Sequence[torch.Tensor],
    x: torch.Tensor,
    z: torch.Tensor | None = None,
    *,
    bias_scale: float,
    activation: str | Callable[[torch.Tensor], torch.Tensor] = "relu",
    output: int | tuple[int, int] | None = None,
    backend: str = "auto",
) -> torch.Tensor:
    """Return the tangent kernel of networks at x and z, at the parameters they have now.

    Of the network in the parametrization of Jacot, Gabriel and Hongler 2018 (section 3),
    z_{l+1} = W_l f(z_l) / sqrt(n_l) + bias_scale b_l with f(z_0) read as x and output z_L, the
    kernel sum_p d_p f(x) d_p f(x') over all parameters (section 4). As the derivative by W_l is
    an outer product for each input, the sum over its entries factors, exactly, at any width:

        Theta = sum_{l=0}^{L-1} (A_l^T A_l / n_l + bias_scale^2) * (G_l^T G_l)

    with A_l (n_l, N) what enters layer l, G_l (n_{l+1}, N) the derivative of the output by what
    layer l puts out, and * entry by entry. Time 2 N^2 sum_l (n_l + n_{l+1}) after one forward and
    one backward pass; memory N sum_l n_l + N^2, where the Jacobian takes N sum_l n_l n_{l+1}.

    Args:
        weights: W_l, l = 0..L-1, each (n_{l+1}, n_l), or (R, n_{l+1}, n_l) for R replicas;
            float32 or float64. Views into a larger buffer are allowed.
        biases: b_l, each (n_{l+1},) or (R, n_{l+1}).
        x: inputs (N, n_0), finite, shared by the replicas; dtype and device of the weights.
        z: other inputs (M, n_0) for a cross block; None for x itself, and the result is exactly
            symmetric then.
        bias_scale: beta, at least 0.
        activation: ``"relu"`` (derivative 0 at 0), ``"erf"``, ``"tanh"``, ``"linear"``, or any
            callable on tensors that acts element by element and that autograd can differentiate.
        output: None for a network with one output; k for the kernel of output k; a pair (j, k)
            for the block d f_j(x) d f_k(z).
        backend: ``"naive"`` (Jacobian from autograd in float64, for tests), ``"batched"``,
            ``"triton"`` (for CUDA) or ``"auto"``: Triton for CUDA tensors where it is installed,
            batched otherwise.

    Returns:
        (N, M), or (R, N, M) with replicas; detached, dtype and device of x. A network with NaN in
        its parameters gets NaN and leaves the other replicas alone.

    Raises:
        ValueError: shapes that do not chain, different numbers of replicas, a negative
            bias_scale, NaN or infinity in x or z, another dtype or device than that of x, no
            ``output`` for a network with several or one that is not there, an unknown activation
            or backend, Triton asked for where it is not installed.
    """
    choice("backend", backend, BACKENDS)
    bias_scale, outputs = prepare(weights, biases, x, z, bias_scale, activation, output)
    if backend == "auto":
        backend = "triton" if x.is_cuda and find_spec("triton") else "batched"
    elif backend == "triton" and find_spec("triton") is None:
        raise ValueError("backend must be naive or batched where triton is missing; got 'triton'")
    if backend == "triton":
        from . import triton as form
    else:
        form = {"naive": naive, "batched": batched}[backend]
    return form.kernel(weights, biases, x, z, bias_scale, activation, outputs)

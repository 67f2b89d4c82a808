"""Max-margin token selection: our solvers against CVXPY with conic solvers."""

from __future__ import annotations

from functools import partial

import cvxpy
import torch
from _harness import Case, benchmark

from reproductions.papers.attention_svm.att_svm import att_svm
from reproductions.papers.attention_svm.nuclear import att_svm_nuclear
from reproductions.papers.attention_svm.optimality import margins, optimal
from reproductions.papers.attention_svm.problems import draw

PROBLEMS = 100
# of them the peers solve these, their time multiplied
FEW = 4


def problems(n, n_tokens, d):
    drawn = draw(range(PROBLEMS), n=n, n_tokens=n_tokens, d=d)
    return drawn.tokens, drawn.queries, optimal(drawn.tokens, drawn.labels, drawn.head)


def program(objective, solver, apart=False):
    """CVXPY's form of the problem, with a constraint a sequence or, as the authors do, a token."""

    def solve(tokens, queries, selected):
        found = []
        for x, z, alpha in zip(tokens, queries, selected, strict=True):
            w = cvxpy.Variable((x.shape[2], x.shape[2]))
            limits = []
            for i, a in enumerate(alpha.tolist()):
                deltas = (x[i, a] - x[i])[torch.arange(x.shape[1]) != a].numpy()
                for delta in deltas if apart else [deltas]:
                    limits.append(delta @ w @ z[i].numpy() >= 1)
            cvxpy.Problem(cvxpy.Minimize(objective(w)), limits).solve(solver=solver)
            found.append(torch.as_tensor(w.value))
        return torch.stack(found)

    return solve


def gap(w, arguments, norm, bound):
    """How far |W|, scaled until every constraint holds, can be above the least: worst case."""
    value = margins(w, *arguments)
    least = value.scatter(-1, arguments[2][..., None], torch.inf).amin((-2, -1))
    scaled = torch.linalg.matrix_norm(w, norm) / least
    return (1 - bound / scaled).clamp_min(0.0).max().item()


def case(ours, peers, norm, bound, arguments, targets):
    """``bound(ours)``: what the dual problem says the norm is at least, for every problem."""
    few = tuple(t[:FEW] for t in arguments)
    solved = ours(*arguments)
    lower = bound(solved)
    facts = {
        "problems": PROBLEMS,
        "constraints": arguments[0].shape[1] * (arguments[0].shape[2] - 1),
        "d": arguments[0].shape[3],
        "greatest gap, ours": float(f"{gap(solved.W, arguments, norm, lower):.1e}"),
    }
    for name, peer in peers.items():
        facts[f"greatest gap, {name}"] = float(f"{gap(peer(*few), few, norm, lower[:FEW]):.1e}")

    def check(outputs):
        for name in peers:
            w = outputs["ours"].W[:FEW]
            error = (outputs[name] - w).norm(dim=(1, 2)) / w.norm(dim=(1, 2))
            assert error.max() < 0.02, f"{name}: {error}"

    return Case(
        ours=partial(ours, *arguments),
        peers={name: partial(peer, *few) for name, peer in peers.items()},
        check=check,
        facts=facts,
        extrapolate=dict.fromkeys(peers, PROBLEMS / FEW),
        targets=targets,
    )


def frobenius_norm(w):
    return cvxpy.norm(w, "fro")


def nuclear_norm(w):
    return cvxpy.norm(w, "nuc")


def register(n, n_tokens, d):
    size = f"{PROBLEMS} problems, n = {n}, T = {n_tokens}, d = {d}"

    @benchmark(f"attention SVM, Frobenius norm: {size}")
    def frobenius() -> Case:
        peers = {
            "CLARABEL, as the authors": program(frobenius_norm, "CLARABEL", apart=True),
            "CLARABEL, cone": program(frobenius_norm, "CLARABEL"),
            "CLARABEL, quadratic": program(cvxpy.sum_squares, "CLARABEL"),
        }

        def bound(found):
            return found.duals.sum((1, 2)) / found.W.norm(dim=(1, 2))

        targets = {"ratio": "at least 100 x the authors' form", "gap": "smaller than the peers'"}
        return case(att_svm, peers, "fro", bound, problems(n, n_tokens, d), targets)

    @benchmark(f"attention SVM, nuclear norm: {size}")
    def nuclear() -> Case:
        peers = {
            "SCS, as the authors": program(nuclear_norm, "SCS", apart=True),
            "SCS": program(nuclear_norm, "SCS"),
            "CLARABEL": program(nuclear_norm, "CLARABEL"),
        }

        def bound(found):
            return torch.linalg.matrix_norm(found.W, "nuc") * (1 - found.gap)

        targets = {"gap": "at most 1e-9"}
        return case(att_svm_nuclear, peers, "nuc", bound, problems(n, n_tokens, d), targets)


register(6, 8, 10)
register(10, 5, 20)

"""The three theorems proved by ball arithmetic: seconds and boxes."""

from __future__ import annotations

from _harness import Case, benchmark

from reproductions.papers.selu import (
    Box,
    Proof,
    prove_contraction,
    prove_self_map,
    prove_variance_grows,
    prove_variance_shrinks,
)

SIDE = (-0.1, 0.1)


def theorems() -> dict[str, Proof]:
    """Prove Theorems 1 to 3 of the paper on the paper's boxes."""
    domain = Box(mu=SIDE, nu=(0.8, 1.5), omega=SIDE, tau=(0.95, 1.1))
    image = {"image_mu": (-0.0310606, 0.0677252), "image_nu": (0.8037, 1.4816)}
    return {
        "Theorem 1, contraction": prove_contraction(domain),
        "Theorem 1, self-map": prove_self_map(domain, **image),
        "Theorem 2": prove_variance_shrinks(Box((-1, 1), (3, 16), SIDE, (0.8, 1.25))),
        "Theorem 3, first box": prove_variance_grows(Box(SIDE, (0.02, 0.16), SIDE, (0.8, 1.25))),
        "Theorem 3, second box": prove_variance_grows(Box(SIDE, (0.02, 0.24), SIDE, (0.9, 1.25))),
    }


@benchmark("three theorems by ball arithmetic")
def three_theorems() -> Case:
    proofs = theorems()

    def check(outputs):
        missing = [name for name, proof in outputs["ours"].items() if not proof.proved]
        if missing:
            raise AssertionError(f"not proved: {', '.join(missing)}")

    return Case(
        ours=theorems,
        check=check,
        facts={
            "boxes": {name: proof.n_boxes for name, proof in proofs.items()},
            "boxes in all": sum(proof.n_boxes for proof in proofs.values()),
        },
        targets={"seconds": "under 2 s", "boxes": "under 300"},
    )

"""The command ``reproduce scale``; apart, because it also runs where the other commands cannot."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from reproductions.press.errors import BadInput

__all__ = ["scale"]


def _seeds(text: str) -> list[int]:
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        seeds = [-1]
    if min(seeds) < 0:
        raise BadInput(f"--seeds is given as 0 or 0,1,2; got {text!r}")
    return seeds


def scale(
    paper: Annotated[str, typer.Argument(help="Module of the paper, such as super_convergence.")],
    arms: Annotated[
        list[str] | None, typer.Argument(metavar="[ARM]...", show_default=False)
    ] = None,
    seeds: Annotated[str, typer.Option(help="Such as 0 or 0,1,2.")] = "0",
    minutes: Annotated[
        float | None, typer.Option(help="Stop after so many, with a checkpoint to go on from.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    shorten: Annotated[
        int, typer.Option(help="Divide iterations and test images by this, for a trial.")
    ] = 1,
    folder: Annotated[Path, typer.Option(help="Where checkpoints are kept.")] = Path("runs/scale"),
    results: Annotated[Path, typer.Option(help="Where records are kept.")] = Path("results"),
    listing: Annotated[bool, typer.Option("--list", help="Name the arms and stop.")] = False,
) -> None:
    """Run a paper's experiments at their own scale, in pieces, and put them on record.

    Arms on record are left out; one that was stopped goes on from its checkpoint.
    """
    # torch is imported only now: the other commands do without
    from reproductions.press.scale import run_scale, scale_module

    module = scale_module(paper)
    if listing:
        for name, arm in module.ARMS.items():
            typer.echo(f"{name:<24}{arm.n_steps:>8,} iterations  {arm.dataset}")
        return
    left = run_scale(
        paper,
        arms or list(module.ARMS),
        _seeds(seeds),
        results=results,
        folder=folder / paper,
        device=device,
        minutes=minutes,
        shorten=shorten,
        echo=typer.echo,
    )
    if left:
        typer.echo(f"left for the next piece: {', '.join(left)}")

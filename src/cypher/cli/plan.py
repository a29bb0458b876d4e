"""``cypher plan``: how to divide a model over processes, before there are any."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cypher.cli.console import JsonOption, note, print_json, print_table, progress_bars
from cypher.cli.named_models import check_planned
from cypher.errors import ConfigError

if TYPE_CHECKING:
    from cypher.parallel.search import Estimate

app = typer.Typer(help="Find how to divide a model over processes: bytes, waits, traffic, time.")

SHOWN = 12
"""Plans of the table and of the figure."""

_UNITS = {
    "": 1.0,
    "K": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


@app.command(epilog="Example: cypher plan llama-10b --world 64 --memory 80GB")
def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|MODEL", help="A recipe's TOML file; a model's name or folder; or sizes, as llama-10b."
        ),
    ],
    world: Annotated[int, typer.Option("--world", min=1, help="Number of processes.")],
    memory: Annotated[str, typer.Option("--memory", help="Of each process, as 80GB or 24GiB.")],
    link: Annotated[str, typer.Option("--link", help="Bandwidth of each process, each way, as 25GB/s.")] = "100GB/s",
    peak: Annotated[
        str, typer.Option("--peak", help="Fastest arithmetic of each process, as 990TFLOP/s.")
    ] = "312TFLOP/s",
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", min=1, help="Rows of a step; the recipe's, or two a process.")
    ] = None,
    sequence_length: Annotated[
        int | None, typer.Option("--sequence-length", min=1, help="Tokens of a row; the recipe's, or the model's most.")
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", help="Draw the memory of the first plans: .png or .svg.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Find how to divide a model over processes; nothing is started and no weight is loaded."""
    sizes = {
        "memory": quantity(memory, "B", flag="--memory", example="80GB"),
        "link": quantity(link, "B/s", flag="--link", example="25GB/s"),
        "peak": quantity(peak, "FLOP/s", flag="--peak", example="990TFLOP/s"),
    }
    check_planned(model)
    from cypher.parallel.blueprint import blueprint
    from cypher.parallel.cost import ASSUMPTIONS, Machine
    from cypher.parallel.search import search

    with progress_bars(of_bytes=True) as progress:
        outlined = blueprint(model, progress=progress)
    work = outlined.work(world=world, batch_size=batch_size, sequence_length=sequence_length)
    found = search(outlined.headed, world, work, Machine(**sizes))
    parameters = sum(parameter.numel() for parameter in outlined.headed.parameters())
    fitting = sum(estimate.fits for estimate in found)
    if plot is not None:
        _draw(found[:SHOWN], plot, memory=sizes["memory"], title=f"{model} on {world} processes")
    if json:
        print_json(
            {
                "model": model,
                "parameters": parameters,
                "trained": sum(p.numel() for p in outlined.headed.parameters() if p.requires_grad),
                "world": world,
                "machine": sizes,
                "work": work,
                "assumptions": ASSUMPTIONS,
                "fitting": fitting,
                "plans": [_record(estimate) for estimate in found],
            }
        )
        return
    print_table(
        ("plan", "held", "in a step", "fits", "waits", "sent", "seconds"),
        [
            (
                estimate.plan,
                _size(estimate.held.held),
                _size(estimate.held.peak),
                "yes" if estimate.fits else "no",
                f"{estimate.bubble:.0%}",
                _size(_sent(estimate)),
                f"{estimate.step_seconds:.3g}",
            )
            for estimate in found[:SHOWN]
        ],
    )
    note(
        f"{parameters:,} parameters; {fitting} of {len(found)} combinations of dp, tp, pp and zero fit; "
        f"a step of {work.batch_size} rows of {work.sequence_length} tokens in {work.compute}"
    )
    for assumption in ASSUMPTIONS:
        note(f"assumed: {assumption}")


def quantity(text: str, unit: str, *, flag: str, example: str) -> float:
    """A number with a unit; prefixes are powers of 1000, or of 1024 with an i.

    Args:
        text: As typed; the unit may be left out.
        unit: That is meant.
        flag: It was given with.
        example: Of what would be right.

    Raises:
        ConfigError: It is no such number, or not above 0.

    Example:
        >>> quantity("80GB", "B", flag="--memory", example="80GB")
        80000000000.0
    """
    found = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*([KMGTP]i?|)(?:{re.escape(unit)})?", text.strip())
    value = 0.0 if found is None else float(found[1]) * _UNITS.get(found[2], 0.0)
    if not value:
        raise ConfigError(f"{flag} {text}", needed=f"a number and a unit, as {example}")
    return value


def _record(estimate: Estimate) -> dict[str, Any]:
    return {
        "plan": str(estimate.plan),
        "bytes": {**asdict(estimate.held), "held": estimate.held.held, "peak": estimate.held.peak},
        "bubble": estimate.bubble,
        "wire_bytes": {**asdict(estimate.wire), "total": _sent(estimate)},
        "step_seconds": estimate.step_seconds,
        "fits": estimate.fits,
    }


def _size(number: int) -> str:
    return f"{number / 1e9:.1f} GB" if number >= 1e8 else f"{number / 1e6:.1f} MB"


def _sent(estimate: Estimate) -> int:
    return sum(asdict(estimate.wire).values())


def _draw(found: list[Estimate], path: Path, *, memory: float, title: str) -> None:
    from cypher.report import PlanBar, plan_bars

    bars = [
        PlanBar(name=str(each.plan), kinds=asdict(each.held), note=f"{each.step_seconds:.3g} s a step")
        for each in found
    ]
    plan_bars(bars, path, memory=memory, title=title)

"""``cypher doctor``: what this machine has, and what is wrong with it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from pathlib import Path
from typing import Any

import typer

from cypher.cli.console import JsonOption, note, print_json, print_table
from cypher.errors import DataError

app = typer.Typer(help="Show what this machine has: Python, torch, CPU, models, data.")

DISTRIBUTION = "nlp-cypher"
# Those that decide how fast a matrix product is; names as Linux spells them.
_FLAGS = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
)


@app.command(epilog="Example: cypher doctor --json")
def doctor(json: JsonOption = False) -> None:
    """Show Python, torch, CPU, cache, models, data and optional packages; exit 1 when something is broken."""
    problems: list[str] = []
    facts = {
        "cypher": _version(DISTRIBUTION) or "not installed",
        "python": platform.python_version(),
        "platform": platform.platform(),
        **_torch(problems),
        "cpu": _cpu(),
        **_cache(problems),
        "models": _models(),
        "data_folder": os.environ.get("CYPHER_DATA"),
        "data": _data(problems),
        "optional": _optional(),
    }
    if json:
        print_json({**facts, "problems": problems})
    else:
        print_table(("what", "found"), [(key, _line(value)) for key, value in facts.items()])
        for problem in problems:
            note(f"problem: {problem}")
    if problems:
        raise typer.Exit(1)


def _torch(problems: list[str]) -> dict[str, Any]:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library is missing
        problems.append(f"torch cannot be imported ({error}); install it with pip")
        return {"torch": None}
    from cypher.layers.precision import fastest_precision

    return {
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "torch_cpu": torch.backends.cpu.get_cpu_capability(),
        "torch_cuda": torch.cuda.is_available(),
        "fastest_precision": fastest_precision(),
    }


def _cpu() -> dict[str, Any]:
    """Cores this process may use and the flags that matter; no flags where the system has no such file."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    described = Path("/proc/cpuinfo")
    text = described.read_text("utf-8", "replace") if described.is_file() else ""
    line = re.search(r"^(?:flags|Features)\s*:(.*)$", text, flags=re.MULTILINE)
    flags = set(line[1].split()) if line else set()
    return {
        "machine": platform.machine(),
        "cores": allowed,
        "flags": [flag for flag in _FLAGS if flag in flags],
    }


def _cache(problems: list[str]) -> dict[str, Any]:
    from cypher.hub import cache_folder, is_offline

    folder = cache_folder()
    above = next(place for place in (folder, *folder.parents) if place.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        problems.append(f"{folder} cannot be written; set CYPHER_CACHE to a folder that can")
    return {"cache": folder, "offline": is_offline()}


def _models() -> dict[str, bool]:
    from cypher.hub import models
    from cypher.hub.fetch import cached

    return {name: cached(entry) is not None for name, entry in models().items()}


def _data(problems: list[str]) -> dict[str, bool]:
    from cypher.data.catalogue import data_sets
    from cypher.data.fetch import present

    here = {}
    for name, entry in data_sets().items():
        try:
            here[name] = present(entry) is not None
        except DataError as error:  # noqa: PERF203 - five rows
            here[name] = False
            problems.append(str(error))
    return here


def _optional() -> dict[str, dict[str, str | None]]:
    """Version of each package of each extra, ``None`` when it is not installed."""
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return {}
    extras: dict[str, dict[str, str | None]] = {}
    for requirement in required:
        name, extra = (
            re.match(r"[\w.-]+", requirement),
            re.search(r"extra == ['\"]([\w-]+)['\"]", requirement),
        )
        if name and extra and name[0] != DISTRIBUTION:
            extras.setdefault(extra[1], {})[name[0]] = _version(name[0])
    return extras


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _line(value: object) -> str:
    """A fact for the table: what is missing is said, not left out."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {_line(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return " ".join(str(item) for item in value) or "none"
    if value is None or isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)

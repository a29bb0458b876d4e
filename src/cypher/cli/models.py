"""``cypher models``: list, fetch, info, export, matrix."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cypher.cli.console import JsonOption, note, print_json, print_table, progress_bars
from cypher.cli.named_models import check_model

app = typer.Typer(no_args_is_help=True, help="List, fetch and export models; see what combines with what.")

Name = Annotated[str, typer.Argument(help="A name of the list, a folder, or owner/name on the hub.")]


@app.command("list", epilog="Example: cypher models list --json")
def list_models(json: JsonOption = False) -> None:
    """List the models known by name and whether they are on this machine."""
    from cypher.hub import cache_folder, models
    from cypher.hub.fetch import cached

    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "architecture": entry.architecture,
            "format": entry.format,
            "bytes": entry.size,
            "licence": entry.licence,
            "path": cached(entry),
            "description": entry.description,
        }
        for entry in models().values()
    ]
    if json:
        print_json({"models": rows, "cache": cache_folder()})
        return
    print_table(
        ("name", "architecture", "size", "licence", "here", "description"),
        [
            (
                row["name"],
                row["architecture"],
                _megabytes(row["bytes"]),
                row["licence"],
                "yes" if row["path"] else "no",
                row["description"],
            )
            for row in rows
        ],
    )


@app.command(epilog="Example: cypher models fetch minilm")
def fetch(name: Name, json: JsonOption = False) -> None:
    """Fetch a model into the cache, check it, and print where it is."""
    from cypher.hub import resolve

    check_model(name, formats=("safetensors", "gguf"))
    with progress_bars(of_bytes=True) as progress:
        path = resolve(name, progress=progress)
    if json:
        print_json({"name": name, "path": path, "bytes": _bytes_of(path)})
    else:
        print(path)


@app.command(epilog="Example: cypher models info minilm")
def info(name: Name, json: JsonOption = False) -> None:
    """Show what a model is, where it comes from, its licence and its files; fetches nothing."""
    facts = _facts(name)
    if json:
        print_json(facts)
        return
    print_table(("fact", "value"), [(key, value) for key, value in facts.items() if key not in {"files", "sources"}])
    print()
    print_table(("file", "size", "sha256"), [(f["path"], f["size"], f.get("sha256", "")) for f in facts["files"]])


@app.command(epilog="Example: cypher models export minilm-qa ./reader-for-transformers")
def export(
    name: Name,
    folder: Annotated[Path, typer.Argument(help="A new or empty folder.")],
    json: JsonOption = False,
) -> None:
    """Write a folder that transformers loads: config.json, model.safetensors and the tokenizer's files.

    A reader (minilm-qa, or a run's reader folder) becomes one model for question answering, its adapter merged in.
    """
    from cypher.models.load import export_model, load_model
    from cypher.tasks.find_reader import find_reader, is_reader
    from cypher.tasks.reader_folder import export_reader, load_reader

    if is_reader(name):
        export_reader(load_reader(find_reader(name)), folder)
        _exported(name, folder, "AutoModelForQuestionAnswering", json=json)
        return
    check_model(name)
    with progress_bars(of_bytes=True) as progress:
        loaded = load_model(name, progress=progress)
    export_model(loaded, folder)
    _exported(name, folder, "AutoModel", json=json)


@app.command(epilog="Example: cypher models matrix")
def matrix(json: JsonOption = False) -> None:
    """Show which architecture, adapter, arrangement and task combine, and why the others do not."""
    from cypher.config import matrix as combinations

    rows = combinations()
    if json:
        print_json({"matrix": rows})
        return
    said = ("model", "adapter", "arrangement", "task")
    columns = (*said, "works", "reason")
    cells = [(*(r[name] for name in said), "yes" if r["ok"] else "no", r["reason"]) for r in rows]
    print_table(columns, cells)


def _exported(name: str, folder: Path, loader: str, *, json: bool) -> None:
    if json:
        print_json({"name": name, "path": folder.absolute(), "bytes": _bytes_of(folder), "transformers_class": loader})
    else:
        note(f"load it with transformers.{loader}.from_pretrained({str(folder)!r})")
        print(folder)


def _facts(name: str) -> dict[str, Any]:
    """Of the catalogue for its names, else of the files found."""
    from cypher.hub import models, resolve
    from cypher.hub.fetch import cached

    if name in models():
        entry = models()[name]
        facts = entry.model_dump(mode="json")
        return {
            **facts,
            "path": cached(entry),
            "bytes": entry.size,
            "sources": [str(s) for s in entry.sources],
        }
    check_model(name, formats=("safetensors", "gguf"))
    path = resolve(name, offline=True)
    found = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    files = [
        {"path": file.relative_to(path.parent if path.is_file() else path), "size": file.stat().st_size}
        for file in found
    ]
    return {"name": name, "path": path, "bytes": _bytes_of(path), "files": files}


def _bytes_of(path: Path) -> int:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"

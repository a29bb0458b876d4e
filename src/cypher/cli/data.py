"""``cypher data``: list, fetch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cypher.cli.console import JsonOption, note, print_json, print_table, progress_bars
from cypher.errors import DataError

if TYPE_CHECKING:
    from cypher.data.catalogue import DataEntry

app = typer.Typer(no_args_is_help=True, help="List and fetch data sets.")


@app.command("list", epilog="Example: cypher data list")
def list_data(json: JsonOption = False) -> None:
    """List the data sets known by name: size, licence, use, and whether they are on this machine."""
    from cypher.data.catalogue import data_sets

    rows: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "bytes": entry.size,
            "licence": entry.licence,
            "trainable": entry.trainable,
            "citation": entry.citation,
            "source": f"https://github.com/{entry.repository}/tree/{entry.revision}",
            "revision": entry.revision,
            "files": [{"path": file.path, "bytes": file.size, "sha256": file.sha256} for file in entry.files],
            "description": entry.description,
            **_where(entry),
        }
        for entry in data_sets().values()
    ]
    if json:
        print_json({"data": rows})
        return
    print_table(
        ("name", "size", "licence", "use", "here", "description"),
        [
            (
                row["name"],
                f"{row['bytes'] / 1e6:.1f} MB",
                row["licence"],
                "train and evaluate" if row["trainable"] else "evaluate",
                "broken" if row["problem"] else "yes" if row["path"] else "no",
                row["description"],
            )
            for row in rows
        ],
    )
    for problem in (row["problem"] for row in rows if row["problem"]):
        note(f"warning: {problem}")


@app.command(epilog="Example: cypher data fetch squadshifts/new_wiki")
def fetch(names: Annotated[list[str], typer.Argument(help="Names of the list.")], json: JsonOption = False) -> None:
    """Fetch data sets from their source repositories, check them, and print where they are."""
    from cypher.data.catalogue import find
    from cypher.data.fetch import locate_entry

    entries = [find(name) for name in names]
    with progress_bars(of_bytes=True) as progress:
        fetched = [
            {"name": entry.name, "path": locate_entry(entry, progress=progress), "licence": entry.licence}
            for entry in entries
        ]
    if json:
        print_json({"fetched": fetched})
    else:
        for row in fetched:
            print(row["path"])


def _where(entry: DataEntry) -> dict[str, Any]:
    """Where the set is; a broken copy is a row's problem and not the end of the list."""
    from cypher.data.fetch import present

    try:
        return {"path": present(entry), "problem": None}
    except DataError as error:
        return {"path": None, "problem": str(error)}

"""``cypher adapters``: list, info, convert, average, merge."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cypher.cli.console import JsonOption, note, print_json, print_table

app = typer.Typer(no_args_is_help=True, help="List adapter methods; show, convert, average and fold in adapters.")

Source = Annotated[
    str, typer.Argument(help="A run's folder, an adapter's folder, a shipped reader, or owner/name on the hub.")
]
Out = Annotated[Path, typer.Argument(help="A new or empty folder.")]
ModelOption = Annotated[
    str | None, typer.Option("--model", help="The model it was trained on, if the folder does not say or is wrong.")
]
ToOption = Annotated[
    Literal["cypher", "adapterhub"] | None, typer.Option("--to", help="Format of the new folder, if not the one above.")
]


@app.command("list", epilog="Example: cypher adapters list --model minilm --json")
def list_methods(
    model: Annotated[str | None, typer.Option("--model", help="Count on this model instead of BERT-base.")] = None,
    json: JsonOption = False,
) -> None:
    """List the presets with their methods and how many parameters they train on a model."""
    from cypher.adapters.listing import list_presets
    from cypher.models.load import load_model

    rows = list_presets(None if model is None else load_model(model).model)
    if json:
        print_json({"model": model or "BERT-base", "presets": rows})
        return
    print_table(
        ("preset", "method", "parameters", "share", "folds into the weights"),
        [
            (
                row.preset,
                row.method,
                row.reason if row.n_parameters is None else f"{row.n_parameters:,}",
                "" if row.share is None else f"{row.share:.3g} %",
                "yes" if row.folds else "no",
            )
            for row in rows
        ],
    )


@app.command(epilog="Example: cypher adapters info minilm-qa")
def info(path: Source, json: JsonOption = False) -> None:
    """Show what an adapter's folder holds: format, method, model, parameters, head; ours or AdapterHub's."""
    from cypher.tasks.find_reader import find_adapter

    folder = find_adapter(path)  # first: a wrong name is told before torch is loaded
    from cypher.adapters.folder_contents import describe

    contents = describe(folder)
    if json:
        print_json({"adapter": contents})
        return
    facts: dict[str, Any] = {
        "folder": contents.path,
        "format": contents.format,
        "name": contents.name,
        "method": contents.method,
        "model": contents.model_name,
        "parameters": contents.n_parameters,
        "bytes": contents.bytes,
        "head": contents.head,
        "composition": contents.composition,
        "pickles": "yes, convert them first" if contents.has_pickles else None,
    }
    print_table(("fact", "value"), [(key, value) for key, value in facts.items() if value not in (None, "")])
    if contents.parts:
        print()
        print_table(
            ("part", "method", "parameters"), [(part.name, part.method, part.n_parameters) for part in contents.parts]
        )


@app.command(epilog="Example: cypher adapters convert runs/my-lora ./for-adapterhub --to adapterhub")
def convert(source: Source, out: Out, to: ToOption = None, model: ModelOption = None, json: JsonOption = False) -> None:
    """Write an adapter in the other format: Cypher's, or that of AdapterHub's library.

    Ours become AdapterHub's, and AdapterHub's ours. A folder of pickles (pytorch_adapter.bin) becomes the same with
    safetensors; they are read by torch.load(weights_only=True) and nothing else.
    """
    from cypher.tasks.find_reader import find_adapter

    folder = find_adapter(source)
    from cypher.tasks.reader_folder import convert_reader

    done = convert_reader(folder, out, to, model_name=model)
    if json:
        print_json({"path": out.absolute(), "format": done.format, "notes": list(done.notes)})
        return
    for line in done.notes:
        note(line)
    print(out)


@app.command(epilog="Example: cypher adapters average runs/a runs/b ./both --strategy lora_delta_w_svd --rank 8")
def average(
    sources: Annotated[list[str], typer.Argument(help="Adapters, as for info, and a new or empty folder.")],
    strategy: Annotated[
        Literal["linear", "lora_linear_only_negate_b", "lora_delta_w_svd"],
        typer.Option(help="All parameters; LoRA's second matrix alone where a weight is negative; LoRA's updates."),
    ] = "linear",
    weight: Annotated[
        list[float] | None, typer.Option(help="One for each adapter, in order; all alike if left out.")
    ] = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Of the new LoRA, for lora_delta_w_svd.")] = None,
    to: ToOption = None,
    model: ModelOption = None,
    json: JsonOption = False,
) -> None:
    """Average adapters of one configuration into one; the last path is where it goes.

    The new folder is in the format of the first adapter's.
    """
    from cypher.errors import ConfigError
    from cypher.tasks.find_reader import find_adapter

    *names, out = sources
    if not names:
        raise ConfigError("one path", needed="adapters and a new folder behind them")
    folders = [find_adapter(name) for name in names]
    from cypher.adapters.exchange import average_folders

    config = average_folders(folders, Path(out), weights=weight, strategy=strategy, rank=rank, to=to, model_name=model)
    if json:
        print_json({"path": Path(out).absolute(), "config": config.model_dump(mode="json")})
    else:
        print(out)


@app.command(epilog="Example: cypher adapters merge runs/my-reader ./for-transformers")
def merge(source: Source, out: Out, model: ModelOption = None, json: JsonOption = False) -> None:
    """Fold an adapter into its model and write a folder that transformers loads.

    A reader becomes one model for question answering, head and all. Another task's head is kept beside the model, for
    cypher evaluate and cypher predict.
    """
    from cypher.tasks.find_reader import find_adapter

    folder = find_adapter(source)
    from cypher.tasks.reader_folder import merge_reader

    done = merge_reader(folder, out, model_name=model)
    if json:
        print_json({"path": out.absolute(), "transformers_class": done.transformers_class, "notes": list(done.notes)})
    else:
        for line in done.notes:
            note(line)
        note(f"load it with transformers.{done.transformers_class}.from_pretrained({str(out)!r})")
        print(out)

"""``cypher qa``: ask, index, remove, evaluate, tune."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cypher.cli.console import JsonOption, note, one_line, print_json, print_table, progress_bars
from cypher.cli.named_models import check_model, check_reader
from cypher.errors import DataError

if TYPE_CHECKING:
    from cypher.apps.qa.answers import Answer, AskResult
    from cypher.apps.qa.index import IndexReport
    from cypher.apps.qa.question_answering import QuestionAnswering

app = typer.Typer(no_args_is_help=True, help="Ask questions of your own documents.")

Precision = Literal["auto", "fp32", "bf16", "int8"]

Paths = Annotated[
    list[Path], typer.Argument(help="Files and folders: .txt .md .html .pdf .docx .vtt.", show_default=False)
]
# A text, for a path has lost what shows that it was a URL.
StoreOption = Annotated[str, typer.Option("--store", help="Folder of the index.")]
ModelOption = Annotated[str, typer.Option("--model", help="Sentence encoder: a name, a folder or owner/name.")]
ReaderOption = Annotated[
    str, typer.Option("--reader", help="Span reader: a name, or the reader folder of a finished run.")
]
PrecisionOption = Annotated[
    Precision, typer.Option("--precision", help="Of the arithmetic; auto takes what is fastest here.")
]
TopKRetriever = Annotated[int, typer.Option("--top-k-retriever", min=1, help="Passages to read.")]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help="Ask only so many of the questions, always the same ones.")
]
QuestionsFile = Annotated[
    str, typer.Argument(metavar="FILE", help="SQuAD format, .json or .json.gz, or a name of `cypher data list`.")
]


@app.command(epilog='Example: cypher qa ask "When is the fair?" docs/ --html answer.html')
def ask(
    question: Annotated[str, typer.Argument(help="In words.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(help="Index these first, and ask only these; none = all of the store.", show_default=False),
    ] = None,
    top_k_retriever: TopKRetriever = 10,
    top_k_reader: Annotated[int, typer.Option("--top-k-reader", min=1, help="Most answers.")] = 3,
    store: StoreOption = ".cypher/qa",
    where: Annotated[
        str | None, typer.Option("--where", help="""Only documents that match, such as 'format == "pdf"'.""")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with the answers marked.")] = None,
    model: ModelOption = "minilm",
    reader: ReaderOption = "minilm-qa",
    precision: PrecisionOption = "auto",
    json: JsonOption = False,
) -> None:
    """Answer a question from documents, with the place of every answer."""
    qa = _question_answering(store, model, reader, precision)
    qa.check(question, where=where, paths=paths or ())
    with _uncollected(), progress_bars() as progress:
        qa.load(progress=progress)
    if paths:
        _index(qa, paths, rebuild=False)
    result = qa.ask(
        question, top_k_retriever=top_k_retriever, top_k_reader=top_k_reader, where=where, paths=paths or ()
    )
    for line in result.notes:
        note(f"note: {line}")
    if html is not None:
        from cypher.apps.qa.answer_page import answer_page
        from cypher.files import write_text

        write_text(html, answer_page(result))
    if json:
        print_json(result.to_dict())
    else:
        _print_answers(result)
        if html is not None:
            print(html)


@app.command(epilog="Example: cypher qa index docs/ notes.md --store .cypher/qa")
def index(
    paths: Paths,
    store: StoreOption = ".cypher/qa",
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Start from an empty store.")] = False,
    words: Annotated[
        int | None, typer.Option("--words", min=1, help="Most words of a passage; 150 in a new store.")
    ] = None,
    model: ModelOption = "minilm",
    json: JsonOption = False,
) -> None:
    """Bring a store up to date with files and folders; only what changed is read and embedded."""
    qa = _question_answering(store, model, "minilm-qa", "auto", words=words)
    report = _index(qa, paths, rebuild=rebuild)
    if json:
        print_json({**vars(report), "store": store})
    else:
        print(
            f"{report.added} added, {report.updated} updated, {report.removed} removed, {report.unchanged} unchanged; "
            f"{report.passages} passages in {store} ({report.seconds:.1f} s)"
        )


@app.command(epilog="Example: cypher qa remove old-reports/ draft.md")
def remove(
    paths: Annotated[list[Path], typer.Argument(help="Files and folders, gone or not.", show_default=False)],
    store: StoreOption = ".cypher/qa",
    json: JsonOption = False,
) -> None:
    """Take files, and all files below folders, out of a store; the files themselves stay as they are."""
    from cypher.apps.qa.question_answering import QuestionAnswering

    removed = QuestionAnswering(store).remove(paths, on_wait=note)
    if json:
        print_json({"removed": removed, "store": store})
    else:
        print(f"{removed} removed from {one_line(store)}")


@app.command(epilog="Example: cypher qa evaluate squad/squad2_dev_open --mode open --limit 500")
def evaluate(
    file: QuestionsFile,
    mode: Annotated[
        Literal["closed", "open"],
        typer.Option("--mode", help="closed: each question with its paragraph; open: it must be found first."),
    ] = "closed",
    limit: LimitOption = None,
    top_k_retriever: TopKRetriever = 10,
    model: ModelOption = "minilm",
    reader: ReaderOption = "minilm-qa",
    precision: PrecisionOption = "auto",
    json: JsonOption = False,
) -> None:
    """Measure answers, retrieval and speed on a file of questions; F1 in percent, recall and MRR in [0, 1]."""
    from cypher.data.fetch import locate
    from cypher.data.readers import read_squad

    qa = _question_answering("", model, reader, precision)
    paragraphs = read_squad(locate(file))
    from cypher.apps.qa.evaluate import evaluate as measure

    with progress_bars() as progress:
        report = measure(
            qa, paragraphs, mode=mode, limit=limit, top_k_retriever=top_k_retriever, progress=progress
        ).to_dict()
    if json:
        print_json(report)
    else:
        print_table(("what", "value"), [(key, _shown(value)) for key, value in report.items()])


@app.command(epilog="Example: cypher qa tune squad/squad2_dev_open --limit 50")
def tune(
    file: QuestionsFile,
    limit: LimitOption = 100,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the sweep; runs/qa-tune-NAME unless given.")
    ] = None,
    model: ModelOption = "minilm",
    reader: ReaderOption = "minilm-qa",
    json: JsonOption = False,
) -> None:
    """Measure F1 against latency over passages read, their length and precision, and recommend a setting.

    Recommended is the fastest setting within 1 point of the best F1. An interrupted sweep is resumed.
    """
    from cypher.data.fetch import locate
    from cypher.data.readers import read_squad

    qa = _question_answering("", model, reader, "auto")
    path = locate(file)
    paragraphs = read_squad(path)
    folder = out or Path("runs") / f"qa-tune-{path.name.split('.')[0]}"
    from cypher.apps.qa.tune import tune as sweep

    with progress_bars() as progress:
        report = sweep(qa, paragraphs, folder=folder, limit=limit, progress=progress)
    if json:
        print_json(report.to_dict())
        return
    print_table(
        ("passages", "words", "precision", "F1", "exact", "ms", ""),
        [
            (
                row.setting.top_k_retriever,
                row.setting.words,
                row.setting.precision,
                f"{row.f1:.1f}",
                f"{row.exact:.1f}",
                f"{row.latency_ms:.0f}",
                "recommended" if row.setting == report.recommended else "best of its speed" if row.on_front else "",
            )
            for row in report.settings
        ],
    )
    print(report.figure)


def _question_answering(
    store: str, model: str, reader: str, precision: Precision, *, words: int | None = None
) -> QuestionAnswering:
    from cypher.apps.qa.question_answering import QuestionAnswering

    # The store's library would write warnings of its own beside our one line, about a commit that was interrupted.
    os.environ.setdefault("LANCEDB_LOG", "error")
    # Told before anything long begins.
    check_reader(reader)
    check_model(model)
    return QuestionAnswering(store, model=model, reader=reader, precision=precision, words=words)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Load without the garbage collector, and keep it off what was loaded.

    Walking over the libraries' objects while they are imported, and once more when the process ends, takes a fifth of
    the time of one question.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def _index(qa: QuestionAnswering, paths: list[Path], *, rebuild: bool) -> IndexReport:
    """Index with a bar and a line for each file that cannot be read; nothing readable at all is an error."""
    with progress_bars() as progress:
        report = qa.index(
            paths,
            rebuild=rebuild,
            progress=progress,
            on_problem=lambda problem: note(f"skipped: {problem}"),
            on_wait=note,
        )
    if report.problems and not (report.added or report.updated or report.unchanged or report.removed):
        raise DataError(
            f"none of {len(report.problems)} files could be indexed", change="see the lines above for the reasons"
        )
    return report


def _print_answers(result: AskResult) -> None:
    from cypher.apps.qa.answer_page import place_of

    for number, answer in enumerate(result.answers, start=1):
        if answer.answer is None:
            print(f"{number}. (no answer)  {answer.score:.2f}")
        else:
            print(f"{number}. {one_line(answer.answer)}  {answer.score:.2f}  {one_line(place_of(answer))}")
            print(f"   {_highlighted(answer)}")
    seconds = result.timings
    print(f"retrieved in {seconds.retrieve_s:.3f} s, read in {seconds.read_s:.3f} s")


def _highlighted(answer: Answer) -> str:
    """The context in one line, the answer in reverse on a terminal and in brackets elsewhere."""
    assert answer.context is not None
    assert answer.context_start is not None
    assert answer.offset_start is not None
    assert answer.offset_end is not None
    start, end = answer.offset_start - answer.context_start, answer.offset_end - answer.context_start
    before, found, after = answer.context[:start], answer.context[start:end], answer.context[end:]
    opening, closing = ("\033[7m", "\033[0m") if sys.stdout.isatty() else ("[", "]")
    left = " " if before[-1:].isspace() else ""
    right = " " if after[:1].isspace() else ""
    return f"{one_line(before)}{left}{opening}{one_line(found)}{closing}{right}{one_line(after)}"


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)

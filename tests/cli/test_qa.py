"""``cypher qa`` as people call it: what it prints, its exit codes, and every kind of wrong input."""

from __future__ import annotations

import io
import itertools
import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cypher.cli.app import run

MILL = "The mill by the river was built in 1871. It burnt down in the winter of 1902."
BREAD = "Rye bread is sold by the baker of the village. On Fridays she is at the market."


def squad(*paragraphs: tuple[str, tuple[tuple[str, str], ...]]) -> str:
    """A file in SQuAD's format, of articles of one paragraph."""
    articles = [
        {
            "title": f"Article {place}",
            "paragraphs": [
                {
                    "context": context,
                    "qas": [
                        {
                            "id": f"{place}-{number}",
                            "question": question,
                            "answers": [{"text": answer, "answer_start": context.index(answer)}],
                        }
                        for number, (question, answer) in enumerate(questions)
                    ],
                }
            ],
        }
        for place, (context, questions) in enumerate(paragraphs)
    ]
    return json.dumps({"data": articles})


SQUAD = squad(
    (MILL, (("When was the mill built?", "1871"), ("When did it burn down?", "winter of 1902"))),
    (BREAD, (("Who sells bread?", "the baker"), ("When is she at the market?", "Fridays"))),
)
TRAINING = squad(
    *((f"The mill was built in {year}.", (("When was the mill built?", str(year)),)) for year in range(1900, 1920))
)


def written_text(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> list[str]:
    """The options that name a tiny encoder and a reader trained on it by ``cypher train``."""
    folder = tmp_path_factory.mktemp("trained")
    data = written_text(folder / "squad.json", TRAINING)
    recipe = (
        f'[model]\nname = "{tiny_bert}"\n[adapter]\nmethod = "lora"\nrank = 2\n[precision]\ncompute = "fp32"\n'
        f"[task]\nmax_length = 64\nstride = 12\nmax_question_tokens = 20\n"
        f'[data]\ntrain = ["{data}"]\ndevelopment_fraction = 0.5\n[train]\nepochs = 1\nbatch_size = 2\n'
    )
    assert run(["train", str(written_text(folder / "tiny.toml", recipe)), "--runs", str(folder)]) == 0
    return ["--model", str(tiny_bert), "--reader", str(folder / "tiny" / "reader")]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, empty but for ``docs``."""
    monkeypatch.chdir(tmp_path)
    written_text(tmp_path / "docs" / "mill.txt", MILL)
    written_text(tmp_path / "docs" / "bread.md", f"# Bread\n\n{BREAD}\n")
    return tmp_path


# Every document is among so many answers, whichever of them a barely trained reader likes.
ALL_ANSWERS = ("--top-k-reader", "50")

Ask = Callable[..., tuple[int, Any, list[str]]]


@pytest.fixture
def qa(trained: list[str], here: Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Run ``cypher qa`` with the tiny models; gives exit code, stdout (parsed with ``--json``), lines of stderr."""

    def call(*arguments: str) -> tuple[int, Any, list[str]]:
        capsys.readouterr()
        options = {"index": trained[:2], "remove": []}.get(arguments[0], trained)
        code = run(["qa", arguments[0], *options, *arguments[1:]])
        out, err = capsys.readouterr()
        return code, json.loads(out) if "--json" in arguments and out else out, err.splitlines()

    return call


def test_ask_prints_answers_in_their_context(qa: Ask, here: Path) -> None:
    code, out, err = qa("ask", "When was the mill built?", "docs", "--top-k-reader", "2", "--html", "answer.html")
    assert (code, err) == (0, [])
    lines = out.splitlines()
    assert [line[:3] for line in lines if line[0].isdigit()] == ["1. ", "2. ", "3. "]
    assert sum("(no answer)" in line for line in lines) == 1
    for line, context in itertools.pairwise(lines):
        if line[0].isdigit() and "(no answer)" not in line:
            answer = line[3:].rsplit("  ", 2)[0]
            assert line.endswith(("docs/mill.txt", "docs/bread.md"))
            assert f"[{answer}]" in context
    assert lines[-2].startswith("retrieved in 0.")
    assert lines[-1] == "answer.html"
    html = (here / "answer.html").read_text()
    assert html.startswith("<!doctype html>")
    assert html.count("<mark ") == 2
    assert (here / ".cypher" / "qa").is_dir()


def test_ask_prints_one_json_object(qa: Ask) -> None:
    code, result, err = qa("ask", "When was the mill built?", "docs", *ALL_ANSWERS, "--json")
    assert (code, err) == (0, [])
    assert list(result) == ["query", "answers", "no_answer_score", "timings"]
    assert {answer["document"] for answer in result["answers"]} == {None, "docs/mill.txt", "docs/bread.md"}
    # The store stays: without paths it is asked as it is, with a path only what is below it.
    code, again, _ = qa("ask", "When was the mill built?", *ALL_ANSWERS, "--json")
    assert (code, again["answers"]) == (0, result["answers"])
    code, only, _ = qa("ask", "When was the mill built?", "docs/mill.txt", "--json")
    assert {answer["document"] for answer in only["answers"]} == {None, "docs/mill.txt"}
    code, marked, _ = qa("ask", "When was the mill built?", "--json", "--where", 'format == "markdown"')
    assert {answer["document"] for answer in marked["answers"]} == {None, "docs/bread.md"}


def test_index_says_what_changed(qa: Ask, here: Path) -> None:
    code, report, err = qa("index", "docs", "--store", "library", "--json")
    assert (code, err) == (0, [])
    assert (report["added"], report["unchanged"], report["problems"], report["store"]) == (2, 0, [], "library")
    written_text(here / "docs" / "mill.txt", MILL.replace("1871", "1872"))
    (here / "docs" / "bread.md").unlink()
    code, out, _ = qa("index", "docs", "--store", "library")
    assert code == 0
    assert out.startswith("0 added, 1 updated, 1 removed, 0 unchanged; 1 passages in library (")
    code, report, _ = qa("index", "docs", "--store", "library", "--rebuild", "--words", "5", "--json")
    assert (code, report["added"], report["passages"] > 1) == (0, 1, True)


@pytest.mark.parametrize("mode", ["closed", "open"])
def test_evaluate(qa: Ask, here: Path, mode: str) -> None:
    written_text(here / "squad.json", SQUAD)
    code, report, err = qa("evaluate", "squad.json", "--mode", mode, "--json")
    assert (code, err) == (0, [])
    assert (report["mode"], report["n_questions"]) == (mode, 4)
    assert (report["recall@10"], report["f1_unanswerable"]) == (1.0 if mode == "open" else None, None)
    code, out, _ = qa("evaluate", "squad.json", "--mode", mode, "--limit", "2")
    assert code == 0
    assert "n_questions\t2" in out.splitlines()
    assert sorted(path.name for path in here.iterdir()) == ["docs", "squad.json"]


def test_tune(qa: Ask, here: Path) -> None:
    written_text(here / "squad.json", SQUAD)
    code, out, err = qa("tune", "squad.json", "--limit", "2")
    assert (code, err) == (0, [])
    lines = out.splitlines()
    assert lines[0].split("\t")[:6] == ["passages", "words", "precision", "F1", "exact", "ms"]
    assert sum("recommended" in line for line in lines) == 1
    assert lines[-1] == "runs/qa-tune-squad/tradeoff.png"
    assert (here / lines[-1]).is_file()
    code, report, _ = qa("tune", "squad.json", "--limit", "2", "--json")
    assert (code, report["n_questions"], len(report["settings"])) == (0, 2, len(lines) - 2)


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("ask", "Who?", "nowhere"), 2, "error: nowhere does not exist: needs a file or a folder"),
        (("index", "docs", "nowhere"), 2, "error: nowhere does not exist: needs a file or a folder"),
        (("ask", "Who?", "empty"), 2, "error: empty has no file to read: needs files with one of "),
        (("index", "empty"), 2, "error: empty has no file to read: needs files with one of "),
        (("ask", "", "docs"), 2, "error: the question is empty: needs at least one word"),
        (("ask", " \n "), 2, "error: the question is empty: needs at least one word"),
        (("ask", "Who?"), 2, "error: there is no store at "),
        (("ask", "Who \udcff?", "docs"), 2, "error: character 5 of the question: needs text in UTF-8"),
        (("ask", "Who?", "docs", "--store", "http://host/x"), 2, "error: store http://host/x: needs the path of a fol"),
        (("ask", "Who?", "docs", "--model", "minlm"), 2, "error: model 'minlm' (did you mean 'minilm'?)"),
        (("ask", "Who?", "docs", "--model", "./none"), 2, "error: there is no folder ./none"),
        (("index", "docs", "--model", "smollm2"), 2, "error: smollm2 is a GGUF model: needs safetensors"),
        (("ask", "Who?", "docs", "--where", "format = 1"), 2, "error: filter format = 1 has "),
        (("ask", "Who?", "docs", "--top-k-reader", "0"), 2, "error: Invalid value for '--top-k-reader'"),
        (("ask", "Who?", "docs", "--precision", "fp8"), 2, "error: Invalid value for '--precision'"),
        (("ask", "Who?", "docs", "--html", "docs"), 2, "error: "),
        (("index", "docs", "--words", "0"), 2, "error: Invalid value for '--words'"),
        (("evaluate", "nowhere.json"), 2, "error: "),
        (("evaluate", "docs/mill.txt"), 2, "error: "),
        (("tune", "docs/mill.txt"), 2, "error: "),
    ],
)
def test_a_wrong_call_is_one_line(qa: Ask, here: Path, arguments: tuple[str, ...], code: int, line: str) -> None:
    (here / "empty").mkdir()
    found, out, err = qa(*arguments)
    assert (found, out, len(err)) == (code, "", 1)
    assert err[0].startswith(line)


@pytest.mark.parametrize("command", [("ask", "Who?", "docs"), ("evaluate", "squad.json"), ("tune", "squad.json")])
def test_a_reader_that_does_not_exist(here: Path, capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    assert run(["qa", *command, "--reader", "nobody"]) == 2
    assert capsys.readouterr().err.startswith("error: there is no reader nobody: needs the `reader` folder")
    assert not (here / ".cypher").exists()


def encrypted_pdf() -> bytes:
    from pypdf import PdfWriter

    writer = PdfWriter()
    writer.add_blank_page(72, 72)
    writer.encrypt(user_password="secret", algorithm="RC4-128")
    out = io.BytesIO()
    writer.write(out)
    return out.getvalue()


BAD_FILES = {
    "zero.txt": (lambda: b"", "zero.txt is empty (0 bytes)"),
    "blank.txt": (lambda: b" \n ", "blank.txt is empty (white space only)"),
    "binary.txt": (lambda: bytes(range(256)) * 8, "binary.txt "),
    "secret.pdf": (encrypted_pdf, "secret.pdf is encrypted: needs a PDF without a password; decrypt it first"),
    "broken.pdf": (lambda: b"%PDF-1.4\nnonsense", "broken.pdf is not a readable PDF"),
    "broken.docx": (lambda: b"PK nonsense", "broken.docx "),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_one_line_and_good_ones_are_indexed(qa: Ask, here: Path, name: str) -> None:
    content, line = BAD_FILES[name]
    (here / "docs" / name).write_bytes(content())
    code, result, err = qa("ask", "When was the mill built?", "docs", *ALL_ANSWERS, "--json")
    assert (code, len(err)) == (0, 1)
    assert err[0].startswith(f"skipped: docs/{line}")
    assert {answer["document"] for answer in result["answers"]} == {None, "docs/mill.txt", "docs/bread.md"}
    # Alone it leaves nothing to ask.
    for command in (("ask", "Who?", f"docs/{name}"), ("index", f"docs/{name}", "--store", "other")):
        code, out, err = qa(*command)
        assert (code, out) == (2, "")
        assert err[-1] == "error: none of 1 files could be indexed; see the lines above for the reasons"
        assert len(err) == 2


def test_text_of_an_old_windows_is_read(qa: Ask, here: Path) -> None:
    (here / "docs" / "old.txt").write_bytes("The café’s “blue door” is in the village.".encode("cp1252"))
    code, result, err = qa("ask", "Where is the café’s blue door?", "docs/old.txt", "--json")
    assert (code, err) == (0, [])
    contexts = [answer["context"] for answer in result["answers"] if answer["answer"]]
    assert contexts
    assert all("café’s “blue door”" in context for context in contexts)


def test_a_very_long_question_is_asked_with_a_note(qa: Ask) -> None:
    question = "When was the mill built? " * 400
    code, result, err = qa("ask", question, "docs", "--json")
    assert (code, result["query"], len(question)) == (0, question, 10_000)
    assert len(err) == 1
    assert err[0].startswith("note: the question has ")
    assert "is read up to the first 20" in err[0]


def test_control_characters_of_a_document_do_not_reach_the_terminal(qa: Ask, here: Path) -> None:
    written_text(here / "docs" / "mill.txt", "The mill \x1b[31m was built \x1b]0;owned\x07 in 1871.")
    code, out, _ = qa("ask", "When was the mill built?", "docs")
    assert code == 0
    assert "\x1b" not in out
    assert "\x07" not in out


@pytest.mark.parametrize("newline", ["\r\n", "\r", "\f"])
def test_line_ends_of_any_kind_are_shown_as_spaces(qa: Ask, here: Path, newline: str) -> None:
    (here / "docs" / "mill.txt").write_bytes(MILL.replace(" ", newline).encode())
    code, out, _ = qa("ask", "When was the mill built?", "docs/mill.txt", *ALL_ANSWERS)
    assert code == 0
    assert "\ufffd" not in out
    assert "mill by the river" in out.replace("[", "").replace("]", "")


def test_a_name_with_a_line_end_stays_in_its_line(qa: Ask, here: Path) -> None:
    written_text(here / "docs" / "mill\n1. forged  0.99  docs\n.txt", MILL)
    code, out, _ = qa("ask", "When was the mill built?", "docs", *ALL_ANSWERS)
    assert code == 0
    assert not [line for line in out.splitlines() if line.startswith("1. forged")]
    assert "docs/mill 1. forged 0.99 docs .txt" in out


def test_rebuilding_from_nothing_keeps_the_store(qa: Ask, here: Path) -> None:
    (here / "empty").mkdir()
    assert qa("index", "docs")[0] == 0
    assert qa("index", "empty", "--rebuild")[0] == 2
    assert qa("index", "docs", "--json")[1]["unchanged"] == 2


def test_remove_takes_out_what_is_gone_or_not(qa: Ask, here: Path) -> None:
    assert qa("index", "docs")[0] == 0
    (here / "docs" / "mill.txt").unlink()
    code, out, err = qa("index", "docs/mill.txt")
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].endswith("; run `cypher qa remove docs/mill.txt --store .cypher/qa` to take it out")
    assert qa("remove", "docs/mill.txt") == (0, "1 removed from .cypher/qa\n", [])
    assert qa("remove", "docs", "--json") == (0, {"removed": 1, "store": ".cypher/qa"}, [])
    code, out, err = qa("remove", "docs")
    assert (code, out, len(err)) == (2, "", 1)
    assert err[0].startswith("error: nothing of docs is in the store ")
    assert (here / "docs" / "bread.md").is_file()
    assert qa("remove", "docs", "--store", "none")[0] == 2


@pytest.mark.parametrize(
    "command", [("ask", "Who?", "docs"), ("index", "docs"), ("evaluate", "squad.json"), ("tune", "squad.json")]
)
def test_a_model_that_is_fetched_first_has_a_bar(
    qa: Ask, here: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    written_text(here / "squad.json", SQUAD)
    told: set[str] = set()

    @contextmanager
    def bars() -> Iterator[Callable[[str, int, int], None]]:
        yield lambda what, done, total: told.add(what)

    def resolve(name: str, *, progress: Callable[..., None] | None = None, **options: object) -> Path:
        if progress is not None:
            progress("fetching", 1, 2)
        return Path(name)

    monkeypatch.setattr("cypher.hub.resolve", resolve)
    monkeypatch.setattr("cypher.models.load.resolve", resolve)
    monkeypatch.setattr("cypher.cli.qa.progress_bars", bars)
    options = ("--limit", "1") if command[0] in ("evaluate", "tune") else ()
    assert qa(*command, *options)[0] == 0
    assert "fetching" in told


def test_a_store_of_another_model(qa: Ask, here: Path, make_tiny_bert: Callable[..., Path]) -> None:
    assert qa("index", "docs")[0] == 0
    other = ("--model", str(make_tiny_bert(seed=4)))
    for command in (("ask", "Who?", *other), ("ask", "Who?", "docs", *other), ("index", "docs", *other)):
        code, out, err = qa(*command)
        assert (code, out, len(err)) == (2, "", 1)
        assert "was indexed with" in err[0]
        assert "--rebuild" in err[0]
    assert qa("ask", "Who?")[0] == 0


def test_a_damaged_store(qa: Ask, here: Path) -> None:
    assert qa("index", "docs")[0] == 0
    for manifest in (here / ".cypher" / "qa").rglob("*.manifest"):
        manifest.write_bytes(b"")
    code, out, err = qa("ask", "Who?")
    assert (code, out, len(err)) == (1, "", 1)
    assert "is damaged" in err[0]
    assert "--rebuild" in err[0]
    assert qa("index", "docs", "--rebuild")[0] == 0
    assert qa("ask", "Who?")[0] == 0


def test_a_full_disk_keeps_what_was_indexed(qa: Ask, here: Path, small_disk: Path) -> None:
    store = ("--store", str(small_disk / "store"))
    assert qa("index", "docs", *store)[0] == 0
    draw = random.Random(2)
    for number in range(40):
        # Words that hardly compress.
        words = " ".join(f"{draw.getrandbits(40):x}" for _ in range(4000))
        written_text(here / "more" / f"{number}.txt", words)
    code, out, err = qa("index", "more", *store)
    assert (code, out) == (1, "")
    assert err == [
        f"error: the disk that holds {small_disk / 'store'} is full; what was indexed before is kept; "
        "free some space and run the same command again"
    ]
    code, result, _ = qa("ask", "When was it built?", "--json", *store, "--where", 'path in ["docs/mill.txt"]')
    assert code == 0
    assert {answer["document"] for answer in result["answers"]} == {None, "docs/mill.txt"}


def test_ctrl_c_keeps_what_is_indexed_and_the_next_run_goes_on(qa: Ask, here: Path, trained: list[str]) -> None:
    for number in range(1500):
        written_text(here / "many" / f"{number:04}.txt", f"Ferry {number} crosses the river at {number}. {MILL}")
    program = [sys.executable, "-c", "import cypher.cli; cypher.cli.main()"]
    process = subprocess.Popen([*program, "qa", "index", "many", *trained[:2]], stderr=subprocess.PIPE, text=True)
    stopper = threading.Timer(120, process.kill)
    stopper.start()
    seen: int | None = None
    while process.poll() is None:
        # A commit is whole when its manifest is there, which comes after the data.
        commits = len(list(here.glob(".cypher/qa/*.lance/_versions/*.manifest")))
        if seen is None and list(here.glob(".cypher/qa/*.lance/data/*")):
            seen = commits
        if seen is not None and commits > seen:
            break
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    stopper.cancel()
    assert (process.returncode, err.splitlines()) == (130, ["error: interrupted; what was already written is kept"])
    code, report, err_lines = qa("index", "many", "--json")
    assert (code, err_lines) == (0, [])
    assert report["unchanged"] >= 256
    assert report["added"] > 0
    assert report["added"] + report["unchanged"] == 1500 == report["passages"]

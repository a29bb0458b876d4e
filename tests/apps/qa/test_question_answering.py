"""The class over real files: indexed, found, read, and every answer at its place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from reader_parts import write_reader

from cypher.apps.qa import Answer, AskResult, QuestionAnswering, Timings
from cypher.apps.qa.answer_page import answer_page
from cypher.apps.qa.answers import context_around
from cypher.apps.qa.store import PassageStore
from cypher.documents import read_document
from cypher.errors import ConfigError, DataError, ModelError, StoreError, WrongStoreError

MILL = "The mill by the river was built in 1871. It burnt down in the winter of 1902."
BREAD = "Rye bread is sold by the baker. On Fridays she is at the market."


def paged_pdf(*pages: str) -> bytes:
    """A PDF of a line a page, written by hand."""
    kids = " ".join(f"{3 + 2 * number} 0 R" for number in range(len(pages)))
    font = "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>"
    objects = ["<< /Type /Catalog /Pages 2 0 R >>", f"<< /Type /Pages /Kids [{kids}] /Count {len(pages)} >>"]
    for number, line in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({line}) Tj ET"
        objects.append(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Resources << /Font << /F1 {font} >> >> "
            f"/Contents {4 + 2 * number} 0 R >>"
        )
        objects.append(f"<< /Length {len(stream)} >>\nstream\n{stream}\nendstream")
    text, offsets = "%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(text))
        text += f"{number} 0 obj\n{content}\nendobj\n"
    entries = "".join(f"{offset:010d} 00000 n \n" for offset in offsets)
    size = len(objects) + 1
    table = f"xref\n0 {size}\n0000000000 65535 f \n{entries}trailer << /Root 1 0 R /Size {size} >>\n"
    return f"{text}{table}startxref\n{len(text)}\n%%EOF\n".encode()


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory, tiny_bert: Path) -> Path:
    return write_reader(tmp_path_factory.mktemp("reader"), tiny_bert)


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("library") / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "mill.txt").write_text(MILL)
    (folder / "deep" / "bread.md").write_text(f"# Bread\n\n{BREAD}\n")
    (folder / "paged.pdf").write_bytes(
        paged_pdf("The first page says nothing.", "The ferry to the island costs nothing.")
    )
    return folder


@pytest.fixture(scope="module")
def qa(docs: Path, reader: Path, tiny_bert: Path) -> QuestionAnswering:
    qa = QuestionAnswering(docs.parent / "store", model=str(tiny_bert), reader=reader, precision="fp32")
    report = qa.index(docs)
    assert (report.added, report.problems) == (3, ())
    return qa


def test_the_json_of_a_result(qa: QuestionAnswering, docs: Path) -> None:
    result = qa.ask("When was the mill built?", top_k_reader=2)
    content = json.loads(json.dumps(result.to_dict()))
    assert list(content) == ["query", "answers", "no_answer_score", "timings"]
    assert content["query"] == "When was the mill built?"
    assert list(content["timings"]) == ["retrieve_s", "read_s", "total_s"]
    assert 0 < content["timings"]["retrieve_s"] + content["timings"]["read_s"] <= content["timings"]["total_s"] + 2e-4
    keys = ["answer", "score", "context", "document", "document_id", "meta", "offset_start", "offset_end", "page"]
    assert [list(answer) for answer in content["answers"]] == [keys] * 3
    none = [answer for answer in content["answers"] if answer["answer"] is None]
    assert none == [{**dict.fromkeys(keys), "score": content["no_answer_score"]}]
    for answer in content["answers"]:
        if answer["answer"] is None:
            continue
        document = read_document(answer["document"])
        assert document.text[answer["offset_start"] : answer["offset_end"]] == answer["answer"]
        assert answer["answer"] in answer["context"]
        assert answer["context"] in document.text
        assert (answer["document_id"], answer["meta"]) == (document.id, dict(document.meta))
        assert answer["page"] == document.page_at(answer["offset_start"])


def test_pages_are_those_of_the_answers(qa: QuestionAnswering, docs: Path) -> None:
    result = qa.ask("What does the ferry to the island cost?", top_k_reader=8, where='format == "pdf"')
    found = [answer for answer in result.answers if answer.answer is not None]
    document = read_document(docs / "paged.pdf")
    assert {answer.page for answer in found} == {1, 2}
    assert all(answer.page == document.page_at(answer.offset_start or 0) for answer in found)


@pytest.mark.parametrize(
    ("where", "below", "names"),
    [
        (None, [], {"mill.txt", "bread.md", "paged.pdf"}),
        ('format == "pdf"', [], {"paged.pdf"}),
        ('format != "pdf"', ["deep"], {"bread.md"}),
        (None, ["deep", "mill.txt"], {"bread.md", "mill.txt"}),
        (None, ["../docs/mill.txt"], {"mill.txt"}),
        ('format == "pdf"', ["mill.txt"], set()),
        (None, ["mill"], set()),
    ],
)
def test_only_documents_that_pass_are_read(
    qa: QuestionAnswering, docs: Path, where: str | None, below: list[str], names: set[str]
) -> None:
    result = qa.ask("What is it?", top_k_reader=30, where=where, paths=[docs / name for name in below])
    assert {Path(answer.document or "").name for answer in result.answers if answer.answer is not None} == names
    if not names:
        assert [(answer.answer, answer.score) for answer in result.answers] == [(None, 1.0)]
        assert "no passage was found" in result.notes[0]


def test_a_path_is_below_its_folder_by_a_link_too(qa: QuestionAnswering, docs: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(docs / "deep")
    result = qa.ask("What is it?", paths=[tmp_path / "link"])
    assert {answer.document for answer in result.answers} == {None, str(docs / "deep" / "bread.md")}


def test_documents_are_below_their_folder_from_wherever_it_is_asked(
    docs: Path, reader: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qa = QuestionAnswering(tmp_path / "store", model=str(tiny_bert), reader=reader, precision="fp32", words=40)
    monkeypatch.chdir(docs.parent)
    qa.index(docs.name)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for path in (docs / "mill.txt", Path(os.path.relpath(docs / "mill.txt"))):
        result = qa.ask("What is it?", paths=[path])
        assert {answer.document for answer in result.answers if answer.answer} == {f"{docs.name}/mill.txt"}


def test_indexing_again_reads_only_what_changed(docs: Path, reader: Path, tiny_bert: Path, tmp_path: Path) -> None:
    qa = QuestionAnswering(tmp_path / "store", model=str(tiny_bert), reader=reader, precision="fp32", words=40)
    (tmp_path / "a.txt").write_text(MILL)
    (tmp_path / "b.txt").write_text(BREAD)
    assert qa.index([tmp_path / "a.txt", tmp_path / "b.txt"]).added == 2
    (tmp_path / "a.txt").write_text(MILL.replace("1871", "1872"))
    report = qa.index([tmp_path / "a.txt", tmp_path / "b.txt"])
    assert (report.added, report.updated, report.unchanged) == (0, 1, 1)
    answers = qa.ask("When was the mill built?", top_k_reader=30).answers
    assert not any("1871" in (answer.context or "") for answer in answers)
    assert qa.index(tmp_path / "b.txt", rebuild=True).passages == 1


@pytest.mark.parametrize(
    ("question", "options", "error", "message"),
    [
        ("", {}, DataError, "the question is empty"),
        (" \n\t", {}, DataError, "the question is empty"),
        ("Who \udcff?", {}, DataError, "character 5 of the question: needs text in UTF-8"),
        ("\ud800", {}, DataError, "character 1 of the question: needs text in UTF-8"),
        ("Who?", {"where": "format =="}, ConfigError, "filter format == has the end"),
        ("Who?", {"top_k_retriever": 0}, ConfigError, "top_k = 0"),
        ("Who?", {"top_k_reader": -1}, ConfigError, "top_k = -1"),
    ],
)
def test_questions_that_cannot_be_asked(
    qa: QuestionAnswering, question: str, options: dict[str, str | int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        qa.ask(question, **options)  # type: ignore[arg-type]


def test_a_long_question_is_answered_as_far_as_it_is_read(qa: QuestionAnswering) -> None:
    question = "When was the mill built? " * 400
    result = qa.ask(question)
    assert len(question) == 10_000
    assert result.query == question
    assert result.notes == ("the question has 6400 tokens and is read up to the first 20; ask a shorter one",)
    assert qa.ask("When was the mill built?").notes == ()


def test_what_is_missing_is_named(tmp_path: Path, reader: Path, tiny_bert: Path, docs: Path) -> None:
    with pytest.raises(ModelError, match="there is no reader nobody: needs the `reader` folder of a finished run"):
        QuestionAnswering(tmp_path, reader="nobody").ask("Who?")
    with pytest.raises(StoreError, match="there is no store at"):
        QuestionAnswering(tmp_path / "none", model=str(tiny_bert), reader=reader).ask("Who?")
    with pytest.raises(DataError, match=r"none\.txt does not exist"):
        # Told before the model is looked for.
        QuestionAnswering(tmp_path, model="no-such-model").index([docs, tmp_path / "none.txt"])


def test_a_store_of_another_model_is_refused(
    docs: Path, qa: QuestionAnswering, reader: Path, make_tiny_bert: Callable[..., Path]
) -> None:
    other = QuestionAnswering(docs.parent / "store", model=str(make_tiny_bert(seed=9)), reader=reader)
    for call in (lambda: other.ask("Who?"), lambda: other.index(docs)):
        with pytest.raises(StoreError, match=r"was indexed with .*--rebuild"):
            call()
    assert qa.ask("Who?").answers


@pytest.mark.parametrize("problem", ["empty", "gone"])
def test_a_rebuild_without_anything_to_read_leaves_the_store(
    docs: Path, reader: Path, tiny_bert: Path, tmp_path: Path, problem: str
) -> None:
    qa = QuestionAnswering(tmp_path / "store", model=str(tiny_bert), reader=reader, precision="fp32")
    (tmp_path / "empty").mkdir()
    before = qa.index(docs).passages
    with pytest.raises(DataError, match=r"has no file to read|does not exist"):
        qa.index(tmp_path / problem, rebuild=True)
    assert qa.store().stats().passages == before > 0


def test_a_rebuild_says_that_it_waits(docs: Path, reader: Path, tiny_bert: Path, tmp_path: Path) -> None:
    qa = QuestionAnswering(tmp_path / "store", model=str(tiny_bert), reader=reader, precision="fp32")
    qa.index(docs / "mill.txt")
    entered, told = threading.Event(), threading.Event()

    def hold() -> None:
        with PassageStore.existing(tmp_path / "store").writing():
            entered.set()
            told.wait(30)

    other = threading.Thread(target=hold)
    other.start()
    assert entered.wait(30)
    lines: list[str] = []

    def on_wait(line: str) -> None:
        lines.append(line)
        told.set()

    report = qa.index(docs / "mill.txt", rebuild=True, on_wait=on_wait)
    other.join()
    assert report.added == 1
    assert [line.split(";")[0] for line in lines] == [f"another process is writing to {tmp_path / 'store'}"]


def test_one_that_outlives_a_rebuild_follows_it_or_says_so(
    docs: Path, reader: Path, tiny_bert: Path, tmp_path: Path
) -> None:
    first, second = (
        QuestionAnswering(tmp_path / "store", model=str(tiny_bert), reader=reader, precision="fp32", words=words)
        for words in (None, 5)
    )
    settled = QuestionAnswering(tmp_path / "store", model=str(tiny_bert), reader=reader, precision="fp32", words=150)
    first.index(docs / "mill.txt")
    settled.index(docs / "mill.txt")
    second.index(docs / "mill.txt", rebuild=True)
    # It asked for no length of its own, so it takes that of the new store.
    report = first.index(docs / "deep" / "bread.md")
    assert (report.added, first.store().settings.words) == (1, 5)
    assert first.ask("Who sells bread?").answers
    for call in (lambda: settled.ask("Who?"), lambda: settled.index(docs)):
        with pytest.raises(WrongStoreError, match="was indexed with"):
            call()


@pytest.mark.parametrize("lengths", [{"words": 0}, {"words": 20, "overlap_words": 30}, {"overlap_words": -1}])
def test_lengths_that_cannot_be_cut_make_no_store(
    docs: Path, reader: Path, tiny_bert: Path, tmp_path: Path, lengths: dict[str, int]
) -> None:
    with pytest.raises(ConfigError, match="words = "):
        QuestionAnswering(tmp_path / "store", model=str(tiny_bert), reader=reader, **lengths).index(docs)
    assert not (tmp_path / "store").exists()


def test_what_is_gone_is_named_and_taken_out_without_a_model(
    reader: Path, tiny_bert: Path, tmp_path: Path, docs: Path
) -> None:
    qa = QuestionAnswering(tmp_path / "store", model=str(tiny_bert), reader=reader, precision="fp32")
    shutil.copytree(docs, tmp_path / "copy")
    qa.index([tmp_path / "copy", docs / "mill.txt"])
    shutil.rmtree(tmp_path / "copy")
    with pytest.raises(DataError, match=r"copy does not exist, and the store still holds .*; run `cypher qa remove "):
        qa.index(tmp_path / "copy")
    without = QuestionAnswering(tmp_path / "store", model="no-such-model")
    with pytest.raises(DataError, match="nothing of nowhere is in the store"):
        without.remove([tmp_path / "copy", "nowhere"])
    assert without.remove(tmp_path / "copy") == 3
    assert {answer.document for answer in qa.ask("What is it?").answers} == {None, str(docs / "mill.txt")}
    with pytest.raises(DataError, match="copy does not exist: needs a file or a folder"):
        qa.index(tmp_path / "copy")
    with pytest.raises(WrongStoreError, match="there is no store"):
        QuestionAnswering(tmp_path / "none").remove(docs)


def test_models_are_fetched_with_progress(
    reader: Path, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, object]] = []

    def resolve(name: str, *, progress: object = None, **options: object) -> Path:
        told.append((name, progress))
        return Path(name)

    def progress(what: str, done: int, total: int) -> None: ...

    monkeypatch.setattr("cypher.hub.resolve", resolve)
    monkeypatch.setattr("cypher.models.load.resolve", resolve)
    qa = QuestionAnswering(tmp_path / "store", model=str(tiny_bert), reader=reader, precision="fp32")
    qa.load(progress=progress)
    # The encoder, and what stands under the reader's adapter, which then is there.
    assert told == [(str(tiny_bert), progress), (str(tiny_bert), progress), (str(tiny_bert), None)]


def test_making_one_loads_nothing() -> None:
    script = (
        "import sys; from cypher.apps.qa import QuestionAnswering; QuestionAnswering('nowhere', reader='nobody');"
        "print([name for name in ('torch', 'lancedb', 'pyarrow', 'numpy', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("text", "span", "characters", "expected"),
    [
        ("one two three four five", (8, 13), 100, "one two three four five"),
        ("one two three four five", (8, 13), 4, "two three"),
        ("one two three four five", (8, 13), 5, "two three four"),
        ("one two three four five", (8, 13), 0, "three"),
        ("one\n\n two  \t three", (6, 9), 4, "two"),
        ("a" * 50, (20, 22), 5, "aa"),
        ("three", (0, 5), 10, "three"),
    ],
)
def test_contexts_are_cut_between_words(text: str, span: tuple[int, int], characters: int, expected: str) -> None:
    left, right = context_around(text, *span, characters=characters)
    assert left <= span[0]
    assert span[1] <= right
    assert text[left:right] == expected


def answer_at(path: Path, text: str, answer: str, *, page: int | None = None) -> AskResult:
    start = text.index(answer)
    left, right = context_around(text, start, start + len(answer))
    found = Answer(
        answer=answer,
        score=0.9,
        context=text[left:right],
        document=str(path),
        document_id="d",
        meta={},
        offset_start=start,
        offset_end=start + len(answer),
        page=page,
        context_start=left,
    )
    none = Answer(answer=None, score=0.1)
    timings = Timings(retrieve_s=0.01, read_s=0.2, total_s=0.21)
    return AskResult(query="What <is> it?", answers=(found, none), no_answer_score=0.1, timings=timings)


def test_the_page_marks_the_answer_in_its_page(docs: Path) -> None:
    text = read_document(docs / "paged.pdf").text
    html = answer_page(answer_at(docs / "paged.pdf", text, "costs nothing", page=2))
    assert '<mark class="c0" title="answer 0.90">costs nothing</mark>.</div>' in html
    assert "The ferry to the island" in html
    assert "The first page" not in html
    assert f"{docs / 'paged.pdf'}:2" in html
    assert "What &lt;is&gt; it?" in html
    assert "2. No answer in these documents (0.10)" in html


def test_the_page_shows_the_context_of_a_file_that_changed_or_went(tmp_path: Path) -> None:
    path = tmp_path / "long.txt"
    text = f"{'word ' * 600}The answer is forty-two. {'word ' * 600}"
    path.write_text(text)
    result = answer_at(path, text, "forty-two")
    whole = answer_page(result)
    path.write_text(f"Something before. {text}")
    changed = answer_page(result)
    path.unlink()
    assert changed == answer_page(result)
    for html in (whole, changed):
        assert '<mark class="c0" title="answer 0.90">forty-two</mark>' in html
    assert 1000 < len(whole) - len(changed) < 4000

from __future__ import annotations

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from cypher.data.fetch import locate
from cypher.data.readers import SquadAnswer, read_cranfield, read_squad
from cypher.errors import DataError

CONTEXT = "Zoë lives in Zürich."
GOOD: dict[str, Any] = {
    "version": "v2.0",
    "data": [
        {
            "title": "Zoë",
            "paragraphs": [
                {
                    "context": CONTEXT,
                    "qas": [
                        {
                            "id": "1",
                            "question": "Where?",
                            "answers": [{"text": "Zürich", "answer_start": 13}],
                            "is_impossible": False,
                        },
                        {"id": "2", "question": "When?", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def changed(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    """GOOD with one place set, or removed when the value is ``...``."""
    content = copy.deepcopy(GOOD)
    place: Any = content
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return content


def write(folder: Path, content: object, *, zipped: bool = False) -> Path:
    body = json.dumps(content).encode()
    path = folder / ("set.json.gz" if zipped else "set.json")
    path.write_bytes(gzip.compress(body) if zipped else body)
    return path


@pytest.mark.parametrize("zipped", [False, True])
def test_version_2_with_and_without_gzip(tmp_path: Path, zipped: bool) -> None:
    (paragraph,) = read_squad(write(tmp_path, GOOD, zipped=zipped))
    answerable, impossible = paragraph.questions
    assert (paragraph.title, paragraph.context) == ("Zoë", CONTEXT)
    assert (answerable.id, answerable.question, answerable.is_impossible) == ("1", "Where?", False)
    assert answerable.answers == (SquadAnswer(text="Zürich", start=13),)
    assert (impossible.answers, impossible.is_impossible) == ((), True)


def test_version_1_has_no_mark_and_all_is_answerable(tmp_path: Path) -> None:
    content = changed(("data", 0, "paragraphs", 0, "qas", 0, "is_impossible"), ...)
    assert not read_squad(write(tmp_path, content))[0].questions[0].is_impossible


QAS = ("data", 0, "paragraphs", 0, "qas", 0)


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("data",), ..., r'the file has no "data": needs a list'),
        (("data", 0, "paragraphs"), ..., r'data\[0\] has no "paragraphs"'),
        (("data", 0), "x", r"data\[0\] is a str: needs a JSON object"),
        (("data", 0, "title"), 7, r'data\[0\] has a int as "title"'),
        (("data", 0, "paragraphs", 0, "context"), ..., r'paragraphs\[0\] has no "context": needs a str'),
        ((*QAS, "id"), ..., r'data\[0\]\.paragraphs\[0\]\.qas\[0\] has no "id"'),
        ((*QAS, "question"), None, r'qas\[0\] has a NoneType as "question"'),
        ((*QAS, "is_impossible"), "no", r'qas\[0\] has a str as "is_impossible": needs a bool'),
        ((*QAS, "is_impossible"), True, r"qas\[0\] is marked impossible and has 1 answers"),
        ((*QAS, "answers", 0, "text"), ..., r'qas\[0\]\.answers\[0\] has no "text"'),
        ((*QAS, "answers", 0, "answer_start"), True, r'has a bool as "answer_start": needs a int'),
        # What an offset counted in bytes looks like: ë is one character and two bytes.
        (
            (*QAS, "answers", 0, "answer_start"),
            14,
            r"'Zürich' is not at character 14 .*\(there is 'ürich\.'\); count",
        ),
        ((*QAS, "answers", 0, "answer_start"), -7, r"is not at character -7"),
        ((*QAS, "answers", 0, "answer_start"), 99, r"is not at character 99"),
        ((*QAS, "answers", 0, "text"), "", r"'' is not at character 13"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(
    tmp_path: Path, path: tuple[str | int, ...], value: object, message: str
) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read_squad(write(tmp_path, changed(path, value)))
    assert str(tmp_path / "set.json") in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is not JSON .*: needs a file in SQuAD's format"),
        (b"[]", "the file is a list: needs a JSON object"),
        (gzip.compress(b"{}" * 100)[:15], "is a broken gzip file"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (None, "cannot be read .No such file"),
    ],
)
def test_files_that_are_something_else(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "set.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_squad(path)


def write_cranfield(folder: Path, judgments: str = "1 0 2 1\n2 0 1 0\n") -> None:
    document = "<doc>\n<docno>{0}</docno>\n<title>t{0}</title>\n<author>a</author>\n"
    document += "<bib>b & c</bib>\n<text>{1}</text>\n</doc>\r\n"
    (folder / "cran.all.1400.xml").write_text(document.format(1, "x\r\ny") + document.format(2, ""), newline="")
    queries = "<top>\n<num> {0}</num>\n<title>\nq{0} ?\n</title>\n</top>\n"
    (folder / "cran.qry.xml").write_text("<?xml version='1.0'?>\n<xml>\n" + queries.format(4) + queries.format(8))
    (folder / "cranqrel.trec.txt.gz").write_bytes(gzip.compress(judgments.encode()))


def test_cranfield_queries_are_judged_by_position(tmp_path: Path) -> None:
    write_cranfield(tmp_path)
    documents, queries, judgments = read_cranfield(tmp_path)
    assert [(row.id, row.title, row.bibliography, row.text) for row in documents] == [
        ("1", "t1", "b & c", "x\ny"),
        ("2", "t2", "b & c", ""),
    ]
    assert [(query.id, query.text) for query in queries] == [("1", "q4 ?"), ("2", "q8 ?")]
    assert judgments == {"1": {"2": 1}, "2": {"1": 0}}


@pytest.mark.parametrize(
    ("judgments", "message"),
    [
        ("4 0 1 1\n", "line 1: query 4 or document 1 is not in the collection"),
        ("1 0 1 1\n1 0 3 1\n", "line 2: query 1 or document 3 is not in the collection"),
        ("1 0 1\n", "line 1: '1 0 1': needs topic, iteration, document, grade"),
        ("1 0 1 yes\n", "line 1: '1 0 1 yes': needs topic"),
    ],
)
def test_judgments_must_fit_the_collection(tmp_path: Path, judgments: str, message: str) -> None:
    write_cranfield(tmp_path, judgments)
    with pytest.raises(DataError, match=message):
        read_cranfield(tmp_path)


def test_a_missing_or_foreign_cranfield_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no .*cran\.all\.1400\.xml, plain or \.gz; run `cypher data fetch"):
        read_cranfield(tmp_path)
    write_cranfield(tmp_path)
    (tmp_path / "cran.qry.xml").write_text("hello")
    with pytest.raises(DataError, match=r"cran\.qry\.xml has no <top>"):
        read_cranfield(tmp_path)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "paragraphs", "questions", "impossible"),
    [
        ("squadshifts/new_wiki", 1581, 7938, 0),
        ("squadshifts/amazon", 2050, 9885, 0),
        ("squadshifts/reddit", 2035, 9803, 0),
        ("squad/squad2_dev_open", 259, 2405, 1263),
    ],
)
def test_real_squad_files(real_data: Path, name: str, paragraphs: int, questions: int, impossible: int) -> None:
    read = read_squad(locate(name, offline=True))
    asked = [question for paragraph in read for question in paragraph.questions]
    assert (len(read), len(asked), sum(q.is_impossible for q in asked)) == (paragraphs, questions, impossible)
    assert all(question.answers or question.is_impossible for question in asked)


@pytest.mark.real_data
def test_real_cranfield(real_data: Path) -> None:
    documents, queries, judgments = read_cranfield(locate("cranfield", offline=True))
    assert (len(documents), len(queries), sum(map(len, judgments.values()))) == (1400, 225, 1837)
    assert [row.id for row in documents if not row.text] == ["471", "995"]
    assert queries[224].text.startswith("what design factors can be used to control lift-drag ratios")
    assert len(judgments) == 225

"""Tables as people and spreadsheets write them: read exactly, or refused with what is odd."""

import pytest

from trans4init.ablations.data import table as tables
from trans4init.ablations.data.classification import ClassificationConfig, labelled_texts, left_out
from trans4init.ablations.data.table import read_table
from trans4init.ablations.errors import InputError

COLUMNS = ("text", "label")


def written(folder, text, name="mine.csv"):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("name", "text", "rows"),
    [
        ("a.csv", "text,label\na b,x\nc,y\n", [("a b", "x"), ("c", "y")]),
        ("a.csv", "label,other,text\r\nx,1,a b\r\ny,2,c\r\n", [("a b", "x"), ("c", "y")]),
        ("a.csv", b"\xef\xbb\xbftext,label\na,x\n", [("a", "x")]),
        ("a.csv", 'text,label\n"a, and ""b""\nbelow, below",x\n', [('a, and "b"\nbelow, below', "x")]),
        ("a.csv", "text;label\na, b;x\n", [("a, b", "x")]),
        ("a.csv", "sep=;\ntext;label\na, b;x\n", [("a, b", "x")]),
        ("a.csv", "text\tlabel\na, b\tx\n", [("a, b", "x")]),
        ("a.tsv", 'text\tlabel\n"a said\tx\nno "b"\ty\n', [('"a said', "x"), ('no "b"', "y")]),
        ("a.csv", "text,label\n\n\na,x\n ,\n\nb,y", [("a", "x"), ("b", "y")]),
        ("a.tsv", '"text"\t"label"\n"a\tb"\t"x"\n', [("a\tb", "x")]),
    ],
)
def test_a_table_is_read_as_it_was_written(tmp_path, name, text, rows):
    path = written(tmp_path, text, name)
    assert read_table(path, COLUMNS).rows == rows


def test_a_text_that_begins_with_a_quote_swallows_no_rows(tmp_path):
    lines = [f"text number {row}\t{'pos' if row % 2 else 'neg'}" for row in range(60)]
    lines[20], lines[50] = '"So it begins, he said\tneg', 'He said "so be it"\tpos'
    path = written(tmp_path, "\n".join(["text\tlabel", *lines]), "mine.tsv")
    assert len(read_table(path, COLUMNS).rows) == 60
    parts = labelled_texts(ClassificationConfig(source=str(path)))
    assert sum(map(len, parts.values())) == 60


def test_what_can_be_read_in_two_ways_is_asked_about(tmp_path):
    path = written(tmp_path, 'text\tlabel\n"a\tx\nb\ty\nc"\tz\n', "mine.tsv")
    with pytest.raises(InputError, match="has 1 or 3 rows, as its quotes enclose fields or are part of them"):
        read_table(path, COLUMNS)
    assert read_table(path, COLUMNS, quote="none").rows == [('"a', "x"), ("b", "y"), ('c"', "z")]
    assert read_table(path, COLUMNS, quote='"').rows == [("a\tx\nb\ty\nc", "z")]


def test_a_long_text_is_no_error(tmp_path):
    path = written(tmp_path, f"text,label\n{'word ' * 40_000},x\n")
    assert len(read_table(path, COLUMNS).rows[0][0]) == 199_999


@pytest.mark.parametrize(
    ("text", "options", "sentence"),
    [
        ("text,label\na, b,x\n", {}, r"row 1 \(it ends on line 2\) has 3 fields where the header has 2; enclose"),
        ("text,label\na,x\nb\n", {}, r"row 2 \(it ends on line 3\) has 1 field where the header has 2"),
        ("text,label\na,x\n", {"delimiter": "ab"}, "--delimiter is one character or comma, tab, semicolon, bar, not"),
        ("text,label\na,x\n", {"quote": "ab"}, "--quote is one character other than the delimiter, or none, not 'ab'"),
        ("text,text,label\na,b,x\n", {}, "has 2 columns called 'text'"),
        ("txt,label\na,x\n", {}, "unknown column 'text'; did you mean 'txt'"),
        ("", {}, "is empty: its first line must name the columns"),
        (b"text,label\n\xff,x\n", {}, "is not UTF-8"),
    ],
)
def test_what_is_odd_is_said_in_one_sentence(tmp_path, text, options, sentence):
    with pytest.raises(InputError, match=sentence) as caught:
        read_table(written(tmp_path, text), COLUMNS, **options)
    assert "\n" not in str(caught.value)


def test_what_is_no_file_or_too_large_is_refused(tmp_path, monkeypatch):
    (tmp_path / "mine.csv").mkdir()
    with pytest.raises(InputError, match=r"mine\.csv is no regular file"):
        read_table(tmp_path / "mine.csv", COLUMNS)
    monkeypatch.setattr(tables, "LARGEST_TABLE", 10)
    with pytest.raises(InputError, match="has 15 bytes; at most 10 are read"):
        read_table(written(tmp_path, "text,label\na,x\n", "other.csv"), COLUMNS)


def test_rows_that_are_left_out_are_named(tmp_path):
    rows = [f"text {row},{'x' if row % 2 else 'y'}" for row in range(40)]
    rows[3], rows[7] = "text 3,", ",x"
    path = written(tmp_path, "\n".join(["text,label", *rows]))
    config = ClassificationConfig(source=str(path))
    assert left_out(config) == "2 rows without a text or a label are left out: 4, 8."
    assert sum(map(len, labelled_texts(config).values())) == 38
    assert left_out(ClassificationConfig()) == ""

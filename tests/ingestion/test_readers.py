"""Files as people leave them: whatever is in them, no record is lost and none raises."""

import bz2
import csv
import gzip
import io
import json
import lzma
import math
from contextlib import suppress
from datetime import UTC, date, datetime

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion import archives, table_readers, text_readers
from rpo_pipeline.ingestion.json_stream import PIECE
from rpo_pipeline.ingestion.quarantine import Reason
from rpo_pipeline.ingestion.readers import read_records
from rpo_pipeline.params import SourceParams

A, B = {"prompt": "Näh 🙂", "response": "a"}, {"prompt": "b", "response": "B"}
LONG = {"prompt": "x" * (3 * PIECE), "response": 'long \\" }], {'}
BROKEN, INVALID = Reason.BROKEN_RECORD, Reason.INVALID_TEXT


def text_of(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def read(path, content=None, encoding="utf-8"):
    if content is not None:
        path.write_bytes(content)
    return [record.fields for record in read_records(path, encoding)]


a, b, long = (text_of(record).strip() for record in (A, B, LONG))
# What is nasty: ending, content, and what comes of it.
NASTY = {
    "a byte order mark": (".jsonl", b"\xef\xbb\xbf" + a.encode(), [A]),
    "marks of joined files": (".jsonl", f"\ufeff{a}\n\ufeff{b}\n".encode(), [A, B]),
    "UTF-16, little end first": (".jsonl", text_of(A, B).encode("utf-16"), [A, B]),
    "UTF-16 without a mark": (".jsonl", text_of(A, B).encode("utf-16-le"), [A, B]),
    "UTF-16, big end first": (".csv", "\ufeffprompt,response\nb,B\n".encode("utf-16-be"), [B]),
    "UTF-16 in an array": (".json", json.dumps([A, B]).encode("utf-16"), [A, B]),
    "half a character of UTF-16": (
        ".jsonl",
        f"{a}\n{b}".encode("utf-16")[:-1],
        [A, INVALID],
    ),
    "UTF-32": (".jsonl", text_of(A, B).encode("utf-32"), [A, B]),
    "another encoding": (
        ".jsonl",
        f"{b}\n".encode() + a.encode("latin-1", "replace"),
        [B, INVALID],
    ),
    "bytes that are no text": (
        ".jsonl",
        f"{a}\n".encode() + b"\xff\xfe\n" + b.encode(),
        [A, INVALID, B],
    ),
    "line ends of Windows": (".jsonl", text_of(A, B).replace("\n", "\r\n").encode(), [A, B]),
    "other line ends in a text": (
        ".jsonl",
        text_of({"p": "x\u2028y\u0085z"}).encode(),
        [{"p": "x\u2028y\u0085z"}],
    ),
    "a raw line end of a Mac": (".jsonl", b'{"prompt": "x\ry"}\n' + b.encode(), [BROKEN, B]),
    "no last line end": (".jsonl", a.encode(), [A]),
    "a NUL between records": (".jsonl", b"\0\n" + a.encode(), [BROKEN, A]),
    "a lone surrogate": (".jsonl", b'{"prompt": "\\ud800"}\n', [{"prompt": "\ud800"}]),
    "a line of megabytes": (".jsonl", text_of(LONG, B).encode(), [LONG, B]),
    "an object encoded twice": (".jsonl", json.dumps(a).encode(), [A]),
    "infinity": (".jsonl", b'{"reward": -Infinity}\n', [{"reward": -math.inf}]),
    "a deep nest": (".jsonl", b"[" * 100_000 + b"\n" + b.encode(), [BROKEN, B]),
    "a number of 5,000 digits": (".jsonl", b'{"n": ' + b"9" * 5000 + b"}", [BROKEN]),
    "keys given twice": (
        ".jsonl",
        b'{"a": {"b": 1, "b": 2}}\n' + b.encode(),
        [Reason.DUPLICATE_KEY, B],
    ),
    "files joined without a line end": (".jsonl", f"{a}{b}\n{b} {a}".encode(), [A, B, B, A]),
    "a broken record behind a whole one": (".jsonl", f"{a}{b[:-3]}\n{b}".encode(), [A, BROKEN, B]),
    "something else behind a record": (".jsonl", f"{a} or so\n{b}".encode(), [BROKEN, B]),
    "an array": (".json", json.dumps([A, LONG, B]).encode(), [A, LONG, B]),
    "an array over many lines": (".json", json.dumps([A, B], indent=4).encode(), [A, B]),
    "an array that is not indented": (
        ".json",
        json.dumps([{"x": [A]}, B], indent=0).encode(),
        [{"x": [A]}, B],
    ),
    "an empty array": (".json", b" [ ]\n", []),
    "an array of no objects": (
        ".json",
        b'[1, "x", [2],\nnull]',
        [Reason.NOT_AN_OBJECT, BROKEN, Reason.NOT_AN_OBJECT, Reason.NOT_AN_OBJECT],
    ),
    "an array with a broken element": (
        ".json",
        f'[{a}, {{"prompt": }}, {b}]'.encode(),
        [A, BROKEN, B],
    ),
    "a bracket too few": (
        ".json",
        f'[\n{a},\n{{"prompt": {{"x": 1,\n{b}\n]'.encode(),
        [A, BROKEN, B],
    ),
    "a quote too few": (
        ".json",
        f'[\n  {a},\n  {{"prompt": "x,\n  {b}\n]'.encode(),
        [A, BROKEN, B],
    ),
    "a bracket too many": (".json", f"[{a}}}, {b}]".encode(), [A, BROKEN, B]),
    "an array that never ends": (
        ".json",
        f'[{a}, {{"prompt": "b'.encode(),
        [A, BROKEN, Reason.TRUNCATED],
    ),
    "an array cut between elements": (".json", f"[{a}, {b}".encode(), [A, B, Reason.TRUNCATED]),
    "lines in an array's file": (".json", f"{a}\nnonsense\n{b}\n".encode(), [A, BROKEN, B]),
    "objects over many lines": (
        ".json",
        "\n".join(json.dumps(x, indent=1) for x in (A, B)).encode(),
        [A, B],
    ),
    "a quoted line end": (".csv", b'prompt\n"b\nc"\nd\n', [{"prompt": "b\nc"}, {"prompt": "d"}]),
    "a row too short": (".csv", b"prompt,response\nb\nb,B\n", [BROKEN, B]),
    "a quote that never ends": (".csv", b'prompt,response\nx,"y\nb,B\nb,B\n', [BROKEN, B, B]),
    "a quote within a field": (".csv", b'prompt,response\nx,"y" z\nb,B\n', [BROKEN, B]),
    "a NUL in a table": (
        ".csv",
        b"prompt,response\nx,\0\nb,B\n",
        [{"prompt": "x", "response": "\0"}, B],
    ),
    "bytes that are no text in a table": (".csv", b"prompt,response\nx,\xff\nb,B\n", [INVALID, B]),
    "semicolons": (".csv", b"prompt;response\nb;B\n", [B]),
    "delimiters within quoted names": (
        ".csv",
        b'"the, full, prompt";response\nb;B\n',
        [{"the, full, prompt": "b", "response": "B"}],
    ),
    "a bar": (".csv", b"prompt|response\nb|B\n", [B]),
    "commas in a file of tabs": (
        ".tsv",
        b"a, b, c\tresponse\nb\tB\n",
        [{"a, b, c": "b", "response": "B"}],
    ),
    "the delimiter as Excel names it": (".csv", b"sep=;\r\nprompt;response\r\nb;B\r\n", [B]),
    "spaces behind commas": (
        ".csv",
        b'prompt, response\nb, "B, b"\n',
        [{"prompt": "b", "response": "B, b"}],
    ),
    "a space before one name": (
        ".csv",
        b"prompt,rating , response\nb,1, B\n",
        [{"prompt": "b", "rating": "1", "response": " B"}],
    ),
    "a table with a mark": (".csv", b'\xef\xbb\xbf"prompt",response\nb,B\n', [B]),
    "tabs": (".csv", b"prompt\tresponse\r\nb\tB\r\n", [B]),
    "blank lines in a table": (".csv", b"prompt,response\n\nb,B\n\n", [B]),
    "a field of megabytes": (
        ".csv",
        f"prompt,response\n{'y' * 3_000_000},z\n".encode(),
        [{"prompt": "y" * 3_000_000, "response": "z"}],
    ),
}


@pytest.mark.parametrize(("ending", "content", "expected"), NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_record_is_read_right_or_says_why_not(
    tmp_path, ending, content, expected, compressed
):
    path = tmp_path / f"log{ending}{'.gz' * compressed}"
    assert read(path, gzip.compress(content) if compressed else content) == expected


def zstd(content):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


COMPRESSED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("ending", COMPRESSED)
def test_compressed_files_are_read_and_cut_ones_say_so(tmp_path, ending):
    lines = [{"prompt": f"{i} {i * i}", "response": "x"} for i in range(3000)]
    whole = COMPRESSED[ending](text_of(*lines).encode())
    assert read(tmp_path / f"log.JSONL{ending.upper()}", whole) == lines
    cut = read(tmp_path / f"log.ndjson{ending}", whole[: len(whole) // 2])
    assert cut[-1] is Reason.TRUNCATED
    assert read(tmp_path / f"log.jsonl{ending}", b"nonsense") == [Reason.TRUNCATED]
    assert read(tmp_path / f"log.csv{ending}", b"") == []


@pytest.mark.parametrize("ending", COMPRESSED)
@pytest.mark.parametrize("filling", [b" ", b'{"prompt": "a", "response": "b"}\n'])
def test_an_archive_that_unpacks_without_end_ends_with_a_reason(
    tmp_path, monkeypatch, ending, filling
):
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2**20)
    bomb = COMPRESSED[ending](filling * (2**23 // len(filling)))
    records = list(read_records_of(tmp_path / f"log.jsonl{ending}", bomb))
    assert records[-1].fields is Reason.TRUNCATED
    assert "times its size" in records[-1].raw
    assert len(records) < 2**20


def read_records_of(path, content):
    path.write_bytes(content)
    return read_records(path)


def test_rows_of_megabytes_in_a_table_are_read_few_at_a_time(tmp_path):
    table = pa.table({"prompt": ["x" * 2**20] * 200, "response": ["y"] * 200})
    pq.write_table(table, tmp_path / "log.parquet", use_dictionary=False, compression="none")
    group = pq.ParquetFile(tmp_path / "log.parquet").metadata.row_group(0)
    assert table_readers._batch_rows(group) <= 64
    assert len(read(tmp_path / "log.parquet")) == 200


@pytest.mark.parametrize("named", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("marked", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv"])
def test_a_byte_order_mark_counts_more_than_the_encoding_that_is_named(
    tmp_path, named, marked, ending
):
    content = text_of(A, B) if ending == ".jsonl" else "prompt,response\nNäh 🙂,a\nb,B\n"
    assert read(tmp_path / f"log{ending}", content.encode(marked), named) == [A, B]


@pytest.mark.parametrize("order", ["le", "be"])
@pytest.mark.parametrize("named", ["utf-16", "utf-32"])
def test_files_of_utf_16_and_32_need_no_mark(tmp_path, named, order):
    assert read(tmp_path / "log.jsonl", text_of(A, B).encode(f"{named}-{order}"), named) == [A, B]
    table = "問,答\nb,B\n".encode("utf-16-le")  # nothing in its start tells
    assert read(tmp_path / "log.csv", table, "utf-16") == [{"問": "b", "答": "B"}]


@pytest.mark.parametrize(
    ("spelled", "name"), [("UTF8", "utf-8"), ("Utf_16", "utf-16"), ("latin1", "iso8859-1")]
)
def test_an_encoding_is_known_by_any_spelling_of_its_name(spelled, name):
    assert SourceParams(path="log.csv", encoding=spelled).encoding == name


def test_an_encoding_without_a_mark_can_be_named(tmp_path):
    record = {"prompt": "Näh", "response": "a"}
    assert read(tmp_path / "log.jsonl", text_of(record).encode("cp1252"), "cp1252") == [record]


def test_invalid_bytes_are_escaped_and_lines_counted_as_an_editor_does(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_bytes(b'{"x": 1}\r\n\r\n{"prompt": "\xff"}\r\n')
    record = list(read_records(path))[1]
    assert (record.line, record.raw) == (3, '{"prompt": "\\xff"}')


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv"])
def test_a_record_without_end_costs_no_more_memory_than_the_limit(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(text_readers, "MAX_RECORD", 1000)
    monkeypatch.setattr(text_readers, "KEPT_OF_TOO_LONG", 10)
    content = {
        ".jsonl": f'{a}\n{{"x": "{"y" * 5000}"}}\n{b}\n',
        ".json": f'[{a}, {{"x": "{"y" * 5000}"}}, {b}]',
        ".csv": f"prompt,response\n{A['prompt']},a\n{'y' * 5000},z\nb,B\n",
    }[ending]
    assert read(tmp_path / f"log{ending}", content.encode()) == [A, Reason.TOO_LONG, B]


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv"])
@pytest.mark.parametrize("damage", ["cut", "changed"])
def test_a_damaged_compressed_file_says_so_behind_what_was_read(tmp_path, ending, damage):
    lines = [{"prompt": f"{i} " * 50, "response": "x"} for i in range(5000)]
    content = {
        ".jsonl": text_of(*lines),
        ".json": json.dumps(lines),
        ".csv": "prompt,response\n" + "".join(f"{line['prompt']},x\n" for line in lines),
    }[ending]
    whole = gzip.compress(content.encode())
    half = len(whole) // 2
    damaged = whole[:half] + (b"" if damage == "cut" else b"\xff" * 99 + whole[half + 99 :])
    records = read(tmp_path / f"log{ending}.gz", damaged)
    assert records[0] == lines[0]
    assert records[-1] is Reason.TRUNCATED


def test_rows_of_a_table_that_are_not_what_their_type_says_cost_no_other(tmp_path):
    binary = pa.array([b"fine", b"\xff\xfe"], pa.binary())
    text = pa.StringArray.from_buffers(2, *binary.buffers()[1:])
    pq.write_table(pa.table({"prompt": text, "reward": [1, 2]}), tmp_path / "log.parquet")
    records = list(read_records(tmp_path / "log.parquet"))
    assert [record.fields for record in records] == [{"prompt": "fine", "reward": 1}, INVALID]
    assert json.loads(records[1].raw) == {"prompt": "\\xff\\xfe", "reward": 2}


def test_a_value_that_python_cannot_hold_costs_no_other(tmp_path):
    far = pa.array([1, 3_000_000], pa.int32()).cast(pa.date32())
    nested = pa.StructArray.from_arrays([far, pa.array([4, 5])], ["day", "stars"])
    lists = pa.ListArray.from_arrays([0, 1, 2], far)
    long = pa.array([1, 2**62], pa.int64()).cast(pa.duration("s"))
    columns = {"prompt": ["a", "b"], "day": far, "meta": nested, "days": lists, "took": long}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    first, second = read(tmp_path / "log.parquet")
    assert (first["prompt"], first["day"], first["days"]) == ("a", date(1970, 1, 2), [first["day"]])
    assert (second["prompt"], second["meta"]["stars"]) == ("b", 5)
    unread = (second["day"], second["meta"]["day"], *second["days"], second["took"])
    assert {type(value) for value in unread} == {table_readers.Unread}


@pytest.mark.parametrize("zone", ["US/Pacific-New", "GMT+5", "Europe/Paris"])
def test_an_instant_is_read_whatever_its_zone_is_called(tmp_path, zone):
    whens = pa.array([0, None], pa.timestamp("us", tz=zone))
    nested = pa.StructArray.from_arrays([whens], ["when"])
    pq.write_table(pa.table({"when": whens, "meta": nested}), tmp_path / "log.parquet")
    first, second = read(tmp_path / "log.parquet")
    assert first["when"] == first["meta"]["when"] == datetime(1970, 1, 1, tzinfo=UTC)
    assert second == {"when": None, "meta": {"when": None}}


def test_a_damaged_group_of_rows_costs_no_other_group(tmp_path):
    path = tmp_path / "log.parquet"
    texts = [f"{number} " + "word " * 200 for number in range(3000)]
    pq.write_table(pa.table({"prompt": texts}), path, row_group_size=1000, use_dictionary=False)
    content = bytearray(path.read_bytes())
    start = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    content[start : start + 200] = b"\xff" * 200
    records = list(read(path, bytes(content)))
    kept = [record["prompt"] for record in records if not isinstance(record, Reason)]
    assert kept == texts[:1000] + texts[2000:]
    assert records[1000] is BROKEN


def test_files_of_arrow_are_read_in_either_form(tmp_path):
    table = pa.table({"prompt": ["a", "b"]})
    with (
        pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file,
        pa.ipc.new_file(file, table.schema) as w,
    ):
        w.write_table(table)
    with (
        pa.OSFile(str(tmp_path / "b.arrow"), "wb") as file,
        pa.ipc.new_stream(file, table.schema) as w,
    ):
        w.write_table(table)
    assert read(tmp_path / "a.arrow") == read(tmp_path / "b.arrow") == table.to_pylist()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.parquet", b"PAR1", "no Parquet file"),
        ("log.arrow", b"ARROW1", "no Arrow file"),
        ("log.arrow", b"x", "no Arrow file"),
        ("log.xlsx", b"x", "ends in none of"),
        ("log.csv", b"prompt,prompt\nx,y\n", "more than one column 'prompt'"),
        ("log.csv", b'"prompt', "header is no CSV"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, content)


@given(
    content=st.binary(),
    ending=st.sampled_from(
        ".jsonl .json .csv .tsv .parquet .arrow .jsonl.gz .csv.bz2 .jsonl.xz .json.zst".split()
    ),
)
def test_no_bytes_raise_anything_but_an_error_for_people(tmp_path_factory, content, ending):
    with suppress(DataError):
        read(tmp_path_factory.getbasetemp() / f"fuzz{ending}", content)


junk = st.lists(st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")), max_size=4)


@given(junk=junk, place=st.integers(0, 4))
def test_good_lines_survive_whatever_stands_between_them(tmp_path_factory, junk, place):
    lines = [b'{"first": 1}', *junk[:place], a.encode(), *junk[place:], b.encode()]
    path = tmp_path_factory.getbasetemp() / "junk.jsonl"
    records = read(path, b"\n".join(lines))
    assert A in records
    assert records[-1] == B
    texts = [line.decode(errors="surrogateescape") for line in junk]
    assert len(records) == 3 + sum(bool(text.strip()) for text in texts)


@given(broken=st.lists(st.text(alphabet='{}[]",: \\x', max_size=12), max_size=4))
def test_good_elements_survive_broken_ones_in_a_list_written_line_by_line(tmp_path_factory, broken):
    lines = [a, *(f'{{"x": {text}' for text in broken), b, b]
    path = tmp_path_factory.getbasetemp() / "broken.json"
    records = read(path, f"[\n{f',{chr(10)}'.join(lines)}\n]".encode())
    assert records[0] == A
    assert records.count(B) == 2


fields = st.text(st.characters(exclude_categories=["Cs"]), max_size=9)


@given(
    rows=st.lists(st.tuples(fields, fields), max_size=5), dialect=st.sampled_from(["excel", "unix"])
)
def test_a_csv_that_python_wrote_is_read_as_it_was(tmp_path_factory, rows, dialect):
    text = io.StringIO(newline="")
    csv.writer(text, dialect).writerows([("prompt", "response"), *rows])
    path = tmp_path_factory.getbasetemp() / "written.csv"
    written = [{"prompt": p, "response": r} for p, r in rows]
    assert read(path, text.getvalue().encode()) == written


@given(
    value=st.recursive(
        st.none() | st.text(max_size=9) | st.integers(),
        lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text(max_size=3), v, max_size=3),
    ),
    indent=st.sampled_from([None, 2]),
)
def test_any_list_that_python_wrote_is_read_as_it_was(tmp_path_factory, value, indent):
    path = tmp_path_factory.getbasetemp() / "written.json"
    records = [{"x": value}, {"y": value}]
    assert read(path, json.dumps(records, indent=indent).encode()) == records


def test_every_type_of_file_gives_the_same_records(tmp_path):
    table = pd.DataFrame([A, B])
    (tmp_path / "a.jsonl").write_text(text_of(A, B))
    table.to_json(tmp_path / "a.json", orient="records")
    table.to_csv(tmp_path / "a.csv.gz", index=False)
    table.to_parquet(tmp_path / "a.parquet")
    Dataset.from_pandas(table).save_to_disk(tmp_path / "saved")
    files = [*tmp_path.glob("a.*"), *tmp_path.rglob("*.arrow")]
    assert [read(file) for file in files] == [[A, B]] * 5

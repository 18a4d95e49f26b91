import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from rpo_pipeline.data.sources import read_sources
from rpo_pipeline.errors import DataError
from rpo_pipeline.params import SourceParams

GOOD = {"prompt": "Hello", "response": "Hi", "reward": 1.0}


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path):
    rows, quarantine = read_sources([SourceParams(path=path)], Path("parts"))
    return rows.to_pyarrow().to_pylist(), quarantine.to_dict("records")


def jsonl(*lines):
    return b"".join(
        (line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines
    )


def test_one_broken_line_never_costs_another(in_folder):
    (in_folder / "log.jsonl").write_bytes(
        jsonl(GOOD, b'{"prompt": "Hel', b"\xff\xfe", b"[1]", b'{"prompt": 1, "prompt": 2}', GOOD)
    )
    rows, quarantine = read("log.jsonl")
    assert [row["origin"] for row in rows] == ["log.jsonl:1", "log.jsonl:6"]
    assert [(q["origin"], q["line"], q["reason"]) for q in quarantine] == [
        ("log.jsonl", 2, "broken_record"),
        ("log.jsonl", 3, "invalid_text"),
        ("log.jsonl", 4, "not_an_object"),
        ("log.jsonl", 5, "duplicate_key"),
    ]
    assert quarantine[0]["raw"] == '{"prompt": "Hel'


def test_a_nan_literal_and_an_empty_response_are_quarantined_with_their_text(in_folder):
    nan = b'{"prompt": "Hello", "response": "Hi", "reward": NaN}'
    (in_folder / "log.jsonl").write_bytes(jsonl(nan, {**GOOD, "response": ""}))
    rows, quarantine = read("log.jsonl")
    assert rows == []
    assert [q["reason"] for q in quarantine] == ["reward_not_finite", "missing_response"]
    assert quarantine[0]["raw"] == nan.decode()


def test_byte_order_mark_crlf_and_blank_lines_are_no_content(in_folder):
    line = json.dumps(GOOD).encode()
    (in_folder / "log.jsonl").write_bytes(b"\xef\xbb\xbf" + line + b"\r\n\r\n" + line + b"\r\n")
    rows, quarantine = read("log.jsonl")
    assert [row["origin"] for row in rows] == ["log.jsonl:1", "log.jsonl:3"]
    assert quarantine == []


def test_every_type_of_file_gives_the_same_rows(in_folder):
    table = pd.DataFrame([GOOD, {"prompt": "Näh?", "response": 'a,\n"b"', "reward": -0.5}])
    (in_folder / "a.jsonl").write_bytes(jsonl(*table.to_dict("records")))
    with gzip.open(in_folder / "b.jsonl.gz", "wb") as file:
        file.write(jsonl(*table.to_dict("records")))
    table.to_csv(in_folder / "c.csv", index=False)
    table.to_parquet(in_folder / "d.parquet")
    contents = []
    for path in ("a.jsonl", "b.jsonl.gz", "c.csv", "d.parquet"):
        rows, quarantine = read(path)
        assert quarantine == []
        contents.append([(r["row_id"], r["prompt"], r["response"], r["raw_reward"]) for r in rows])
    assert all(content == contents[0] for content in contents)


def test_a_csv_line_with_too_few_fields_is_quarantined_under_its_line_number(in_folder):
    (in_folder / "log.csv").write_text('prompt,response,reward\n"a\nb",c,1\nd,e\nf,g,2\n')
    rows, quarantine = read("log.csv")
    assert [row["origin"] for row in rows] == ["log.csv:2", "log.csv:5"]
    assert [(q["line"], q["reason"]) for q in quarantine] == [(4, "broken_record")]


def test_a_gzip_file_cut_short_keeps_what_was_read_and_says_where_it_ends(in_folder):
    many = jsonl(*[{**GOOD, "response": f"answer {i}" * 50} for i in range(2000)])
    whole = gzip.compress(many)
    (in_folder / "log.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    rows, quarantine = read("log.jsonl.gz")
    assert rows
    assert quarantine[-1]["reason"] == "truncated"


def test_a_glob_reads_its_files_in_order_of_name(in_folder):
    for name in ("b", "a"):
        (in_folder / f"{name}.jsonl").write_bytes(jsonl({**GOOD, "response": name}))
    rows, _ = read("*.jsonl")
    assert [row["response"] for row in rows] == ["a", "b"]


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        ("missing.jsonl", None, "no file matches 'missing.jsonl'"),
        ("log.xlsx", b"x", "ends in none of"),
        ("../log.jsonl", None, "leaves the project folder"),
        ("empty.jsonl", b"", "holds no record"),
        ("log.parquet", b"not parquet", "no Parquet file"),
    ],
)
def test_a_source_that_cannot_be_read_is_named_with_what_to_do(in_folder, path, content, message):
    if content is not None:
        (in_folder / path).write_bytes(content)
    with pytest.raises(DataError, match=r"ingestion\.sources") as error:
        read(path)
    assert message in str(error.value)

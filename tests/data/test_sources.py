import gzip
import json
import logging
import tracemalloc
from pathlib import Path

import pandas as pd
import pytest
from pydantic import ValidationError

from rpo_pipeline.data import sources
from rpo_pipeline.data.sources import read_rows, read_sources
from rpo_pipeline.errors import DataError
from rpo_pipeline.params import RatingParams, SourceParams
from tests.conftest import read_log

GOOD = {"prompt": "Hello", "response": "Hi", "reward": 1.0}


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(path, **settings):
    rows, rejected = read_log(SourceParams(path=path, **settings), folder=Path("parts"))
    return rows.to_pylist(), rejected.to_dict("records")


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


def test_a_file_is_read_once_for_as_long_as_it_stays_as_it_is(in_folder, caplog):
    caplog.set_level(logging.INFO)
    for name in ("a", "b"):
        (in_folder / f"{name}.jsonl").write_bytes(jsonl({**GOOD, "response": name}))
    first = read("*.jsonl")
    with (in_folder / "b.jsonl").open("ab") as log:
        log.write(jsonl({**GOOD, "response": "c"}))
    rows, _ = read("*.jsonl")
    assert "2 files read, 0 known" in caplog.text
    assert "1 files read, 1 known" in caplog.text
    assert rows[:2] == first[0]
    assert [row["response"] for row in rows] == ["a", "b", "c"]
    assert [row["position"] for row in rows] == [0, 1, 2]


def test_other_settings_read_a_file_again_and_forget_the_old_part(in_folder):
    (in_folder / "log.jsonl").write_bytes(jsonl({"q": "Hello", **GOOD}))
    assert read("log.jsonl")[0][0]["raw_reward"] == 1
    rows, _ = read("log.jsonl", ratings=[RatingParams(column="reward", scale=(1, 5))])
    assert rows[0]["raw_reward"] == -1
    assert len(list((in_folder / "parts").iterdir())) == 1


def test_a_reading_that_fails_half_way_leaves_no_part(in_folder):
    (in_folder / "a.jsonl").write_bytes(jsonl(GOOD))
    (in_folder / "b.jsonl").write_bytes(b"")
    with pytest.raises(DataError, match="holds no record"):
        read("*.jsonl")
    assert len(list((in_folder / "parts").iterdir())) == 1


def test_memory_does_not_grow_with_the_file(in_folder, monkeypatch):
    monkeypatch.setattr(sources, "BATCH_ROWS", 500)
    line = jsonl({**GOOD, "response": "x" * 2000})
    peaks = []
    for copies in (1000, 4000):
        with (in_folder / "log.jsonl").open("wb") as log:
            for _ in range(copies):
                log.write(line)
        tracemalloc.start()
        parts = read_sources([SourceParams(path="log.jsonl")], Path("parts"))
        assert sum(len(batch) for batch in read_rows(parts, Path("parts"))) == copies
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_a_link_out_of_the_project_is_refused(in_folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "log.jsonl"
    outside.write_bytes(jsonl(GOOD))
    (in_folder / "log.jsonl").symlink_to(outside)
    with pytest.raises(DataError, match="leaves the project folder"):
        read("log.jsonl")
    assert read(str(outside))[0]


def test_a_hub_dataset_needs_its_commit_and_says_when_it_cannot_be_had(in_folder):
    with pytest.raises(ValidationError, match="needs a revision"):
        SourceParams(path="hf://owner/name")
    with pytest.raises(DataError, match=r"'owner/name' at revision 'abc' cannot be read"):
        read("hf://owner/name", revision="abc")
    assert list((in_folder / "parts").iterdir()) == []

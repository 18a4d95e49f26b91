import gzip
import json
import logging
import os
import subprocess
import sys
import time
import tracemalloc
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict
from pydantic import ValidationError

from rpo_pipeline.errors import DataError
from rpo_pipeline.ingestion import parts
from rpo_pipeline.ingestion.redaction import Privacy
from rpo_pipeline.ingestion.sources import read_rows, read_sources
from rpo_pipeline.params import RatingParams, SourceParams
from rpo_pipeline.storage import freshness
from rpo_pipeline.storage.freshness import reach
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


def test_infinity_and_an_empty_response_are_quarantined_with_their_text(in_folder):
    infinite = b'{"prompt": "Hello", "response": "Hi", "reward": Infinity}'
    (in_folder / "log.jsonl").write_bytes(jsonl(infinite, {**GOOD, "response": ""}))
    rows, quarantine = read("log.jsonl")
    assert rows == []
    assert [q["reason"] for q in quarantine] == ["reward_not_finite", "missing_response"]
    assert quarantine[0]["raw"] == infinite.decode()


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
    assert "0 files unchanged, 2 read" in caplog.text
    assert "1 files unchanged, 1 read" in caplog.text
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
    (in_folder / "b.csv").write_bytes(b"prompt,prompt\n")
    with pytest.raises(DataError, match="more than one column"):
        read("*.*")
    assert len(list((in_folder / "parts").iterdir())) == 1


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".parquet"])
def test_memory_does_not_grow_with_the_file(in_folder, monkeypatch, ending):
    monkeypatch.setattr(parts, "BATCH_ROWS", 500)
    peaks = []
    for copies in (1000, 4000):
        table = pd.DataFrame([{**GOOD, "response": "x" * 2000}] * copies)
        write = {
            ".jsonl": partial(table.to_json, orient="records", lines=True),
            ".json": partial(table.to_json, orient="records"),
            ".csv": partial(table.to_csv, index=False),
            ".parquet": table.to_parquet,
        }[ending]
        write(in_folder / f"log{ending}")
        tracemalloc.start()
        known = read_sources([SourceParams(path=f"log{ending}")], Path("parts"))
        assert sum(len(batch) for batch in read_rows(known, Path("parts"))) == copies
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


def test_parts_of_a_log_by_date_are_read_once_each_and_go_with_their_file(in_folder, caplog):
    caplog.set_level(logging.INFO)
    for day in (1, 2, 3):
        folder = in_folder / f"log/date=2026-01-0{day}"
        folder.mkdir(parents=True)
        (folder / "part.jsonl").write_bytes(jsonl({**GOOD, "response": f"day {day}"}))
        (folder / ".part.jsonl").write_bytes(b"being written")
    assert len(read("log/date=2026-01-0[12]/*.jsonl")[0]) == 2
    assert len(read("log/**/*.jsonl")[0]) == 3
    assert "2 files unchanged, 1 read" in caplog.text
    (in_folder / "log/date=2026-01-01/part.jsonl").unlink()
    rows, _ = read("log")
    assert [row["response"] for row in rows] == ["day 2", "day 3"]
    assert len(list((in_folder / "parts").iterdir())) == 2


def test_folders_of_a_partitioned_log_are_fields_where_a_record_has_none_of_that_name(in_folder):
    folder = in_folder / "log" / "date=2026-11-01" / "model=v1%3Abeta"
    folder.mkdir(parents=True)
    (folder / "part.jsonl").write_bytes(jsonl(GOOD, {**GOOD, "prompt": "And?", "model": "v2"}))
    columns = {"timestamp": "date", "model_version": "model"}
    rows, _ = read("log/date=*/*/*.jsonl", columns=columns)
    assert [row["model_version"] for row in rows] == ["v1:beta", "v2"]
    assert {str(row["timestamp"])[:10] for row in rows} == {"2026-11-01"}


def test_a_file_of_two_sources_counts_once_with_the_settings_of_the_first(in_folder, caplog):
    (in_folder / "log.jsonl").write_bytes(jsonl({**GOOD, "stars": 5}))
    stars = SourceParams(path="log.jsonl", ratings=[RatingParams(column="stars")])
    rows, _ = read_log(stars, SourceParams(path="*.jsonl"), folder=Path("parts"))
    assert rows["raw_reward"].to_pylist() == [5]
    assert "log.jsonl is in more than one source" in caplog.text


def test_every_response_of_a_group_counts_as_a_row_that_was_read(in_folder):
    group = {"prompt": "Hello", "responses": ["Hi", "", "Yo"], "rewards": [1, 1, "bad"]}
    (in_folder / "log.jsonl").write_bytes(jsonl(group, b"{", {**group, "responses": []}))
    rows, quarantine = read("log.jsonl")
    assert [row["origin"] for row in rows] == ["log.jsonl:1"]
    assert [(q["line"], q["reason"]) for q in quarantine] == [
        (1, "missing_response"),
        (1, "reward_not_a_number"),
        (2, "broken_record"),
        (3, "missing_response"),
    ]


@pytest.mark.parametrize("splits", [False, True])
def test_a_saved_hugging_face_dataset_is_a_source(in_folder, splits):
    dataset = Dataset.from_list([GOOD, {**GOOD, "response": "Yo"}])
    saved = DatasetDict({"train": dataset, "more": dataset}) if splits else dataset
    saved.save_to_disk(in_folder / "saved")
    rows, quarantine = read("saved")
    assert [row["response"] for row in rows] == ["Hi", "Yo"] * (1 + splits)
    assert quarantine == []


@pytest.mark.parametrize("name", ["\udcff.jsonl", "a b\n.jsonl", "[x].jsonl"], ids=ascii)
def test_a_strange_file_name_is_no_reason_to_fail(in_folder, name):
    (in_folder / "log").mkdir()
    (in_folder / "log" / name).write_bytes(jsonl(GOOD))
    assert len(read("log")[0]) == 1


@pytest.mark.parametrize(
    "path", ["", ".", "**x/log.jsonl", "a\0b.jsonl", "/", "log/", "x" * 300, "log/" + "x" * 300]
)
def test_a_path_that_is_none_is_an_error_for_people(path):
    with pytest.raises(DataError, match=r"ingestion\.sources"):
        read(path)


@pytest.mark.parametrize(
    ("settings", "name", "meant"),
    [
        ({"ratings": [RatingParams(column="rewrad")]}, "rewrad", "reward"),
        ({"ratings": [RatingParams(column="meta.star")]}, "meta.star", "meta.stars"),
        ({"columns": {"timestamp": "tiem"}}, "tiem", "time"),
        ({"columns": {"prompt": "Prompt"}}, "Prompt", "prompt"),
    ],
)
def test_a_named_column_that_no_record_has_is_an_error_that_says_what_there_is(
    in_folder, settings, name, meant
):
    record = {**GOOD, "time": "2026-01-01", "meta": {"stars": 5}}
    (in_folder / "log.jsonl").write_bytes(jsonl(record, {**record, "prompt": "And?"}))
    for _again in range(2):  # also where the file is not read again
        with pytest.raises(DataError) as error:
            read("log.jsonl", format="flat", **settings)
        assert f"no record of log.jsonl has the column {name!r} (did you mean {meant!r}?)" in str(
            error.value
        )
        assert "prompt, response, reward, time, meta, meta.stars" in str(error.value)


def test_a_column_that_some_files_lack_is_a_warning_that_names_them(in_folder, caplog):
    (in_folder / "a.jsonl").write_bytes(jsonl({**GOOD, "stars": 5}))
    (in_folder / "b.jsonl").write_bytes(jsonl({**GOOD, "prompt": "And?"}))
    rows, _ = read("*.jsonl", ratings=[RatingParams(column="stars", scale=(1, 5))])
    assert [row["raw_reward"] for row in rows] == [1.0, None]
    assert "1 of 2 files have no column 'stars', such as b.jsonl" in caplog.text


@pytest.mark.parametrize("fields", [{"reward": None}, {"rating": 5}])
def test_a_log_without_any_rating_is_kept_and_warned_of(in_folder, caplog, fields):
    record = {"prompt": "Hello", "response": "Hi", **fields}
    (in_folder / "log.jsonl").write_bytes(jsonl(record))
    assert len(read("log.jsonl")[0]) == 1
    assert "no row of log.jsonl is rated: looked for reward" in caplog.text


def test_a_field_that_is_null_in_every_row_of_a_table_is_there(in_folder):
    answers = [{"text": "Hi", "reward": None}, {"text": "Yo", "reward": None}]
    (in_folder / "log.jsonl").write_bytes(jsonl({"prompt": "Hello", "responses": answers}))
    rows, _ = read("log.jsonl", ratings=[RatingParams(column="reward")])
    assert [row["raw_reward"] for row in rows] == [None, None]


@pytest.mark.parametrize("empty", [b"", b"\n\n", b"prompt,response\n"])
def test_an_empty_file_among_others_is_a_warning(in_folder, caplog, empty):
    (in_folder / "a.jsonl").write_bytes(jsonl(GOOD))
    (in_folder / "b.csv").write_bytes(empty)
    assert len(read("*.*")[0]) == 1
    assert "no record in b.csv" in caplog.text


def test_files_of_a_folder_that_cannot_be_read_are_named_and_no_others(in_folder, caplog):
    folder = in_folder / "logs"
    (folder / "deep").mkdir(parents=True)
    for number, name in enumerate(["a.jsonl", "b.ndjson", "C.JSONL", "deep/d.jsonl"]):
        (folder / name).write_bytes(jsonl({**GOOD, "response": f"{number}"}))
    (folder / "e.xlsx").write_bytes(b"x")
    (folder / "gone.jsonl").symlink_to(folder / "nowhere.jsonl")
    (folder / "README.md").write_text("About")
    (folder / "_SUCCESS").write_text("")
    rows, _ = read("logs")
    assert sorted(row["response"] for row in rows) == ["0", "1", "2", "3"]
    assert "2 files are not read" in caplog.text
    assert "logs/e.xlsx, logs/gone.jsonl" in caplog.text


def test_folders_behind_links_are_read_once_also_where_they_lead_in_a_circle(in_folder):
    (in_folder / "logs").mkdir()
    (in_folder / "elsewhere").mkdir()
    (in_folder / "elsewhere" / "log.jsonl").write_bytes(jsonl(GOOD))
    (in_folder / "logs" / "linked").symlink_to(in_folder / "elsewhere")
    (in_folder / "elsewhere" / "circle").symlink_to(in_folder / "logs")
    (in_folder / "logs" / "x.jsonl").mkdir()
    (in_folder / "logs" / "x.jsonl" / "part-0.json").write_bytes(jsonl({**GOOD, "prompt": "p"}))
    rows, _ = read("logs")
    assert len(rows) == 2


def test_a_file_by_two_paths_counts_once(in_folder, caplog):
    (in_folder / "log.jsonl").write_bytes(jsonl(GOOD))
    (in_folder / "again.jsonl").symlink_to(in_folder / "log.jsonl")
    sources = [SourceParams(path=path) for path in ("*.jsonl", str(in_folder / "log.jsonl"))]
    rows, _ = read_log(*sources, folder=Path("parts"))
    assert len(rows) == 1
    assert "log.jsonl is in more than one source, also as again.jsonl" in caplog.text


def test_a_file_that_grows_while_it_is_read_is_read_again_by_the_next_run(in_folder, caplog):
    log = in_folder / "log.jsonl"
    log.write_bytes(jsonl(GOOD))

    class Append(Privacy):
        @staticmethod
        def redact(text):
            if log.stat().st_size < 100:
                log.write_bytes(log.read_bytes() + jsonl({**GOOD, "response": "Yo"}))
            return text

    read_log(SourceParams(path="log.jsonl"), folder=Path("parts"), privacy=Append())
    assert "log.jsonl changed while it was read" in caplog.text
    assert [row["response"] for row in read("log.jsonl")[0]] == ["Hi", "Yo"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_or_folder_that_may_not_be_read_is_named(in_folder):
    log = in_folder / "logs" / "log.jsonl"
    log.parent.mkdir()
    log.write_bytes(jsonl(GOOD))
    for path in (log, log.parent):
        path.chmod(0)
        with pytest.raises(DataError, match="cannot be read: Permission denied"):
            read("logs")
        path.chmod(0o700)


def test_a_record_of_many_bad_responses_is_kept_once(in_folder):
    group = {"prompt": "Hello", "responses": ["x" * 100] * 1000, "rewards": ["bad"] * 1000}
    (in_folder / "log.jsonl").write_bytes(jsonl(group))
    _, quarantine = read("log.jsonl")
    assert len(quarantine) == 1000
    assert len(quarantine[0]["raw"]) == 2**16
    assert {len(q["raw"]) for q in quarantine[1:]} == {2**10}


def test_ten_thousand_responses_to_one_prompt_are_rows_like_any(in_folder):
    responses = [f"response {number}" for number in range(10_000)]
    group = {"prompt": "Hello", "responses": responses, "rewards": list(range(10_000))}
    (in_folder / "log.jsonl").write_bytes(jsonl(group))
    started = time.process_time()
    rows, _ = read("log.jsonl")
    assert len(rows) == 10_000
    assert time.process_time() - started < 20


COMMIT = "0123456789abcdef" * 2 + "01234567"


HUB_FILES = {"data/train.jsonl": jsonl(GOOD), "state.json": b"{}", "README.md": b"# About"}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as a download asks for."""

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        name = self.path.partition(f"/resolve/{COMMIT}/")[2]
        tree = self.path.startswith(f"/api/datasets/owner/name/tree/{COMMIT}")
        body = HUB_FILES.get(name, b"")
        if tree:
            entries = {"type": "file", "oid": "0" * 40}
            listed = [{**entries, "path": n, "size": len(text)} for n, text in HUB_FILES.items()]
            body = json.dumps(listed).encode()
        self.send_response(200 if tree or body else 404)
        self.send_header("ETag", f'"{len(body):040x}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_):
        """Say nothing."""


READ_HUB = f"""
from pathlib import Path
from rpo_pipeline.params import SourceParams
from rpo_pipeline.ingestion.redaction import Privacy
from rpo_pipeline.ingestion.sources import read_rows, read_sources
source = SourceParams(path="hf://owner/name", revision="{COMMIT}")
rows = read_rows(read_sources([source], Path("parts")), Path("parts")).read_all()
print(rows["origin"].to_pylist(), rows["response"].to_pylist())
"""


def test_a_hub_dataset_is_downloaded_at_its_commit_and_then_found_in_the_cache(in_folder):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    Thread(target=server.serve_forever, daemon=True).start()
    online = {
        "PYTHONPATH": os.pathsep.join(sys.path),
        "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
        "HF_HOME": str(in_folder / "hub"),
    }
    outputs = []
    for offline in ("0", "1"):
        environment = {**os.environ, **online, "HF_HUB_OFFLINE": offline}
        command = [sys.executable, "-c", READ_HUB]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        outputs.append(done.stdout)
    server.shutdown()
    assert outputs == ["['hf://owner/name@01234567/data/train.jsonl:1'] ['Hi']\n"] * 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"path": "hf://owner/name"}, "needs a revision"),
        ({"path": "hf://owner/name", "revision": "main"}, "commit of 40 hexadecimal digits"),
        ({"path": "hf://owner", "revision": COMMIT}, r"hf://OWNER/NAME\[/GLOB\]"),
        ({"path": "hf://owner/name/../x.csv", "revision": COMMIT}, "the glob does not leave it"),
        ({"path": "log.jsonl", "revision": COMMIT}, "nothing else has one"),
        ({"path": "log.jsonl", "encoding": "hex"}, "no encoding 'hex'"),
        ({"path": "log.jsonl", "encoding": "idna"}, "no encoding 'idna'"),
        ({"path": "log.jsonl", "encoding": "unicode_escape"}, "no encoding 'unicode_escape'"),
        ({"path": "s3://bucket/log.jsonl"}, "is an address"),
        ({"path": "log.jsonl", "ratings_path": "https://x/y.csv", "key": "id"}, "is an address"),
        ({"path": "x", "columns": {"timestmap": "when"}}, r"no name of ours: .* 'timestamp'\?"),
        ({"path": "x", "columns": {"modelversion": "m"}}, r"'model_version'\?"),
    ],
)
def test_a_source_that_cannot_work_is_refused_before_anything_is_read(settings, message):
    with pytest.raises(ValidationError, match=message):
        SourceParams(**settings)


def test_a_hub_dataset_that_cannot_be_had_is_named(in_folder):
    with pytest.raises(DataError, match=f"does not give the dataset owner/name at {COMMIT}"):
        read("hf://owner/name", revision=COMMIT)
    assert not (in_folder / "parts").exists() or not list((in_folder / "parts").iterdir())


def test_the_code_that_decides_what_a_part_holds_is_how_ratings_are_read_as_well():
    reached = {module.removeprefix("rpo_pipeline.") for module in reach(parts._write_part).modules}
    assert {
        "params.ingestion",
        "ingestion.rows",
        "ingestion.formats",
        "ingestion.chats",
        "ingestion.readers",
    } <= reached
    rooms = {module.partition(".")[0] for module in reached}
    assert not rooms & {"engine", "labeling", "training"}


def test_another_release_of_a_reader_reads_again(tmp_path, monkeypatch):
    (tmp_path / "log.csv").write_text("prompt,response\n")
    file, source = parts.SourceFile(tmp_path / "log.csv", "log.csv"), SourceParams(path="log.csv")
    before = parts.part_key(file, source, None)
    monkeypatch.setattr(freshness, "installed_version", {"pyarrow": "99"}.get)
    assert parts.part_key(file, source, None) != before


@pytest.mark.parametrize(
    "settings",
    [
        {"columns": {"prompt": "question", "timestamp": "when", "behaviour_logps": "lp"}},
        {"columns": {"stars": "meta.n"}, "ratings": [RatingParams(column="stars")]},
        {"columns": {"score_chosen": "a"}, "ratings": [RatingParams(column="score")]},
        {"columns": {"chosen": "a", "rejected": "b", "preference": "c"}},
        {"columns": {"id": "uuid"}, "ratings_path": "ratings", "key": "id"},
        {"columns": {"overall_score": "stars"}, "format": "ultrafeedback"},
    ],
)
def test_every_name_that_a_format_or_a_rating_looks_for_may_be_given_a_column(settings):
    assert SourceParams(path="log.jsonl", **settings).columns == settings["columns"]


@pytest.mark.parametrize("name", ["chat[1].csv", "what?.csv", "all*.csv"])
def test_a_path_that_is_there_as_it_stands_is_that_file(in_folder, name):
    (in_folder / name).write_text("prompt,response\na,named\n")
    for other in ("chat1.csv", "whatx.csv", "all of them.csv"):
        (in_folder / other).write_text("prompt,response\na,other\n")
    assert [row["response"] for row in read(name)[0]] == ["named"]


@pytest.mark.usefixtures("in_folder")
def test_a_path_may_start_at_the_home_folder(tmp_path_factory, monkeypatch):
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    (home / "log.jsonl").write_bytes(jsonl(GOOD))
    assert len(read("~/log.jsonl")[0]) == 1


def test_a_time_that_python_cannot_hold_costs_the_time_and_not_the_row(in_folder, caplog):
    days = pa.array([20_000, 3_000_000], pa.int32()).cast(pa.date32())
    columns = {"prompt": ["a", "b"], "response": ["c", "d"], "timestamp": days}
    pq.write_table(pa.table(columns), in_folder / "log.parquet")
    rows, quarantine = read("log.parquet")
    assert [row["timestamp"] is None for row in rows] == [False, True]
    assert quarantine == []
    assert "1 timestamps cannot be read as a time" in caplog.text

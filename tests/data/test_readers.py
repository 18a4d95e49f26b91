"""Files as people leave them: whatever is in them, no record is lost and none raises."""

import gzip
import json
from contextlib import suppress
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.data.quarantine import Reason
from rpo_pipeline.data.readers import CHUNK_CHARACTERS, read_records
from rpo_pipeline.errors import DataError

A, B = {"prompt": "Näh 🙂", "response": "a"}, {"prompt": "b", "response": "B"}
LONG = {"prompt": "x" * (3 * CHUNK_CHARACTERS), "response": "long"}


def text_of(*records):
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def read(path, content=None):
    if content is not None:
        path.write_bytes(content)
    return [record.fields for record in read_records(path)]


NASTY = {
    "a byte order mark": (".jsonl", b"\xef\xbb\xbf" + text_of(A).encode(), [A]),
    "UTF-16, little end first": (".jsonl", text_of(A, B).encode("utf-16"), [A, B]),
    "UTF-16, big end first": (".csv", "\ufeffprompt,response\nb,B\n".encode("utf-16-be"), [B]),
    "another encoding": (
        ".jsonl",
        text_of(B).encode() + text_of(A).encode("latin-1", "replace"),
        [B, Reason.INVALID_TEXT],
    ),
    "line ends of Windows": (".jsonl", text_of(A, B).replace("\n", "\r\n").encode(), [A, B]),
    "no last line end": (".jsonl", text_of(A).strip().encode(), [A]),
    "a NUL between records": (".jsonl", b"\0\n" + text_of(A).encode(), [Reason.BROKEN_RECORD, A]),
    "a lone surrogate": (
        ".jsonl",
        b'{"prompt": "\\ud800", "response": "x"}\n',
        [{"prompt": "\ud800", "response": "x"}],
    ),
    "a line of megabytes": (".jsonl", text_of(LONG, B).encode(), [LONG, B]),
    "an object encoded twice": (".jsonl", json.dumps(json.dumps(A)).encode(), [A]),
    "infinity": (".jsonl", b'{"reward": -Infinity}\n', [Reason.REWARD_NOT_FINITE]),
    "a deep nest": (".jsonl", b"[" * 100_000 + b"\n", [Reason.BROKEN_RECORD]),
    "a number of 5,000 digits": (".jsonl", b'{"n": ' + b"9" * 5000 + b"}", [Reason.BROKEN_RECORD]),
    "an array": (".json", json.dumps([A, LONG, B]).encode(), [A, LONG, B]),
    "an array over many lines": (".json", json.dumps([A, B], indent=4).encode(), [A, B]),
    "an array of no objects": (".json", b"[1, 2]", [Reason.NOT_AN_OBJECT] * 2),
    "an array with a broken element": (
        ".json",
        f'[{json.dumps(A)}, {{"prompt": }}, {json.dumps(B)}]'.encode(),
        [A, Reason.BROKEN_RECORD, B],
    ),
    "an array that never ends": (
        ".json",
        f'[{json.dumps(A)}, {{"prompt": "b'.encode(),
        [A, Reason.BROKEN_RECORD],
    ),
    "an array with a key twice": (".json", b'[{"a": 1, "a": 2}]', [Reason.DUPLICATE_KEY]),
    "a quoted line end": (".csv", b'prompt\n"b\nc"\nd\n', [{"prompt": "b\nc"}, {"prompt": "d"}]),
    "a row too short": (".csv", b"prompt,response\nb\nb,B\n", [Reason.BROKEN_RECORD, B]),
}  # fmt: skip


@pytest.mark.parametrize(("ending", "content", "expected"), NASTY.values(), ids=NASTY)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_record_is_read_right_or_says_why_not(
    tmp_path, ending, content, expected, compressed
):
    path = tmp_path / f"log{ending}{'.gz' * compressed}"
    assert read(path, gzip.compress(content) if compressed else content) == expected


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv"])
def test_a_compressed_file_cut_short_says_so_behind_what_was_read(tmp_path, ending):
    lines = [{"prompt": f"{i} " * 50, "response": "x"} for i in range(5000)]
    content = {
        ".jsonl": text_of(*lines),
        ".json": json.dumps(lines),
        ".csv": "prompt,response\n" + "".join(f"{line['prompt']},x\n" for line in lines),
    }[ending]
    whole = gzip.compress(content.encode())
    records = list(read(tmp_path / f"log{ending}.gz", whole[: len(whole) // 2]))
    assert records[0] == lines[0]
    assert records[-1] is Reason.TRUNCATED


@pytest.mark.parametrize("splits", [False, True])
def test_a_saved_hugging_face_dataset_is_a_source(tmp_path, splits):
    dataset = Dataset.from_list([A, B])
    (DatasetDict({"train": dataset, "more": dataset}) if splits else dataset).save_to_disk(
        tmp_path / "saved"
    )
    assert read(tmp_path / "saved") == [A, B] * (1 + splits)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("log.json", b'{"prompt": "b"}', "does not start with"),
        ("log.parquet", b"PAR1", "no Parquet file"),
        ("log.xlsx", b"x", "ends in none of"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_named(tmp_path, name, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path / name, content)


@given(content=st.binary(), ending=st.sampled_from([".jsonl", ".json", ".csv"]))
def test_no_bytes_raise_anything_but_an_error_for_people(tmp_path_factory, content, ending):
    path = Path(tmp_path_factory.mktemp("fuzz") / f"log{ending}")
    with suppress(DataError):
        read(path, content)


@given(
    junk=st.lists(st.binary(max_size=20).map(lambda b: b.replace(b"\n", b"")), max_size=4),
    place=st.integers(0, 4),
)
def test_good_lines_survive_whatever_stands_between_them(tmp_path_factory, junk, place):
    lines = [*junk[:place], json.dumps(A).encode(), *junk[place:], json.dumps(B).encode()]
    if lines[0][:2] in (b"\xff\xfe", b"\xfe\xff"):
        return  # UTF-16 then, by its mark
    records = read(tmp_path_factory.mktemp("fuzz") / "log.jsonl", b"\n".join(lines))
    assert A in records
    assert records[-1] == B

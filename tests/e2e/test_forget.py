"""A prompt that was erased is in no file of the project, and no later run takes it in again."""

import json
import os
import sqlite3
import subprocess
import sys

import pandas as pd
import pyarrow.parquet as pq
import pytest

from rpo_pipeline.ingestion.rows import prompt_key
from rpo_pipeline.ingestion.sample_data import write_sample_data
from rpo_pipeline.operations.lock import only_run
from tests.conftest import make_project
from tests.e2e.conftest import commit, kedro

SECRET = "Zanzibar-Quetzal"


def planted(low, high):
    """A prompt that says the secret, drawn into a part of the splits."""
    for number in range(10**6):
        prompt = f'My name is "{SECRET}" & my kettle, number {number}, leaks.'
        if low <= int(prompt_key(prompt)[:13], 16) / 16**13 < high:
            return prompt
    raise AssertionError


TRAIN, TEST = planted(0.1, 0.2), planted(0.8, 0.805)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        make_project(folder, patch)
    log = folder / "data/01_raw/feedback.jsonl"
    write_sample_data(log, 400, seed=0)
    answers = [{"response": f"Hi {SECRET}, number {n}", "stars": n} for n in (1, 2, 3, 9)]
    with log.open("a") as file:
        for prompt in (TRAIN, TEST):
            file.writelines(json.dumps({"prompt": prompt} | one) + "\n" for one in answers)
        file.write(json.dumps({"prompt": TEST, "response": "x"})[:70] + "\n")
    commit(folder)
    completed = kedro(folder, "run", "--env", "smoke")
    assert completed.returncode == 0, completed.stderr
    return folder


def test_a_run_that_skips_keeps_what_it_would_use_and_removes_what_nobody_uses(ran):
    cache = ran / "data/05_model_input/reference_cache"
    in_use = set(cache.rglob("shard-*.parquet"))
    (cache / "old").mkdir()
    old = cache / "old/shard-0.parquet"
    pd.DataFrame({"key": ["k"], "prompt_id": ["p"]}).to_parquet(old)
    os.utime(old, (0, 1.7e9))
    limit = "caches.max_gigabytes=0.000000001"
    completed = kedro(
        *(ran, "run", "--env", "smoke", "--pipelines", "partition_estimation", "--params", limit)
    )
    assert completed.returncode == 0, completed.stderr
    assert "score_reference runs" not in completed.stderr
    assert set(cache.rglob("shard-*.parquet")) == in_use
    assert "all is in use" in completed.stderr


def files_with(folder, words):
    """Files but sources and weights that hold words, also inside Parquet."""
    found = set()
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and "01_raw" not in parts and parts[0] in ("data", "mlruns", "mlflow.db"):
            text = path.read_bytes().decode(errors="replace")
            if path.suffix == ".parquet":
                text += str(pq.read_table(path).to_pylist())
            if any(word in text for word in words):
                found.add("/".join(parts))
    return found


def forget(folder, *arguments):
    command = [sys.executable, "-m", "rpo_pipeline", "forget", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def account(folder):
    return json.loads((folder / "data/smoke/08_reporting/row_account.json").read_text())


@pytest.fixture(scope="module")
def forgotten(ran):
    """What was where, what the command said, and the project after it."""
    ids = [prompt_key(TRAIN), prompt_key(TEST)]
    before = files_with(ran, [SECRET, *ids])
    first_account = account(ran)
    (ran / "ids.txt").write_text(ids[1] + "\n")
    completed = forget(ran, "--prompt-id", ids[0], "--file", "ids.txt")
    assert completed.returncode == 0, completed.stderr
    return {"folder": ran, "before": before, "said": completed.stdout, "account": first_account}


def test_nothing_that_the_project_wrote_holds_the_prompt_or_what_was_made_of_it(forgotten):
    assert files_with(forgotten["folder"], [SECRET]) == set()
    ids = [prompt_key(TRAIN), prompt_key(TEST)]
    left = files_with(forgotten["folder"], ids)
    assert {path.rpartition("/")[2] for path in left} == {"forgotten.parquet"}


def test_it_says_of_every_place_that_held_it(forgotten):
    places = {line.split()[1].rstrip(":") for line in forgotten["said"].splitlines()}
    on_disk = {path for path in forgotten["before"] if path.startswith("data/")}
    assert len(on_disk) > 15
    assert on_disk <= places
    assert any("report.html" in path for path in on_disk)
    assert "MLflow run" in forgotten["said"]
    assert "reference_cache/logps" in forgotten["said"]


def test_it_names_what_it_cannot_erase(forgotten):
    left = [line for line in forgotten["said"].splitlines() if line.startswith("left")]
    assert any("source data/01_raw/feedback.jsonl:40" in line for line in left)
    assert any("weights data/smoke/06_models/reference" in line for line in left)
    assert any("registered version rpo-policy-smoke 1" in line for line in left)


def test_the_next_run_drops_its_records_and_the_account_still_balances(forgotten):
    folder = forgotten["folder"]
    to = ["--pipelines", "data_ingestion"]
    for parts in (True, False):
        if not parts:  # read anew
            subprocess.run(["rm", "-r", folder / "data/smoke/02_intermediate/parts"], check=True)
        completed = kedro(folder, "run", "--env", "smoke", *to)
        assert completed.returncode == 0, completed.stderr
        quarantine = pd.read_parquet(folder / "data/smoke/02_intermediate/quarantine.parquet")
        lines = quarantine[quarantine["reason"] == "forgotten"]
        assert len(lines) >= 6
        assert lines["raw"].eq("").all()
        counts = account(folder)
        assert counts["read"] == sum(v for k, v in counts.items() if k != "read")
        assert counts["read"] == forgotten["account"]["read"]
        feedback = pd.read_parquet(folder / "data/smoke/03_primary/feedback.parquet")
        assert not feedback["prompt"].str.contains(SECRET).any()


def test_every_environment_remembers_it(forgotten):
    for data in ("data", "data/smoke", "data/t5"):
        known = pd.read_parquet(forgotten["folder"] / data / "03_primary/forgotten.parquet")
        assert set(known["prompt_id"]) == {prompt_key(TRAIN), prompt_key(TEST)}


def test_the_database_of_runs_is_whole(forgotten):
    with sqlite3.connect(forgotten["folder"] / "mlflow.db") as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


def test_it_waits_for_no_run_that_could_take_the_prompt_in_again(forgotten):
    lock = forgotten["folder"] / "data/smoke/08_reporting/refresh/run.lock"
    with only_run(lock):
        completed = forget(forgotten["folder"], "--prompt-id", prompt_key(TRAIN))
    assert completed.returncode == 1
    assert "another run is at work" in completed.stderr


def test_what_is_no_prompt_id_is_refused_with_where_to_find_one(forgotten):
    completed = forget(forgotten["folder"], "--prompt-id", "Hello")
    assert completed.returncode == 2
    assert "32 hexadecimal digits, got Hello" in completed.stderr
    completed = forget(forgotten["folder"], "--prompt-id", "0" * 32)
    assert "nothing was found" in completed.stdout

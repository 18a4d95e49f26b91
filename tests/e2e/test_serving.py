"""The champion behind `mlflow models serve`, asked over HTTP."""

import json
import os
import socket
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

SECONDS = 90


@pytest.fixture(scope="module")
def server(finished):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local"),
        *("-m", "models:/rpo-policy-smoke@champion", "-h", "127.0.0.1", "-p", str(port)),
    ]
    log = (finished["folder"] / "server.log").open("w+")
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db"}
    environment["RPO_SERVING_LOG"] = str(finished["folder"] / "served.jsonl")
    environment["PATH"] = f"{os.path.dirname(sys.executable)}:{environment['PATH']}"  # noqa: PTH120
    process = subprocess.Popen(
        command,
        cwd=finished["folder"],
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        for _ in range(SECONDS):
            try:
                urlopen(f"http://127.0.0.1:{port}/ping", timeout=1)
                break
            except (URLError, OSError):
                assert process.poll() is None, (log.seek(0), log.read())[1]
                time.sleep(1)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        os.killpg(process.pid, 9)
        log.close()


def ask(url, prompts, **params):
    body = json.dumps({"inputs": prompts, "params": params}).encode()
    request = Request(url, body, {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as response:
        return json.loads(response.read())["predictions"]


def test_the_champion_answers_every_prompt(server):
    answers = ask(server, ["Hello, my kettle leaks.", "Help!"], max_new_tokens=8)
    assert len(answers) == 2
    assert all(set(a) == {"response_id", "response", "model_version"} for a in answers)
    assert {answer["model_version"] for answer in answers} == {"1"}


def test_what_was_served_is_logged_under_the_ids_that_ratings_will_name(server, finished):
    chat = [{"role": "user", "content": "Help!"}]
    answers = ask(server, [chat, "Help!"], temperature=0.5, max_new_tokens=8)
    lines = (finished["folder"] / "served.jsonl").read_text().splitlines()
    rows = {row["response_id"]: row for row in map(json.loads, lines)}
    assert [rows[answer["response_id"]]["prompt"] for answer in answers] == [chat, "Help!"]
    assert [rows[a["response_id"]]["response"] for a in answers] == [a["response"] for a in answers]


def test_an_answer_does_not_depend_on_its_neighbours(server):
    alone = ask(server, ["Help!"], max_new_tokens=8)
    among = ask(server, ["Hello, my kettle leaks.", "Help!"], max_new_tokens=8)
    assert among[1]["response"] == alone[0]["response"]


def test_parameters_reach_the_model(server):
    drawn = [
        ask(server, ["Help!"], max_new_tokens=8, sampling_temperature=1.0, seed=seed)
        for seed in range(3)
    ]
    assert len({answers[0]["response"] for answers in drawn}) > 1

"""Two promotions at the same moment: on one host, and on two that share a tracking server."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from mlflow import MlflowClient
from mlflow.server import app

from rpo_pipeline.records import RunAddress, to_json
from rpo_pipeline.registry import aliases
from rpo_pipeline.registry.moves import read_standing
from tests.conftest import ROOT
from tests.registries import apply, decision, holders, promotion


class Silent(WSGIRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def http(tracked, folder, monkeypatch):
    """The registry's database behind a tracking server on loopback."""
    # A server in this process makes its registry that of the whole process.
    monkeypatch.setattr("mlflow.tracking._model_registry.utils._registry_uri", None)
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "")
    monkeypatch.setenv("_MLFLOW_SERVER_FILE_STORE", tracked.tracking_uri)
    monkeypatch.setenv("_MLFLOW_SERVER_REGISTRY_STORE", tracked.tracking_uri)
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", (folder / "mlruns").as_uri())
    server = make_server("127.0.0.1", 0, app, handler_class=Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_of_two_processes_on_one_host_one_wins_and_the_other_says_that_it_did_not(
    tracked, client, model_name, challenge, folder, tmp_path
):
    first = challenge()
    apply(tracked, model_name, first, decision(), folder)
    rivals = [challenge(), challenge()]
    gate, settings = (
        json.dumps(to_json(decision(champion=first))),
        promotion(model_name).model_dump_json(),
    )
    script = Path(__file__).with_name("promoting_process.py")
    processes = [
        subprocess.Popen(
            [sys.executable, script, tracked.tracking_uri, version, gate, settings, tmp_path],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            stdout=subprocess.PIPE,
            text=True,
        )
        for version in rivals
    ]
    while not all(Path(tmp_path, f"ready-{version}").exists() for version in rivals):
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)
    Path(tmp_path, "go").touch()
    results = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    winner, loser = sorted(results, key=lambda result: not result["promoted"])
    assert (winner["promoted"], loser["promoted"]) == (True, False)
    assert f"today's is {winner['version']}; evaluate again" in loser["reason"]
    assert holders(client, model_name)["champion"] == winner["version"]
    assert holders(client, model_name)["previous"] == first


def test_a_promotion_that_another_host_overtakes_notices_and_says_so(
    client, model_name, challenge, http, tmp_path
):
    version, other = challenge(), challenge()

    def overtake():
        elsewhere = MlflowClient(http)
        while read_standing(elsewhere, model_name).champion != version:
            time.sleep(0.01)
        elsewhere.set_registered_model_alias(model_name, "champion", other)

    host = threading.Thread(target=overtake)
    host.start()
    result = aliases.apply_decision(
        RunAddress(http),
        version,
        decision(),
        promotion(model_name),
        tmp_path,
    )
    host.join()
    assert (result["promoted"], result["champion_after"]) == (False, other)
    assert f"another host made version {other} champion" in result["reason"]
    assert f"promotion.version={version}" in result["reason"]
    assert "another host" in client.get_model_version(model_name, version).tags["promotion"]

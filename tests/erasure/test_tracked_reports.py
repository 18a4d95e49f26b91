"""Reports that quote a prompt go from runs and from versions; the others stay."""

from mlflow import MlflowClient

from rpo_pipeline.erasure.tracked_reports import erase_reports
from rpo_pipeline.params import TrackingParams
from tests.registries import register

TRACKING = TrackingParams(
    tracking_uri="sqlite:///mlflow.db",
    experiment="test",
    on_outage="continue",
    registry_wait_seconds=0,
)


def test_reports_that_quote_a_prompt_are_erased_wherever_they_are_kept(
    tracked, client, model_name, checkpoint, folder, tmp_path
):
    quoting = "<p>my secret</p>"
    version = register(tracked, model_name, checkpoint, **{"report.html": quoting})
    client.set_model_version_tag(model_name, version, "promotion", "decided")
    kept = register(tracked, model_name, checkpoint, **{"report.html": "<p>nothing</p>"})
    report = tmp_path / "report.html"
    report.write_text(quoting)
    tracked.log_artifact(report)
    deleted, missed = erase_reports(TRACKING, folder, lambda text: "secret" in text)
    assert missed == []
    assert sorted(line.split()[1] for line in deleted) == ["model", "run"]
    assert "report.html" not in files(client, model_name, version)
    assert "report.html" in files(client, model_name, kept)
    assert erase_reports(TRACKING, folder, lambda text: "secret" in text) == ([], [])


def files(client: MlflowClient, model_name: str, version: str) -> set[str]:
    model_id = client.get_model_version(model_name, version).source.removeprefix("models:/")
    found = client.list_logged_model_artifacts(model_id, "artifacts")
    return {file.path.rpartition("/")[2] for file in found}

"""What must never be loaded, run or shown."""

import ast
import html
import io
import json
import logging
import pickle
from pathlib import Path
from urllib.parse import quote, quote_plus

import pandas as pd
import pytest

from rpo_pipeline import logs, secrets
from rpo_pipeline.engine.embedding import SentenceEncoder
from rpo_pipeline.engine.loading import load_language_model
from rpo_pipeline.errors import ModelError
from rpo_pipeline.storage.row_store import fetch_rows
from rpo_pipeline.tracking.run import flatten
from tests.conftest import ROOT, build_small

SOURCES = sorted((ROOT / "src").rglob("*.py"))
PASSWORD = "correct-horse-battery"


class Malicious:
    """Unpickling it leaves a file."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.fixture
def trace(tmp_path):
    path = tmp_path / "it ran"
    yield path
    assert not path.exists()


@pytest.fixture
def pickled_model(tmp_path, trace):
    """A model directory whose weights are a pickle."""
    build_small("llama").save(tmp_path / "model")
    (tmp_path / "model/model.safetensors").unlink()
    (tmp_path / "model/pytorch_model.bin").write_bytes(pickle.dumps(Malicious(trace)))
    return tmp_path / "model"


def test_the_planted_pickle_would_run_if_it_were_loaded(tmp_path):
    pickle.loads(pickle.dumps(Malicious(tmp_path / "it ran")))
    assert (tmp_path / "it ran").exists()


def test_a_policy_of_pickled_weights_is_refused(pickled_model):
    with pytest.raises(ModelError, match="safetensors"):
        load_language_model(pickled_model)


def test_a_sentence_encoder_of_pickled_weights_is_refused(pickled_model):
    with pytest.raises(ModelError, match="safetensors"):
        SentenceEncoder(str(pickled_model), None)


def test_weights_with_a_trusted_name_and_pickled_content_are_refused(pickled_model):
    (pickled_model / "pytorch_model.bin").rename(pickled_model / "model.safetensors")
    with pytest.raises(ModelError, match="cannot load a model"):
        load_language_model(pickled_model)


def test_a_pickle_in_a_cache_is_named_and_never_loaded(tmp_path, trace, caplog):
    (tmp_path / "shard-0.parquet").write_bytes(pickle.dumps(Malicious(trace)))
    computed = pd.DataFrame({"logps": [-1.0]})
    found = fetch_rows(tmp_path, ["k"], lambda _: computed, prompt_ids=["p"], verb="score")
    assert found["logps"].tolist() == [-1.0]
    assert "shard-0.parquet cannot be read" in caplog.text


def _calls(name):
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", None) == name:
                where = f"{file.name}:{node.lineno}"
                yield where, {k.arg: ast.unparse(k.value) for k in node.keywords}, node.func.value


def test_no_code_of_a_model_is_trusted_and_weights_are_safetensors():
    calls = list(_calls("from_pretrained"))
    assert len(calls) >= 7
    for where, keywords, loader in calls:
        assert keywords.get("trust_remote_code") == "False", where
        if "model" in ast.unparse(loader).lower() or "auto_class" in ast.unparse(loader):
            assert keywords.get("use_safetensors") == "True", where


def test_nothing_that_unpickles_is_called():
    forbidden = {"pickle", "joblib", "dill", "cloudpickle", "shelve"}
    for file in SOURCES:
        tree = ast.parse(file.read_text())
        names = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
        names |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
        assert not forbidden & {name.partition(".")[0] for name in names}, file
        assert "torch.load(" not in file.read_text(), file
        assert "allow_pickle" not in file.read_text(), file


def test_a_hub_id_without_a_commit_is_warned_of(caplog):
    with pytest.raises(ModelError):
        load_language_model("somebody/some-model")
    assert "pin its commit (policy.revision)" in caplog.text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"http://me:{PASSWORD}@host:5000/x", "http://me:***@host:5000/x"),
        (f"failed: postgresql://me:{PASSWORD}@db/a?b", "failed: postgresql://me:***@db/a?b"),
        ("http://host:5000 and a@b.org", "http://host:5000 and a@b.org"),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db"),
    ],
)
def test_passwords_in_addresses_are_hidden(text, shown):
    assert secrets.hide(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        f"https://{PASSWORD}@github.org/x",
        f"http://me:half@{PASSWORD}@host/x",
        f"https://hooks.slack.com/services/T0/B0/{PASSWORD}",
        f"https://discord.com/api/webhooks/1/{PASSWORD}?wait=true",
        f"https://team.webhook.office.com/webhookb2/{PASSWORD}",
        f"https://api.telegram.org/bot1:{PASSWORD}/sendMessage",
        f"https://store/bucket?X-Amz-Signature={PASSWORD}&page=2",
        f"https://host/x?api_key={PASSWORD}",
        f"https://host/x?page=1&accessToken={PASSWORD}#top",
        f"Authorization: Bearer {PASSWORD}",
        "the key sk-correcthorsebattery is refused",
        "ghp_correcthorsebatterystaple",
    ],
)
def test_what_gives_access_is_hidden_by_its_place_or_its_shape(text):
    shown = secrets.hide(text)
    assert "***" in shown
    assert "correct" not in shown


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000/#/experiments/1/runs/0123456789abcdef0123456789abcdef",
        "https://host/search?pattern=kettle&path=/x&author=Ada&page=2",
        "tokenizer sk-learn, hf_hub, models:/rpo-policy@champion, a@b.org",
        "http://[::1]:5000 hf://datasets/a/b",
    ],
)
def test_what_gives_no_access_is_shown(text):
    assert secrets.hide(text) == text


@pytest.mark.parametrize(
    "name", "JUDGE_AUTH GITHUB_PAT SENTRY_DSN DB_CREDENTIALS OPENAI_APIKEY MY_KEY_2 X_PWD".split()
)
def test_a_secret_is_known_by_its_variable_in_every_spelling(monkeypatch, name):
    value = 'pa"ss\\wörd & <more>'
    monkeypatch.setenv(name, value)
    spellings = [value, json.dumps(value), repr(value), quote(value, safe=""), html.escape(value)]
    for spelling in [*spellings, json.dumps(value, ensure_ascii=False), quote_plus(value)]:
        assert "ss" not in secrets.hide(f"said: {spelling}").removeprefix("said: "), spelling


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENIZERS_PARALLELISM", "true"),
        ("USE_AUTH", "1"),
        ("PATH", "/usr/bin:/bin"),
        ("KEYBOARD_LAYOUT", "qwertz-german"),
        ("SSH_AUTH_SOCK", "/tmp"),
    ],
)
def test_words_and_places_are_no_secrets(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert secrets.hide(f"it says {value}") == f"it says {value}"


def test_keys_of_the_environment_and_credentials_are_hidden_in_parameters(monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", PASSWORD)
    monkeypatch.setattr(secrets, "_kept", set())
    secrets.keep_secret({"bucket": {"key": "another-secret-value"}})
    hidden = secrets.hide_in({"a": [f"x {PASSWORD}"], "b": {"c": "another-secret-value", "d": 1}})
    assert dict(flatten(hidden)) == {"a": '["x ***"]', "b.c": "***", "b.d": "1"}


@pytest.fixture
def logged(monkeypatch):
    """What a handler of the root logger writes once the formatter has taken over."""
    monkeypatch.setenv("HF_TOKEN", PASSWORD)
    monkeypatch.setattr(logs, "_bound", {})
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])
    logs.take_over()

    def write(*arguments, **keywords):
        logging.getLogger("rpo_pipeline.test").warning(*arguments, **keywords)
        return stream.getvalue()

    return write


def test_no_line_of_the_log_holds_a_secret(logged):
    assert logged("the token is %s", PASSWORD) == "the token is ***\n"


def test_json_lines_name_the_run_and_hold_no_secret(logged, monkeypatch):
    monkeypatch.setenv("RPO_LOG_FORMAT", "json")
    logs.bind(run_id="abc")
    try:
        raise ValueError(PASSWORD)
    except ValueError:
        line = json.loads(logged("the token is %s", PASSWORD, exc_info=True))
    assert (line["message"], line["run_id"], line["level"]) == (
        "the token is ***",
        "abc",
        "WARNING",
    )
    assert "ValueError: ***" in line["exception"]

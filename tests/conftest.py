"""Shared parts: small real models of each architecture, and a project in a folder of its own."""

import gc
import os
import shutil
from functools import cache
from pathlib import Path

import hypothesis
import ibis
import pandas as pd
import pyarrow as pa
import pytest
import torch

os.environ["HF_HUB_OFFLINE"] = "1"

from rpo_pipeline.engine.batches import score_groups
from rpo_pipeline.engine.building import build_language_model
from rpo_pipeline.engine.loading import LanguageModel
from rpo_pipeline.engine.tokenisation import tokenise_groups
from rpo_pipeline.engine.train_view import TrainView
from rpo_pipeline.ingestion.redaction import Privacy
from rpo_pipeline.ingestion.rows import NOTHING_PRIVATE
from rpo_pipeline.ingestion.sources import read_rejected, read_rows, read_sources
from rpo_pipeline.operations.environments import open_configuration
from rpo_pipeline.params import BLOCKS, FromConfigParams, ObjectiveParams, Params, SourceParams

pytest_plugins = ["tests.registries"]

ROOT = Path(__file__).parents[1]

hypothesis.settings.register_profile("no deadline", deadline=None)  # a first call may be slow
hypothesis.settings.load_profile("no deadline")

TEXTS = [
    "Hello, my kettle leaks. Can you help?",
    "Hi Ada, we are sorry that your kettle leaks.",
    "We will send a new one today, kind regards!",
    "Go away, you fool.",
]

SIZES = {
    "llama": {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4},
    "gpt2": {"n_embd": 32, "n_head": 4, "n_layer": 2},
    "t5": {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2},
}
SIZES["llama"]["num_hidden_layers"] = 2


@cache
def raw_parameters(env: str = "sample") -> dict:
    """Values of the shipped configuration."""
    return open_configuration(ROOT, env)["parameters"]


def block(name: str, **changes) -> Params:
    """A parameter block as shipped, with changes."""
    return BLOCKS[name].model_validate(raw_parameters()[name] | changes)


def objectives(**rpo) -> ObjectiveParams:
    """The blocks of all objectives as shipped, with changes of ``rpo``."""
    names = [name for name in ObjectiveParams.model_fields if name != "rpo"]
    return ObjectiveParams(rpo=block("rpo", **rpo), **{name: block(name) for name in names})


def read_log(
    *sources: SourceParams, folder: Path, privacy: Privacy = NOTHING_PRIVATE
) -> tuple[pa.Table, pd.DataFrame]:
    """Rows and rejected records of sources, their parts in a folder."""
    folder.mkdir(exist_ok=True)
    parts = read_sources(sources, folder, privacy)
    return read_rows(parts, folder).read_all(), read_rejected(parts, folder)


def limits(prompt: int, response: int) -> Params:
    """The policy block with these limits on tokens."""
    return block("policy", max_prompt_tokens=prompt, max_response_tokens=response)


def build_small(model_type: str, seed: int = 0) -> LanguageModel:
    settings = FromConfigParams(model_type=model_type, vocab_size=320, **SIZES[model_type])
    language_model = build_language_model(settings, TEXTS, seed=seed, dtype="float32")
    if model_type == "t5":  # a randomly built T5 has huge logits
        with torch.no_grad():
            language_model.model.get_output_embeddings().weight.mul_(0.05)
    return language_model


def view_of(language_model: LanguageModel, micro_batch_tokens: int = 2048) -> TrainView:
    """A model as a training has it."""
    return TrainView(language_model, limits(64, 64), micro_batch_tokens)


def score_table(
    language_model: LanguageModel, table: pd.DataFrame, policy: Params | None = None
) -> pd.DataFrame:
    """row_id and logps of a table of text, scored in one pass without a cache."""
    text_format = language_model.text_format(policy or limits(64, 64))
    groups = tokenise_groups(table, text_format)
    logps = score_groups(language_model, groups, micro_batch_tokens=500)
    sizes = pd.Series(
        {row: len(ids) for g in groups for row, ids in zip(g.rows, g.responses, strict=True)}
    )
    return pd.DataFrame(
        {
            "row_id": table["row_id"].to_numpy(),
            "logps": logps.numpy(),
            "num_tokens": sizes.sort_index().to_numpy(),
        }
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep together, on one worker of pytest-xdist, what shares an expensive fixture."""
    for item in items:
        shared = "finished" in getattr(item, "fixturenames", ())
        item.add_marker(pytest.mark.xdist_group("finished" if shared else item.path.as_posix()))


def pytest_unconfigure() -> None:
    """Close DuckDB before the interpreter does, or it reports what is left as leaked."""
    backend = ibis.options.default_backend
    if backend is not None:
        backend.disconnect()
        ibis.options.default_backend = None
    gc.collect()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(params=["llama", "gpt2", "t5"])
def language_model(request) -> LanguageModel:
    return build_small(request.param)


@pytest.fixture
def rows() -> pd.DataFrame:
    """Three prompts with one to three responses."""
    prompts = ["Hello, my kettle leaks.", "Help!", "Can you send a new one today? Hello?"]
    table = pd.DataFrame(
        [
            (prompts[0], "We are sorry."),
            (prompts[0], "Go away, you fool. Go away, you fool. Go away."),
            (prompts[0], "Hi Ada, we will send a new one today, kind regards!"),
            (prompts[1], "Hi"),
            (prompts[2], "Kind regards!"),
            (prompts[2], "No."),
        ],
        columns=["prompt", "response"],
    )
    table["prompt_id"] = table["prompt"].map({p: f"p{i}" for i, p in enumerate(prompts)})
    table["row_id"] = [f"r{i}" for i in range(len(table))]
    return table


@pytest.fixture
def project(tmp_path, monkeypatch) -> Path:
    """A copy of the project without its data, as the current directory."""
    return make_project(tmp_path, monkeypatch)


def make_project(folder: Path, monkeypatch) -> Path:
    shutil.copytree(ROOT / "conf", folder / "conf", ignore=shutil.ignore_patterns("local"))
    (folder / "conf" / "local").mkdir()
    for name in ("pyproject.toml", "constraints.txt", ".telemetry"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data" / "01_raw").mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder

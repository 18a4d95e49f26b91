"""A comparison of small trainings on a real model."""

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.comparison.cells import Cell, Settings, settings_of
from rpo_pipeline.comparison.run import Material, run_comparison
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.models.row_scoring import score_table
from rpo_pipeline.params import ComparisonParams, MethodParams
from tests.conftest import block, build_small

SETTINGS = Settings(
    **{
        name: block(name) for name in ("rpo", "sft", "kto", "dro", "qrpo", "training", "evaluation")
    },
    policy=block("policy", max_prompt_tokens=32, max_response_tokens=16),
)
RPO = {"name": "rpo", "objective": "rpo", "parameter": "rpo.tau", "grid": [1.0, 2.0]}
SFT = {
    "name": "sft",
    "objective": "sft",
    "parameter": "training.learning_rate",
    "grid": [1e-3],
}
SHORT = {"training.num_epochs": 1, "training.global_batch_groups": 4}


def comparison(*methods, seeds=(0, 1)):
    return ComparisonParams(
        methods=list(methods),
        seeds=list(seeds),
        settings={
            **SHORT,
            "evaluation.sampling": {"sampling_temperature": 1.0, "responses_per_prompt": 1},
            "evaluation.bootstrap_samples": 100,
        },
        num_prompts=3,
    )


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    reference = tmp_path_factory.mktemp("models") / "reference"
    language_model = build_small("llama")
    language_model.save(reference)
    splits = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3
    rows = pd.DataFrame(
        [
            {"row_id": f"r{i}{j}", "prompt_id": f"p{i}", "split": split, "prompt": f"Hello {i}?",
             "response": answer, "behaviour_logps": np.nan, "leaked": False}
            for i, split in enumerate(splits)
            for j, answer in enumerate(("Hi Ada, kind regards!", "Go away, you fool."))
        ]
    )  # fmt: skip
    rewards = rows[["row_id"]].assign(
        raw_reward=[1.0, -1.0] * 12, reward=[1.0, -1.0] * 12, labeler="column"
    )
    logps = score_table(language_model, rows, SETTINGS.policy, micro_batch_tokens=512)
    logps = logps.assign(prompt_is_cut=False, response_is_cut=False)
    empty = pd.DataFrame(columns=["row_id", "prompt_id", "logps"])
    samples = pd.DataFrame(columns=["prompt_id", "reward", "labeler"])
    caches = reference.parent / "cache", reference.parent / "labels"
    return Material(rows, rewards, logps, empty, samples, reference, *caches)


def test_a_killed_comparison_does_the_unfinished_cells_and_gives_the_same_table(
    material, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    settings = comparison(RPO, SFT)
    whole = run_comparison(material, SETTINGS, settings, tmp_path)
    assert caplog.text.count("cell: ") == 3 + 4
    assert len(whole["cells"]) == 7
    lost = next(folder for folder in tmp_path.iterdir() if folder.is_dir())
    for file in lost.iterdir():
        file.unlink()
    lost.rmdir()
    caplog.clear()
    again = run_comparison(material, SETTINGS, settings, tmp_path)
    assert caplog.text.count("cell: ") == 1
    for entry in (*whole["cells"], *again["cells"]):
        entry.pop("seconds")
    assert again["cells"] == whole["cells"]


def test_a_new_method_costs_its_own_cells_only(material, tmp_path, caplog):
    caplog.set_level("INFO")
    run_comparison(material, SETTINGS, comparison(SFT, seeds=[0]), tmp_path)
    caplog.clear()
    twin = {**SFT, "name": "sft again"}
    table = run_comparison(material, SETTINGS, comparison(SFT, twin, seeds=[0]), tmp_path)
    assert "cell: " not in caplog.text  # the same training under another name
    assert table["methods"][1]["difference"]["value"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameter": "rpo.taus"}, r"'rpo\.taus' is no parameter that a comparison can set"),
        ({"settings": {"ingestion.sources": []}}, "is no parameter that a comparison can set"),
        ({"grid": [-1.0]}, r"rpo\.tau: .*greater than 0.*got -1"),
    ],
)
def test_a_setting_that_cannot_work_is_named_before_anything_is_trained(change, message):
    method = MethodParams(**{**RPO, **change})
    with pytest.raises(ConfigError, match=message):
        settings_of(Cell(method, method.grid[0], 0, "test"), SETTINGS, {})

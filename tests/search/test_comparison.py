"""A comparison of small trainings on a real model."""

import math
import threading
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import psutil
import pytest

from rpo_pipeline.errors import ConfigError, DataError, RpoError, TrainingError
from rpo_pipeline.params import ComparisonParams, MethodParams
from rpo_pipeline.partition.rows import join_scores
from rpo_pipeline.reporting.comparison_page import render_comparison
from rpo_pipeline.search.comparison import run_cells, run_comparison
from rpo_pipeline.search.comparison_cells import Cell, Settings, samples_reference, settings_of
from rpo_pipeline.search.comparison_curve import nearest
from rpo_pipeline.search.comparison_material import (
    Material,
    change_log,
    choose_rows,
    gather_rows,
    sampled_rows,
)
from tests.conftest import block, build_small, objectives, score_table
from tests.labeling.test_reward_model import save_reward_model

SETTINGS = Settings(
    **dict(objectives()),
    **{name: block(name) for name in ("labeling", "training", "evaluation")},
    policy=block("policy", max_prompt_tokens=32, max_response_tokens=16),
)
RPO = {"name": "rpo", "objective": "rpo", "parameter": "rpo.tau", "grid": [1.0, 2.0]}
SFT = {
    "name": "sft",
    "objective": "sft",
    "parameter": "training.learning_rate",
    "grid": [1e-3, 4e-3],
}
UNFITTED = {"rpo.logp_reduction": "sum", "rpo.fit_level": False}
UNCHANGED = {"reward_noise": 0, "num_responses": 1, "logged_share": 1}
SHORT = {"training.num_epochs": 1, "training.global_batch_groups": 4}


def comparison(*methods, seeds=(0, 1), **changes):
    settings = {
        "methods": list(methods),
        "seeds": list(seeds),
        **{"curve_seeds": [0], "budget": 0.5, "budgets": [0.1], "rows": None},
        "metric": "reward_mean",
        "settings": {
            **SHORT,
            "evaluation.sampling": {"sampling_temperature": 1.0, "responses_per_prompt": 1},
            "evaluation.bootstrap_samples": 100,
        },
        "num_prompts": 3,
        "num_processes": 1,
    }
    return ComparisonParams(**{**settings, **changes})


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
    logps = score_table(language_model, rows, SETTINGS.policy)
    logps = logps.assign(prompt_is_cut=False, response_is_cut=False)
    empty = pd.DataFrame(columns=["row_id", "prompt_id", "logps"])
    samples = pd.DataFrame(columns=["prompt_id", "reward", "labeler"])
    caches = reference.parent / "cache", reference.parent / "labels"
    answers = rows[rows["split"] == "train"].assign(
        response="Hello!", sample=0, raw_reward=0.5, reward=0.5, labeler="rules"
    )
    written = sampled_rows(answers.drop(columns=["row_id", "prompt", "split"]), rows)
    scores = score_table(language_model, written, SETTINGS.policy)
    written = written.merge(scores, on="row_id").assign(
        mismatched_prompt_id=None,
        mismatched_logps=None,
        prompt_is_cut=False,
        response_is_cut=False,
    )
    rewards["sentiment"] = 0.5  # a part of a label, which samples lack
    every = gather_rows(join_scores(rows, rewards, logps), empty, written)
    logged, sampled = every[every["is_logged"]], every[~every["is_logged"]]
    return Material(logged, samples, sampled, reference, *caches)


def test_a_killed_comparison_does_the_unfinished_cells_and_gives_the_same_table(
    material, tmp_path, monkeypatch, caplog
):
    monkeypatch.chdir(tmp_path)
    caplog.set_level("INFO")
    settings = comparison(RPO, SFT)
    whole = run_comparison(material, SETTINGS, settings, tmp_path)
    # Every value with the seed of the curves, then the chosen ones with the other seed.
    assert caplog.text.count("cell: ") == len(whole["cells"]) == 4 + 2
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
    assert again["methods"][0]["budgets"] == whole["methods"][0]["budgets"]


def test_two_processes_give_the_table_of_one_and_their_errors(material, tmp_path, caplog):
    caplog.set_level("INFO")
    alone, shared = (
        run_comparison(material, SETTINGS, comparison(RPO, SFT, num_processes=n), tmp_path / str(n))
        for n in (1, 2)
    )
    assert caplog.text.count("cell: ") == 2 * 6
    assert [cell["cell"] for cell in shared["cells"]] == [cell["cell"] for cell in alone["cells"]]
    for one, other in zip(alone["methods"], shared["methods"], strict=True):
        # Another process may have another number of threads, which rounds otherwise.
        for name, number in one["metrics"].items():
            assert other["metrics"][name] == pytest.approx(number, rel=1e-3, abs=1e-4), name
    broken = replace(material, reference=tmp_path / "nothing")
    with pytest.raises(RpoError):
        run_comparison(broken, SETTINGS, comparison(RPO, num_processes=2), tmp_path / "broken")


def test_a_process_that_the_system_ends_costs_one_sentence_and_no_finished_cell(material, tmp_path):
    def end_one():
        workers = []
        while not workers:
            time.sleep(0.05)
            children = psutil.Process().children()
            workers = [one for one in children if "spawn_main" in " ".join(one.cmdline())]
        workers[0].kill()

    killer = threading.Thread(target=end_one)
    killer.start()
    settings = comparison(SFT, num_processes=2)
    with pytest.raises(TrainingError, match=r"smaller comparison\.num_processes"):
        run_comparison(material, SETTINGS, settings, tmp_path)
    killer.join()
    assert run_comparison(material, SETTINGS, settings, tmp_path)["cells"]


def test_a_new_method_costs_its_own_cells_only(material, tmp_path, caplog):
    caplog.set_level("INFO")
    run_comparison(material, SETTINGS, comparison(SFT, seeds=[0]), tmp_path)
    caplog.clear()
    twin = {**SFT, "name": "sft again"}
    table = run_comparison(material, SETTINGS, comparison(SFT, twin, seeds=[0]), tmp_path)
    assert "cell: " not in caplog.text  # the same training under another name
    assert table["methods"][1]["difference"]["value"] == 0
    assert [cell["cell"] for cell in table["cells"]][-1] == "sft again learning_rate=0.004 seed 0"


def test_what_an_objective_does_not_read_voids_none_of_its_cells(material, tmp_path, caplog):
    caplog.set_level("INFO")
    tgo = {"name": "tgo", "objective": "tgo", "parameter": "tgo.beta", "grid": [0.1, 0.5]}
    settings = comparison(tgo, {**RPO, "grid": [1.0, 2.0]}, seeds=[0])
    run_comparison(material, SETTINGS, settings, tmp_path)
    caplog.clear()
    changes = {"rpo": objectives(huber_delta=0.9).rpo, "sft": block("sft", responses="all")}
    run_comparison(material, SETTINGS.model_copy(update=changes), settings, tmp_path)
    assert "cell: rpo" in caplog.text
    assert "cell: tgo" not in caplog.text
    caplog.clear()
    averaged = SETTINGS.model_copy(update={"rpo": objectives(logp_reduction="mean").rpo})
    dro = {"name": "dro", "objective": "dro", "parameter": "dro.tau", "grid": [0.1, 0.5]}
    for some in (SETTINGS, averaged):
        run_comparison(material, some, comparison(dro, seeds=[0]), tmp_path)
    assert caplog.text.count("cell: dro") == 4


def test_another_budget_or_metric_trains_nothing_again_but_what_it_chooses(
    material, tmp_path, caplog
):
    caplog.set_level("INFO")
    run_comparison(material, SETTINGS, comparison(SFT, seeds=[0]), tmp_path)
    caplog.clear()
    changed = comparison(SFT, seeds=[0], budget=1e-9, budgets=[], metric="rank_correlation")
    table = run_comparison(material, SETTINGS, changed, tmp_path)
    assert "cell: " not in caplog.text
    nats = {p["value"]: p["validation_divergence"] for p in table["methods"][0]["curve"]}
    assert table["methods"][0]["value"] == nearest(nats, 1e-9)
    assert table["reference"]["rank_correlation"]["value"] == 0
    assert abs(table["methods"][0]["metrics"]["rank_correlation"]["value"]) <= 1


def test_the_reference_answers_once_and_scores_no_policy_s_answers_twice(
    material, tmp_path, caplog
):
    caplog.set_level("INFO", "rpo_pipeline.storage.row_store")
    again = replace(material, model_cache=tmp_path / "cache")
    run_comparison(again, SETTINGS, comparison(SFT, seeds=[0]), tmp_path / "cells")
    assert caplog.text.count(" to sample, 0 in the cache") == 1


def test_a_study_costs_its_levels_and_a_level_that_changes_nothing_is_free(
    material, tmp_path, caplog
):
    caplog.set_level("INFO")
    levels = {"reward_noise": [0.0, 1.0], "num_responses": [1, 2], "logged_share": [0.5, 1.0]}
    studies = {"levels": levels, "methods": ["sft"], "seeds": [0]}
    table = run_comparison(
        material, SETTINGS, comparison(SFT, seeds=[0], studies=studies), tmp_path
    )
    assert caplog.text.count("cell: ") == 2 + 3
    unchanged = [table["studies"][name][place] for name, place in UNCHANGED.items()]
    wanted = table["methods"][0]["metrics"]["reward_mean"]["value"]
    assert [point["outcome"]["value"] for point in unchanged] == [wanted] * 3
    assert "trained on a changed log" in render_comparison(table)


def test_the_methods_of_a_study_are_compared_with_the_first_at_the_same_level(material, tmp_path):
    settings = comparison(
        {**SFT, "name": "first"},
        {**SFT, "name": "twin"},
        {**SFT, "name": "other", "grid": [2e-3, 1e-2]},
        seeds=[0],
        studies={
            "levels": {"reward_noise": [0.0, 1.0]},
            "methods": ["first", "twin", "other"],
            "seeds": [0],
        },
    )
    table = run_comparison(material, SETTINGS, settings, tmp_path)
    points = table["studies"]["reward_noise"]
    for first, twin, other in (points[:3], points[3:]):
        assert first["difference"] is None
        assert twin["difference"] == {"value": 0, "low": 0, "high": 0}
        gap = other["outcome"]["value"] - first["outcome"]["value"]
        assert other["difference"]["value"] == pytest.approx(gap)
        assert twin["kl_reference"] == first["kl_reference"] != other["kl_reference"]


def scored(material):
    return material.rows.drop(columns=["mismatched_prompt_id", "mismatched_logps"])


def test_a_limit_on_rows_keeps_whole_train_prompts_the_same_for_every_seed(material):
    rows = scored(material)
    limited = choose_rows(rows, comparison(SFT, rows=5))
    sizes = limited.groupby(["split", "prompt_id"]).size()
    assert sizes["train"].tolist() == [2, 2]  # two responses a prompt; a third would make six
    assert (len(sizes["validation"]), len(sizes["test"])) == (3, 3)
    more = choose_rows(rows, comparison(SFT, rows=8))
    train = set(limited.query("split == 'train'")["prompt_id"])
    assert train < set(more.query("split == 'train'")["prompt_id"])
    assert train != {"p0", "p1"}  # by a hash, not by the order of the log
    assert choose_rows(rows, comparison(SFT)).equals(rows)


def test_the_number_of_prompts_limits_validation_and_test(material):
    left = choose_rows(scored(material), comparison(SFT, num_prompts=2))
    assert left.groupby("split")["prompt_id"].nunique().to_dict() == {
        **{"train": 6, "validation": 2, "test": 2}
    }


@pytest.mark.parametrize(
    ("keep", "rows", "named"),
    [
        ("split != 'test'", None, "none of test"),
        ("split != 'none'", 1, "none of train"),
        ("split != 'test' or raw_reward > 0", None, "rank_correlation needs"),
    ],
)
def test_a_log_that_cannot_be_compared_is_refused_before_anything_is_trained(
    material, keep, rows, named
):
    with pytest.raises(DataError, match=named):
        choose_rows(
            scored(material).query(keep), comparison(SFT, rows=rows, metric="rank_correlation")
        )


def test_noise_moves_the_rewards_of_train_only(material):
    noisy = change_log(material, "reward_noise", 0.5, seed=0).rows
    moved = noisy["reward"] != material.rows["reward"]
    assert moved.tolist() == (material.rows["split"] == "train").tolist()
    assert noisy["raw_reward"].equals(material.rows["raw_reward"])


def test_two_rewards_are_the_means_of_the_worse_and_the_better_half_of_train(material):
    before, after = (
        log.labelled.set_index("row_id")
        for log in (material, change_log(material, "num_rewards", 2, seed=0))
    )
    train = before["split"] == "train"
    worse = before["reward"] <= before.loc[train, "reward"].median()
    for half in (train & worse, train & ~worse):
        assert after.loc[half, "reward"].tolist() == pytest.approx(
            [before.loc[half, "reward"].mean()] * half.sum()
        )
    assert after[~train].equals(before[~train])
    unchanged = change_log(material, "num_rewards", math.inf, seed=0)
    assert unchanged.labelled["reward"].tolist() == pytest.approx(
        material.labelled["reward"].tolist()
    )


def test_fewer_responses_leave_as_many_of_each_train_prompt_and_all_others(material):
    left = change_log(material, "num_responses", 1, seed=0).rows
    sizes = left.groupby(["split", "prompt_id"]).size()
    assert (sizes["train"] == 1).all()
    assert (sizes[["validation", "test"]] == 2).all()


def test_the_references_responses_take_the_place_of_those_left_out(material):
    mixed = change_log(material, "logged_share", 0.5, seed=0)
    train = mixed.labelled.query("split == 'train'")
    assert (train.groupby("prompt_id").size() == 2).all()
    assert (train["response"] == "Hello!").groupby(train["prompt_id"]).sum().eq(1).all()
    assert train["logps"].notna().all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parameter": "rpo.taus"}, r"'rpo\.taus' is no parameter that a comparison can set"),
        ({"settings": {"ingestion.sources": []}}, "is no parameter that a comparison can set"),
        ({"grid": [-1.0, 1.0]}, r"rpo\.tau: .*greater than 0.*got -1"),
    ],
)
def test_a_setting_that_cannot_work_is_named_before_anything_is_trained(change, message):
    method = MethodParams(**{**RPO, **change})
    with pytest.raises(ConfigError, match=message):
        settings_of(Cell(method, method.grid[0], 0), SETTINGS, {})


def test_other_weights_of_a_labeler_in_an_old_place_measure_a_cell_anew(material, tmp_path):
    judge = save_reward_model(tmp_path / "judge").model_dump(exclude_none=True)
    settings = SETTINGS.model_copy(update={"evaluation": block("evaluation", labelers=[judge])})
    cell = Cell(MethodParams(**SFT), 1e-3, 0)
    run = ([cell], material, settings, comparison(SFT, seeds=[0]), tmp_path / "cells")
    first = run_cells(*run)
    assert run_cells(*run) == first
    save_reward_model(tmp_path / "judge", seed=1)
    assert run_cells(*run) != first


@pytest.mark.parametrize(
    ("settings", "estimator", "labelers", "wanted"),
    [
        ({}, "monte_carlo", ["column"], False),
        ({}, "reference_samples", ["column"], True),
        ({"rpo.estimator": "monte_carlo"}, "reference_samples", ["column"], False),
        ({"rpo.estimator": "auto"}, "monte_carlo", ["column"], False),
        ({"rpo.estimator": "auto"}, "monte_carlo", ["column", "sentiment"], False),
        ({**UNFITTED, "rpo.estimator": "auto"}, "monte_carlo", ["column", "sentiment"], True),
        ({**UNFITTED, "rpo.estimator": "auto"}, "monte_carlo", ["column"], False),
    ],
)
def test_the_reference_is_sampled_only_if_an_estimator_may_read_it(
    settings, estimator, labelers, wanted
):
    rpo = SETTINGS.rpo.model_copy(update={"estimator": estimator})
    given = [{"type": "column"}, {"type": "rules", "weights": {"sentiment": 1.0}}]
    labeling = block("labeling", labelers=given[: len(labelers)])
    compared = comparison({**RPO, "settings": settings})
    assert samples_reference(compared, rpo, labeling) == wanted

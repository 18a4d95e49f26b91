"""Curves of outcome over divergence, against curves made by hand."""

import json

import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.params import ComparisonParams
from rpo_pipeline.search.comparison_cells import Cell
from rpo_pipeline.search.comparison_curve import (
    PROMPTS,
    RESULT,
    Curve,
    choose_values,
    nearest,
    summarise_curves,
)
from rpo_pipeline.search.comparison_measure import METRICS

METHODS = [
    {"name": name, "objective": "rpo", "parameter": "rpo.tau", "grid": [1.0, 2.0]}
    for name in ("rpo", "twin", "worse", "timid")
]
NATS = {"rpo": (9.0, 1.0), "twin": (9.0, 1.0), "worse": (9.0, 1.0), "timid": (2.0, 1.0)}
"""Divergence at each value of the grid."""


def comparison(**changes):
    settings = {
        **{"methods": METHODS, "metric": "reward_mean", "budget": 4.0, "budgets": [1.0, 10.0]},
        **{"seeds": [0, 1, 2], "curve_seeds": [0, 1], "settings": {}, "rows": None},
        "num_prompts": 40,
        "num_processes": 1,
    }
    return ComparisonParams(**{**settings, **changes})


def curve(divergences, outcomes):
    return Curve(np.array([[0.0, *divergences]]), np.array([[0.0, *outcomes]]))


def write(folder, cell, nats, rewards, *, validation=None, ranks=0.5):
    """A finished cell whose reference has reward 0 everywhere."""
    folder = folder / cell.name.replace("/", "|")
    folder.mkdir()
    table = pd.DataFrame(dict.fromkeys(METRICS, rewards))
    table = table.assign(kl_reference=nats, rank_correlation=ranks)
    table = table.join(pd.DataFrame(0.0, table.index, METRICS).add_prefix("reference_"))
    table.assign(prompt_id=[f"{i:02}" for i in range(len(table))]).to_parquet(folder / PROMPTS)
    numbers = dict.fromkeys(["distinct_2", "loss_std", "grad_norm_std", "seconds"], 0.5)
    known = nats if validation is None else validation
    (folder / RESULT).write_text(json.dumps({**numbers, "validation_divergence": known}))
    return folder


@pytest.fixture
def cells(tmp_path):
    """Reward is the root of the divergence, and noise that all share; ``worse`` loses 1."""
    noise = np.random.default_rng(0).normal(size=(2, 40))
    folders = {}
    for method in comparison().methods:
        for value, nats in zip(method.grid, NATS[method.name], strict=True):
            for seed in (0, 1):
                rewards = np.sqrt(nats) + noise[seed] - (method.name == "worse")
                cell = Cell(method, value, seed)
                folders[cell] = write(tmp_path, cell, nats, rewards)
    return folders


def test_a_curve_starts_at_the_reference_and_is_linear_in_the_root_of_the_divergence():
    at = curve([4.0, 1.0], [3.0, 1.0]).at([0.25, 1.0, 2.25, 4.0])
    assert at == pytest.approx(np.array([[0.5, 1.0, 2.0, 3.0]]))


def test_a_curve_that_falls_is_followed_down():
    assert curve([1.0, 4.0], [1.0, 0.0]).at([2.25])[0] == pytest.approx([0.5])


def test_beyond_its_last_point_a_curve_has_no_value():
    at = curve([1.0, 4.0], [1.0, 2.0]).at([4.0, 4.01])[0]
    assert at[0] == 2.0
    assert np.isnan(at[1])


def test_an_estimate_below_no_divergence_counts_as_none():
    assert curve([-0.1, 4.0], [0.2, 2.2]).at([1.0])[0] == pytest.approx([1.2])


@pytest.mark.parametrize(
    ("divergences", "wanted"),
    [({1: 9.0, 2: 2.9, 3: 0.5}, 2), ({1: 9.0, 2: 3.1}, 2), ({1: 3.0, 2: 1.0}, 1)],
)
def test_the_value_nearest_to_the_budget_from_below_is_taken_else_the_nearest(divergences, wanted):
    assert nearest(divergences, 3.0) == wanted


def test_a_value_is_chosen_by_its_divergence_on_validation_and_not_on_test(tmp_path):
    method = comparison().methods[0]
    measured = {1.0: (1.0, 9.0), 2.0: (9.0, 1.0)}  # on test, on validation
    folders = {}
    for value, (nats, validation) in measured.items():
        cell = Cell(method, value, 0)
        folders[cell] = write(tmp_path, cell, nats, np.zeros(40), validation=validation)
    assert choose_values(folders, budget=3.0) == {"rpo": 2.0}


def test_each_budget_has_the_outcome_of_the_curve_or_null_beyond_its_end(cells):
    methods, _ = summarise_curves(cells, comparison(), 200)
    points = {point["budget"]: point for point in methods["rpo"]["budgets"]}
    assert list(points) == [1.0, 4.0, 10.0]
    gain = points[4.0]["outcome"]["value"] - points[1.0]["outcome"]["value"]
    assert gain == pytest.approx(1.0)  # roots of 1 and 4; both have the same noise
    assert points[10.0]["outcome"] == {"value": None, "low": None, "high": None}
    assert methods["timid"]["budgets"][1]["outcome"]["value"] is None


def test_differences_are_paired_in_prompts_and_seeds(cells):
    methods, _ = summarise_curves(cells, comparison(), 500)
    at_main = {name: method["budgets"][1] for name, method in methods.items()}
    assert at_main["rpo"]["difference"] is None
    twin, worse, timid = (at_main[name]["difference"] for name in ("twin", "worse", "timid"))
    assert twin == {"value": 0, "low": 0, "high": 0, "p_holm": 1}
    assert worse["value"] == pytest.approx(-1)
    assert worse["high"] - worse["low"] < 1e-9  # the noise of the prompts is 1
    assert worse["p_holm"] < 0.05
    assert timid == {"value": None, "low": None, "high": None, "p_holm": None}
    assert "p_holm" not in methods["worse"]["budgets"][0]["difference"]
    assert at_main["rpo"]["outcome"]["high"] - at_main["rpo"]["outcome"]["low"] > 0.3


def test_the_winner_is_named_at_the_budget_with_those_it_is_clearly_above(cells):
    _, winner = summarise_curves(cells, comparison(), 200)
    assert winner == {
        **{"method": "rpo", "above": ["worse"], "level": ["twin"], "out_of_reach": ["timid"]}
    }
    assert summarise_curves(cells, comparison(budget=99.0), 100)[1] is None


def test_an_interval_is_told_only_if_nearly_every_resample_reaches_the_budget(tmp_path):
    """The last point lies at 4 nats on average, and below 4 in half of the resamples."""
    method = comparison().methods[0]
    nats = np.random.default_rng(0).normal(4.0, 1.0, 40)
    folders = {}
    for value, size in ((1.0, nats), (2.0, 1.0)):
        cell = Cell(method, value, 0)
        folders[cell] = write(tmp_path, cell, size, np.ones(40), validation=1.0)
    budget = float(nats.mean()) - 1e-6
    settings = comparison(methods=METHODS[:1], budget=budget, seeds=[0], curve_seeds=[0])
    methods, _ = summarise_curves(folders, settings, 200)
    by_budget = {point["budget"]: point["outcome"] for point in methods["rpo"]["budgets"]}
    assert by_budget[budget] == {"value": 1.0, "low": None, "high": None}
    assert by_budget[1.0]["low"] is not None


def test_by_rank_correlation_prompts_without_one_do_not_count(tmp_path):
    method = comparison().methods[0]
    ranks = np.where(np.arange(40) < 10, 0.5, np.nan)
    folders = {}
    for value, nats in ((1.0, 4.0), (2.0, 1.0)):
        cell = Cell(method, value, 0)
        folders[cell] = write(tmp_path, cell, nats, np.zeros(40), ranks=ranks * np.sqrt(nats))
    settings = {"metric": "rank_correlation", "seeds": [0], "curve_seeds": [0]}
    settings = comparison(methods=METHODS[:1], **settings)
    methods, _ = summarise_curves(folders, settings, 100)
    outcomes = [point["outcome"]["value"] for point in methods["rpo"]["budgets"]]
    assert outcomes == pytest.approx([0.5, 1.0, None])

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.params import ComparisonParams
from rpo_pipeline.reporting.comparison_page import render_comparison
from rpo_pipeline.search.comparison_cells import Cell
from rpo_pipeline.search.comparison_table import (
    METRICS,
    PROMPTS,
    RESULT,
    choose_values,
    holm,
    summarise,
)

METHODS = [
    {"name": "rpo", "objective": "rpo", "parameter": "rpo.tau", "grid": [1.0, 2.0]},
    {"name": "kto", "objective": "kto", "parameter": "kto.beta", "grid": [0.1]},
    {"name": "<b>sft</b>", "objective": "sft", "parameter": "rpo.tau", "grid": [0.1]},
]  # fmt: skip
COMPARISON = ComparisonParams(methods=METHODS, seeds=[0, 1, 2], settings={}, num_prompts=40)


def write(folder, cell, rewards):
    folder = folder / cell.name.replace("/", "|")
    folder.mkdir()
    names = [*METRICS, *(f"reference_{name}" for name in METRICS)]
    table = pd.DataFrame(dict.fromkeys(names, rewards))
    table.assign(prompt_id=[f"{i:02}" for i in range(len(table))]).to_parquet(folder / PROMPTS)
    numbers = ["distinct_2", "rank_correlation", "loss_std", "grad_norm_std", "seconds"]
    (folder / RESULT).write_text(json.dumps({"cell": cell.name, **dict.fromkeys(numbers, 0.5)}))
    return folder


@pytest.fixture
def finished(tmp_path):
    """KTO equals RPO prompt by prompt; SFT is worse by 0.3 on average."""
    noise = np.random.default_rng(0)
    rewards = noise.normal(size=(3, 40))
    grid, final = {}, {}
    for method, shift in zip(COMPARISON.methods, (0.0, 0.0, -0.3), strict=True):
        for value in method.grid:
            cell = Cell(method, value, 0, "validation")
            grid[cell] = write(tmp_path, cell, rewards[0] + value)
        for seed in COMPARISON.seeds:
            cell = Cell(method, method.grid[-1], seed, "test")
            worse = shift + (0.1 * noise.normal(size=40) if shift else 0.0)
            final[cell] = write(tmp_path, cell, rewards[seed] + worse)
    return grid, final


def test_the_value_with_the_highest_reward_on_validation_is_chosen(finished):
    assert choose_values(finished[0]) == {"rpo": 2.0, "kto": 0.1, "<b>sft</b>": 0.1}


def test_differences_are_paired_so_equal_methods_differ_by_nothing_and_others_clearly(finished):
    table = summarise(*finished, COMPARISON, num_resamples=500)
    rpo, kto, sft = (method["difference"] for method in table["methods"])
    assert rpo is None
    assert (kto["value"], kto["low"], kto["high"], kto["p_holm"]) == (0, 0, 0, 1)
    assert sft["high"] < -0.2 < -0.3 + 0.1
    assert sft["p_holm"] < 0.05
    assert sft["high"] - sft["low"] < 0.2  # the spread of the prompts themselves is 1


def test_the_interval_of_a_mean_holds_what_seeds_and_prompts_leave_open(finished):
    method = summarise(*finished, COMPARISON, num_resamples=500)["methods"][0]
    mean = method["metrics"]["reward_mean"]
    assert mean["low"] < mean["value"] < mean["high"]
    seeds = method["seeds"]
    assert seeds["reward_std"] == pytest.approx(np.std(seeds["reward_mean"], ddof=1))


def test_the_page_stands_alone_and_shows_names_as_text(finished):
    page = render_comparison({**summarise(*finished, COMPARISON, num_resamples=100), "studies": {}})
    assert "&lt;b&gt;sft&lt;/b&gt;" in page
    assert "<b>sft</b>" not in page
    assert "src=" not in page
    assert 'href="http' not in page


def test_holm_by_hand():
    # 0.01 * 3, then max with 0.03 * 2, then max with 0.04 * 1.
    adjusted = holm({"a": 0.04, "b": 0.01, "c": 0.03})
    assert adjusted == pytest.approx({"b": 0.03, "c": 0.06, "a": 0.06})


@given(st.dictionaries(st.text(), st.floats(0, 1), min_size=1))
def test_an_adjusted_p_value_is_never_smaller_and_keeps_the_order(p_values):
    adjusted = holm(p_values)
    assert all(p <= adjusted[name] <= 1 for name, p in p_values.items())
    order = sorted(p_values, key=p_values.__getitem__)
    assert sorted(adjusted.values()) == [adjusted[name] for name in order]

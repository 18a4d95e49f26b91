import numpy as np
import pytest

from rpo_pipeline.reporting.comparison_page import curves, render_comparison, say_verdict
from rpo_pipeline.search.comparison_cells import Cell
from rpo_pipeline.search.comparison_table import summarise
from tests.search.test_comparison_curve import comparison, write

METHODS = [
    {"name": "rpo", "objective": "rpo", "parameter": "rpo.tau", "grid": [1.0, 2.0]},
    {"name": "kto", "objective": "kto", "parameter": "kto.beta", "grid": [0.1, 0.2]},
    {"name": "<b>sft</b>", "objective": "sft", "parameter": "rpo.tau", "grid": [0.1, 0.2]},
]
COMPARISON = comparison(methods=METHODS)


@pytest.fixture
def finished(tmp_path):
    """KTO equals RPO prompt by prompt; SFT is worse by 0.3 on average."""
    noise = np.random.default_rng(0)
    rewards = noise.normal(size=(3, 40))
    curves, final = {}, {}
    for method, shift in zip(COMPARISON.methods, (0.0, 0.0, -0.3), strict=True):
        for place, value in enumerate(method.grid):
            for seed in COMPARISON.seeds if place else COMPARISON.curve_seeds:
                worse = shift + (0.1 * noise.normal(size=40) if shift else 0.0)
                cell = Cell(method, value, seed)
                nats = 9.0 - 6.0 * place
                (tmp_path / method.objective).mkdir(exist_ok=True)
                own = rewards[seed] + worse
                folder = write(tmp_path / method.objective, cell, nats, own)
                if seed in COMPARISON.curve_seeds:
                    curves[cell] = folder
                if place:
                    final[cell] = folder
    return curves, final


def test_differences_are_paired_so_equal_methods_differ_by_nothing_and_others_clearly(finished):
    table = summarise(*finished, COMPARISON, num_resamples=500)
    rpo, kto, sft = (method["difference"] for method in table["methods"])
    assert rpo is None
    assert (kto["value"], kto["low"], kto["high"], kto["p_holm"]) == (0, 0, 0, 1)
    assert sft["high"] < -0.2 < -0.3 + 0.1
    assert sft["p_holm"] < 0.05
    assert sft["high"] - sft["low"] < 0.2  # the spread of the prompts themselves is 1


def test_a_method_is_reported_with_its_divergence_and_every_cell_once(finished):
    table = summarise(*finished, COMPARISON, num_resamples=100)
    assert [m["value"] for m in table["methods"]] == [2.0, 0.2, 0.2]
    assert table["methods"][0]["metrics"]["kl_reference"]["value"] == 3.0
    names = [cell["cell"] for cell in table["cells"]]
    assert len(names) == len(set(names)) == 3 * (2 + 3)


def test_the_interval_of_a_mean_holds_what_seeds_and_prompts_leave_open(finished):
    method = summarise(*finished, COMPARISON, num_resamples=500)["methods"][0]
    mean = method["metrics"]["reward_mean"]
    assert mean["low"] < mean["value"] < mean["high"]
    seeds = method["seeds"]
    assert seeds["outcome_std"] == pytest.approx(np.std(seeds["outcome"], ddof=1))


def test_the_page_stands_alone_and_shows_names_as_text(finished):
    page = render_comparison({**summarise(*finished, COMPARISON, num_resamples=100), "studies": {}})
    assert "&lt;b&gt;sft&lt;/b&gt;" in page
    assert "<b>sft</b>" not in page
    assert "src=" not in page
    assert 'href="http' not in page


def test_the_headline_names_the_winner_at_the_budget_and_a_curve_without_value_there(finished):
    table = {**summarise(*finished, COMPARISON, num_resamples=100), "studies": {}}
    assert say_verdict(table) == (
        "At 4 nats, rpo has the highest reward; clearly above <b>sft</b>; not to be told from kto."
    )
    assert say_verdict({**table, "winner": None}) == "No curve reaches 4 nats."


def test_the_picture_has_a_line_for_each_method_with_straight_pieces_between_its_points(finished):
    table = {**summarise(*finished, COMPARISON, num_resamples=100), "studies": {}}
    drawing = curves(table)
    assert all(name in drawing for name in ("rpo", "kto", "&lt;b&gt;sft&lt;/b&gt;"))
    assert "divergence from the reference" in drawing

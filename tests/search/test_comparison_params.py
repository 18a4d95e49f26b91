"""What a comparison may be told to do, and the one that is shipped."""

import pytest
from pydantic import ValidationError

from rpo_pipeline.params import MethodParams
from rpo_pipeline.search.comparison_cells import (
    curve_cells,
    final_cells,
    settings_of,
    study_cells,
    what_counts,
)
from tests.conftest import block
from tests.search.test_comparison import SETTINGS
from tests.search.test_comparison_curve import METHODS, comparison

SHIPPED = block("comparison")


@pytest.mark.parametrize("grid", [[], [1.0], [1.0, 1.0]])
def test_a_grid_that_makes_no_curve_is_refused(grid):
    with pytest.raises(ValidationError, match="a curve needs at least two different values"):
        MethodParams(**{**METHODS[0], "grid": grid})


def test_seeds_of_curves_are_among_the_seeds_so_that_their_cells_are_shared():
    with pytest.raises(ValidationError, match="curve_seeds must be among"):
        comparison(curve_seeds=[7])


def test_budgets_are_read_from_small_to_large_and_once():
    assert comparison(budget=2.0, budgets=[4.0, 2.0, 1.0]).every_budget == [1.0, 2.0, 4.0]


def test_every_method_that_is_shipped_has_a_curve_of_four_points_and_settings_that_exist():
    assert min(len(method.grid) for method in SHIPPED.methods) >= 4
    chosen = {method.name: method.grid[0] for method in SHIPPED.methods}
    cells = [*curve_cells(SHIPPED), *final_cells(SHIPPED, chosen), *study_cells(SHIPPED, chosen)]
    for cell in cells:
        settings_of(cell, SETTINGS, SHIPPED.settings)
    counted = [str(what_counts(settings_of(cell, SETTINGS, SHIPPED.settings))) for cell in cells]
    assert len(set(counted)) == len({(cell.method.name, cell.value, cell.seed) for cell in cells})
    unchanged = {("reward_noise", 0.0), ("logged_share", 1.0)}  # these cells are those of the table
    assert len({cell.name for cell in cells if cell.study not in unchanged}) <= 150

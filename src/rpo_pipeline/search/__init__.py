"""Search over temperatures and methods."""

from rpo_pipeline.search.comparison import run_comparison
from rpo_pipeline.search.comparison_cells import Plan, Settings, samples_reference, trains
from rpo_pipeline.search.comparison_material import (
    Material,
    choose_rows,
    gather_rows,
    score_sampled_rows,
)
from rpo_pipeline.search.temperature import Trials, choose_tau, rows_at_tau

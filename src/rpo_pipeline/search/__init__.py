"""Search over temperatures and methods on the validation split."""

from rpo_pipeline.search.cells import Settings
from rpo_pipeline.search.material import Material, sampled_rows
from rpo_pipeline.search.run import run_comparison
from rpo_pipeline.search.temperature import choose_tau

__all__ = [
    "Material",
    "Settings",
    "choose_tau",
    "run_comparison",
    "sampled_rows",
]

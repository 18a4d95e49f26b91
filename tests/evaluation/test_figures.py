import numpy as np
import pandas as pd

from rpo_pipeline.evaluation.figures import partition_trust


def test_what_an_estimator_does_not_define_is_said_in_its_place():
    partition = pd.DataFrame(
        {"n_used": [8, 8], "reward_std_over_tau": [0.6, 0.7], "log_z_se": np.nan, "log_z_bias": 0.1}
    )
    assert partition_trust(partition).count("not defined") == 1

import numpy as np
import pandas as pd

from rpo_pipeline.reporting.figures import (
    MAX_POINTS,
    heldout_ranking,
    new_axes,
    partition_trust,
    to_svg,
    training_curves,
)


def test_what_an_estimator_does_not_define_is_said_in_its_place():
    partition = pd.DataFrame(
        {"n_used": [8, 8], "reward_std_over_tau": [0.6, 0.7], "log_z_se": np.nan, "log_z_bias": 0.1}
    )
    assert "".join(partition_trust(partition)).count("not defined") == 1


def test_a_picture_takes_its_colours_from_the_page_and_escapes_its_names():
    axes = new_axes()
    axes.plot([0, 1], color="#d55e00")
    drawing = to_svg(axes, "$5 <b>", "", "$x_1$ & more", says='a "title"')
    assert "var(--challenger, #d55e00)" in drawing
    assert "currentColor" in drawing
    assert 'aria-label="a &quot;title&quot;"' in drawing
    assert "$5 &lt;b&gt;" in drawing
    assert "$x_1$ &amp; more" in drawing
    assert "<style" not in drawing


def test_a_picture_of_many_rows_stays_small():
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(20_000, 2)))
    (cloud,) = heldout_ranking(rows.set_axis(["raw_reward", "log_ratio"], axis=1))
    assert 0.9 * MAX_POINTS < cloud.count("<use") < 1.1 * MAX_POINTS
    steps = pd.DataFrame({"step": range(20_000), "train/loss": rows[0], "train/log_ratio": rows[1]})
    steps["train/grad_norm"] = rows[0]
    assert sum(len(picture) for picture in training_curves(steps)) < 300_000

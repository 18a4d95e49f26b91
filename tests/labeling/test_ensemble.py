import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.labeling.labelers import EnsembleLabeler
from rpo_pipeline.labeling.labeling import build_labeler
from rpo_pipeline.params import EnsembleParams

MEMBERS = [
    {"type": "rules", "name": "kind", "weights": {"sentiment": 1}},
    {"type": "rules", "name": "brief", "weights": {"length": 1}, "target_words": 4, "scale": 3.0},
]
ROWS = pd.DataFrame(
    {"prompt": "Help!", "response": ["Thank you, dear Ada!", "No.", "Well."]}, index=[5, 6, 7]
)


def ensemble(**settings):
    return EnsembleParams(members=MEMBERS, **settings)


def label(**settings):
    return build_labeler(ensemble(**settings), None).label(ROWS)


def members_of(labels):
    return labels[["kind", "brief"]].to_numpy()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"combine": "mean"}, lambda m: m.mean(axis=1)),
        ({"combine": "mean", "weights": [3.0, 1.0]}, lambda m: m @ [0.75, 0.25]),
        ({"combine": "min"}, lambda m: m.min(axis=1)),
        (
            {"combine": "penalised", "penalty": 0.5},
            lambda m: m.mean(axis=1) - 0.5 * abs(m[:, 0] - m[:, 1]) / 2,
        ),
    ],
)
def test_the_raw_reward_combines_the_members_on_their_own_scales(settings, expected):
    labels = label(**settings)
    np.testing.assert_allclose(labels["raw_reward"], expected(members_of(labels)))
    assert labels["brief"].max() == pytest.approx(3.0)  # the scale that its member asks for


def test_the_disagreement_is_the_deviation_over_members_and_stands_beside_their_components():
    labels = label(combine="min")
    np.testing.assert_allclose(labels["disagreement"], np.ptp(members_of(labels), axis=1) / 2)
    assert {"kind_sentiment", "brief_length"} <= {*labels}
    assert labels.index.tolist() == [5, 6, 7]
    assert {"jury_disagreement", "jury_kind"} <= {*label(combine="min", name="jury")}


def test_a_row_that_a_member_has_no_answer_for_gets_none():
    class Silent:
        name, fingerprint = "silent", "silent"

        def label(self, rows):
            return pd.DataFrame({"raw_reward": [1.0, np.nan, 2.0]}, index=rows.index)

    settings = ensemble(combine="mean")
    members = [Silent(), build_labeler(settings.members[1], None)]
    labels = EnsembleLabeler(settings, members).label(ROWS)
    assert labels["raw_reward"].isna().tolist() == [False, True, False]


def test_the_fingerprint_follows_the_members_and_how_they_are_combined():
    def fingerprint(settings):
        return build_labeler(settings, None).fingerprint

    other = EnsembleParams(members=[MEMBERS[0], MEMBERS[1] | {"scale": 2.0}], combine="mean")
    heavier = ensemble(combine="mean", weights=[1.0, 2.0])
    all_of_them = [ensemble(combine="mean"), ensemble(combine="min"), other, heavier]
    assert len({fingerprint(settings) for settings in all_of_them}) == 4
    renamed = ensemble(combine="mean", name="jury")
    assert fingerprint(renamed) == fingerprint(all_of_them[0])

"""Rows of the previous run are labelled again; what moved is told."""

import pytest

from rpo_pipeline.labeling.drift import measure_drift
from rpo_pipeline.labeling.labeling import label_feedback
from tests.conftest import block
from tests.labeling.test_labelers import COLUMN, RULES, feedback
from tests.labeling.test_reward_model import save_reward_model

TABLE = feedback(None, None, None, None, 1.0)


def previous(*labelers, table=TABLE):
    return label_feedback(table, block("labeling", labelers=list(labelers)), None)


def drift(before, *labelers, table=TABLE, **changes):
    labeling = block("labeling", labelers=list(labelers), **changes)
    return measure_drift(before, table, labeling)


def test_a_labeler_that_depends_on_nothing_else_has_no_drift(caplog):
    found = drift(previous(COLUMN, RULES), COLUMN, RULES)["rules"]
    assert (found["n"], found["labeler_changed"]) == (4, False)
    assert (found["mean"], found["std"], found["drift"], found["share_changed"]) == (0, 0, 0, 0)
    assert found["rank_correlation"] == pytest.approx(1)
    assert "moved" not in caplog.text


def test_other_settings_are_another_labeler_and_the_change_is_measured(caplog):
    found = drift(previous(COLUMN, RULES), COLUMN, RULES | {"offset": 1.1})["rules"]
    assert found["labeler_changed"]
    assert found["mean"] == pytest.approx(1.0)
    assert found["std"] == pytest.approx(0, abs=1e-9)
    assert found["share_changed"] == 1
    assert "its settings, weights or code changed" in caplog.text


def test_what_moves_under_the_same_fingerprint_is_warned_of_with_its_size(caplog):
    before = previous(COLUMN, RULES)
    before["raw_reward"] = -before["raw_reward"]
    found = drift(before, COLUMN, RULES)["rules"]
    assert not found["labeler_changed"]
    assert found["rank_correlation"] == pytest.approx(-1)
    spread = before.loc[before["labeler"] == "rules", "raw_reward"].std(ddof=0)
    expected = 2 * before.loc[before["labeler"] == "rules", "raw_reward"].abs().mean() / spread
    assert found["drift"] == pytest.approx(expected)
    assert "although its settings and weights did not change" in caplog.text
    assert drift(before, COLUMN, RULES, max_drift=9)["rules"]["drift"] > 1
    assert caplog.text.count("moved by") == 1


def test_a_sample_of_the_rows_that_are_still_there_is_labelled_again():
    before = previous(COLUMN, RULES)
    assert drift(before, COLUMN, RULES, drift_rows=3)["rules"]["n"] == 3
    assert drift(before, COLUMN, RULES, table=TABLE.iloc[2:])["rules"]["n"] == 2
    assert drift(before, COLUMN, RULES, drift_rows=0) == {}


def test_without_a_previous_run_there_is_no_drift():
    assert drift(None, COLUMN, RULES) == {}
    assert drift(previous(COLUMN, RULES)[["row_id", "raw_reward", "labeler"]], COLUMN, RULES) == {}


def test_drift_is_measured_on_the_model_that_is_there_not_on_its_cache(tmp_path):
    model = save_reward_model(tmp_path / "model")
    settings = model.model_dump(exclude_none=True)
    labeling = block("labeling", labelers=[settings])
    before = label_feedback(TABLE, labeling, tmp_path / "cache")
    save_reward_model(tmp_path / "model", seed=1)
    found = measure_drift(before, TABLE, labeling)["reward_model"]
    assert found["labeler_changed"]
    assert found["drift"] > 0.1

import re
from dataclasses import replace

import pandas as pd
import pytest

from rpo_pipeline.records import Decision, RunAddress
from rpo_pipeline.reporting.page import show_number
from rpo_pipeline.reporting.report import (
    describe_lineage,
    fingerprint_inputs,
    metric_rows,
    quarantine_reasons,
    render_report,
    say_verdict,
)
from rpo_pipeline.reporting.samples import EACH, choose_samples
from tests.conftest import build_small
from tests.reporting.findings import (
    QUARANTINE,
    interval,
    make_findings,
    make_generations,
    make_summary,
)

PLANTED = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page():
    summary = make_summary()
    summary.challenger["lm_eval_toy_acc"] = interval(0.5)
    return render_report(make_findings(summary=summary))


def gate(mode="auto", **check):
    passing = make_summary().gate
    return say_verdict(replace(passing, checks=({**passing.checks[0], **check},)), mode)


def test_the_verdict_says_whether_and_why():
    assert gate() == "Earns promotion: every condition of the gate holds."
    assert "waits for a person" in gate("manual")
    assert gate(passed=False, observed=-0.07781) == (
        "Not promoted: the difference in reward to the reference may be as low as "
        "\N{MINUS SIGN}0.0778 and must be above 0."
    )
    many = gate(passed=False, against="none", metric="kl_reference", bound="value", observed=51.0)
    assert many.startswith("Not promoted: KL to reference is 51 and must be above 0")
    assert "was not measured" in gate(passed=False, observed=None)
    few = gate(passed=False, metric="num_prompts", observed=4, threshold=20)
    assert few == "Not promoted: 4 test prompts are too few, 20 are needed."


def test_the_verdict_says_first_what_cannot_be_believed_and_what_was_waived():
    nobody = {"metric": "ratings", "observed": 0, "passed": False, "waived": False}
    nobody["reason"] = "people rated 0 rows of the log"
    (check,) = make_summary().gate.checks
    both = Decision(False, checks=(nobody, {**check, "passed": False, "observed": -0.1}))
    assert say_verdict(both, "auto").startswith(
        "Not promoted: people rated 0 rows of the log; the difference in reward"
    )
    waived = Decision(True, checks=({**nobody, "passed": True, "waived": True}, check))
    assert say_verdict(waived, "auto") == (
        "Earns promotion: every condition of the gate holds; although people rated 0 rows of the "
        "log."
    )


def test_a_difference_is_called_by_the_side_of_zero_that_its_interval_lies_on():
    verdicts = {row["label"]: row["verdict"] for row in metric_rows(make_summary())}
    assert verdicts == {
        "Reward": "better",
        "Toxicity": "better",  # it fell
        "KL to reference": "higher",  # neither way is better
        "Length": "unsure",
    }
    worse = make_summary()
    worse.difference["vs_reference"] |= {
        "reward_mean": interval(-1.0),
        "toxicity_mean": interval(0.0, 0.0),
        "length_mean": {"value": 1.0, "low": None, "high": None},
    }
    verdicts = [row["verdict"] for row in metric_rows(worse)]
    assert verdicts == ["worse", "equal", "higher", "none"]


def test_a_metric_that_the_report_does_not_know_is_shown_by_its_name(page):
    assert "Toy acc <small>task of the lm-evaluation-harness</small>" in page


def test_samples_are_the_best_the_worst_the_most_changed_and_some_at_random():
    generations = make_generations()
    same = (generations["model"] == "challenger") & (generations["prompt_id"] != "p015")
    answers = generations["response"].where(~same, generations["response"].shift())
    samples = choose_samples(generations.assign(response=answers), "reference")
    by_kind = {
        kind: [sample["answers"][0][1].split()[1] for sample in samples if kind in sample["kinds"]]
        for kind in ("best", "worst", "changed", "random")
    }
    assert by_kind["best"] == [str(i) for i in range(29, 29 - EACH, -1)]
    assert set(by_kind["worst"]) == {str(i) for i in range(EACH)}
    assert "15" in by_kind["changed"]
    assert len(by_kind["random"]) == EACH
    assert len({sample["prompt"] for sample in samples}) == len(samples)


def test_nothing_that_data_or_settings_say_becomes_markup():
    summary = make_summary()
    summary.challenger[PLANTED] = interval(0.5)
    summary.gate.checks[0].update({"reason": PLANTED, "passed": False, "metric": PLANTED})
    rejected = [(PLANTED, 1, PLANTED, PLANTED)]
    html = render_report(
        make_findings(
            summary=summary,
            generations=make_generations(prompt=PLANTED).assign(response=PLANTED),
            reasons=quarantine_reasons(pd.DataFrame(rejected, columns=QUARANTINE)),
            source_parts=[{"path": PLANTED, "key": PLANTED, "rows": 1, "rejected": 0}],
            data_reports={PLANTED: {PLANTED: [PLANTED]}},
            parameters={
                "promotion": {"mode": "auto"},
                "training": {"objective": PLANTED},
                PLANTED: {PLANTED: PLANTED},
            },
            lineage={PLANTED: PLANTED},
        )
    )
    assert html.count("<script>") == html.count("</script>") == 1
    assert "<img" not in html
    assert html.count("&lt;img") > 20


def test_the_page_names_nothing_outside_and_lets_nothing_in(page):
    assert re.findall(r'(?:src|href)="(?!#)|url\((?!#)|@import', page) == []
    assert "default-src 'none'" in page
    ids = re.findall(r'\bid="([^"]*)"', page)
    assert len(ids) == len(set(ids))


def test_the_verdict_says_how_log_z_was_estimated_and_where_the_divergence_landed(page):
    verdict = page[page.index('class="verdict') : page.index("<nav")]
    assert "<code>monte_carlo</code> (train prompts have 8.0 responses on average)" in verdict
    assert re.search(r"of at most 3\.0 nats a response; the challenger's is [\d.]+\.", verdict)


def test_the_account_adds_up_by_reason(page):
    rows = re.findall(r'<th scope="row">(Not text|Missing prompt)</th><td[^>]*>(\d+)', page)
    assert rows == [("Not text", "2"), ("Missing prompt", "1")]
    assert "log.jsonl, line 9" in page


def test_the_report_of_a_run_without_steps_quarantine_or_gain_can_be_written():
    few = make_generations(2)
    few["raw_reward"] = 0.0
    html = render_report(
        make_findings(
            training_metrics=pd.DataFrame(),
            reasons=quarantine_reasons(pd.DataFrame(columns=QUARANTINE)),
            generations=few,
        )
    )
    assert "No steps were recorded." in html
    assert "Quarantined, by reason" not in html


def test_lineage_names_run_code_data_and_models(tmp_path):
    build_small("llama").save(tmp_path / "a")
    build_small("llama", seed=1).save(tmp_path / "b")
    versions = {"mlflow.source.git.commit": "c0ffee", "git.dirty": "True"}
    run = RunAddress("sqlite:///nowhere", run_id="r1", versions=versions)
    models = {"reference": tmp_path / "a", "challenger": tmp_path / "b"}
    lineage = describe_lineage(run, fingerprint_inputs([{"key": "1"}], models))
    same = {**models, "challenger": tmp_path / "a"}
    other = describe_lineage(RunAddress(""), fingerprint_inputs([{"key": "2"}], same))
    assert lineage["MLflow run"] == "r1"
    assert lineage["git commit"] == "c0ffee, with changes"
    assert other["git commit"] == "no checkout"
    assert lineage["data digest"] != other["data digest"]
    assert lineage["reference fingerprint"] == other["challenger fingerprint"]
    assert lineage["challenger fingerprint"] != lineage["reference fingerprint"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (-0.07781, "\N{MINUS SIGN}0.0778"), (12345.6, "12,346"), (50.0, "50")],
)
def test_numbers_are_written_for_people(value, text):
    assert show_number(value) == text


def test_a_difference_that_is_luck_among_so_many_metrics_is_no_verdict():
    summary = make_summary(p_holm={"vs_reference": {"reward_mean": 0.2}})
    verdicts = {row["label"]: row["verdict"] for row in metric_rows(summary)}
    assert verdicts["Reward"] == "unsure"


def test_how_far_the_judge_can_be_trusted_stands_beside_the_verdict():
    trusted = {
        **{"num_pairs": 40, "unanswered": 0, "orders_agree": 0.75, "ties": 0.2},
        **{"num_rated_pairs": 10, "agreement_with_ratings": interval(0.9)},
    }
    page = render_report(make_findings(summary=make_summary(judge=trusted)))
    assert "kept its mind on 75 %" in page
    assert "sides with people on 90 % of 10 rated pairs" in page


def test_a_fitted_reward_model_shows_its_calibration_and_one_that_could_not_be_fitted_does_not():
    tenths = [{"predicted": i / 10, "rated": i / 12, "num_rows": 5.0} for i in range(10)]
    fitted = [
        {"labeler": "head_a", "calibration": tenths},
        {"labeler": "head_b", "problems": ["x"]},
    ]
    page = render_report(make_findings(data_reports={"Labels": {"fitted_reward_models": fitted}}))
    assert "Calibration of head_a" in page
    assert "Calibration of head_b" not in page

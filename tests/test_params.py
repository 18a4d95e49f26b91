"""Parameters fail before any node runs, in words, all at once."""

from copy import deepcopy

import pytest

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.operations.environments import open_configuration
from rpo_pipeline.params import BLOCKS, validate_blocks, validate_catalog, validate_tracking
from rpo_pipeline.params.evaluation import FAMILIES, METRICS
from rpo_pipeline.reporting import report
from tests.conftest import ROOT, raw_parameters

TRACKING = {
    "tracking_uri": "sqlite:///mlflow.db",
    "experiment": "test",
    "on_outage": "continue",
    "registry_wait_seconds": 0,
}


@pytest.fixture
def raw():
    return deepcopy(raw_parameters("smoke"))


@pytest.mark.parametrize("env", ["sample", "smoke", "t5", "smollm2"])
def test_the_parameters_of_every_environment_are_valid(env):
    loader = open_configuration(ROOT, env)
    assert set(validate_blocks(loader["parameters"])) == set(BLOCKS)
    assert validate_tracking(loader["mlflow"]).experiment == "rpo_pipeline"


def test_wrong_tracking_settings_are_refused_with_their_file():
    with pytest.raises(ConfigError) as error:
        validate_tracking({"tracking_url": "sqlite:///mlflow.db", "experiment": "x"})
    message = str(error.value)
    assert "mlflow.tracking_uri is missing (conf/*/mlflow.yml)" in message
    assert "mlflow.tracking_url: no such parameter; did you mean tracking_uri?" in message


def refused(raw):
    with pytest.raises(ConfigError) as error:
        validate_blocks(raw)
    return str(error.value)


def test_a_negative_tau_is_refused_with_its_value_and_where_to_change_it(raw):
    raw["rpo"]["tau"] = -1
    message = refused(raw)
    assert "rpo.tau: must be a number greater than 0, or `auto`, got -1" in message
    assert "conf/*/parameters_rpo.yml" in message
    assert "--params rpo.tau=..." in message


def test_an_unknown_estimator_is_refused_with_those_that_exist(raw):
    raw["rpo"]["estimator"] = "montecarlo"
    message = refused(raw)
    for name in ("'monte_carlo'", "'self_normalized'", "'reference_weighted'", "got 'montecarlo'"):
        assert name in message


def test_an_unknown_parameter_is_refused_with_the_one_that_was_meant(raw):
    raw["training"]["learning_rat"] = 1e-3
    assert "training.learning_rat: no such parameter; did you mean learning_rate?" in refused(raw)


def test_an_unknown_block_and_a_missing_one_are_refused(raw):
    raw["trainning"] = raw.pop("training")
    message = refused(raw)
    assert "trainning: no such parameter; did you mean training?" in message
    assert "training: this block is missing" in message


def test_every_wrong_value_is_named_at_once(raw):
    raw["rpo"]["tau"] = 0
    raw["training"]["seed"] = -3
    del raw["evaluation"]["num_prompts"]
    message = refused(raw)
    for name in ("rpo.tau", "training.seed", "evaluation.num_prompts is missing"):
        assert name in message


@pytest.mark.parametrize(
    ("block", "change", "message"),
    [
        ("rpo", {"estimator": "reference_weighted"}, "rpo.prior_strength"),
        ("policy", {"name_or_path": "some/model"}, "exactly one of policy.name_or_path"),
        ("evaluation", {"labelers": [{"type": "column"}]}, "cannot score new text"),
        ("labeling", {"labelers": [{"type": "rules"}]}, "needs a weight"),
        ("labeling", {"labelers": [{"type": "column"}] * 2}, "two labelers are called 'column'"),
        ("labeling", {"labelers": [{"type": "column", "name": "model"}]}, "cannot be called"),
        ("ingestion", {"split_shares": {"train": 0.5, "validation": 0, "test": 0.1}}, "sum to 1"),
    ],
)
def test_values_that_contradict_each_other_are_refused(raw, block, change, message):
    raw[block] |= change
    assert message in refused(raw)


@pytest.mark.parametrize("rho", [-1, float("nan"), float("inf"), "often"])
def test_a_rho_that_is_no_ratio_is_refused(raw, rho):
    raw["rpo"]["rho"] = rho
    assert "rpo.rho: must be a number from 0, or `auto`" in refused(raw)


@pytest.mark.parametrize("huber_delta", [0, -1, 1e-6, float("nan"), float("inf"), "auto"])
def test_a_huber_delta_that_is_no_distance_is_refused(raw, huber_delta):
    raw["rpo"]["huber_delta"] = huber_delta
    assert "rpo.huber_delta: " in refused(raw)


@pytest.mark.parametrize("huber_delta", [None, 1e-3, 1, 100.0])
def test_a_huber_delta_is_a_distance_or_none(raw, huber_delta):
    raw["rpo"]["huber_delta"] = huber_delta
    assert validate_blocks(raw)["rpo"].huber_delta == huber_delta


@pytest.mark.parametrize("rho", [0, 0.0, 2, "auto"])
def test_rho_is_a_number_from_zero_or_auto(raw, rho):
    raw["rpo"]["rho"] = rho
    assert validate_blocks(raw)["rpo"].rho == rho


@pytest.mark.parametrize(
    ("objectives", "by_sum", "by_mean"),
    [
        (["rpo", "qrpo", "dro", "rebel"], False, True),
        (["kto", "tgo", "nca", "infonca"], False, False),
        (["sft", "awr"], True, True),
    ],
)
def test_held_out_responses_are_ranked_by_what_the_loss_reads(raw, objectives, by_sum, by_mean):
    for reduction, wanted in (("sum", by_sum), ("mean", by_mean)):
        raw["rpo"]["logp_reduction"] = reduction
        rpo = validate_blocks(raw)["rpo"]
        assert [rpo.averages_tokens(name) for name in objectives] == [wanted] * len(objectives)


def test_quantile_is_refused_for_any_objective_but_qrpo(raw):
    raw["rpo"]["estimator"] = "quantile"
    message = refused(raw)
    assert "`quantile` goes with training.objective `qrpo` only" in message
    assert "got training.objective 'rpo'" in message
    raw["training"]["objective"] = "qrpo"
    validate_blocks(raw)


@pytest.mark.parametrize(
    ("block", "change"),
    [("training", {"objective": "qrpo"}), ("rpo", {"estimator": "reference_samples"})],
)
def test_samples_that_no_labeler_could_label_are_refused(raw, block, change):
    raw[block] |= change
    validate_blocks(raw)
    raw["labeling"]["labelers"] = [{"type": "column"}]
    message = refused(raw)
    assert next(iter(change.values())) in message
    assert "`column` cannot score new text; add a labeler such as `rules`" in message


def test_a_rating_column_takes_a_scale_or_values_but_not_both(raw):
    raw["ingestion"]["sources"][0]["ratings"] = [
        {"column": "stars", "scale": [1, 5], "values": {"one": 1}}
    ]
    assert "give `scale` or `values`, not both" in refused(raw)


MODEL = {"type": "reward_model", "name_or_path": "some/model"}
RULES = {"type": "rules", "weights": {"sentiment": 1}}


@pytest.mark.parametrize(
    ("labeler", "message"),
    [
        (
            {"type": "ruls"},
            "labelers.0.type: did you mean rules? a labeler is one of column, rules",
        ),
        ({"weights": {}}, "labeling.labelers.0.type: a labeler is one of column"),
        (RULES | {"target_word": 3}, "labeling.labelers.0.target_word: no such parameter; did you"),
        (RULES | {"target_words": 0}, "labeling.labelers.0.target_words: input should be greater"),
        (RULES | {"revision": "abc"}, "labeling.labelers.0.revision: no such parameter"),
        ({"type": "reward_model"}, "labeling.labelers.0.name_or_path is missing"),
        (MODEL | {"positive_label": "good"}, "give both of positive_label and negative_label"),
        ({"type": "rules", "weights": {"tone": 1}}, "'coverage' or 'length', got 'tone'"),
    ],
)
def test_a_wrong_labeler_is_refused_by_its_place_in_the_yaml(raw, labeler, message):
    raw["labeling"]["labelers"] = [labeler]
    assert message in refused(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": [RULES, {"type": "column"}]}, "`column` cannot score new text"),
        ({"members": [RULES, RULES]}, "two labelers are called 'rules'"),
        ({"members": [RULES, {"type": "ruless"}]}, "labelers.0.members.1.type: did you mean rules"),
        ({"combine": "penalised"}, "`penalty` goes with `combine: penalised`"),
        ({"weights": [1.0]}, "2 members need as many weights, got 1"),
        ({"combine": "min", "weights": [1.0, 2.0]}, "`combine: min` takes no weights"),
    ],
)
def test_an_ensemble_that_cannot_work_is_refused(raw, change, message):
    ensemble = {"type": "ensemble", "combine": "mean", "members": [RULES, MODEL]}
    raw["labeling"]["labelers"] = [ensemble]
    validate_blocks(raw)
    raw["labeling"]["labelers"] = [ensemble | change]
    assert message in refused(raw)


def test_members_of_an_ensemble_without_a_name_share_their_names_with_the_labelers_beside(raw):
    ensemble = {"type": "ensemble", "combine": "mean", "members": [RULES, MODEL]}
    raw["labeling"]["labelers"] = [ensemble, RULES]
    assert "two labelers are called 'rules'" in refused(raw)
    raw["labeling"]["labelers"] = [ensemble | {"name": "jury"}, RULES]
    validate_blocks(raw)


def test_a_rating_column_called_as_a_labeler_keeps_its_place_in_messages(raw):
    raw["ingestion"]["sources"][0]["ratings"] = [{"values": {"one": 1}}]
    assert "ingestion.sources.0.ratings.0.column is missing" in refused(raw)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("team/rpo", "may not hold /"),
        ("rpo:v2", "may not hold :"),
        ("team's", "may not hold '"),
        ("rpo#1?", "may not hold # ?"),
        ("..", "must hold a letter"),
        ("", "must hold a name"),
        ("  ", "must hold a name"),
        (" rpo", "without white space around it"),
        ("rpo\nb", "no line break"),
        ("r" * 257, "may have 256 characters, and has 257"),
    ],
)
def test_a_model_name_that_mlflow_would_refuse_is_refused_with_the_parameters(raw, name, words):
    raw["promotion"]["model_name"] = name
    message = refused(raw)
    assert "promotion.model_name" in message
    assert words in message


@pytest.mark.parametrize("name", ["rpo-policy", "main.models.rpo", "Höflich (v2)", "r" * 256])
def test_a_model_name_that_mlflow_takes_is_taken(raw, name):
    raw["promotion"]["model_name"] = name
    assert validate_blocks(raw)["promotion"].model_name == name


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("./mlruns", "no runs in a plain folder"),
        ("mlruns", "no runs in a plain folder"),
        ("file:///srv/mlruns", "no runs in a plain folder"),
        ("C:/mlruns", "no runs in a plain folder"),
        ("", "no runs in a plain folder"),
        (" sqlite:///mlflow.db", "no white space"),
        ("sqlite://mlflow.db", "sqlite:/// and a path"),
        ("sqlite:///", "sqlite:/// and a path"),
        ("sqlite:///:memory:", "sqlite:/// and a path"),
    ],
)
def test_an_address_where_mlflow_keeps_no_runs_is_refused(uri, words):
    with pytest.raises(ConfigError, match=words):
        validate_tracking(TRACKING | {"tracking_uri": uri})


@pytest.mark.parametrize(
    "uri",
    ["sqlite:///mlflow.db", "https://mlflow.example", "postgresql://u@h/mlflow", "databricks"],
)
def test_an_address_of_a_server_or_database_is_taken(uri):
    assert validate_tracking(TRACKING | {"tracking_uri": uri}).tracking_uri == uri


def test_a_refused_address_does_not_show_its_password():
    with pytest.raises(ConfigError) as error:
        validate_tracking(TRACKING | {"tracking_uri": "sqlite://me:hunter22@mlflow.db"})
    assert "hunter22" not in str(error.value)


@pytest.mark.parametrize("name", ["", " ", "x\ty", "x" * 257, None])
def test_an_experiment_needs_a_name_that_a_database_can_hold(name):
    with pytest.raises(ConfigError, match=r"mlflow\.experiment"):
        validate_tracking(TRACKING | {"experiment": name})
    assert validate_tracking(TRACKING | {"experiment": "/Users/me/rpo: 'it'"})


INFINITE, NO_NUMBER = float("inf"), float("nan")


@pytest.mark.parametrize(
    ("block", "change", "message"),
    [
        (
            "training",
            {"max_grad_norm": INFINITE},
            "training.max_grad_norm: input should be a finite",
        ),
        ("training", {"num_epochs": INFINITE}, "training.num_epochs: input should be a finite"),
        (
            "training",
            {"learning_rate": NO_NUMBER},
            "training.learning_rate: input should be a finite",
        ),
        ("training", {"seed": 2**64}, "training.seed: input should be less than"),
        ("training", {"learning_rate": True}, "learning_rate must be a number, got True"),
        ("rpo", {"tau": True}, "tau must be a number, got True"),
        ("rpo", {"tau_grid": [1.0, INFINITE]}, "rpo.tau_grid.1: input should be a finite"),
        ("comparison", {"seeds": [0, 2**64]}, "comparison.seeds.1: input should be less than"),
        ("caches", {"max_age_days": INFINITE}, "caches.max_age_days: input should be a finite"),
    ],
)
def test_what_no_step_could_compute_with_is_no_number(raw, block, change, message):
    raw[block] |= change
    assert message in refused(raw)


def test_a_threshold_that_nothing_passes_is_refused(raw):
    raw["promotion"]["gates"][0]["threshold"] = NO_NUMBER
    assert "promotion.gates.0.threshold: input should be a finite" in refused(raw)


def test_a_gate_may_ask_for_what_the_report_knows():
    known = {name for name in report.METRICS if not name.startswith("component_")}
    assert set(METRICS) == known
    assert set(FAMILIES) == set(report.FAMILIES)


def with_gate(raw, metric):
    raw["promotion"]["gates"] = [raw["promotion"]["gates"][0] | {"metric": metric}]
    return raw


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("reward_men", "promotion.gates.0.metric: did you mean reward_mean? "),
        ("zzz", "promotion.gates.0.metric: a metric is component_NAME of a labeler"),
        ("judge_win_rate", "judge_win_rate is measured only with evaluation.judge"),
        ("lm_eval_arc_acc", "lm_eval_arc_acc is measured only with evaluation.lm_eval"),
        ("bert_score", "bert_score is measured only with evaluation.encoder"),
    ],
)
def test_a_gate_on_what_is_never_measured_is_refused(raw, metric, said):
    assert said in refused(with_gate(raw, metric))


@pytest.mark.parametrize("metric", ["component_brief", "toxicity_p95"])
def test_a_gate_on_a_component_or_a_metric_is_taken(raw, metric):
    assert validate_blocks(with_gate(raw, metric))


def test_more_test_prompts_than_are_evaluated_are_refused_unless_a_version_is_named(raw):
    raw["promotion"]["min_test_prompts"] = 1000
    assert "1000 test prompts are needed, and evaluation.num_prompts takes at most 16" in refused(
        raw
    )
    raw["promotion"]["version"] = 3
    assert validate_blocks(raw)


def test_an_artifact_that_no_version_carries_is_refused_with_those_that_it_may(raw):
    raw["promotion"]["required_artifacts"] = ["model_crad.md"]
    message = refused(raw)
    assert "promotion.required_artifacts.0: input should be 'checkpoint'" in message
    assert "'model_card.md'" in message


def test_a_model_in_the_user_s_own_folder_may_be_named_with_a_tilde(raw, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    raw["policy"] |= {"name_or_path": "~/model", "from_config": None}
    raw["evaluation"]["labelers"] = [{"type": "reward_model", "name_or_path": "~/judge"}]
    blocks = validate_blocks(raw)
    assert blocks["policy"].name_or_path == "/home/ada/model"
    assert blocks["evaluation"].labelers[0].name_or_path == "/home/ada/judge"


@pytest.mark.parametrize("use", ["artefact", {"input": None}, ["artifact"], True])
def test_a_catalog_entry_that_mlflow_cannot_keep_as_it_says_is_named(use):
    entries = {"report": {"type": "x", "metadata": {"mlflow": use}}, "labels": {"type": "x"}}
    with pytest.raises(ConfigError) as error:
        validate_catalog(entries)
    assert "report.metadata.mlflow: `artifact` keeps" in str(error.value)
    assert repr(use) in str(error.value)
    validate_catalog(entries | {"report": {"metadata": {"mlflow": "artifact"}}})

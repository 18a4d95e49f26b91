"""Configuration in layers: what reaches an environment, and what never does."""

import pytest

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.operations.environments import (
    open_configuration,
    read_environment,
    read_environments,
)
from rpo_pipeline.params import validate_blocks
from tests.conftest import ROOT

MINE = {
    "parameters_ingestion": "ingestion: {sources: [{path: data/01_raw/mine.jsonl, format: flat}]}",
    "parameters_policy": "policy: {name_or_path: models/mine}",
    "parameters_evaluation": ("evaluation: {labelers: [{type: rules, weights: {sentiment: 1.0}}]}"),
}


def write(project, env, **files):
    folder = project / "conf" / env
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.yml").write_text(text)


def refused(project, env):
    with pytest.raises(ConfigError) as error:
        validate_blocks(open_configuration(project, env)["parameters"], env)
    return str(error.value)


def test_every_environment_is_read_with_its_own_folder_and_model(project):
    found = {environment.name: environment for environment in read_environments(project)[0]}
    assert set(found) == {"sample", "smoke", "t5", "smollm2", "production"}
    assert found["sample"].data == project / "data"
    assert found["sample"].model_name == "rpo-policy"
    assert found["smoke"].data == project / "data/smoke"
    assert found["t5"].model_name == "rpo-policy-t5"
    assert len({environment.cache for environment in found.values()}) == 1
    for kept in ("data", "model_name"):
        assert len({getattr(environment, kept) for environment in found.values()}) == len(found)


@pytest.mark.parametrize("builds_on", [None, "sample", "production"])
def test_an_environment_of_ones_own_meets_no_other_ones_data_or_champion(project, builds_on):
    write(project, "mine", **MINE)
    if builds_on:
        write(project, "mine", environment=f"builds_on: {builds_on}")
    mine = read_environment(project, "mine")
    assert (mine.data, mine.model_name) == (project / "data/mine", "rpo-policy-mine")


def test_an_environment_needs_its_log_its_model_and_what_judges_new_responses(project):
    write(project, "mine", **MINE)
    assert validate_blocks(open_configuration(project, "mine")["parameters"])
    for name in MINE:
        (project / "conf/mine" / f"{name}.yml").unlink()
    message = refused(project, "mine")
    for place in (
        "ingestion.sources is missing (conf/mine/parameters_ingestion.yml",
        "policy.name_or_path",
        "conf/mine/parameters_policy.yml",
        "evaluation.labelers is missing (conf/mine/parameters_evaluation.yml",
    ):
        assert place in message


@pytest.mark.parametrize("env", ["mine", "production"])
def test_nothing_of_the_sample_reaches_another_log(project, env):
    write(project, env, **MINE)
    parameters = open_configuration(project, env)["parameters"]
    assert parameters["labeling"]["labelers"] == [{"type": "column"}]
    for word in ("idiot", "llama", "feedback.jsonl", "coverage"):
        assert word not in str(parameters)


def test_an_environment_takes_over_what_it_builds_on_and_changes_it(project):
    write(project, "mine", environment="builds_on: t5", parameters_rpo="rpo: {tau: 9.0}")
    mine, t5 = (open_configuration(project, env)["parameters"] for env in ("mine", "t5"))
    assert mine["rpo"] == t5["rpo"] | {"tau": 9.0}
    assert mine["policy"] == t5["policy"]
    assert mine["ingestion"] == open_configuration(project)["parameters"]["ingestion"]


def test_production_can_build_on_an_environment_of_ones_own(project):
    write(project, "mine", **MINE)
    write(project, "production", environment="builds_on: mine")
    production = open_configuration(project, "production")["parameters"]
    assert production["policy"]["name_or_path"] == "models/mine"
    assert production["refresh"]["when"] == "needed"
    assert read_environment(project, "production").data == project / "data/production"


@pytest.mark.parametrize("env", ["sample", "smoke", "production", "mine"])
def test_credentials_and_overrides_of_this_machine_count_in_every_environment(project, env):
    write(project, "mine", environment="builds_on: smoke")
    write(project, "local", credentials="s3: {key: of-this-machine}", mlflow="experiment: here")
    loader = open_configuration(project, env)
    assert loader["credentials"]["s3"]["key"] == "of-this-machine"
    assert loader["mlflow"]["experiment"] == "here"
    assert loader["mlflow"]["on_outage"] == "continue"


def test_what_kedro_calls_local_is_the_sample(project):
    """Plugins of Kedro name it where nobody chose an environment."""
    assert open_configuration(project, "local").environment == "sample"


def test_a_folder_without_conf_local_is_a_project_too(project):
    (project / "conf/local").rmdir()
    assert open_configuration(project, "smoke")["parameters"]["promotion"]["min_test_prompts"] == 10


def test_the_folder_of_credentials_is_committed():
    assert (ROOT / "conf/local/.gitkeep").is_file()


@pytest.mark.parametrize("env", ["smok", "nothing-like-it", "accelerate", "base/../smoke"])
def test_an_environment_that_is_not_there_is_named_with_those_that_are(project, env):
    with pytest.raises(ConfigError, match=f"no environment '{env}'") as error:
        open_configuration(project, env)
    assert "production, sample, smoke, smollm2, t5" in str(error.value)
    assert ("did you mean smoke?" in str(error.value)) == (env == "smok")


def test_environments_that_cannot_be_layered_are_refused(project):
    write(project, "one", environment="builds_on: other")
    write(project, "other", environment="builds_on: one")
    with pytest.raises(ConfigError, match="one on other on one"):
        open_configuration(project, "one")["parameters"]
    write(project, "other", environment="builds_on: smokey")
    with pytest.raises(ConfigError, match=r"no environment 'smokey': did you mean smoke\?"):
        open_configuration(project, "one")["parameters"]
    write(project, "other", environment="build_on: smoke")
    with pytest.raises(ConfigError, match=r"conf/other/environment\.yml holds `builds_on: NAME`"):
        open_configuration(project, "one")["parameters"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rpo: {tau: [1", "parameters_rpo.yml"),
        ("rpo: {tau: 1, tau: 2}", "duplicate key"),
        ("rpo: {tau: '${globals:nothing}'}", "Globals key 'nothing' not found"),
        ("rpo: {tau: 1}\ntraining: {seed: 1}", "Duplicate keys found"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(project, text, said):
    write(project, "mine", parameters_rpo=text, parameters_training="training: {seed: 2}")
    with pytest.raises(ConfigError, match=said):
        open_configuration(project, "mine")["parameters"]


def test_what_is_wrong_in_a_file_of_credentials_is_not_quoted(project):
    write(project, "local", credentials="s3: {key: hunter2222, key: hunter3333")
    with pytest.raises(ConfigError, match="credentials: a file cannot be read") as error:
        open_configuration(project, "smoke")["credentials"]
    assert "hunter" not in str(error.value)


def test_outside_a_project_it_is_said_what_a_project_is(tmp_path):
    with pytest.raises(ConfigError, match="run this in the folder of a project"):
        open_configuration(tmp_path)


@pytest.mark.parametrize(
    ("env", "name", "meant"),
    [
        ("mine", "paramters_training.yml", "did you mean parameters_training.yml?"),
        ("mine", "rpo.yml", "did you mean parameters_rpo.yml?"),
        ("mine", "environment.yaml", "did you mean environment.yml?"),
        ("mine", "globals.yaml", "did you mean globals.yml?"),
        ("mine", "parameters_rpo.YML", "did you mean parameters_rpo.yml?"),
        ("local", "mlfow.yml", "did you mean mlflow.yml?"),
        ("base", "notes.yml", "files of configuration are called"),
    ],
)
def test_a_file_that_no_run_would_read_is_named_with_the_one_that_was_meant(
    project, env, name, meant
):
    write(project, "mine", **MINE)
    write(project, env)
    (project / "conf" / env / name).write_text("training: {seed: 7}")
    with pytest.raises(ConfigError, match=f"no run reads conf/{env}/{name}") as error:
        open_configuration(project, "mine")["parameters"]
    assert meant in str(error.value)


def test_files_of_something_else_may_lie_in_a_folder_of_an_environment_or_be_no_yaml(project):
    write(project, "mine", **MINE)
    tasks = project / "conf/mine/tasks"
    tasks.mkdir()
    for file in (tasks / "own.yaml", tasks.parent / "notes.txt", tasks.parent / "parameters.json"):
        file.write_text("{}")
    assert open_configuration(project, "mine")["parameters"]["policy"]


@pytest.mark.parametrize("kind", ["parameters_rpo", "mlflow"])
def test_a_file_that_holds_a_list_is_named(project, kind):
    write(project, "mine", **{kind: "- rpo"})
    with pytest.raises(ConfigError, match=f"{kind}.yml must hold names with values"):
        open_configuration(project, "mine")[kind.partition("_")[0]]


@pytest.mark.parametrize("name", ["data", "cache", "model_name"])
def test_a_blank_place_is_refused_with_its_file(project, name):
    write(project, "mine", globals=f"{name}:")
    with pytest.raises(ConfigError, match=f"globals.{name} must be a text, got None") as error:
        open_configuration(project, "mine")["globals"]
    assert "conf/mine/globals.yml" in str(error.value)


@pytest.mark.parametrize("text", ["data:", "data: [1"])
def test_an_environment_that_cannot_be_read_does_not_hide_the_others(project, text):
    write(project, "mine", globals=text)
    found, faults = read_environments(project)
    assert {one.name for one in found} == {"sample", "smoke", "t5", "smollm2", "production"}
    assert len(faults) == 1
    assert "environment mine" in faults[0]


def test_where_no_environment_can_be_read_it_is_an_error(project):
    write(project, "base", parameters_rpo="rpo: [")
    with pytest.raises(ConfigError, match="environment production"):
        read_environments(project)


def test_an_item_of_a_list_that_params_would_set_is_refused(project):
    loader = open_configuration(project)
    loader.runtime_params = {"ingestion": {"sources": {"0": {"path": "hunter2"}}}}
    with pytest.raises(
        ConfigError, match=r"--params ingestion.sources.0.path: .* item of a list"
    ) as e:
        loader["parameters"]
    assert "hunter2" not in str(e.value)

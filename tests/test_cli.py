"""What of Kedro's own errors is said in one sentence, and what stays a traceback."""

import pytest
from kedro.framework.project import configure_project
from kedro.io import DataCatalog
from kedro.pipeline import node, pipeline

from rpo_pipeline.cli import explain
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.operations.session import require_known, with_stages


def read_number(text):
    return int(text)


def one_node():
    return pipeline([node(read_number, "text", "number", name="read_number", tags="reading")])


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: one_node().filter(node_names=["read_numer"]), "nodes named ['read_numer']"),
        (lambda: one_node().filter(tags=["nosuch"]), "contains no nodes after applying"),
        (lambda: one_node().filter(to_outputs=["nosuch"]), "datasets named ['nosuch']"),
        (
            lambda: DataCatalog.from_config({}, load_versions={"text": "2020"}),
            "'load_versions' keys [text] are not found",
        ),
    ],
)
def test_an_option_of_kedro_that_names_what_there_is_not_is_one_sentence(call, said):
    with pytest.raises(Exception) as error:  # noqa: PT011 (whatever Kedro raises)
        call()
    message = explain(error.value)
    assert said in message
    assert "kedro registry list" in message
    assert "\n" not in message


def test_a_fault_of_our_own_code_stays_a_traceback():
    with pytest.raises(ValueError, match="invalid literal") as error:
        one_node().nodes[0].run({"text": "seven"})
    assert explain(error.value) is None


def test_a_node_may_be_named_with_its_stage_or_without():
    configure_project("rpo_pipeline")
    named = with_stages(["summarise", "evaluation.summarise"])
    assert named == ["evaluation.summarise", "evaluation.summarise"]


def test_a_misspelt_node_or_pipeline_is_named_with_the_most_similar_one():
    configure_project("rpo_pipeline")
    with pytest.raises(ConfigError, match="no node 'train_polcy': did you mean train_policy"):
        with_stages(["train_polcy"])
    with pytest.raises(ConfigError, match="no pipeline 'evaluate': did you mean evaluation"):
        require_known(["evaluate"], ["evaluation", "promotion"], "pipeline")

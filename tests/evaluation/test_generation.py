import numpy as np
import pandas as pd
import pytest

from rpo_pipeline.engine import Engine
from rpo_pipeline.evaluation.generation import generate
from rpo_pipeline.evaluation.rows import held_out_prompts
from rpo_pipeline.params import SamplingParams
from tests.conftest import block, build_small

SAMPLING = SamplingParams(sampling_temperature=1.0, responses_per_prompt=2)
POLICY = block("policy", max_prompt_tokens=64, max_response_tokens=10)
PROMPTS = pd.DataFrame({"prompt_id": ["p0", "p1"], "prompt": ["Help!", "Hello, my kettle leaks."]})


def write(models, tmp_path, **settings):
    engines = {}
    for name, language_model in models.items():
        language_model.save(tmp_path / name)
        cache = tmp_path / "cache"
        engines[name] = Engine(
            tmp_path / name, POLICY, block("training", micro_batch_tokens=1000), cache
        )
    table = generate(engines, PROMPTS, SAMPLING, **{"seed": 0, **settings})
    return {name: rows.reset_index(drop=True) for name, rows in table.groupby("model")}


@pytest.mark.parametrize("model_type", ["llama", "t5"])
def test_equal_models_write_the_same_and_have_no_divergence(model_type, tmp_path):
    models = {"reference": build_small(model_type), "challenger": build_small(model_type)}
    tables = write(models, tmp_path)
    assert tables["reference"]["response"].tolist() == tables["challenger"]["response"].tolist()
    np.testing.assert_allclose(tables["challenger"]["logps"], tables["challenger"]["ref_logps"])
    assert len(tables["challenger"]) == 4


def test_a_model_of_another_vocabulary_has_no_divergence_to_the_reference(tmp_path):
    other = build_small("llama")
    other.tokenizer.add_tokens(["kettle"])
    other.model.resize_token_embeddings(len(other.tokenizer))
    tables = write({"reference": build_small("llama"), "challenger": other}, tmp_path)
    assert tables["challenger"]["ref_logps"].isna().all()
    assert tables["reference"]["ref_logps"].notna().all()


def test_another_seed_writes_other_responses(tmp_path):
    models = {"reference": build_small("llama")}
    first = write(models, tmp_path)["reference"]["response"].tolist()
    assert first != write(models, tmp_path, seed=1)["reference"]["response"].tolist()


def test_a_model_that_did_not_change_writes_and_scores_nothing_again(tmp_path, caplog):
    caplog.set_level("INFO")
    models = {"reference": build_small("llama"), "challenger": build_small("llama", seed=1)}
    first = write(models, tmp_path)
    caplog.clear()
    models["challenger"] = build_small("llama", seed=2)
    second = write(models, tmp_path)
    todo = [int(record.args[0]) for record in caplog.records if "in the cache" in record.message]
    # Sampling, own tokens and the reference's; then what the reference says to them.
    assert todo == [0, 0, 0, 4, 4, 4, 0, 4]
    pd.testing.assert_frame_equal(second["reference"], first["reference"])


def test_only_test_prompts_are_used_each_once():
    feedback = pd.DataFrame(
        {
            "prompt_id": ["b", "a", "a", "c"],
            "prompt": ["B", "A", "A", "C"],
            "split": ["test", "test", "test", "train"],
            "leaked": False,
        }
    )
    assert held_out_prompts(feedback, 10)["prompt"].tolist() == ["A", "B"]
    assert held_out_prompts(feedback, 1)["prompt"].tolist() == ["A"]


def test_a_leaked_test_prompt_is_left_out_of_evaluation():
    feedback = pd.DataFrame(
        {
            "prompt_id": ["a", "b"],
            "prompt": ["A", "B"],
            "split": ["test", "test"],
            "leaked": [True, False],
        }
    )
    assert held_out_prompts(feedback, 10)["prompt"].tolist() == ["B"]

import pytest
import torch

from rpo_pipeline.engine.batches import check_routes, score_groups
from rpo_pipeline.engine.building import build_language_model
from rpo_pipeline.engine.groups import Group
from rpo_pipeline.errors import ModelError
from rpo_pipeline.params import FromConfigParams
from tests.conftest import TEXTS, build_small

GROUPS = [Group([5, 6, 7], [[8, 9], [10, 11, 12, 13]], [0, 1]), Group([11], [[12, 13, 14]], [2])]
ENCODER = {"d_model": 32, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4}
SIZES = {
    "cpmant": {"hidden_size": 32, "num_attention_heads": 4, "dim_head": 8, "dim_ff": 48},
    "switch_transformers": ENCODER | {"d_kv": 8, "d_ff": 48, "num_experts": 4},
    "nllb-moe": {"d_model": 32, "num_experts": 4},
    "fsmt": {"d_model": 32, "langs": ["en", "de"]},
}
SIZES["cpmant"] |= {"num_hidden_layers": 2}
for one in ("nllb-moe", "fsmt"):
    for part in ("encoder", "decoder"):
        SIZES[one] |= {f"{part}_layers": 2, f"{part}_attention_heads": 4, f"{part}_ffn_dim": 48}


def build(model_type):
    settings = FromConfigParams(model_type=model_type, vocab_size=320, **SIZES[model_type])
    return build_language_model(settings, TEXTS, seed=0, dtype="float32")


def score(language_model):
    return score_groups(language_model, GROUPS, micro_batch_tokens=500)


@pytest.mark.parametrize("model_type", ["switch_transformers", "nllb-moe"])
def test_a_mixture_of_experts_behind_an_encoder_scores_rows_as_it_does_alone(model_type):
    language_model = build(model_type)
    model, start = language_model.model, language_model.model.config.decoder_start_token_id
    with torch.no_grad():
        logits = model(
            input_ids=torch.tensor([[11]]), decoder_input_ids=torch.tensor([[start, 12, 13]])
        ).logits[0]
    expected = logits.log_softmax(-1)[[0, 1, 2], [12, 13, 14]].sum()
    torch.testing.assert_close(score(language_model)[2], expected, atol=1e-3, rtol=0)


def test_a_model_whose_head_is_its_embedding_is_refused_in_one_sentence():
    with pytest.raises(ModelError, match="type fsmt cannot be scored here"):
        score(build("fsmt"))


@pytest.mark.parametrize("use", [score, lambda model: check_routes(model, GROUPS)])
def test_a_model_that_scores_a_row_by_its_batch_is_refused(use):
    with pytest.raises(ModelError, match="type cpmant gives a row in a batch other log-prob"):
        use(build("cpmant"))


def test_rows_are_compared_at_first_use_only(language_model):
    score(language_model)
    assert language_model.trials.compared_rows
    language_model.model.forward = None  # nobody calls it again
    check_routes(language_model, [GROUPS[1]])


def test_weights_that_are_no_numbers_are_told_elsewhere():
    language_model = build_small("llama")
    with torch.no_grad():
        language_model.model.get_output_embeddings().weight.fill_(torch.nan)
    assert score(language_model).isnan().all()

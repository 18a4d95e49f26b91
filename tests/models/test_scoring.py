"""Group scoring against the plain way: one padded-free forward pass per row, all logits."""

import pytest
import torch

from rpo_pipeline.data.groups import collate
from rpo_pipeline.data.tokenisation import tokenise_groups
from rpo_pipeline.models.scoring import group_logps, score_groups, score_rows
from tests.conftest import build_small


def groups_of(language_model, rows):
    text_format = language_model.text_format(max_prompt_tokens=64, max_response_tokens=64)
    return tokenise_groups(rows, text_format)


def plain_logps(language_model, prompt, response):
    """Straight from the definition: no batch, no padding, no sharing."""
    model = language_model.model
    if language_model.is_encoder_decoder:
        start = model.config.decoder_start_token_id
        logits = model(
            input_ids=torch.tensor([prompt]),
            decoder_input_ids=torch.tensor([[start, *response[:-1]]]),
        ).logits[0]
    else:
        logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)[range(len(response)), response].sum()


def test_summed_logps_equal_the_plain_forward_pass(language_model, rows):
    groups = groups_of(language_model, rows)
    batch = collate(groups, language_model.tokenizer.pad_token_id)
    expected = [plain_logps(language_model, g.prompt, ids) for g in groups for ids in g.responses]
    torch.testing.assert_close(
        group_logps(language_model, batch), torch.stack(expected), rtol=1e-5, atol=1e-4
    )


def test_gradients_equal_those_of_the_plain_forward_pass(language_model, rows):
    groups = groups_of(language_model, rows)
    parameters = list(language_model.model.parameters())
    batch = collate(groups, language_model.tokenizer.pad_token_id)
    ours = torch.autograd.grad(group_logps(language_model, batch).sum(), parameters)
    plain = sum(plain_logps(language_model, g.prompt, ids) for g in groups for ids in g.responses)
    expected = torch.autograd.grad(plain, parameters)
    for one, other in zip(ours, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("micro_batch_tokens", [1, 60, 100_000])
def test_scores_do_not_depend_on_the_token_budget(language_model, rows, micro_batch_tokens):
    groups = groups_of(language_model, rows)
    whole = score_groups(language_model, groups, micro_batch_tokens=10_000, title="")
    split = score_groups(language_model, groups, micro_batch_tokens=micro_batch_tokens, title="")
    torch.testing.assert_close(split, whole, rtol=1e-5, atol=1e-5)


def test_rows_given_one_by_one_score_like_their_groups(language_model, rows):
    groups = groups_of(language_model, rows)
    pairs = [
        (g.prompt, ids, row) for g in groups for ids, row in zip(g.responses, g.rows, strict=True)
    ]
    table = score_rows(
        language_model,
        [prompt for prompt, _, _ in pairs],
        [response for _, response, _ in pairs],
        micro_batch_tokens=200,
        title="",
    )
    expected = score_groups(language_model, groups, micro_batch_tokens=200, title="")
    got = torch.zeros(len(pairs))
    got[[row for _, _, row in pairs]] = torch.tensor(table["logps"].to_numpy())
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def outputs_of(module, language_model, batch):
    """What a part of the model puts out while a batch is scored."""
    outputs = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    group_logps(language_model, batch)
    handle.remove()
    return outputs


def test_the_head_sees_response_tokens_only(rows):
    language_model = build_small("llama")
    groups = groups_of(language_model, rows)
    batch = collate(groups, language_model.tokenizer.pad_token_id)
    shapes = []
    head = language_model.model.get_output_embeddings()
    handle = head.register_forward_hook(
        lambda _module, _inputs, output: shapes.append(output.shape)
    )
    group_logps(language_model, batch)
    handle.remove()
    assert [shape[0] for shape in shapes] == [int(batch.num_tokens.sum())]


def test_an_encoder_reads_each_prompt_once(rows):
    language_model = build_small("t5")
    batch = collate(groups_of(language_model, rows), language_model.tokenizer.pad_token_id)
    shapes = []
    encoder = language_model.model.get_encoder()
    handle = encoder.register_forward_hook(
        lambda _module, _inputs, output: shapes.append(output[0].shape)
    )
    group_logps(language_model, batch)
    handle.remove()
    assert [shape[0] for shape in shapes] == [rows["prompt_id"].nunique()]

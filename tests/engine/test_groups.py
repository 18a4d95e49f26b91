from hypothesis import given
from hypothesis import strategies as st

from rpo_pipeline.engine.groups import Group, collate, pack

tokens = st.lists(st.integers(1, 99), min_size=1, max_size=9)


@st.composite
def group_lists(draw):
    shapes = draw(st.lists(st.tuples(tokens, st.lists(tokens, min_size=1, max_size=6)), min_size=1))
    groups, row = [], 0
    for prompt, responses in shapes:
        groups.append(Group(prompt, responses, list(range(row, row + len(responses)))))
        row += len(responses)
    return groups


@given(group_lists(), st.integers(1, 80))
def test_packing_keeps_every_row_once_and_the_budget_unless_one_row_alone_exceeds_it(
    groups, budget
):
    batches = list(pack(groups, budget))
    rows = sorted(row for batch in batches for group in batch for row in group.rows)
    assert rows == list(range(len(rows)))
    assert len(rows) == sum(len(group.rows) for group in groups)
    for batch in batches:
        num_rows = sum(len(group.responses) for group in batch)
        longest_prompt = max(len(group.prompt) for group in batch)
        longest_response = max(len(ids) for group in batch for ids in group.responses)
        assert num_rows == 1 or num_rows * (longest_prompt + longest_response) <= budget


@given(group_lists())
def test_a_batch_gives_back_every_prompt_and_response(groups):
    batch = collate(groups, pad_token_id=0)
    assert batch.rows.tolist() == [row for group in groups for row in group.rows]
    responses = [ids for group in groups for ids in group.responses]
    prompts = [group.prompt for group in groups for _ in group.responses]
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        assert batch.response_ids[row][batch.loss_mask[row]].tolist() == response
        index = batch.prompt_index[row]
        assert batch.prompt_ids[index][batch.prompt_mask[index].bool()].tolist() == prompt
    assert batch.num_tokens.tolist() == [len(ids) for ids in responses]

import numpy as np
import pandas as pd
import pytest
from transformers import BertConfig, BertModel, BertTokenizerFast

from rpo_pipeline.evaluation.text_metrics import similarity_columns
from rpo_pipeline.params import EncoderParams


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A small encoder with random weights: equal texts still have equal states."""
    folder = tmp_path_factory.mktemp("encoder")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] the cat dog sat ran home".split()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(words), num_hidden_layers=2, **size)
    BertModel(config).save_pretrained(folder)
    return EncoderParams(name_or_path=str(folder), layer=2)


def test_the_best_rated_response_itself_is_most_alike_and_a_prompt_without_one_is_null(encoder):
    table = pd.DataFrame(
        {
            "prompt_id": ["a", "a", "b"],
            "response": ["the cat sat", "dog ran home", "the cat sat"],
        }
    )
    columns = similarity_columns(table, pd.Series({"a": "the cat sat"}), encoder)
    for name in ("embedding_similarity", "bert_score"):
        assert columns[name][0] == pytest.approx(1.0, abs=1e-5)
        assert columns[name][1] < columns[name][0]
        assert np.isnan(columns[name][2])

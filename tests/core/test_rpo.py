"""The algorithm on one page gives the numbers of the pipeline, which computes them otherwise."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest
import torch
from kedro.io import DataCatalog, MemoryDataset
from kedro.runner import SequentialRunner
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from rpo_pipeline.core import rpo
from rpo_pipeline.core.rpo import Group, Settings, response_logps, targets, train
from rpo_pipeline.operations.environments import open_configuration
from rpo_pipeline.pipelines import partition_estimation, rpo_training
from tests.conftest import ROOT, block, build_small, objectives

LOG = {
    "Hello, my kettle leaks.": {"We are sorry.": 0.6, "Go away, you fool.": -1.9, "Hi": -0.3},
    "Help!": {"We will send a new one today, kind regards!": 1.4},
    "Can you send a new one today?": {"Kind regards!": 0.1, "No.": -1.2},
    "Who are you?": {"Ada. Ada, kind regards!": 0.9, "A fool.": 0.2, "Go.": -0.4, "We are.": 1.1},
    "Today?": {"We will send it today.": 1.7, "Not today, you fool.": -1.4},
}
"""Rewards of the responses to each prompt of the train split."""
HELD_OUT = {"My kettle is new.": {"Go away, kettle.": 9.0, "Hello, kettle.": -9.0}}
"""Of the test split: neither the policy nor the prior learns from it."""
RPO = block("rpo", tau=0.5, huber_delta=0.5)
TRAINING = block("training", num_epochs=4, learning_rate=3e-3, warmup_share=0.2)
TRAINING = TRAINING.model_copy(update={"global_batch_groups": 2, "max_grad_norm": 8.0})
SHIPPED = ("qrpo", "labeling", "evaluation")


class Trained(NamedTuple):
    """What a training of the log gave."""

    reference: Path
    targets: list[Tensor]
    """Of each prompt, by response."""
    ref_logps: list[Tensor]
    """Likewise."""
    losses: Tensor
    """By step."""
    weights: dict[str, Tensor]


def as_table() -> pd.DataFrame:
    """The log as the pipeline has it; ids are in the order in which the page reads the log."""
    return pd.DataFrame(
        [
            (f"{i:032x}", f"{i:016x}{j:016x}", prompt, response, reward, split)
            for i, (split, prompt) in enumerate(
                [("train", prompt) for prompt in LOG] + [("test", prompt) for prompt in HELD_OUT]
            )
            for j, (response, reward) in enumerate((LOG | HELD_OUT)[prompt].items())
        ],
        columns=["prompt_id", "row_id", "prompt", "response", "reward", "split"],
    )


@pytest.fixture(scope="module")
def by_pipeline(tmp_path_factory) -> Trained:
    """Partition estimation and training as ``kedro run`` runs them, in a folder of their own."""
    folder = tmp_path_factory.mktemp("project")
    build_small("llama").save(folder / "model")
    policy = {"name_or_path": str(folder / "model"), "from_config": None, "warm_start_epochs": 0}
    rows = as_table()
    given = {
        "feedback@pandas": rows.assign(origin="log", behaviour_logps=None, leaked=False),
        "rewards": rows[["row_id", "reward"]].assign(raw_reward=rows["reward"], labeler="column"),
        "normaliser": {},
        "params:rpo": RPO,
        "params:_objectives": objectives().model_copy(update={"rpo": RPO}),
        "params:training": TRAINING,
        "params:policy": block("policy", **policy),
        **{f"params:{name}": block(name) for name in SHIPPED},
    }
    pipeline = partition_estimation.create_pipeline() + rpo_training.create_pipeline()
    shipped = open_configuration(ROOT)["catalog"]
    used = {name: shipped[name] for name in pipeline.datasets() & shipped.keys() - given.keys()}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        catalog = DataCatalog.from_config(used)
        for name, value in given.items():
            catalog[name] = MemoryDataset(value)
        SequentialRunner().run(pipeline, catalog)
        scores = catalog.load("reference_logps").set_index("row_id")
        return Trained(
            reference=catalog.load("reference").resolve(),
            targets=by_prompt(rows, catalog.load("targets").set_index("row_id")["target"]),
            ref_logps=by_prompt(rows, scores["logps"]),
            losses=torch.tensor(catalog.load("training_metrics")["train/loss"].to_numpy()),
            weights=load(catalog.load("policy")).state_dict(),
        )


def by_prompt(rows: pd.DataFrame, values: pd.Series) -> list[Tensor]:
    train_rows = rows[rows["split"] == "train"]
    return [
        torch.tensor(values[group["row_id"]].to_numpy(), dtype=torch.float32)
        for _, group in train_rows.groupby("prompt_id")
    ]


class Logits(nn.Module):
    """A model as the page takes it."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.model = load(directory)

    def forward(self, ids: Tensor) -> Tensor:
        return self.model(input_ids=ids).logits


def close(found, expected, rtol: float = 0.0, atol: float = 0.0) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=atol, check_dtype=False)


def load(directory: Path) -> nn.Module:
    return AutoModelForCausalLM.from_pretrained(directory)


def read_log(directory: Path) -> list[Group]:
    """The log as the page reads it."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    return [
        Group(
            prompt=tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                return_dict=False,
            ),
            responses=[[*tokenizer(text).input_ids, tokenizer.eos_token_id] for text in rewards],
            rewards=list(rewards.values()),
        )
        for prompt, rewards in LOG.items()
    ]


def train_by_page(reference: Path, **changes: float) -> Trained:
    parameters = RPO.model_dump() | TRAINING.model_dump() | changes
    settings = Settings(**{name: parameters[name] for name in Settings._fields})
    model, log = Logits(reference), read_log(reference)
    with torch.no_grad():
        ref_logps = [response_logps(model, group) for group in log]
    return Trained(
        reference=reference,
        targets=targets(log, settings.tau, settings.prior_strength),
        ref_logps=ref_logps,
        losses=torch.tensor(train(model, log, settings)),
        weights=model.model.state_dict(),
    )


@pytest.fixture(scope="module")
def by_page(by_pipeline) -> Trained:
    return train_by_page(by_pipeline.reference)


def test_the_targets_and_the_reference_are_those_of_the_pipeline(by_pipeline, by_page):
    close(by_page.targets, by_pipeline.targets, atol=1e-6)
    close(by_page.ref_logps, by_pipeline.ref_logps, atol=1e-5)


def test_the_loss_of_every_step_is_that_of_the_pipeline(by_pipeline, by_page):
    """Within 1e-5 nats^2; float32 gives 5e-6."""
    assert len(by_page.losses) == 10
    close(by_page.losses, by_pipeline.losses, atol=1e-5)


def test_the_trained_weights_are_those_of_the_pipeline(by_pipeline, by_page):
    """Within 1e-5, a thousandth of how far training moved them; float32 gives 2e-7."""
    start = load(by_pipeline.reference).state_dict()
    assert all((by_page.weights[name] - start[name]).abs().max() > 0.01 for name in start)
    close(by_page.weights, by_pipeline.weights, atol=1e-5)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("tau", 0.51),
        ("prior_strength", 19.0),
        ("huber_delta", 0.4),
        ("learning_rate", 2.9e-3),
        ("warmup_share", 0.3),
        ("weight_decay", 0.0),
        ("max_grad_norm", 9.0),
        ("seed", 1),
    ],
)
def test_another_setting_would_not_pass_for_the_same(by_pipeline, parameter, value):
    other = train_by_page(by_pipeline.reference, **{parameter: value})
    with pytest.raises(AssertionError):
        close(other.weights, by_pipeline.weights, atol=1e-5)


def test_the_page_is_one_page():
    assert len(Path(rpo.__file__).read_text().splitlines()) <= 120

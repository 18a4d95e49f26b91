"""Peer (b): TRL's KTOTrainer on the same rows."""

import copy
import os
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from benchmarks.engine import word
from rpo_pipeline.engine.groups import Group
from rpo_pipeline.engine.loading import LanguageModel

TRAINING_BATCH = 8


class TrainingStep:
    """Optimizer steps on the same rows, one a call, in batches of ``TRAINING_BATCH``."""

    def __init__(
        self, language_model: LanguageModel, groups: list[Group], *, precompute: bool
    ) -> None:
        os.environ["TQDM_DISABLE"] = "1"
        from datasets import Dataset, disable_progress_bars  # noqa: PLC0415 (seconds)
        from trl import KTOConfig, KTOTrainer  # noqa: PLC0415

        disable_progress_bars()
        self.model: PreTrainedModel = language_model.model
        self._folder = tempfile.TemporaryDirectory()
        arguments = KTOConfig(
            output_dir=str(Path(self._folder.name)),
            per_device_train_batch_size=TRAINING_BATCH,
            precompute_ref_log_probs=precompute,
            max_length=None,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            learning_rate=1e-6,
            optim="adamw_torch",
            report_to=[],
            disable_tqdm=True,
        )
        self._trainer = KTOTrainer(
            model=self.model,
            ref_model=None if precompute else copy.deepcopy(self.model),
            args=arguments,
            train_dataset=Dataset.from_list(_rows(groups)),
            processing_class=language_model.tokenizer,
        )
        rows = [self._trainer.train_dataset[i] for i in range(len(self._trainer.train_dataset))]
        self._batches = [
            self._trainer.data_collator(rows[i : i + TRAINING_BATCH])
            for i in range(0, len(rows), TRAINING_BATCH)
        ]
        self._trainer.create_optimizer()
        self._trainer.current_gradient_accumulation_steps = len(self._batches)

    def __call__(self) -> None:
        """Take one step."""
        for batch in self._batches:
            self._trainer.training_step(self.model, batch)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self._trainer.optimizer.step()
        self._trainer.optimizer.zero_grad()

    def logps(self) -> Tensor:
        """Log-probability of each row as the trainer computes it, shape ``(R,)``."""
        scored = [
            self._trainer.compute_ref_log_probs(self.model, batch)[0] for batch in self._batches
        ]
        return torch.cat(scored)


def _rows(groups: list[Group]) -> list[dict[str, object]]:
    """Text whose tokens are the groups'."""

    def text(tokens: list[int]) -> str:
        return "".join(f" {word(token)}" for token in tokens)

    return [
        {
            "prompt": text(group.prompt),
            "completion": text(response),
            "label": number % 2 == 0,
        }
        for group in groups
        for number, response in enumerate(group.responses)
    ]

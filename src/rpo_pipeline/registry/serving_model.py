"""The model that MLflow serves (models from code): text in, text out.

It needs transformers and nothing of this project, so a registered version outlives the code that
trained it.
"""

from typing import Any

import torch
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

BATCH_SIZE = 32


class PolicyModel(PythonModel):
    """Answers prompts with a causal or encoder-decoder model."""

    def load_context(self, context: Any) -> None:  # noqa: ANN401 (MLflow's own type is private)
        """Load the checkpoint that was logged with this version."""
        checkpoint = context.artifacts["checkpoint"]
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
        self.is_encoder_decoder = config.is_encoder_decoder
        auto_class = AutoModelForSeq2SeqLM if self.is_encoder_decoder else AutoModelForCausalLM
        self.model = auto_class.from_pretrained(
            checkpoint, use_safetensors=True, trust_remote_code=False
        ).eval()
        side = "right" if self.is_encoder_decoder else "left"
        self.tokenizer = AutoTokenizer.from_pretrained(
            checkpoint, padding_side=side, trust_remote_code=False
        )

    def predict(  # type: ignore[override] # the form without a context, which MLflow takes too
        self, model_input: list[str], params: dict[str, Any] | None = None
    ) -> list[str]:
        """Answer each prompt.

        Args:
            model_input: Prompts.
            params: ``max_new_tokens``; ``sampling_temperature``, 0 for the most likely answer;
                ``seed`` of the sampling.

        Returns:
            One answer per prompt, in order.
        """
        params = params or {}
        torch.manual_seed(int(params.get("seed", 0)))
        temperature = float(params.get("sampling_temperature", 0.0))
        # Top-k and top-p off: the policy's own distribution, not a trimmed one.
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        settings = {
            "max_new_tokens": int(params.get("max_new_tokens", 80)),
            **(sampling if temperature > 0 else {"do_sample": False}),
        }
        return [
            answer
            for start in range(0, len(model_input), BATCH_SIZE)
            for answer in self._answer(model_input[start : start + BATCH_SIZE], settings)
        ]

    def _answer(self, prompts: list[str], settings: dict[str, Any]) -> list[str]:
        batch = self._encode(prompts)
        with torch.inference_mode():
            output = self.model.generate(**batch, **settings)
        given = 1 if self.is_encoder_decoder else batch["input_ids"].shape[1]
        return list(self.tokenizer.batch_decode(output[:, given:], skip_special_tokens=True))

    def _encode(self, prompts: list[str]) -> Any:  # noqa: ANN401 (a BatchEncoding)
        if self.is_encoder_decoder or not self.tokenizer.chat_template:
            return self.tokenizer(prompts, padding=True, return_tensors="pt")
        return self.tokenizer.apply_chat_template(
            [[{"role": "user", "content": prompt}] for prompt in prompts],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )


set_model(PolicyModel())

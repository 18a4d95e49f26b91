"""The model that MLflow serves (models from code): prompts in, answers out.

It needs transformers and nothing of this project, so a registered version outlives the code that
trained it.
"""

import json
import logging
import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import yaml
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

logger = logging.getLogger(__name__)
# A prompt is a text or a chat. MLflow warns that it does not check that; `predict` does.
logging.getLogger("mlflow.types.type_hints").setLevel(logging.ERROR)

BATCH_SIZE = 32
LOG = "RPO_SERVING_LOG"
"""Environment variable: a file that gets a line of JSON for each answer."""
META = "registered_model_meta"
"""File that MLflow puts beside a model that it fetched from the registry."""
UNREGISTERED = "unregistered"
"""The version of a model that was fetched from elsewhere."""

Message = dict[str, str]


class PolicyModel(PythonModel):
    """Answers prompts with a causal or encoder-decoder model."""

    def load_context(self, context: Any) -> None:  # noqa: ANN401 (MLflow's own type is private)
        """Load the checkpoint that was logged with this version."""
        checkpoint = Path(context.artifacts["checkpoint"])
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
        meta = checkpoint.parents[1] / META
        known = yaml.safe_load(meta.read_text()) if meta.is_file() else {}
        self.version = str(known.get("model_version", UNREGISTERED))

    def predict(  # type: ignore[override] # the form without a context, which MLflow takes too
        self, model_input: list[str | list[Message]], params: dict[str, Any] | None = None
    ) -> list[dict[str, str]]:
        """Answer each prompt.

        Args:
            model_input: Prompts: texts, or chats as lists of messages with role and content.
            params: ``max_new_tokens``; ``sampling_temperature`` (or ``temperature``), 0 for the
                most likely answer; ``seed`` of the sampling.

        Returns:
            One answer per prompt, in order: ``response_id``, which ratings refer to, ``response``
            and ``model_version``.

        Raises:
            ValueError: If a prompt is neither a text nor a chat.
        """
        for prompt in model_input:
            if not _is_prompt(prompt):
                raise ValueError(
                    "a prompt is a text, or a list of messages such as "
                    f'{{"role": "user", "content": "Hello"}}; got {prompt!r}'
                )
        params = params or {}
        torch.manual_seed(int(params.get("seed", 0)))
        temperature = params.get("sampling_temperature") or params.get("temperature") or 0.0
        # Top-k and top-p off: the policy's own distribution, not a trimmed one.
        sampling = {"do_sample": True, "temperature": float(temperature), "top_k": 0, "top_p": 1.0}
        settings = {
            "max_new_tokens": int(params.get("max_new_tokens", 80)),
            **(sampling if temperature > 0 else {"do_sample": False}),
        }
        answers = []
        for start in range(0, len(model_input), BATCH_SIZE):
            prompts = model_input[start : start + BATCH_SIZE]
            for prompt, response in zip(prompts, self._answer(prompts, settings), strict=True):
                answer = {
                    "response_id": uuid.uuid4().hex,
                    "response": response,
                    "model_version": self.version,
                }
                _log({**answer, "prompt": prompt})
                answers.append(answer)
        return answers

    def _answer(
        self, prompts: Sequence[str | list[Message]], settings: dict[str, Any]
    ) -> list[str]:
        batch = self._encode(prompts)
        with torch.inference_mode():
            output = self.model.generate(**batch, **settings)
        given = 1 if self.is_encoder_decoder else batch["input_ids"].shape[1]
        return list(self.tokenizer.batch_decode(output[:, given:], skip_special_tokens=True))

    def _encode(self, prompts: Sequence[str | list[Message]]) -> Any:  # noqa: ANN401 (a BatchEncoding)
        if not self.tokenizer.chat_template:
            texts = [prompt if isinstance(prompt, str) else _as_text(prompt) for prompt in prompts]
            ids = self.tokenizer(texts)["input_ids"]
            if not self.is_encoder_decoder:
                # A decoder that has read an end token has nothing left to say.
                eos = self.tokenizer.eos_token_id
                ids = [one[:-1] if one and one[-1] == eos else one for one in ids]
            return self.tokenizer.pad({"input_ids": ids}, return_tensors="pt")
        return self.tokenizer.apply_chat_template(
            [
                [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
                for prompt in prompts
            ],
            add_generation_prompt=True,
            padding=True,
            return_dict=True,
            return_tensors="pt",
        )


def _is_prompt(prompt: object) -> bool:
    if isinstance(prompt, list):
        return bool(prompt) and all(
            isinstance(message, dict)
            and isinstance(message.get("role"), str)
            and isinstance(message.get("content"), str)
            for message in prompt
        )
    return isinstance(prompt, str)


def _as_text(chat: list[Message]) -> str:
    """As training wrote chats for a model without a template; a single user turn is its text."""
    if len(chat) == 1 and chat[0]["role"] == "user":
        return chat[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in chat)


def _log(answer: dict[str, Any]) -> None:
    """Append a line to the serving log; an answer goes out even if it cannot be logged."""
    file = os.environ.get(LOG)
    if not file:
        return
    line = json.dumps({**answer, "timestamp": datetime.now(UTC).isoformat()}, ensure_ascii=False)
    try:
        # One write of a file that is only appended to: lines of several workers stay whole.
        log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(log, f"{line}\n".encode())
        finally:
            os.close(log)
    except OSError:
        logger.exception("response %s is not in %s", answer["response_id"], file)


set_model(PolicyModel())

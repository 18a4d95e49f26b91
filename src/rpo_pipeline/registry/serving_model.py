"""The model that MLflow serves (by models from code): it responds to prompts.

It needs transformers and nothing of this project, so a registered version does not depend on later
code: ``encoding.py``, which it shares with training, is an artifact of the version.
"""

import importlib.util
import json
import logging
import math
import os
import secrets
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import yaml
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
)

logger = logging.getLogger(__name__)
# MLflow warns that it does not check the type of prompts; `predict` does.
logging.getLogger("mlflow.types.type_hints").setLevel(logging.ERROR)

BATCH_SIZE = 32
LOG = "RPO_SERVING_LOG"
"""Environment variable with the file that gets a line of JSON for each response."""
MAX_NEW_TOKENS, MAX_PROMPTS = "RPO_SERVING_MAX_NEW_TOKENS", "RPO_SERVING_MAX_PROMPTS"
"""Environment variables that lower the limits of a response's tokens and a request's prompts."""
PROMPTS = 256
"""Largest number of prompts in one request."""
CHARACTERS = 1_000_000
"""Largest length of one prompt, most of which would be cut anyway."""
TEMPERATURES = (0.01, 100.0)
"""Range of temperatures; outside it sampling is greedy or uniform. 0 is greedy decoding."""
UNSET = -1
"""Value of ``max_new_tokens`` or ``seed`` in a request that stands for the default."""
META = "registered_model_meta"
"""File that MLflow puts beside a model that it downloaded from the registry."""
UNREGISTERED = "unregistered"
"""Version of a model that does not come from the registry."""

Message = dict[str, str]


class PolicyModel(PythonModel):
    """Responds to prompts with a causal or encoder-decoder model."""

    def load_context(self, context: Any) -> None:  # noqa: ANN401 (MLflow's own type is private)
        """Load the checkpoint that was logged with this version."""
        checkpoint = Path(context.artifacts["checkpoint"])
        self.settings = json.loads(Path(context.artifacts["serving.json"]).read_text())
        self.encoding = _load_module(Path(context.artifacts["encoding.py"]))
        config = AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
        self.is_encoder_decoder = config.is_encoder_decoder
        auto_class = AutoModelForSeq2SeqLM if self.is_encoder_decoder else AutoModelForCausalLM
        self.model = auto_class.from_pretrained(
            checkpoint, use_safetensors=True, trust_remote_code=False
        ).eval()
        nn.Module.to(self.model, torch.accelerator.current_accelerator() or "cpu")
        side = "right" if self.is_encoder_decoder else "left"
        self.tokenizer = AutoTokenizer.from_pretrained(
            checkpoint, padding_side=side, trust_remote_code=False
        )
        ends = self.model.generation_config.eos_token_id
        self.ends = ends if isinstance(ends, list) else [ends]
        meta = checkpoint.parents[1] / META
        known = yaml.safe_load(meta.read_text()) if meta.is_file() else {}
        self.version = str(known.get("model_version", UNREGISTERED))

    def predict(  # type: ignore[override] # the form without a context, which MLflow takes too
        self, model_input: list[str | list[Message]], params: dict[str, Any] | None = None
    ) -> list[dict[str, str]]:
        """Respond to each prompt.

        Args:
            model_input: Prompts, each a text or a chat (a list of messages with role and content).
                Prompts above the limit of training are cut as in training.
            params: ``max_new_tokens``, whose limit and default are those of training and
                evaluation; ``sampling_temperature`` (or ``temperature``), 0 for greedy decoding;
                ``seed`` of the sampling, by default a new one for every request.

        Returns:
            For each prompt ``response_id``, which ratings refer to, ``response`` and
            ``model_version``.

        Raises:
            ValueError: If a prompt is neither a text nor a chat, or a parameter or the request is
                outside its limits.
        """
        ceiling = _ceiling(MAX_PROMPTS, PROMPTS)
        if len(model_input) > ceiling:
            raise ValueError(f"a request has at most {ceiling} prompts; got {len(model_input)}")
        prompts = [self._read(prompt) for prompt in model_input]
        settings = self._settings(params or {})
        answers = []
        for start in range(0, len(prompts), BATCH_SIZE):
            responses = self._answer(prompts[start : start + BATCH_SIZE], settings)
            given = model_input[start : start + BATCH_SIZE]
            for prompt, response in zip(given, responses, strict=True):
                answer = {
                    "response_id": uuid.uuid4().hex,
                    "response": response,
                    "model_version": self.version,
                }
                _log({**answer, "prompt": prompt})
                answers.append(answer)
        return answers

    def _settings(self, params: dict[str, Any]) -> dict[str, Any]:
        """Read the settings of the generation, and check their limits."""
        ceiling = _ceiling(MAX_NEW_TOKENS, self.settings["max_response_tokens"])
        limit = _whole("max_new_tokens", params, 1, ceiling)
        seed = _whole("seed", params, 0, 2**63 - 1)
        temperature = params.get("sampling_temperature") or params.get("temperature") or 0.0
        lowest, highest = TEMPERATURES
        if not isinstance(temperature, int | float) or not (
            temperature == 0 or lowest <= temperature <= highest
        ):
            raise ValueError(
                f"sampling_temperature is 0, for the most likely answer, or from {lowest} to "
                f"{highest:g}; got {temperature!r}"
            )
        torch.manual_seed(secrets.randbits(63) if seed == UNSET else seed)
        # Without top-k and top-p, samples follow the policy's own distribution.
        sampling = {"do_sample": True, "temperature": float(temperature), "top_k": 0, "top_p": 1.0}
        return {
            "max_new_tokens": ceiling if limit == UNSET else limit,
            **(sampling if temperature > 0 else {"do_sample": False}),
        }

    def _answer(
        self, prompts: Sequence[str | list[Message]], settings: dict[str, Any]
    ) -> list[str]:
        device, dtype = self.model.device, getattr(torch, self.settings["dtype"])
        limit, is_encoder_decoder = self.settings["max_prompt_tokens"], self.is_encoder_decoder
        encoded = self.encoding.encode_prompts(
            self.tokenizer, prompts, is_encoder_decoder=is_encoder_decoder
        )
        ids = [
            self.encoding.cut_prompt(
                one, limit, self.tokenizer, is_encoder_decoder=is_encoder_decoder
            )
            for one in encoded
        ]
        batch = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(device)
        precision = torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)
        with torch.inference_mode(), precision:
            output = self.model.generate(**batch, **settings)
        given = 1 if is_encoder_decoder else batch["input_ids"].shape[1]
        return [
            self.encoding.decode_answer(
                self.tokenizer, self.encoding.until_end(row, self.ends), self.ends
            )
            for row in output[:, given:].tolist()
        ]

    def _read(self, prompt: Any) -> str | list[Message]:  # noqa: ANN401 (what a request holds)
        """Check a prompt and bring it into the form of training."""
        if not _is_prompt(prompt):
            raise ValueError(
                "a prompt is a text, or a list of messages such as "
                f'{{"role": "user", "content": "Hello"}}; got {str(prompt)[:200]!r}'
            )
        texts = [prompt] if isinstance(prompt, str) else [one["content"] for one in prompt]
        if not any(text.strip() for text in texts):
            raise ValueError("a prompt is empty, and there is nothing to answer")
        if isinstance(prompt, str):
            return _text(prompt)
        roles = self.settings["roles"]
        unknown = sorted({message["role"] for message in prompt} - set(roles))
        if unknown:
            raise ValueError(f"a role is one of {', '.join(roles)}; got {', '.join(unknown)}")
        chat = [{"role": roles[one["role"]], "content": _text(one["content"])} for one in prompt]
        return chat if self.tokenizer.chat_template else _as_text(chat)


def _load_module(file: Path) -> ModuleType:
    """Load the code of a version under a name that no other version has."""
    spec = importlib.util.spec_from_file_location(f"rpo_{uuid.uuid4().hex}", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _ceiling(variable: str, limit: int) -> int:
    """Return a limit, or the lower one that an environment variable sets."""
    lower = os.environ.get(variable, "").strip()
    if lower and not (lower.isascii() and lower.isdigit() and int(lower)):
        raise ValueError(f"{variable} is a whole number from 1; got {lower!r}")
    return min(limit, int(lower or limit))


def _whole(name: str, params: dict[str, Any], lowest: int, highest: int) -> int:
    value = params.get(name)
    if value is None or value == UNSET:
        return UNSET
    number = float(value) if isinstance(value, int | float) else math.nan
    if not (number.is_integer() and lowest <= value <= highest):
        raise ValueError(f"{name} is a whole number from {lowest} to {highest}; got {value!r}")
    return int(value)


def _text(text: str) -> str:
    if len(text) > CHARACTERS:
        raise ValueError(f"a prompt has at most {CHARACTERS} characters; got {len(text)}")
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise ValueError(f"a prompt is no text: {err}") from err
    return text


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
    """Write a chat as in training without a template; a single user turn is its text."""
    if len(chat) == 1 and chat[0]["role"] == "user":
        return chat[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in chat)


def _log(answer: dict[str, Any]) -> None:
    """Append a line to the serving log; if that fails, the response is returned all the same."""
    file = os.environ.get(LOG, "")
    if not file.strip():
        return
    line = json.dumps({**answer, "timestamp": datetime.now(UTC).isoformat()}, ensure_ascii=False)
    try:
        # A single write to a file in append mode keeps the lines of several workers apart.
        log = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(log, f"{line}\n".encode())
        finally:
            os.close(log)
    except OSError:
        logger.exception("response %s is not in %s", answer["response_id"], file)


set_model(PolicyModel())

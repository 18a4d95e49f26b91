"""Refuses, by a ModelError, models that cannot be trained here, before anything is scored.

Models are named by their folder or hub id.
"""

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import safe_open
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES
from transformers.utils.hub import cached_file

from rpo_pipeline.errors import ModelError
from rpo_pipeline.storage import FINGERPRINTED

logger = logging.getLogger(__name__)

NUM_NAMED = 5
"""Number of weights or tokens that a message names."""
PRECISIONS = frozenset({"F64", "F32", "F16", "BF16"})
"""Types of safetensors that hold a weight itself; types of fewer bits need a scale beside them."""
HUB_ID = re.compile(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)?", re.ASCII)
POINTER = b"version https://git-lfs.github.com/spec/"
TOKENIZERS = ("tokenizer*", "vocab*", "*.model", "merges*")
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def check_folder(name_or_path: str | Path) -> None:
    """Make sure that a directory holds a whole model of its own, in safetensors.

    It must hold no adapter, quantised file, pickles, part of the weights or pointers instead of
    files, and it needs a tokenizer. Hub ids are checked by transformers itself.
    """
    folder = Path(name_or_path)
    if not folder.is_dir():
        if not HUB_ID.fullmatch(str(name_or_path)):
            what = "is a file, and a model is a folder" if folder.is_file() else "does not exist"
            raise ModelError(
                f"{str(name_or_path)!r} {what} (no hub id is written like this either: those are "
                "OWNER/NAME): name_or_path takes a folder, from the project's folder or absolute, "
                "or a hub id"
            )
        return
    pointers = sorted(_pointers(folder))
    if pointers:
        raise ModelError(
            f"{str(folder)!r} holds pointers of Git LFS instead of {_some(pointers)}: call `git "
            "lfs pull` there, or download the model again"
        )
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{str(folder)!r} is an adapter, not a whole model: merge it into its base model "
            "(peft: merge_and_unload) and name the merged folder"
        )
    has_weights = any(folder.glob("*.safetensors"))
    if not has_weights and any(folder.glob("*.gguf")):
        raise ModelError(
            f"{str(folder)!r} holds a GGUF file, whose quantised weights cannot be trained: name "
            "the folder or hub id of the model in safetensors that it was made from"
        )
    if not has_weights and any(folder.glob("*.bin")):
        raise ModelError(
            f"{str(folder)!r} holds its weights as pickles (*.bin), which can run code and are "
            "not loaded: save the model again in safetensors (save_pretrained does)"
        )
    if has_weights and not any(path for name in TOKENIZERS for path in folder.glob(name)):
        raise ModelError(
            f"{str(folder)!r} holds a model without its tokenizer (tokenizer.json and "
            "tokenizer_config.json): put the files of the model that it was made from there"
        )
    _check_shards(folder)


def _check_shards(folder: Path) -> None:
    """Make sure that a folder holds every file of weights that its index names."""
    index = folder / INDEX
    if index.is_file() and not (folder / WEIGHTS).is_file():
        shards = set(_read_index(index).values())
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise ModelError(
                f"{str(folder)!r} lacks {len(missing)} of its {len(shards)} files of weights: "
                f"{_some(missing)}; download it again"
            )


def check_settings(name_or_path: str | Path, settings: Mapping[str, Any]) -> None:
    """Refuse, by its config.json, a model that is quantised or that reads more than text."""
    name = repr(str(name_or_path))
    text = settings.get("text_config") or {}
    quantised = settings.get("quantization_config") or text.get("quantization_config")
    if quantised:
        method = quantised.get("quant_method", "an unknown method")
        raise ModelError(
            f"{name} is quantised ({method}), and quantised weights cannot be trained here: name "
            "the model that it was made from in policy.name_or_path"
        )
    others = [key for key in settings if key.endswith(("vision_config", "audio_config"))]
    if others:
        raise ModelError(
            f"{name} is a model of text and more ({', '.join(others)}), and only models of text "
            "are trained here: name a text model in policy.name_or_path"
        )


def check_kind(name_or_path: str | Path, config: PreTrainedConfig, auto_class: Any) -> None:  # noqa: ANN401 (transformers' factories share no type)
    """Refuse models that do not write text from left to right, such as encoders.

    ``auto_class`` is the class of transformers that would load the model.
    """
    kind = config.model_type
    is_encoder = (
        kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES
        and not config.is_encoder_decoder
        and not getattr(config, "is_decoder", False)
    )
    if is_encoder or type(config) not in auto_class._model_mapping:
        what = "reads texts but writes none (an encoder)" if is_encoder else "is no language model"
        raise ModelError(
            f"{str(name_or_path)!r} ({kind}) {what}: name a decoder such as Llama or Qwen, or an "
            "encoder-decoder such as T5, in policy.name_or_path or policy.from_config"
        )


def check_weights(
    name_or_path: str | Path, report: Mapping[str, Any], unread: Sequence[str] = ()
) -> None:
    """Make sure that no weight of a loaded model is missing, hence random, or of another shape.

    ``report`` is what transformers says of the weights that it loaded. Weights with one of the
    names ``unread`` in theirs are not used.
    """
    name = repr(str(name_or_path))
    missing = sorted(
        key for key in report["missing_keys"] if not any(part in key for part in unread)
    )
    extra = sorted(report["unexpected_keys"])
    if missing:
        found = f"; it has {len(extra)} that the model does not know: {_some(extra)}"
        raise ModelError(
            f"{name} lacks {len(missing)} weights of its model, which would be random: "
            f"{_some(missing)}{found if extra else ''} (was it saved from a wrapped or compiled "
            "model? save the inner one)"
        )
    if report["mismatched_keys"]:
        shapes = [
            f"{key} {tuple(stored)} for {tuple(wanted)}"
            for key, stored, wanted in sorted(report["mismatched_keys"])
        ]
        raise ModelError(
            f"{name} has weights of other shapes than its config.json says: {_some(shapes)}"
        )
    if extra:
        logger.warning(
            "%s has %d weights that its model does not use: %s", name, len(extra), _some(extra)
        )


def check_precision(
    name_or_path: str | Path, model: PreTrainedModel, revision: str | None = None
) -> None:
    """Make sure that no weight was quantised without a word of it in config.json.

    Weights must not be whole numbers, nor of 8 bits or fewer; whole numbers beside the weights,
    such as positions, are allowed.
    """
    weights = {name for name, _ in model.named_parameters()}
    found = {
        name: precision
        for file in _weight_files(name_or_path, revision)
        for name, precision in _precisions(file).items()
        if precision not in PRECISIONS and (name.endswith(".weight") or name in weights)
    }
    if found:
        raise ModelError(
            f"{str(name_or_path)!r} stores {len(found)} of its weights as "
            f"{', '.join(sorted(set(found.values())))} ({_some(sorted(found))}), so it is "
            "quantised, though its config.json does not say so, and would be loaded without its "
            "scales: name the model in float32, float16 or bfloat16 that it was made from"
        )


def check_vocabulary(
    name_or_path: str | Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Make sure that every token has a row in the embedding and in the head.

    Padding is masked out everywhere, so the end token, which must exist, replaces a padding token
    without a row.
    """
    name = repr(str(name_or_path))
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of {name} has no end-of-sequence token")
    tables: list[Any] = [model.get_input_embeddings(), model.get_output_embeddings()]
    if tables[1] is None:
        raise ModelError(f"{name} has no vocabulary head that scores tokens")
    rows = min(len(table.weight) for table in tables)
    outside = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    if tokenizer.pad_token in outside and tokenizer.pad_token_id != tokenizer.eos_token_id:
        logger.warning(
            "the padding token %s of %s has no row in the embedding: the end token pads instead",
            *(tokenizer.pad_token, name),
        )
        outside.pop(str(tokenizer.pad_token))
        tokenizer.pad_token = tokenizer.eos_token
    if outside:
        named = sorted(outside, key=lambda token: outside[token])
        raise ModelError(
            f"the tokenizer of {name} has {max(tokenizer.get_vocab().values()) + 1} tokens, and "
            f"the embedding of the model has {rows} rows: {_some(named)} would be read from "
            "nowhere; resize the model (resize_token_embeddings) and train the new rows, or take "
            "the tokenizer that the model was trained with"
        )


def _pointers(folder: Path) -> Iterator[str]:
    """Yield the names of files of which Git LFS left only a pointer."""
    for path in {path for pattern in FINGERPRINTED for path in folder.glob(pattern)}:
        if path.is_file():
            with path.open("rb") as file:
                if file.read(len(POINTER)) == POINTER:
                    yield path.name


def _weight_files(name_or_path: str | Path, revision: str | None) -> list[str]:
    """Return the files of a loaded model's weights; none if the hub gives them other names."""
    find = partial(
        cached_file,
        str(name_or_path),
        revision=revision,
        local_files_only=True,
        _raise_exceptions_for_missing_entries=False,
    )
    if whole := find(WEIGHTS):
        return [whole]
    index = find(INDEX)
    shards = sorted(set(_read_index(Path(index)).values())) if index else []
    return [file for shard in shards if (file := find(shard))]


def _precisions(file: str) -> dict[str, str]:
    with safe_open(file, "pt") as stored:
        names = stored.keys()
        return {name: stored.get_slice(name).get_dtype() for name in names}


def _read_index(file: Path) -> dict[str, str]:
    try:
        names: dict[str, str] = json.loads(file.read_text())["weight_map"]
    except (ValueError, KeyError, TypeError) as err:
        raise ModelError(f"{str(file)!r} is damaged ({err}); download it again") from err
    return names


def _some(names: Sequence[str]) -> str:
    more = len(names) - NUM_NAMED
    return ", ".join(names[:NUM_NAMED]) + (f" and {more} more" if more > 0 else "")

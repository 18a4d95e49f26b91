"""Adds low-rank adapters (LoRA) for training, and merges them into the model that is saved."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.params import LoraParams

ADAPTER = "default"
FOLDER = "adapters"
"""Folder of a model directory that holds its merged adapters alone, as peft reads them."""


def add_adapters(model: nn.Module, lora: LoraParams) -> None:
    """Freeze a model, and give its layers trainable adapters that do not change its output yet.

    A ConfigError says that no layer has one of the names, or that an adapter cannot be merged.
    """
    config = LoraConfig(r=lora.r, target_modules=lora.target_modules)
    config.lora_alpha = lora.alpha  # type: ignore[assignment] # any number, whatever peft declares
    try:
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    except ValueError as err:
        raise ConfigError(
            f"policy.lora.target_modules {lora.target_modules} fit no layer of the model: {err}"
        ) from err
    _check_mergeable(model, lora)


def _check_mergeable(model: nn.Module, lora: LoraParams) -> None:
    names = dict(model.named_parameters())
    every = model.named_parameters(remove_duplicate=False)
    tied = {id(weight) for name, weight in every if name not in names}  # several layers share them
    unmergeable = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer) and not _is_mergeable(layer, tied)
    ]
    if unmergeable:
        raise ConfigError(
            f"policy.lora.target_modules {lora.target_modules} put adapters on "
            f"{', '.join(unmergeable)}, which cannot be merged into the policy: embeddings, "
            "convolutions, and a head that shares its weight with the embedding"
        )


def _is_mergeable(layer: Any, tied: set[int]) -> bool:  # noqa: ANN401 (peft's layers are modules only by their subclasses)
    """Tell whether a layer has two matrices whose product is added to a weight of its own."""
    if ADAPTER not in layer.lora_A or layer.lora_A[ADAPTER].weight.ndim > 2:
        return False
    return id(getattr(layer.get_base_layer(), "weight", None)) not in tied


def merged_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict of the model without adapters, merged from the whole one.

    The weight of each layer that had an adapter is ``W + alpha / r * B A``, computed for each
    expert if it holds several.
    """
    merged = {
        name.replace(".base_layer", ""): tensor
        for name, tensor in weights.items()
        if ".lora_" not in name
    }
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            up, down = (weights[f"{name}.lora_{part}.{ADAPTER}.weight"] for part in "BA")
            own = f"{name.replace('.base_layer', '')}.{getattr(layer, 'parameter_name', 'weight')}"
            merged[own] = merged[own] + layer.scaling[ADAPTER] * _product(layer, up, down)
    return merged


def _product(layer: LoraLayer, up: Tensor, down: Tensor) -> Tensor:
    """Compute ``B A`` in the layout of the layer's weight, for each expert if it holds several.

    Shapes: E experts, R rank, I inputs, O outputs; ``up`` is ``(O, R E)``, ``down`` ``(E R, I)``.
    """
    experts = getattr(layer, "num_experts", 1)
    if experts > 1:
        ups, downs = up.reshape(len(up), -1, experts), down.reshape(experts, -1, down.shape[1])
        outputs_first = getattr(layer, "_did_swap_in_out_features", False)
        return torch.einsum(f"ore,eri->e{'oi' if outputs_first else 'io'}", ups, downs)
    product = up @ down
    return product.T if getattr(layer, "fan_in_fan_out", False) else product


def save_adapters(model: nn.Module, weights: Mapping[str, Tensor], directory: Path) -> None:
    """Write the adapters of a model alone into a folder; without adapters, nothing is written.

    ``PeftModel.from_pretrained`` adds them to the model that training started from.
    """
    configs: Mapping[str, LoraConfig] = getattr(model, "peft_config", {})
    if ADAPTER not in configs:
        return
    directory.mkdir(parents=True, exist_ok=True)
    adapters = {
        f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": tensor.contiguous()
        for name, tensor in weights.items()
        if ".lora_" in name
    }
    save_file(adapters, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    config = copy(configs[ADAPTER])
    if isinstance(config.target_modules, set):  # without an order, which a file has
        config.target_modules = sorted(config.target_modules)
    config.save_pretrained(str(directory))

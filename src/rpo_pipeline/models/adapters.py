"""Low-rank adapters (LoRA): injected for training, merged when saved, and kept beside."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor, nn

from rpo_pipeline.errors import ConfigError
from rpo_pipeline.params import LoraParams

ADAPTER = "default"
FOLDER = "adapters"
"""In a model directory that adapters were merged into: the adapters alone, as peft reads them."""


def add_adapters(model: nn.Module, lora: LoraParams) -> None:
    """Freeze a model and give its layers trainable adapters that change nothing yet.

    Args:
        model: A transformers model; changed in place.
        lora: Rank, scale, and which layers.

    Raises:
        ConfigError: If no layer of the model has one of the names.
    """
    config = LoraConfig(r=lora.r, target_modules=lora.target_modules)
    config.lora_alpha = lora.alpha  # type: ignore[assignment] # any number, whatever peft declares
    try:
        inject_adapter_in_model(config, model, adapter_name=ADAPTER)
    except ValueError as err:
        raise ConfigError(
            f"policy.lora.target_modules {lora.target_modules} fit no layer of the model: {err}"
        ) from err


def merged_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights as if the adapters had never been there; without adapters, the same weights.

    Args:
        model: The model that the weights belong to.
        weights: Its whole state dict, by the names that the adapters brought.

    Returns:
        ``W + alpha / r * B A`` under the name of each layer's own weight.
    """
    merged = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in weights.items()
        if ".lora_" not in name
    }
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            up, down = (weights[f"{name}.lora_{part}.{ADAPTER}.weight"] for part in "BA")
            delta = layer.scaling[ADAPTER] * (up @ down)
            merged[f"{name}.weight"] = merged[f"{name}.weight"] + (
                delta.T if getattr(layer, "fan_in_fan_out", False) else delta
            )
    return merged


def save_adapters(model: nn.Module, weights: Mapping[str, Tensor], directory: Path) -> None:
    """Write the adapters of a model alone; without adapters, nothing.

    ``PeftModel.from_pretrained`` puts them on the model that training started from.

    Args:
        model: The model that the weights belong to.
        weights: Its whole state dict.
        directory: Where to.
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

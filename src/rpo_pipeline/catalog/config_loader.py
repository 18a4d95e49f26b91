"""Layers of configuration: ``conf/base``, environments that build on it, ``conf/local``."""

import logging
from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from kedro.config import MissingConfigException, OmegaConfigLoader
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from rpo_pipeline.errors import ConfigError, did_you_mean
from rpo_pipeline.params import ObjectiveParams, TrackingParams, validate_tracking, variable

logger = logging.getLogger(__name__)

LOCAL = "local"
"""Folder of ``conf/`` that is never shared: credentials, and settings of this machine."""
OWN = "globals"
"""Configuration that no environment inherits: its data folder and registered model."""
OBJECTIVES = "_objectives"
"""Parameter that holds the blocks of all objectives; the underscore marks it as derived."""
NO_ENVIRONMENTS = {"base", LOCAL, "accelerate"}
"""Folders of ``conf/`` that are no environments."""
OTHERS = ("environment.yml", "airflow*")
"""Files of this project, and of a plugin, that Kedro does not read."""
SUFFIXES = (".yml", ".yaml")
LOADER_ARGUMENTS: dict[str, Any] = {
    "base_env": "base",
    "default_run_env": "sample",
    # Kedro's default would erase the keys of a block that an environment does not repeat.
    "merge_strategy": {"parameters": "soft"},
    "config_patterns": {"mlflow": ["mlflow*"]},
    "custom_resolvers": {"env": variable},
}
"""Arguments of the loader, without the place of the configuration."""


class LayeredConfigLoader(OmegaConfigLoader):
    """Kedro's loader with two more layers.

    The layers are, from the lowest: ``conf/base``; the environments that the chosen one builds on;
    the chosen one; ``conf/local``. Higher layers override lower ones. An environment names the one
    that it builds on in ``environment.yml`` (``builds_on: sample``). It has its own data folder and
    registered model, because ``globals.yml`` is not inherited. YAML may use the name of the
    environment, ``${run_env:}``. A file with an unknown name is an error.
    """

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Merge the configuration of one kind, such as ``catalog``, from all layers.

        A ConfigError says that a file cannot be read, or that there is no such environment; a
        MissingConfigException, that no layer has a file of this kind.
        """
        if key in self or key not in self.config_patterns:
            found: dict[str, Any] = super().__getitem__(key)
            return found
        layers = list(self._layers(key))
        for layer in layers:
            if layer not in self._read_layers:
                self._refuse_unread(layer)
                self._read_layers.add(layer)
        try:
            return self._merge_layers(key, layers)
        except ConfigError:
            raise
        except YAMLError as err:
            # The parser quotes the text that it cannot read, which may be a secret.
            said = "a file cannot be read as YAML" if key == "credentials" else err
            raise ConfigError(f"conf/ ({', '.join(layers)}), {key}: {said}") from None
        except (OmegaConfBaseException, ValueError) as err:
            said = str(err).splitlines()[0]
            raise ConfigError(f"conf/ ({', '.join(layers)}), {key}: {said}") from err
        except TypeError as err:  # of OmegaConf: a block is put in place of a list
            said = str(err).splitlines()[0]
            raise ConfigError(
                f"--params {', '.join(_dotted(self.runtime_params))}: {said}. An item of a list "
                "cannot be set there: change it in conf/, or give a single value"
            ) from err

    @property
    def environment(self) -> str:
        """Name of the chosen environment; Kedro's name for the default is ``local``."""
        return str(self.default_run_env if self.env in (None, "", LOCAL) else self.env)

    @cached_property
    def _read_layers(self) -> set[str]:
        """Layers of which a file was read, and whose file names were checked."""
        return set()

    @cached_property
    def tracking(self) -> TrackingParams:
        """The tracking server and its experiment; a ``ConfigError`` where they cannot work."""
        return validate_tracking(self["mlflow"])

    @cached_property
    def foundations(self) -> list[str]:
        """Names of the environments that this one builds on, the lowest first, and its own."""
        chain = [self.environment]
        while below := self._builds_on(chain[0]):
            if below in chain:
                raise ConfigError(
                    f"environments build on each other: {' on '.join([*chain[::-1], below])} "
                    "(conf/*/environment.yml)"
                )
            chain.insert(0, below)
        return chain

    def _merge_layers(self, key: str, layers: list[str]) -> dict[str, Any]:
        # OmegaConf has one set of resolvers for all loaders of a process.
        self._register_globals_resolver()
        OmegaConf.register_new_resolver("run_env", lambda: self.environment, replace=True)
        if key == OWN:
            OmegaConf.clear_resolver("runtime_params")  # Kedro does not resolve them in globals
        else:
            self._register_runtime_params_resolver()
        merged: dict[str, Any] = {}
        files: set[Path] = set()
        for layer in layers:
            folder = self._get_conf_env_path(layer)
            patterns = self.config_patterns[key]
            found = self.load_and_merge_dir_config(
                folder, patterns, key, files, read_environment_variables=key == "credentials"
            )
            merged = self._merge_configs(merged, found, key, folder)
        if key == "parameters":  # one input of a node, for the blocks of all objectives
            blocks = {name: merged[name] for name in ObjectiveParams.model_fields if name in merged}
            merged[OBJECTIVES] = blocks
        if key == OWN:
            _check_own(merged, layers[-1] if layers[-1] != LOCAL else self.environment)
        elif not files:
            raise MissingConfigException(f"no file of conf/ holds {key} ({', '.join(layers)})")
        return merged

    def _layers(self, key: str) -> Iterator[str]:
        """Yield the folders that hold configuration of this kind, from the lowest."""
        if not self._is_folder(self.base_env):
            raise ConfigError(
                f"there is no configuration in {self.conf_source}: run this in the folder of a "
                "project, which holds conf/base"
            )
        yield self.base_env
        if self.environment == self.base_env:
            return
        foundations = self.foundations
        yield from foundations[-1:] if key == OWN else foundations
        if self._is_folder(LOCAL):
            yield LOCAL

    def _builds_on(self, environment: str) -> str | None:
        is_name = environment == Path(environment).name
        if environment in NO_ENVIRONMENTS or not is_name or not self._is_folder(environment):
            known = environment_names(Path(self.conf_source))
            raise ConfigError(
                f"there is no environment {environment!r}: {did_you_mean(environment, known)}"
                f"conf/ holds {', '.join(known)}"
            )
        folder = self._get_conf_env_path(environment)
        stated = self.load_and_merge_dir_config(folder, ["environment.yml"], "environment", set())
        below = stated.pop("builds_on", None)
        if stated or not (below is None or isinstance(below, str)):
            raise ConfigError(
                f"conf/{environment}/environment.yml holds `builds_on: NAME` and nothing else"
            )
        return below

    def _check_duplicates(self, key: str, config_per_file: dict[Path, Any]) -> None:
        for file, found in config_per_file.items():
            if not isinstance(found, DictConfig):
                raise ConfigError(
                    f"{file} must hold names with values (`rpo: {{tau: 1.0}}`), and holds a list"
                )
        super()._check_duplicates(key, config_per_file)

    def _refuse_unread(self, layer: str) -> None:
        """Refuse YAML files of a layer that match no pattern, because their names are misspelt."""
        patterns = [*OTHERS, *(one for kind in self.config_patterns.values() for one in kind)]
        known = {path.name for path in (Path(self.conf_source) / self.base_env).glob("*.yml")}
        for file in sorted(Path(self._get_conf_env_path(layer)).glob("[!.]*.*")):
            name, is_read = file.name, any(fnmatchcase(file.name, one) for one in patterns)
            if file.suffix.lower() not in SUFFIXES or (is_read and file.suffix in SUFFIXES):
                continue
            like = [name.lower(), f"parameters_{name.lower()}"]
            hints = [did_you_mean(one, {*known, "environment.yml"}, cutoff=0.8) for one in like]
            hint = next(filter(None, hints), "")
            raise ConfigError(
                f"no run reads conf/{layer}/{name}: {hint}files of configuration are called "
                "parameters*, catalog*, credentials*, mlflow* (.yml or .yaml), globals.yml and "
                "environment.yml; rename it, or keep what something else reads in its own folder"
            )

    def _is_folder(self, name: str) -> bool:
        return bool(self._fs.isdir(Path(self._get_conf_env_path(name)).as_posix()))


def environment_names(conf: Path) -> list[str]:
    """List the environments of a configuration folder by name."""
    folders = {path.name for path in conf.glob("*/") if path.is_dir()}
    return sorted(folders - NO_ENVIRONMENTS)


def _check_own(places: dict[str, Any], environment: str) -> None:
    for name, value in places.items():
        if name in ("data", "cache", "model_name") and not (isinstance(value, str) and value):
            raise ConfigError(
                f"globals.{name} must be a text, got {value!r} (conf/{environment}/globals.yml)"
            )


def _dotted(given: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Yield the names that ``--params`` sets, without the values."""
    for name, value in given.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"

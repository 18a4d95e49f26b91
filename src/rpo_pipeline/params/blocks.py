"""All blocks by name, their validation, and the messages of its errors."""

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from rpo_pipeline.errors import ConfigError, did_you_mean
from rpo_pipeline.params.base import Params
from rpo_pipeline.params.evaluation import ComparisonParams, EvaluationParams, PromotionParams
from rpo_pipeline.params.extras import block_needs, catalog_needs, tracking_needs, unmet
from rpo_pipeline.params.ingestion import IngestionParams
from rpo_pipeline.params.labelers import LABELERS
from rpo_pipeline.params.labeling import LabelingParams
from rpo_pipeline.params.operations import CachesParams, TrackingParams
from rpo_pipeline.params.policy import PolicyParams
from rpo_pipeline.params.refresh import RefreshParams
from rpo_pipeline.params.training import (
    AwrParams,
    DroParams,
    KtoParams,
    NcaParams,
    QrpoParams,
    RebelParams,
    RpoParams,
    SftParams,
    TgoParams,
    TrainingParams,
)
from rpo_pipeline.secrets import hide

BLOCKS: dict[str, type[Params]] = {
    "ingestion": IngestionParams,
    "labeling": LabelingParams,
    "policy": PolicyParams,
    "rpo": RpoParams,
    "sft": SftParams,
    "kto": KtoParams,
    "dro": DroParams,
    "qrpo": QrpoParams,
    "rebel": RebelParams,
    "tgo": TgoParams,
    "nca": NcaParams,
    "awr": AwrParams,
    "training": TrainingParams,
    "evaluation": EvaluationParams,
    "promotion": PromotionParams,
    "comparison": ComparisonParams,
    "caches": CachesParams,
    "refresh": RefreshParams,
}
MEASURED_BY = {
    "judge_win_rate": "judge",
    "lm_eval_": "lm_eval",
    "embedding_similarity": "encoder",
    "bert_score": "encoder",
}
"""Part of the evaluation block that a metric needs, by the start of the metric's name."""


def validate_blocks(parameters: Mapping[str, Any], env: str = "*") -> dict[str, Params]:
    """Build every block from the merged YAML and ``--params``.

    Args:
        parameters: Raw values by block; names with a leading underscore are helpers of the YAML.
        env: Environment of the values, whose files the error names.

    Returns:
        The typed blocks, by name.

    Raises:
        ConfigError: If a value is wrong. It names every wrong value, what is allowed and the file.
    """
    named = [name for name in parameters if not name.startswith("_")]
    problems = [f"{name}: {_unknown(name, BLOCKS)}" for name in named if name not in BLOCKS]
    problems += [
        f"{name}: this block is missing (conf/base/parameters_{name}.yml)"
        for name in BLOCKS
        if name not in parameters
    ]
    blocks = {}
    for name, block in BLOCKS.items():
        if name in parameters:
            try:
                blocks[name] = block.model_validate(parameters[name])
            except ValidationError as err:
                problems += [_explain(name, block, detail) for detail in err.errors()]
    problems += [*_contradictions(blocks), *_never_promoted(blocks)]
    problems += unmet(block_needs(blocks))
    if problems:
        own = [line.replace("conf/*/", f"conf/{env}/") for line in problems]
        raise _cannot_work("the parameters", own)
    return blocks


def _contradictions(blocks: Mapping[str, Params]) -> Iterator[str]:
    """Yield contradictions between blocks that are valid by themselves."""
    rpo, training, labeling = (blocks.get(name) for name in ("rpo", "training", "labeling"))
    if not isinstance(rpo, RpoParams) or not isinstance(training, TrainingParams):
        return
    if rpo.estimator == "quantile" and training.objective != "qrpo":
        yield (
            "rpo.estimator: `quantile` goes with training.objective `qrpo` only, which takes it by "
            f"itself, got training.objective {training.objective!r} (conf/*/parameters_rpo.yml, or "
            "--params training.objective=qrpo)"
        )
    samples = rpo.estimator in ("reference_samples", "quantile") or training.objective == "qrpo"
    if not samples or not isinstance(labeling, LabelingParams):
        return
    if not any(labeler.scores_new_text for labeler in labeling.labelers):
        qrpo = training.objective == "qrpo"
        cause = "training.objective `qrpo`" if qrpo else f"rpo.estimator `{rpo.estimator}`"
        yield (
            f"labeling.labelers: {cause} samples responses that nobody rated, and `column` cannot "
            "score new text; add a labeler such as `rules` (conf/*/parameters_labeling.yml)"
        )


def _never_promoted(blocks: Mapping[str, Params]) -> Iterator[str]:
    """Yield gates that no challenger could pass; a named version may have been measured before."""
    evaluation, promotion = blocks.get("evaluation"), blocks.get("promotion")
    if not isinstance(evaluation, EvaluationParams) or not isinstance(promotion, PromotionParams):
        return
    if promotion.version is not None:
        return
    if promotion.min_test_prompts > evaluation.num_prompts:
        yield (
            f"promotion.min_test_prompts: {promotion.min_test_prompts} test prompts are needed, "
            f"and evaluation.num_prompts takes at most {evaluation.num_prompts}, so nothing could "
            "be promoted (conf/*/parameters_promotion.yml, conf/*/parameters_evaluation.yml)"
        )
    for metric in dict.fromkeys(gate.metric for gate in promotion.gates):
        block = next((name for start, name in MEASURED_BY.items() if metric.startswith(start)), "")
        if block and getattr(evaluation, block) is None:
            yield (
                f"promotion.gates: {metric} is measured only with evaluation.{block}, which is not "
                "set (conf/*/parameters_promotion.yml, conf/*/parameters_evaluation.yml)"
            )


def validate_tracking(raw: Mapping[str, Any]) -> TrackingParams:
    """Build the tracking settings from ``mlflow.yml``.

    Args:
        raw: Values of the file.

    Returns:
        The typed settings.

    Raises:
        ConfigError: If a value is wrong. It names every wrong value.
    """
    try:
        tracking = TrackingParams.model_validate(raw)
    except ValidationError as err:
        problems = [_explain("mlflow", TrackingParams, detail) for detail in err.errors()]
        raise _cannot_work("the tracking settings", problems) from None
    if problems := unmet(tracking_needs(tracking.tracking_uri)):
        raise _cannot_work("the tracking settings", problems)
    return tracking


def validate_catalog(raw: Mapping[str, Any]) -> None:
    """Refuse entries that need a package which is not installed, or that MLflow cannot keep.

    Args:
        raw: Entries by name.

    Raises:
        ConfigError: If there is such an entry. It names the entry, with the package or the reason.
    """
    problems = [*unmet(catalog_needs(raw)), *_wrong_uses(raw)]
    if problems:
        raise _cannot_work("the catalog", problems)


def _wrong_uses(raw: Mapping[str, Any]) -> Iterator[str]:
    for name, entry in raw.items():
        metadata = entry.get("metadata") if isinstance(entry, Mapping) else None
        match metadata.get("mlflow") if isinstance(metadata, Mapping) else None:
            case None | "artifact" | {"input": str()}:
                continue
            case use:
                yield (
                    f"{name}.metadata.mlflow: `artifact` keeps the file with the run, "
                    f"`{{input: USE}}` its hash, got {use!r} (conf/*/catalog_*.yml)"
                )


def _cannot_work(what: str, problems: list[str]) -> ConfigError:
    return ConfigError(f"{what} cannot work:\n" + "\n".join(f"  - {line}" for line in problems))


def _explain(name: str, block: type[Params], detail: ErrorDetails) -> str:
    """Write one sentence: what is wrong, the value, and where to change it."""
    loc = detail["loc"]
    # Pydantic puts the type of a labeler into the path; the YAML has no such level.
    tags = [place for place in range(2, len(loc)) if loc[place - 2] in ("labelers", "members")]
    path = ".".join([name, *(str(part) for place, part in enumerate(loc) if place not in tags)])
    where = (
        f"conf/*/parameters_{name}.yml, or --params {path}=..."
        if name in BLOCKS
        else f"conf/*/{name}.yml"
    )
    got: Any = detail["input"]
    if detail["type"] == "extra_forbidden":
        of_labeler = tags and tags[-1] == len(loc) - 2
        owner = LABELERS[str(loc[-2])] if of_labeler else block if len(loc) == 1 else None
        siblings = owner.model_fields if owner else ()
        return f"{path}: {_unknown(str(loc[-1]), siblings)} ({where})"
    if detail["type"] == "missing":
        return f"{path} is missing ({where})"
    if detail["type"].startswith("union_tag"):
        return f"{path}.type: {_wrong_type(got)} ({where.replace(path, f'{path}.type')})"
    message = detail["msg"].removeprefix("Value error, ")
    shown = f", got {hide(repr(got))}" if not isinstance(got, dict | list) else ""
    return f"{path}: {message[0].lower()}{message[1:]}{shown} ({where})"


def _wrong_type(labeler: object) -> str:
    given = labeler.get("type") if isinstance(labeler, Mapping) else labeler
    hint = did_you_mean(str(given), LABELERS)
    return f"{hint}a labeler is one of {', '.join(LABELERS)}, got {given!r}"


def _unknown(name: str, known: Mapping[str, Any] | tuple[()]) -> str:
    close = get_close_matches(name, known)
    hint = (
        f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}" if known else ""
    )
    return f"no such parameter{'; ' + hint if hint else ''}"

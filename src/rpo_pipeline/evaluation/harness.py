"""Runs tasks of the lm-evaluation-harness; their results are metrics that a gate may name."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from rpo_pipeline.engine import StoredModel
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.evaluation.statistics import NORMAL_QUANTILE, Interval
from rpo_pipeline.params import LmEvalParams
from rpo_pipeline.records import Measured

logger = logging.getLogger(__name__)

Results = dict[str, Any]
"""Results of the harness for one model."""


class _Score(NamedTuple):
    """One metric of a model."""

    value: float
    error: float | None
    """Standard error, if the harness gives one."""
    by_document: dict[int, float]


def run_tasks(
    models: Mapping[str, StoredModel], settings: LmEvalParams, *, num_resamples: int
) -> dict[str, Any]:
    """Run named tasks on ``reference``, ``challenger``, and the ``champion`` if there is one.

    A decoder with a chat template gets tasks through it, like prompts. Standard errors without a
    formula come from resamples.

    The result is as that of ``compare_models``: each model's metrics ``lm_eval_<task>_<metric>``
    as {value, low, high}, and ``difference``; ends are null if the harness has no standard error.

    A ``ConfigError`` is raised if a task is unknown.
    """
    from lm_eval import simple_evaluate  # noqa: PLC0415 (an extra)
    from lm_eval.models.huggingface import HFLM  # noqa: PLC0415

    tasks = _find_tasks(settings)
    results: dict[str, Results] = {}
    for name in models:
        logger.info("lm_eval: %s on %s", ", ".join(settings.tasks), name)
        with models[name] as model, model.language_model.autocast():
            results[name] = simple_evaluate(
                HFLM(
                    pretrained=model.language_model.model,
                    tokenizer=model.language_model.tokenizer,
                    batch_size=model.rows_at_once,
                ),
                tasks=settings.tasks,
                task_manager=tasks,
                limit=settings.limit,
                num_fewshot=settings.num_fewshot,
                apply_chat_template=model.language_model.reads_chats,
                bootstrap_iters=num_resamples,
            )
    scores = {name: _read_scores(result) for name, result in results.items()}
    ours = scores["challenger"]
    difference = {
        f"vs_{baseline}": {metric: _difference(ours[metric], theirs[metric]) for metric in ours}
        for baseline, theirs in scores.items()
        if baseline != "challenger"
    }
    numbers = {
        name: {metric: _interval(score.value, score.error) for metric, score in own.items()}
        for name, own in scores.items()
    }
    return {**numbers, "difference": difference}


def add_tasks(measured: Measured, tasks: Mapping[str, Any]) -> Measured:
    """Add the metrics of tasks, if any were run, to those of ``compare_models``."""
    if not tasks:
        return measured
    models = [name for name in tasks if name != "difference"]
    difference = {
        baseline: numbers and {**numbers, **tasks["difference"].get(baseline, {})}
        for baseline, numbers in measured.difference.items()
    }
    merged: dict[str, Any] = {name: {**(measured.of(name) or {}), **tasks[name]} for name in models}
    return replace(measured, **merged, difference=difference)


def _find_tasks(settings: LmEvalParams) -> Any:  # noqa: ANN401 (untyped package)
    """Build an index of tasks; the harness's own thousands are read only if one is needed."""
    from lm_eval.tasks import TaskManager  # noqa: PLC0415

    own = TaskManager(include_path=settings.include_path, include_defaults=False)
    if set(settings.tasks) <= set(own.all_tasks):
        return own
    every = TaskManager(include_path=settings.include_path)
    missing = sorted(set(settings.tasks) - set(every.all_tasks))
    if missing:
        raise ConfigError(
            f"lm_eval knows no task {', '.join(missing)} (parameters_evaluation.yml: "
            f"evaluation.lm_eval.tasks; own tasks lie in lm_eval.include_path, now "
            f"{settings.include_path}; `lm-eval ls tasks` lists the others)"
        )
    return every


def _read_scores(results: Results) -> dict[str, _Score]:
    """Return every metric's score by our name for it."""
    scores = {}
    for task, numbers in results["results"].items():
        for key, value in numbers.items():
            metric, comma, kind = key.partition(",")
            if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                error = numbers.get(f"{metric}_stderr,{kind}")
                by_document = {
                    sample["doc_id"]: float(sample[metric])
                    for sample in results.get("samples", {}).get(task, [])
                    if sample["filter"] == kind and isinstance(sample.get(metric), int | float)
                }
                suffix = "" if kind == "none" else f"_{kind}"
                scores[f"lm_eval_{task}_{metric}{suffix}"] = _Score(
                    float(value),
                    float(error) if isinstance(error, int | float) else None,
                    by_document,
                )
    return scores


def _interval(value: float, error: float | None) -> Interval:
    if error is None:
        return {"value": value, "low": None, "high": None}
    half = NORMAL_QUANTILE * error
    return {"value": value, "low": value - half, "high": value + half}


def _difference(ours: _Score, theirs: _Score) -> Interval:
    """Compare two models, paired over documents if the metric is their mean, else unpaired."""
    gap = ours.value - theirs.value
    if ours.by_document and ours.by_document.keys() == theirs.by_document.keys():
        gaps = np.array(
            [ours.by_document[one] - theirs.by_document[one] for one in ours.by_document]
        )
        if len(gaps) > 1 and math.isclose(gaps.mean(), gap, abs_tol=1e-9):
            return _interval(gap, float(gaps.std(ddof=1) / math.sqrt(len(gaps))))
    if ours.error is None or theirs.error is None:
        return _interval(gap, None)
    return _interval(gap, math.hypot(ours.error, theirs.error))

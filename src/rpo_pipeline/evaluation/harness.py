"""Runs tasks of the lm-evaluation-harness; their results are metrics that a gate may name."""

import logging
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rpo_pipeline.engine import StoredModel
from rpo_pipeline.errors import ConfigError
from rpo_pipeline.evaluation.statistics import NORMAL_QUANTILE, Interval
from rpo_pipeline.params import LmEvalParams
from rpo_pipeline.records import Measured

logger = logging.getLogger(__name__)

Results = dict[str, Any]
"""Results of the harness for one model."""


def run_tasks(
    models: Mapping[str, StoredModel], settings: LmEvalParams, *, num_resamples: int
) -> dict[str, Any]:
    """Run named tasks on every model.

    A decoder with a chat template gets tasks through it, like prompts.

    Args:
        models: Models by name: ``reference``, ``challenger``, perhaps ``champion``.
        settings: Names of the tasks and number of documents.
        num_resamples: Number of resamples for standard errors without a formula.

    Returns:
        In the form of ``compare_models``: each model's metrics ``lm_eval_<task>_<metric>`` as
        {value, low, high}, and ``difference``; ends are null if the harness has no standard error.

    Raises:
        ConfigError: If a task is unknown.
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
    numbers = {name: _intervals(result) for name, result in results.items()}
    difference = {
        f"vs_{baseline}": {
            metric: _difference(metric, results["challenger"], results[baseline])
            for metric in numbers["challenger"]
        }
        for baseline in results
        if baseline != "challenger"
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


def _intervals(results: Results) -> dict[str, Interval]:
    return {
        name: _interval(value, _error(results, task, key))
        for name, (task, key, value) in _measured(results).items()
    }


def _measured(results: Results) -> dict[str, tuple[str, str, float]]:
    """Return task, key in the results, and value of every metric, by our name for it."""
    measured = {}
    for task, numbers in results["results"].items():
        for key, value in numbers.items():
            metric, comma, kind = key.partition(",")
            if comma and not metric.endswith("_stderr") and isinstance(value, int | float):
                suffix = "" if kind == "none" else f"_{kind}"
                measured[f"lm_eval_{task}_{metric}{suffix}"] = (task, key, float(value))
    return measured


def _error(results: Results, task: str, key: str) -> float | None:
    error = results["results"][task].get(key.replace(",", "_stderr,"))
    return float(error) if isinstance(error, int | float) else None


def _interval(value: float, error: float | None) -> Interval:
    if error is None:
        return {"value": value, "low": None, "high": None}
    half = NORMAL_QUANTILE * error
    return {"value": value, "low": value - half, "high": value + half}


def _difference(name: str, challenger: Results, baseline: Results) -> Interval:
    """Compare two models, paired over documents if the metric is their mean, else unpaired."""
    task, key, value = _measured(challenger)[name]
    other = _measured(baseline)[name][2]
    ours, theirs = _by_document(challenger, task, key), _by_document(baseline, task, key)
    if ours and ours.keys() == theirs.keys():
        gaps = np.array([ours[document] - theirs[document] for document in ours])
        if len(gaps) > 1 and math.isclose(gaps.mean(), value - other, abs_tol=1e-9):
            return _interval(value - other, float(gaps.std(ddof=1) / math.sqrt(len(gaps))))
    errors = _error(challenger, task, key), _error(baseline, task, key)
    known = [error for error in errors if error is not None]
    return _interval(value - other, math.hypot(*known) if len(known) == len(errors) else None)


def _by_document(results: Results, task: str, key: str) -> dict[int, float]:
    metric, _, kind = key.partition(",")
    return {
        sample["doc_id"]: float(sample[metric])
        for sample in results.get("samples", {}).get(task, [])
        if sample["filter"] == kind and isinstance(sample.get(metric), int | float)
    }

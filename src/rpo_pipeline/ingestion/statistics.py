"""Describes the data in numbers, for reports (Ibis expressions)."""

from datetime import UTC
from typing import Any

from ibis import _
from ibis.expr.types import IntegerColumn, StringColumn, Table

Numbers = dict[str, Any]


def describe_data(feedback: Table, splits: Table, clusters: Table) -> Numbers:
    """Describe the feedback of a run.

    The splits (prompt_id, split, leaked) and clusters (prompt_id, cluster_id) may hold prompts of
    earlier runs. The numbers are rows; rated_share; prompts; responses_per_prompt, prompt_words and
    response_words (mean, quantiles); rewards by source; splits (rows, rated rows, prompts);
    near_duplicates (clusters of more than one prompt, their prompts, the largest, leaked test
    prompts); first and last timestamp; rows by model_version.
    """
    prompts = feedback.group_by("prompt_id").agg(
        split=_.split.min(),
        num_rows=_.count(),
        num_rated=_.raw_reward.count(),
        words=count_words(_.prompt.min()),
    )
    times = feedback.agg(first=_.timestamp.min(), last=_.timestamp.max())
    responses = feedback.select(words=count_words(feedback.response))
    totals = prompts.agg(rows=_.num_rows.sum(), rated=_.num_rated.sum(), prompts=_.count())
    number_of = _one(totals)
    return {
        "rows": number_of["rows"],
        "prompts": number_of["prompts"],
        "rated_share": number_of["rated"] / number_of["rows"],
        "responses_per_prompt": _distribution(prompts, prompts.num_rows),
        "prompt_words": _distribution(prompts, prompts.words),
        "response_words": _distribution(responses, responses.words),
        "rewards": _by(feedback.filter(feedback.raw_reward.notnull()), "reward_source", **_REWARD),
        "splits": _by(prompts, "split", **_SPLIT),
        "near_duplicates": _near_duplicates(feedback, splits, clusters),
        # Spark returns times in UTC, the zone of its session, without a zone.
        "timestamps": {
            name: time and time.replace(tzinfo=UTC).isoformat()
            for name, time in _one(times).items()
        },
        "model_versions": _by(feedback, "model_version", rows=_.count()),
    }


def count_words(text: StringColumn) -> IntegerColumn:
    """Count the words between spaces and line breaks."""
    spaced = text.re_replace("[ \t\r\n]+", " ").strip()
    return spaced.length() - spaced.replace(" ", "").length() + 1


_REWARD = {
    "rows": _.count(),
    "ratings": _.num_ratings.sum(),
    "mean": _.raw_reward.mean(),
    "std": _.raw_reward.std(how="pop"),
    "min": _.raw_reward.min(),
    "max": _.raw_reward.max(),
}
_SPLIT = {"prompts": _.count(), "rows": _.num_rows.sum(), "rated": _.num_rated.sum()}


def _near_duplicates(feedback: Table, splits: Table, clusters: Table) -> Numbers:
    here = feedback.select("prompt_id").distinct()
    sizes = (
        clusters.semi_join(here, "prompt_id")
        .group_by("cluster_id")
        .agg(size=_.count())
        .filter(_.size > 1)
    )
    found = _one(sizes.agg(clusters=_.count(), prompts=_.size.sum(), largest_cluster=_.size.max()))
    leaked = splits.filter(splits.leaked).semi_join(here, "prompt_id").count().execute()
    return {**{name: int(n or 0) for name, n in found.items()}, "leaked_prompts": int(leaked)}


def _distribution(table: Table, column: IntegerColumn) -> Numbers:
    quantiles = {"p10": 0.1, "median": 0.5, "p90": 0.9, "p99": 0.99}
    return _one(
        table.agg(
            mean=column.mean(),
            min=column.min(),
            **{name: column.quantile(share) for name, share in quantiles.items()},
            max=column.max(),
        )
    )


def _by(table: Table, key: str, **numbers: Any) -> dict[str, Any]:  # noqa: ANN401 (deferred)
    lines = table.group_by(key).agg(**numbers).order_by(key).to_pyarrow().to_pylist()
    return {line.pop(key) or "unknown": line for line in lines}


def _one(table: Table) -> Numbers:
    line: Numbers = table.to_pyarrow().to_pylist()[0]
    return line

"""The model card of a version: origin, training, evaluation and limits."""

from collections.abc import Iterator, Mapping
from typing import Any

from rpo_pipeline.records import Summary
from rpo_pipeline.reporting.page import load_templates

METRICS = (
    *("reward_mean", "win_rate", "length_controlled_win_rate", "rank_correlation"),
    *("toxicity_mean", "kl_reference", "distinct_2", "repetition", "length_mean"),
)
FEW_PROMPTS = 200
"""Number of test prompts below which the card warns."""


def render_model_card(
    *,
    summary: Summary,
    row_account: Mapping[str, int],
    statistics: Mapping[str, Any],
    training_summary: Mapping[str, Any],
    partition_health: Mapping[str, Any],
    provenance: Mapping[str, Any],
    parameters: Mapping[str, Any],
) -> str:
    """Write the card, in Markdown with the metadata that model hubs read.

    Nothing in it quotes a prompt or a response. ``statistics`` are those of ``describe_data``;
    ``partition_health`` holds the estimator, its reason and tau; ``parameters`` are all blocks of
    the run.
    """
    return (
        load_templates(interval=_interval)
        .get_template("model_card.md.j2")
        .render(
            summary=summary,
            metrics=[name for name in METRICS if name in summary.challenger],
            differences=summary.versus(summary.gate.baseline),
            row_account=row_account,
            statistics=statistics,
            training_summary=training_summary,
            health=partition_health,
            provenance=provenance,
            parameters=parameters,
            limits=list(_limits(summary, statistics, parameters, provenance["base_licence"])),
        )
    )


def _interval(metric: Mapping[str, float | None] | None) -> str:
    if not metric or metric["value"] is None:
        return "-"
    return f"{metric['value']:.4g} ({metric['low']:.4g} to {metric['high']:.4g})"


def _limits(
    summary: Summary,
    statistics: Mapping[str, Any],
    parameters: Mapping[str, Any],
    licence: str,
) -> Iterator[str]:
    """Yield limits of the evaluation."""
    judges = [labeler["type"] for labeler in parameters["evaluation"]["labelers"]]
    teachers = [labeler["type"] for labeler in parameters["labeling"]["labelers"]]
    yield (
        f"The reward of new responses comes from labelers ({', '.join(judges)}), not from people: "
        "a gain is a gain by their measure."
    )
    shared = sorted({*judges} & {*teachers})
    if shared:
        yield (
            f"Labelers of the kind {', '.join(shared)} also labelled training rows, so a gain by "
            "them is weaker evidence than one by a labeler that training has not seen."
        )
    yield (
        "Test prompts are of the same log as the training prompts. How the model does on other "
        "prompts, languages or tasks was not measured."
    )
    if summary.num_prompts < FEW_PROMPTS:
        yield (
            f"{summary.num_prompts} test prompts are few: the intervals are wide, and rare "
            "failures were probably not seen."
        )
    if statistics["rated_share"] < 1:
        yield (
            f"{100 * (1 - statistics['rated_share']):.0f} % of the rows were not rated by anyone."
        )
    yield "Toxicity is the share of responses with a word of a list; safety was not tested beyond."
    yield (
        "Names and addresses in the feedback may have been learned; redaction was "
        f"{'on' if parameters['ingestion'].get('redaction') else 'off'}."
    )
    if licence == "unknown":
        yield "The licence of the base model is unknown."
    yield "Under which terms the feedback may be used, this project does not know."

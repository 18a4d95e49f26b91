"""Checks that cached log-probabilities are those of the model that training starts from."""

from collections.abc import Sequence

import torch

from rpo_pipeline.engine import Group
from rpo_pipeline.errors import StaleReferenceError
from rpo_pipeline.training.step import Trainee, score

TOLERANCES = {torch.float32: (1e-4, 5e-4), torch.bfloat16: (5e-3, 5e-2)}
"""Tolerances of a row by precision: a share of its log-probability, and nats per token.

Another route, batch, processor or release computes the same sum in another order. In bfloat16 the
difference has no preferred sign and reaches about 0.2 nats in a response; the share of the
log-probability covers long responses (docs/decisions/050).
"""
SOME_ROWS, FAR = 0.05, 1.0
"""Share of rows that may exceed the tolerance, and by how many nats: rounding may choose another
expert of a mixture if two are nearly tied."""


def check_reference(trainee: Trainee, groups: Sequence[Group]) -> None:
    """Refuse to train on cached log-probabilities of another model than the policy's start.

    Before the first step the policy is the reference, so every log-ratio is 0.

    Args:
        trainee: Policy before its first step.
        groups: Groups of the first step, the same in every process.

    Raises:
        StaleReferenceError: If a log-ratio is further from 0 than rounding explains.
    """
    share, a_token = TOLERANCES[trainee.view.language_model.dtype]
    for scored, ref_logps in trainee.objective.cached(groups):
        num_tokens = torch.tensor([len(ids) for group in scored for ids in group.responses])
        log_ratio = (score(trainee, scored) - ref_logps).cpu()
        allowed = share * ref_logps.cpu().abs() + a_token * num_tokens
        off = log_ratio.abs() > allowed
        is_far = (log_ratio.abs() > allowed + FAR).any()
        if is_far or off.float().mean() > SOME_ROWS:
            worst = int((log_ratio.abs() / allowed).argmax())
            raise StaleReferenceError(
                "training did not start: before its first step the policy is the reference, but "
                f"{int(off.sum())} of {len(off)} responses are not as likely as their cached "
                f"log-probabilities say. One of {int(num_tokens[worst])} tokens has a log-ratio of "
                f"{float(log_ratio[worst]):.3g} nats, of which rounding explains "
                f"{float(allowed[worst]):.2g}; other code, libraries or weights computed the cache"
            )

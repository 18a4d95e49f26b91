"""Whether cached log-probabilities are those of the model that training starts from."""

from collections.abc import Sequence

import torch

from rpo_pipeline.engine import Group
from rpo_pipeline.errors import StaleReferenceError
from rpo_pipeline.training.step import Trainee, score

TOLERANCES = {torch.float32: (1e-4, 5e-4), torch.bfloat16: (5e-3, 5e-2)}
"""By precision: what a row may be off, as a share of its log-probability and in nats a token.

Another route, batch, processor or release computes the same sum in another order. In bfloat16 the
difference has no preferred sign and reaches about 0.2 nats in a response; a share of it covers long
ones (docs/decisions/050).
"""
SOME_ROWS, FAR = 0.05, 1.0
"""Rows, as a share of all, that rounding alone may push further, and how far in nats: where two
experts of a mixture are nearly tied, it decides which one is asked."""


def check_reference(trainee: Trainee, groups: Sequence[Group]) -> None:
    """Refuse to train on cached log-probabilities of something else than the policy's start.

    Before the first step the policy is the reference, so every log-ratio is 0.

    Args:
        trainee: The policy, untouched.
        groups: Of the first step, the same in every process.

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

"""Time, floating-point operations and memory of a piece of work."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

Work = Callable[[], object]

aten = torch.ops.aten


@dataclass(frozen=True)
class Timing:
    """Seconds of each round."""

    cpu: list[float]
    """Of all threads of the process."""
    wall: list[float]

    @property
    def seconds(self) -> float:
        """Median CPU time."""
        return median(self.cpu)


def time_side_by_side(works: Mapping[str, Work], rounds: int) -> dict[str, Timing]:
    """Run works in turn, ``rounds`` times after one round to warm up.

    Args:
        works: By name; each does the same at every call.
        rounds: That count.

    Returns:
        Seconds of each work's rounds.
    """
    timings = {name: Timing([], []) for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            work()
            if number:
                timings[name].cpu.append(time.process_time() - cpu)
                timings[name].wall.append(time.perf_counter() - wall)
    return timings


def flops(work: Work) -> int:
    """Floating-point operations of the matrix products of a work, attention included."""

    def add_product(_total: list[int], left: list[int], right: list[int], **_: object) -> int:
        return 2 * left[0] * left[1] * right[1]

    def attention(
        query: list[int], key: list[int], value: list[int], *_: object, **__: object
    ) -> int:
        return 2 * prod(query[:3]) * key[2] * (query[3] + value[3])

    def attention_backward(
        _grad: list[int],
        query: list[int],
        key: list[int],
        value: list[int],
        *_: object,
        **__: object,
    ) -> int:
        return 2 * prod(query[:3]) * key[2] * (3 * query[3] + 2 * value[3])

    formulas = {
        aten.addmm_: add_product,
        aten._scaled_dot_product_flash_attention_for_cpu: attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    return counter.get_total_flops()


def peak_bytes(work: Work) -> int:
    """Most bytes of tensors that a work held at once, above those that were there before it."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak

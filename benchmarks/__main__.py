"""The engine against its peers: prints a table, writes ``benchmarks/results.json``.

Each ratio is of two medians of CPU time, measured in turn in this process, on the same weights and
the same rows, after a round to warm up. Values are compared before anything is timed.
"""

import json
import math
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks import authors, engine, trl_kto
from benchmarks.ingestion import ingest
from benchmarks.measure import Timing, Work, flops, peak_bytes, time_side_by_side
from benchmarks.shapes import CHAT, LONG_PROMPTS, SHORT_PROMPTS, Shape
from rpo_pipeline.engine.groups import Group
from rpo_pipeline.engine.loading import LanguageModel

RESULTS = Path("benchmarks/results.json")
THREADS = 2
ROUNDS = 5
EQUAL = 1e-4
"""Nats a token by which the values of two sides may differ."""
BYTES = 2**20


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    work: str
    peer: str
    ratio: float
    """Of the peer's cost to ours; for a cost without a peer, ours to what is in ``peer``."""
    target: float | None
    """The bar; at least, or for costs without a peer at most."""
    passed: bool | None
    ours: float
    theirs: float
    unit: str
    flop_ratio: float | None = None
    """The same ratio in multiply-adds: what the time ratio would be at equal speed."""
    wall_ratio: float | None = None
    spread: tuple[float, float] | None = None
    """Smallest and largest ratio of a round."""


def main() -> None:
    """Measure what was asked for."""
    parser = ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("--full", action="store_true", help="more groups, rounds and shapes")
    parser.add_argument("--only", default="", help="parts whose name holds this text")
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    results = []
    parts = (partition_pass, t5_training, decoder_training, own_sft, more_responses, ingestion)
    for part in parts:
        if arguments.only in part.__name__:
            for result in part(full=arguments.full):
                results.append(result)
                tqdm.write(_line(result))
    RESULTS.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")
    tqdm.write(f"written to {RESULTS}")


def partition_pass(*, full: bool) -> Iterator[Result]:
    """Reference log-probabilities of every row, T5 of Flan-T5-small's size."""
    language_model = engine.build(engine.FLAN_T5_SMALL)
    groups = _groups(CHAT, language_model, 12 if full else 3)
    precisions = _precisions()
    works: dict[str, Work] = {"peer": lambda: authors.partition_pass(language_model.model, groups)}
    for name, dtype in precisions.items():
        ours = engine.twin(language_model, dtype)
        works[name] = lambda ours=ours: engine.score(ours, groups)  # type: ignore[misc]
    tokens = torch.tensor([len(ids) for group in groups for ids in group.responses])
    means = engine.score(language_model, groups) / tokens
    _check_equal(means, authors.partition_pass(language_model.model, groups))
    timings = time_side_by_side(works, ROUNDS)
    ideal = flops(works["peer"]) / flops(works["float32"])
    for name, bar in (("float32", 4.5), ("bfloat16", 9.0)):
        if name in precisions:
            work = f"partition pass, T5, {name}"
            yield _compared(work, "authors' scheme", timings["peer"], timings[name], bar, ideal)


def t5_training(*, full: bool) -> Iterator[Result]:
    """An optimizer step on the same rows, T5."""
    language_model = engine.build(engine.FLAN_T5_SMALL)
    groups = _groups(CHAT, language_model, 8 if full else 2)
    peer = authors.TrainingStep(engine.twin(language_model).model, groups)
    works: dict[str, Work] = {"peer": peer}
    for name, dtype in _precisions().items():
        works[name] = engine.TrainingStep(engine.twin(language_model, dtype), groups)
    timings = time_side_by_side(works, ROUNDS)
    ideal = flops(peer) / flops(works["float32"])
    for name, bar in (("float32", 5.0), ("bfloat16", 8.0)):
        if name in works:
            work = f"training step, T5, {name}"
            yield _compared(work, "authors' scheme", timings["peer"], timings[name], bar, ideal)
    yield _memory("peak memory, T5 step", "authors' scheme", peer, works["float32"])


def decoder_training(*, full: bool) -> Iterator[Result]:
    """An optimizer step on the same rows, decoder-only, 4 responses a prompt."""
    for shape in (CHAT, LONG_PROMPTS, SHORT_PROMPTS) if full else (CHAT, LONG_PROMPTS):
        language_model = engine.build(engine.LLAMA_4X256)
        groups = _groups(shape, language_model, 8 if full else 3)
        ours = engine.TrainingStep(engine.twin(language_model), groups)
        peers = {
            "TRL KTO, precomputed": trl_kto.TrainingStep(
                engine.twin(language_model), groups, precompute=True
            ),
            "TRL KTO": trl_kto.TrainingStep(engine.twin(language_model), groups, precompute=False),
        }
        _check_sums(engine.score(language_model, groups), peers["TRL KTO"].logps(), groups)
        timings = time_side_by_side({"ours": ours, **peers}, ROUNDS)
        for (name, peer), bar in zip(peers.items(), (4.0, 6.0), strict=True):
            work = f"training step, Llama, {shape.name}"
            ideal = flops(peer) / flops(ours)
            yield _compared(work, name, timings[name], timings["ours"], bar, ideal)
        work = f"peak memory, Llama step, {shape.name}"
        yield _memory(work, "TRL KTO, precomputed", peers["TRL KTO, precomputed"], ours)
    if full:
        yield from _smollm2()


def own_sft(*, full: bool) -> Iterator[Result]:
    """What the reward costs: an RPO step against an SFT step on the same tokens."""
    language_model = engine.build(engine.LLAMA_4X256)
    groups = _groups(CHAT, language_model, 8 if full else 3)
    works = {
        objective: engine.TrainingStep(engine.twin(language_model), groups, objective=objective)
        for objective in ("sft", "rpo")
    }
    timings = time_side_by_side(works, 3 * ROUNDS)
    yield _cost("RPO step", "our SFT step", timings["sft"], timings["rpo"], 1.05, None)


def more_responses(*, full: bool) -> Iterator[Result]:
    """A step on 8 responses of 64 tokens to a 512-token prompt against one on 4."""
    language_model = engine.build(engine.LLAMA_4X256)
    shape = Shape("one", 512, 1e-9, 64, 1e-9)
    works = {
        number: engine.TrainingStep(
            engine.twin(language_model),
            _groups(shape, language_model, 4 if full else 1, responses=number),
        )
        for number in (4, 8)
    }
    timings = time_side_by_side({str(number): work for number, work in works.items()}, 2 * ROUNDS)
    ideal = flops(works[8]) / flops(works[4])
    result = _cost("8 responses", "4 responses", timings["4"], timings["8"], 1.10 * ideal, ideal)
    yield result


def ingestion(*, full: bool) -> Iterator[Result]:  # noqa: ARG001 (the million is always run)
    """A generated log from nothing to feedback, in a process of its own."""
    sizes = (10**4, 10**5, 10**6)
    costs = [ingest(rows) for rows in sizes]
    for rows, cost in zip(sizes, costs, strict=True):
        yield _within(f"ingestion, {rows:,} rows", cost.seconds, 90, "seconds")
        yield _within(f"ingestion, {rows:,} rows", cost.peak_bytes / BYTES, 2000, "MiB at most")
    # In CPU time, which other processes disturb less, and without the start, the same for all.
    fast, slow = (
        (large.cpu_seconds - small.cpu_seconds) / (rows - fewer)
        for small, large, fewer, rows in zip(costs, costs[1:], sizes, sizes[1:], strict=False)
    )
    ratio, bar = slow / fast, 1.25
    work, peer = "ingestion, a row more at 10^6", "a row more at 10^5"
    yield Result(work, peer, ratio, bar, ratio <= bar, slow * 1e6, fast * 1e6, "CPU us")


def _within(work: str, ours: float, limit: float, unit: str) -> Result:
    return Result(work, "limit", ours / limit, 1.0, ours <= limit, ours, limit, unit)


def _smollm2() -> Iterator[Result]:
    """Reported without a bar."""
    language_model = engine.build(engine.SMOLLM2_135M)
    groups = _groups(CHAT, language_model, 2)
    ours = engine.TrainingStep(engine.twin(language_model), groups)
    peer = trl_kto.TrainingStep(engine.twin(language_model), groups, precompute=True)
    timings = time_side_by_side({"ours": ours, "peer": peer}, ROUNDS)
    ideal = flops(peer) / flops(ours)
    work, name = "training step, SmolLM2-135M, chat", "TRL KTO, precomputed"
    yield _compared(work, name, timings["peer"], timings["ours"], None, ideal)


def _groups(
    shape: Shape, language_model: LanguageModel, number: int, responses: int = 4
) -> list[Group]:
    vocabulary = language_model.model.config.vocab_size
    return shape.groups(number, vocabulary=vocabulary, responses=responses)


def _precisions() -> dict[str, torch.dtype]:
    """bfloat16 where the processor multiplies in it; elsewhere it only costs time."""
    precisions = {"float32": torch.float32}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return precisions | {"bfloat16": torch.bfloat16}
    left, right = torch.randn(1024, 512), torch.randn(512, 512)
    works: dict[str, Work] = {
        "float32": lambda: left @ right,
        "bfloat16": lambda: left.bfloat16() @ right.bfloat16(),
    }
    timings = time_side_by_side(works, ROUNDS)
    slower = timings["bfloat16"].seconds / timings["float32"].seconds
    tqdm.write(
        "bfloat16: left out, this processor has no instructions for it (a product takes "
        f"{slower:.1f} times as long as in float32)"
    )
    return precisions


def _check_sums(ours: Tensor, theirs: Tensor, groups: list[Group]) -> None:
    tokens = torch.tensor([len(ids) for group in groups for ids in group.responses])
    _check_equal(ours / tokens, theirs / tokens)


def _check_equal(ours: Tensor, theirs: Tensor) -> None:
    difference = float((ours - theirs).abs().max())
    if not difference <= EQUAL:
        raise SystemExit(f"the sides differ by {difference:.2g} nats a token: nothing to compare")


def _compared(
    work: str, peer: str, theirs: Timing, ours: Timing, bar: float | None, ideal: float
) -> Result:
    ratio = theirs.seconds / ours.seconds
    return Result(
        work,
        peer,
        ratio,
        bar,
        None if bar is None else ratio >= bar,
        ours.seconds,
        theirs.seconds,
        "CPU seconds",
        ideal,
        _median(theirs.wall) / _median(ours.wall),
        _spread(theirs, ours),
    )


def _cost(
    work: str, peer: str, theirs: Timing, ours: Timing, bar: float, ideal: float | None
) -> Result:
    ratio = ours.seconds / theirs.seconds
    return Result(
        work,
        peer,
        ratio,
        bar,
        ratio <= bar,
        ours.seconds,
        theirs.seconds,
        "CPU seconds",
        ideal,
        _median(ours.wall) / _median(theirs.wall),
        _spread(ours, theirs),
    )


def _memory(work: str, peer: str, theirs: Callable[[], object], ours: Work) -> Result:
    """Above weights, gradients and optimizer state, which both sides hold before the step."""
    mine, other = peak_bytes(ours) / BYTES, peak_bytes(theirs) / BYTES
    return Result(work, peer, mine / other, 0.5, mine <= 0.5 * other, mine, other, "MiB")


def _spread(one: Timing, other: Timing) -> tuple[float, float]:
    ratios = [a / b for a, b in zip(one.cpu, other.cpu, strict=True)]
    return min(ratios), max(ratios)


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _line(result: Result) -> str:
    verdict = {True: "yes", False: "NO", None: "-"}[result.passed]
    spread = "" if result.spread is None else f" ({result.spread[0]:.2f} to {result.spread[1]:.2f})"
    bar = "" if result.target is None else f"bar {result.target:.2f}"
    ideal = math.nan if result.flop_ratio is None else result.flop_ratio
    return (
        f"{result.work:<42} vs {result.peer:<21} {result.ratio:5.2f}{spread:<16} {bar:<9} "
        f"{verdict:<3} FLOP ratio {ideal:5.2f}  ours {result.ours:8.2f}, theirs "
        f"{result.theirs:8.2f} {result.unit}"
    )


if __name__ == "__main__":
    main()

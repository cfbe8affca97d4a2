"""What each step of a training takes: its papers, and its share of the learning rate."""

from __future__ import annotations

import math

from arxivclf.model import batches


def steps_of(papers: int, epochs: float, batch_size: int, seed: int) -> tuple[list[batches.Indices], list[int]]:
    """The batches of all passes, in order, and how many are done when each pass ends; a part of a pass is its first."""
    steps: list[batches.Indices] = []
    ends: list[int] = []
    for epoch in range(math.ceil(epochs)):
        one_pass = batches.shuffled(papers, batch_size, seed, epoch)
        share = min(1.0, epochs - epoch)
        steps += one_pass[: max(1, round(share * len(one_pass)))]
        ends.append(len(steps))
    return steps, ends


def share_of_rate(schedule: str, step: int, warmup: int, steps: int) -> float:
    """The share of the learning rate that a step has: from 0 to 1 in the warm-up, then down to 0 along the schedule.

    As transformers.get_scheduler has it, whose module imports Trainer's, and this torch-xla where it is installed.
    """
    if step < warmup:
        return step / warmup
    if schedule == "constant":
        return 1.0
    after = max(1, steps - warmup)
    if schedule == "linear":
        return max(0.0, (steps - step) / after)
    return 0.5 * (1.0 + math.cos(math.pi * ((step - warmup) / after)))

"""The one figure at the top of the page, with all that must be said beside it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from siamjax.evaluation.lake_runs import PROTOCOL as LAKE
from siamjax.evaluation.one_shot import OneShotResult
from siamjax.evaluation.protocols import LakeResult
from siamjax.evaluation.verification import Verification
from siamjax.metrics import wilson_interval
from siamjax.report.figures import percent
from siamjax.report.measured import Measured
from siamjax.report.record import Record

# The strictest first: fixed trials that others took, then one alphabet's look-alikes.
FIRST = (LAKE, "koch-within", "within-alphabet", "random-class")


class Headline(NamedTuple):
    """A figure, its interval, what it is, and what it is not."""

    value: str
    interval: str
    what: str
    caveats: str


def total(result: OneShotResult | LakeResult) -> OneShotResult:
    """The accuracy over all trials."""
    return result.total if isinstance(result, LakeResult) else result


def headline(record: Record, evaluations: Sequence[Measured]) -> Headline | None:
    """The figure that says most of a run; None if nothing was ever measured.

    The kept weights on freshly drawn trials go before the validations that chose those weights;
    one-shot accuracy goes before the accuracy on pairs.
    """
    final = [e for e in evaluations if e.final]
    found = [(total(r), e) for e in final for r in e.one_shot]
    if found:
        result, e = min(found, key=lambda pair: FIRST.index(pair[0].protocol))
        data = "the twenty official runs" if result.protocol == LAKE else e.data
        what = f"one-shot accuracy, {result.title}, {result.trials:,} trials"
        return Headline(percent(result.accuracy), interval(*result.interval), what, data)
    row = record.best
    if row is not None and row.get("one_shot_accuracy") is not None:
        return _validated_one_shot(record, row)
    pairs = [(e.verification, e) for e in final if e.verification is not None and e.verification.at]
    if pairs:
        return _verified(*pairs[0])
    return None if row is None else _validated_pairs(record, row)


def interval(low: float, high: float) -> str:
    """A 95 % interval in per cent."""
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f}"


def _chosen(record: Record, row: dict[str, Any]) -> str:
    if record.members:
        return (
            "validation of the whole, on images that also chose each run's checkpoint: expect a"
            " little less on others"
        )
    count = len(record.split("validation"))
    text = f"validation at step {row['step']:,}"
    if count == 1:
        return text
    return (
        f"{text}, the best of {count} on the same images by {record.config.checkpoint.metric}:"
        " chosen by that figure, so expect a little less on others"
    )


def _validated_one_shot(record: Record, row: dict[str, Any]) -> Headline:
    trials = record.config.eval.trials
    return Headline(
        percent(row["one_shot_accuracy"]),
        interval(row["one_shot_low"], row["one_shot_high"]),
        f"one-shot accuracy, {row.get('protocol', 'protocol not recorded')}, {trials:,} trials",
        _chosen(record, row),
    )


def _verified(found: Verification, e: Measured) -> Headline:
    n = found.same + found.different
    name, at = next(iter(found.at.items()))
    low, high = wilson_interval(at.accuracy * n, n)
    return Headline(
        percent(at.accuracy, 2),
        interval(low, high),
        f"of {n:,} pairs decided right at the {name} threshold ({found.same:,} same,"
        f" {found.different:,} different: {found.pairs})",
        f"{e.data}; always giving the commoner answer would be right for"
        f" {percent(max(found.same, found.different) / n, 2)}; the interval takes the pairs as"
        " independent",
    )


def _validated_pairs(record: Record, row: dict[str, Any]) -> Headline | None:
    if row.get("pair_accuracy") is None:
        return None
    what = "of the validation pairs decided right at similarity 0.5"
    return Headline(percent(row["pair_accuracy"], 2), "", what, _chosen(record, row))

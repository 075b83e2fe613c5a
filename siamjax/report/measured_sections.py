"""The sections that need an evaluation: one-shot accuracy, pairs, errors, the map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from siamjax.evaluation.one_shot import TIES
from siamjax.evaluation.verification import Error, Verification
from siamjax.report import figures
from siamjax.report.figures import percent
from siamjax.report.headline import total
from siamjax.report.markup import Child, Markup, join, short, table, tag
from siamjax.report.measured import Measured, shown_errors
from siamjax.report.picture import data_uri
from siamjax.report.published import LINES
from siamjax.report.record import Record
from siamjax.report.run_sections import command, facts_list, fold

HEAD = "What", "Accuracy", "95 % interval", "Protocol", "Ways, shots", "Trials", "Ties", "Source"


def one_shot(record: Record, evaluations: Sequence[Measured]) -> Markup:
    """This run's accuracies beside published ones, each with its protocol."""
    reasons = [(what, why) for e in evaluations for what, why in e.absent.items()
               if what not in ("verification",)]  # fmt: skip
    absent = [tag("p", f"Not measured, {what}: {why}.") for what, why in dict(reasons).items()]
    own, protocols = _own_rows(record, evaluations)
    if not own:
        return join(absent or tag("p", "Not measured yet."))
    on_omniglot = record.data.get("name") == "omniglot"
    rows = [*own, *(_published_rows() if on_omniglot else [])]
    caption = "One-shot accuracy of this run" + (
        " and, below, of published systems" if on_omniglot else ""
    )
    shown = table(
        HEAD, rows, caption=caption, numbers=(1, 2, 5, 6), wrap=(0,), strong=range(len(own))
    )
    return join(
        shown,
        [tag("p", f"{e.of}; {e.data}.", class_="soft") for e in evaluations if e.one_shot],
        _ties(evaluations),
        _what_compares(record, protocols, on_omniglot),
        absent,
    )


def _own_rows(
    record: Record, evaluations: Sequence[Measured]
) -> tuple[list[list[Child]], set[str]]:
    rows: list[list[Child]] = []
    protocols: set[str] = set()
    for e in evaluations:
        for result in map(total, e.one_shot):
            low, high = result.interval
            protocols.add(result.protocol)
            rows.append(
                [
                    "This run",
                    percent(result.accuracy),
                    f"{100 * low:.1f} to {100 * high:.1f}",
                    tag("code", result.protocol),
                    f"{result.way}-way {result.shot}-shot",
                    f"{result.trials:,}",
                    percent(result.tie_rate),
                    "the kept weights"
                    if e.final or record.members
                    else "the weights of the moment",
                ]
            )
    row = None if record.members else record.best  # an ensemble was never in training
    if row is not None and row.get("one_shot_accuracy") is not None:
        name, _, ways = str(row.get("protocol", "not recorded")).partition(" ")
        protocols.add(name)
        rows.append(
            [
                "This run, in training",
                percent(row["one_shot_accuracy"]),
                f"{100 * row['one_shot_low']:.1f} to {100 * row['one_shot_high']:.1f}",
                tag("code", name),
                ways,
                f"{record.config.eval.trials:,}",
                percent(row.get("one_shot_ties")),
                f"best of {len(record.split('validation'))} validations, step {row['step']:,}",
            ]
        )
    return rows, protocols


def _published_rows() -> list[list[Child]]:
    return [
        [
            line.who,
            f"{line.accuracy:.1f} %",
            "not given",
            tag("code", line.protocol),
            "20-way 1-shot",
            "not given" if line.trials is None else f"{line.trials:,}",
            "not given",
            tag("a", line.paper[0], href=line.paper[1], rel="noreferrer"),
        ]
        for line in LINES
    ]


def _ties(evaluations: Sequence[Measured]) -> Markup | None:
    rates = [total(r).tie_rate for e in evaluations for r in e.one_shot]
    if max(rates, default=0) <= TIES:
        return None
    return tag("p", "Different classes get equal scores (a tie of m counts 1/m): the embeddings or"
               " the scores have collapsed.", class_="notice")  # fmt: skip


def _what_compares(record: Record, protocols: set[str], on_omniglot: bool) -> Markup:
    if not on_omniglot:
        name = record.data.get("name", "unknown")
        return tag(
            "p",
            "The published one-shot figures are on Omniglot and this run's data are"
            f" {name}: they are not shown, because nothing here may be compared with them.",
        )
    published = list(dict.fromkeys(line.protocol for line in LINES))
    missing = [name for name in published if name not in protocols]
    said: list[Child] = [
        tag("b", "The protocols differ."),
        " Only lines with the same protocol name may be compared: which alphabets, how alike the"
        " classes of a trial, which drawers and who chose the trials all move the figure.",
    ]
    if missing:
        said += [f" No line of this run is by {' or '.join(missing)}, so ", tag(
            "b", "none of the published lines" if len(missing) == len(published)
            else "no published line of that name"), " can be compared with it."]  # fmt: skip
    lines = (
        command("evaluate", record, "--protocol=lake-20runs", "--data=all_runs.zip"),
        command("evaluate", record, "--protocol=koch-within", "--split=test"),
    )
    extra = None
    if missing:
        extra = fold(
            "To measure it by the published protocols", [tag("pre", line) for line in lines]
        )
    return join(tag("p", *said), extra)


# ------------------------------------------------------------------------------------- pairs


def verification(evaluations: Sequence[Measured], why: Mapping[str, str]) -> Markup:
    """Figures and charts of pairs."""
    parts = []
    for number, e in enumerate(evaluations):
        if e.verification is None:
            reason = e.absent.get("verification", "no reason is known")
            parts.append(tag("p", f"Not measured: {reason}."))
            continue
        parts.append(_pairs(e, e.verification, f"e{number}"))
    return join(parts) if parts else _not_measured(why)


def _pairs(e: Measured, v: Verification, name: str) -> Markup:
    rates = {"far_1": "1 %", "far_0.1": "0.1 %"}
    rows: list[list[Child]] = [
        ["AUC", f"{v.auc:.4f}"],
        ["Equal error rate", percent(v.eer, 2)],
        ["Average precision", f"{v.average_precision:.4f}"],
        *(
            [f"True accepts at {rates.get(key, key)} false accepts",
             "too few pairs" if share is None else percent(share, 2)]
            for key, share in v.true_accepts.items()
        ),
    ]  # fmt: skip
    if v.reliability is not None:
        rows.append(["Calibration error (ECE)", f"{v.reliability.error:.4f}"])
    at = [
        [tag("code", key), f"{d.threshold:.4f}", percent(d.accuracy, 2),
         percent(d.false_matches, 2), percent(d.false_non_matches, 2)]
        for key, d in v.at.items()
    ]  # fmt: skip
    charts = [
        figures.roc_chart(v, name), figures.det_chart(v, name),
        figures.precision_recall_chart(v, name), figures.reliability_chart(v, name),
        figures.histogram_chart(v, name),
    ]  # fmt: skip
    return join(
        facts_list({
            "Pairs": f"{v.pairs}: {v.same:,} same, {v.different:,} different",
            "Data": e.data, "Weights": e.of,
        }),
        table(("Figure", "Value"), rows, caption="Figures of these pairs", numbers=(1,), wrap=(0,)),
        tag("div", charts, class_="charts"),
        table(
            ("Threshold", "Similarity", "Right", "False accepts", "False rejects"), at,
            caption=f"What the card's thresholds do on these pairs; the card was {v.card_source}.",
            numbers=(1, 2, 3, 4),
        ) if at else None,
    )  # fmt: skip


def errors(evaluations: Sequence[Measured], why: Mapping[str, str]) -> Markup:
    """The pairs that were decided wrong by most, and the classes most confused."""
    parts = []
    for e in evaluations:
        if e.verification is None:
            continue
        v = e.verification
        accepts, rejects = shown_errors(v)
        for title, listed, all_ in (
            ("Hardest false accepts: different, called same", accepts, v.false_accepts),
            ("Hardest false rejects: same, called different", rejects, v.false_rejects),
        ):
            parts.append(tag("h3", title))
            parts.append(_wrong_pairs(listed, e) if all_ else tag("p", "None among these pairs."))
        parts.append(_confused(e, v))
    return join(parts) if parts else _not_measured(why)


def _wrong_pairs(listed: Sequence[Error], e: Measured) -> Markup:
    items = []
    for error in listed:
        names = error.left, error.right
        pictures = [_thumbnail(e.images.get(name)) for name in names]
        below = [tag("span", short(name, 44), tag("br")) for name in names]
        items.append(
            tag("li", tag("div", pictures), tag("b", f"similarity {error.similarity:.3f}"), below)
        )
    return tag("ul", items, class_="pairs")


def _thumbnail(image: np.ndarray | None) -> Markup:
    if image is None:
        return tag("span", "(no image)")
    return tag("img", src=data_uri(image), alt="", width="64", height="64")


def _confused(e: Measured, v: Verification) -> Markup:
    if "one-shot" in e.absent and not v.confused:
        return tag("p", f"Confused classes are not listed: {e.absent['one-shot']}.")
    if not v.confused:
        return tag("p", "No two classes were taken for each other.")
    rows = [[short(a, 24), short(b, 24), f"{n:,} of {all_:,}"] for a, b, n, all_ in v.confused[:10]]
    caption = "Classes most often taken for each other"
    return table(("Class", "Taken for", "Pairs called same"), rows, caption=caption, numbers=(2,))


def embedding_map(evaluations: Sequence[Measured], why: Mapping[str, str]) -> Markup:
    """The picture of the embeddings."""
    charts = [
        figures.map_chart(e.map, f"e{number}") for number, e in enumerate(evaluations) if e.map
    ]
    if charts:
        return join(charts)
    return _not_measured(why)


def _not_measured(why: Mapping[str, str]) -> Markup:
    return join(
        tag("p", "Not measured: ", why["reason"]),
        tag("pre", why["command"]),
    )

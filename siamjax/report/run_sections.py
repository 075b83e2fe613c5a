"""The sections that a run's folder alone can fill: what was trained, on what, how it went."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from siamjax import config as configuration
from siamjax.config import ConfigDict
from siamjax.evaluation.decision import MEANING, DecisionCard
from siamjax.report import figures
from siamjax.report.figures import percent
from siamjax.report.headline import Headline
from siamjax.report.markup import Child, Markup, join, table, tag
from siamjax.report.record import Record
from siamjax.training.writer import duration

UNTRAINED = "An ensemble is not trained itself: see the reports of the runs that it was made of."
PROMINENT = 4  # notes at the top of the page; all are in the section on the data
LOOKS = 12  # of the doctor, in its table


def top(record: Record, found: Headline | None, notes: Sequence[str]) -> Markup:
    """Title, what ails the net, notes, headline figure."""
    if found is None:
        figure = tag("p", "Nothing was validated or measured yet.", class_="what")
    else:
        beside = tag("small", found.interval) if found.interval else None
        figure = join(
            tag("p", found.value, " ", beside, class_="headline"),
            tag("p", found.what, class_="what"),
            tag("p", found.caveats, class_="soft"),
        )
    notice = None
    if notes or record.ailments:
        more = len(notes) - PROMINENT
        rest = tag("p", f"{more} more under Data.") if more > 0 else None
        shown = [tag("p", note) for note in [*record.ailments, *notes[:PROMINENT]]]
        notice = tag("div", shown, rest, class_="notice", role="note")
    return tag("header", tag("h1", f"Run report: {record.title}"), notice, figure)


def trained(record: Record) -> Markup:
    """What was trained: the config, how to repeat it, versions."""
    differences, everything = compared(record.config)
    kind = "no checkpoint yet"
    if record.checkpoint:
        kind = f"{record.checkpoint[0]}, step {record.checkpoint[1]:,}"
    versions = record.about.get("versions", {})
    facts = {
        "Run": tag("code", str(record.workdir)),
        "Checkpoint in use": kind,
        "Seed": str(record.config.seed),
        "Versions": ", ".join(f"{k} {v}" for k, v in versions.items()) or "not recorded",
    }
    if record.members:
        facts["Made of"] = "; ".join(
            f"{m['run']} (seed {m['seed']}, step {m['step']:,})" for m in record.members
        )
    else:
        unsaid = str(record.config.model.weights or "fresh weights")
        facts["Started from"] = record.about.get("start", {}).get("from", unsaid)
    head = "Key", "This run", "Default"
    return join(
        facts_list(facts),
        fold(
            f"Settings: {len(differences)} of {len(everything)} differ from the defaults",
            table(head, differences, caption="Settings that differ", wrap=(1, 2))
            if differences
            else tag("p", "None differs."),
            table(head[:2], everything, caption="All settings", wrap=(1,)),
        ),
        tag("h3", "To repeat this run"),
        tag("pre", repeat_command(record)),
        tag("p", "With the same data, seed and versions, on the same kind of machine, it gives the"
            " same numbers. Give the new run a folder of its own.", class_="soft"),
    )  # fmt: skip


def compared(config: ConfigDict) -> tuple[list[list[Markup]], list[list[Markup]]]:
    """The rows (key, value, default) that differ from `config.base()`, and all (key, value)."""
    mine, default = flat(config.to_dict()), flat(configuration.base().to_dict())
    missing = object()
    differences = [
        [
            tag("code", key),
            tag("code", repr(value)),
            tag("code", repr(default[key]) if key in default else "not set"),
        ]
        for key, value in mine.items()
        if default.get(key, missing) != value
    ]
    return differences, [[tag("code", k), tag("code", repr(v))] for k, v in mine.items()]


def flat(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Dotted keys; a mapping without keys is left out.

    Example:
        >>> flat({"a": 1, "b": {"c": 2, "d": {}}})
        {'a': 1, 'b.c': 2}
    """
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{path}{key}.")
        else:
            found[path + key] = value
    return found


def repeat_command(record: Record) -> str:
    """Trains by the run's own config.json; recipes and flags need not be known."""
    if record.members:
        again = Path(f"{record.workdir}-again")
        runs = ",".join(str(member["run"]) for member in record.members)
        return command("ensemble", replace(record, workdir=again), f"--runs={shlex.quote(runs)}")
    code = (
        "from pathlib import Path; from siamjax import config, run; "
        f"run.train(config.from_json(Path({quoted(record.workdir / 'config.json')}).read_text()),"
        f" {quoted(str(record.workdir) + '-again')})"
    )
    return f"python -c {shlex.quote(code)}"


def quoted(value: object) -> str:
    r"""A string as Python code, in double quotes where it is plain.

    Example:
        >>> quoted("runs/mine"), quoted('a"b')
        ('"runs/mine"', '\'a"b\'')
    """
    plain = str(value)
    return f'"{plain}"' if repr(plain)[1:-1] == plain and '"' not in plain else repr(plain)


def command(name: str, record: Record, *arguments: str) -> str:
    """A command on this run, an argument a line."""
    parts = [f"python -m experiments.{name}", f"--workdir={shlex.quote(str(record.workdir))}"]
    return " \\\n  ".join([*parts, *arguments])


def data(record: Record, notes: Sequence[str]) -> Markup:
    """The data really used."""
    known = record.data
    asked = record.config.data.source
    facts = {
        "Data really used": tag("b", str(known.get("name", "not recorded"))),
        "Asked for": f"config.data.source={asked}",
        "Summary": str(known.get("summary", "not recorded")),
        "Fingerprint": tag("code", str(known.get("fingerprint") or "not recorded")),
        "Preprocessing": ", ".join(
            f"{k} {v}" for k, v in record.about.get("preprocess", {}).items()
        ) or "not recorded",
    }  # fmt: skip
    listed = tag("ul", [tag("li", note) for note in notes]) if notes else None
    heading = tag("h3", "Notes") if notes else tag("p", "The source had nothing to remark.")
    return join(facts_list(facts), heading, listed)


def training(record: Record) -> Markup:
    """The curves."""
    if record.members:
        return tag("p", UNTRAINED)
    train, validation = record.split("train"), record.split("validation")
    if not record.rows:
        return tag("p", "metrics.jsonl has no lines yet: the run has not come to its first log.")
    end = int(record.rows[-1]["step"])
    charts = [
        figures.loss_chart(train, validation),
        figures.validation_chart(validation, log_end=end),
    ]
    missing = None
    if not validation:
        missing = tag(
            "p", f"Not validated yet: the log ends at step {end:,}, the first validation is due"
            f" after step {record.config.eval.every:,}."
            if record.config.train.mode == "iterations" else
            f"Not validated yet: the log ends at step {end:,}, within the first epoch.",
        )  # fmt: skip
    return join(missing, tag("div", charts, class_="charts"))


def health(record: Record) -> Markup:
    """What the doctor said, and what it measured at each look."""
    if record.members:
        return tag("p", UNTRAINED)
    rows = record.split("doctor")
    if not rows:
        why = (
            "it has not looked yet" if record.config.train.get("doctor") else "it was not asked to"
        )
        return tag("p", f"The doctor (config.train.doctor) says nothing: {why}.")
    first: dict[str, int] = {}
    for row in rows:
        for finding in row["findings"]:
            first.setdefault(finding, row["step"])
    if first:
        said = tag("ul", [tag("li", f"Step {step:,}: {text}") for text, step in first.items()])
    else:
        said = tag("p", f"Nothing was wrong at any of {len(rows)} looks.")
    shown = rows if len(rows) <= LOOKS else [rows[i] for i in _spaced(len(rows))]
    cells = [
        [
            f"{row['step']:,}",
            *(_measured(row[key]) for key in ("relative_spread", "similarity_spread")),
            _measured(row["separation"] or None),  # 0 where it was not measured
            _measured(row["loss_over_constant"]),
            *(
                "-" if row[key] is None else percent(row[key], 1)
                for key in ("active", "saturated", "dead_units")
            ),
        ]
        for row in shown
    ]
    head = (
        "Step", "Embeddings differ", "Similarities vary", "Classes apart", "Loss",
        "Pairs that cost", "Saturated", "Dead units",
    )  # fmt: skip
    caption = (
        "Of one training batch. Difference of two images' embeddings as a share of their size;"
        " standard deviation of the similarities before calibration (of a loss over sets, around"
        " the mean score); how much farther apart two"
        " classes lie than one, in standard errors (not for sets); loss as a share of what the best"
        " constant answer costs; shares of pairs, of units at the ends of a sigmoid, and of units"
        " without a gradient in the worst module."
    )
    return join(said, table(head, cells, caption=caption, numbers=range(1, 8)))


def _measured(value: float | None) -> str:
    """A figure of the metrics, which hold None for one that is not finite."""
    return "-" if value is None else f"{value:.3g}"


def _spaced(count: int) -> list[int]:
    """Some of so many, the first and the last among them."""
    return sorted({round(i * (count - 1) / (LOOKS - 1)) for i in range(LOOKS)})


def timings(record: Record) -> Markup:
    """Seconds, and pairs a second over time."""
    if record.members:
        return tag("p", UNTRAINED)
    if not record.rows:
        return tag("p", "Nothing was timed yet.")
    last = record.rows[-1]
    speeds = [r["pairs_per_second"] for r in record.split("train") if r.get("pairs_per_second")]
    facts: dict[str, str | Markup] = {
        "Whole run so far": f"{duration(last['time'])} ({last['time']:,.1f} s), restarts included,"
        f" {last['step']:,} steps",
    }
    if speeds:
        facts["Speed of the steps"] = (
            f"median {np.median(speeds):,.1f} pairs/s, from {min(speeds):,.1f} to"
            f" {max(speeds):,.1f}"
        )
    chart = figures.speed_chart(record.split("train"))
    return join(facts_list(facts), tag("div", chart, class_="charts") if chart else None)


def decision_card(card: DecisionCard) -> Markup:
    """The thresholds."""
    rows = [
        [
            tag("code", name),
            f"{value:.4f}",
            percent(card.false_accepts[name], 2) if name in card.false_accepts else "not fitted",
            percent(card.false_rejects[name], 2) if name in card.false_rejects else "not fitted",
            MEANING.get(name, ""),
        ]
        for name, value in card.thresholds.items()
    ]
    absent = [name for name in MEANING if name not in card.thresholds]
    few = None
    if absent and card.calibration is not None:
        few = tag("p", f"Not on the card: {', '.join(absent)}. There are too few different pairs to"
                  " show such a rate.", class_="soft")  # fmt: skip
    formula = "none: the head's own similarity is used"
    if card.calibration is not None:
        slope, offset = card.calibration
        formula = f"similarity = sigmoid({slope:.4g} × score {offset:+.4g})"
    return join(
        table(
            ("Threshold", "Similarity", "False accepts", "False rejects", "Meaning"), rows,
            caption="A pair counts as same from this similarity on. The rates are of the"
            " validation pairs that the card was fitted to.",
            numbers=(1, 2, 3)
        ),
        few,
        facts_list({"Source": card.source, "Calibration": formula}),
    )  # fmt: skip


def use(record: Record, card: DecisionCard) -> Markup:
    """Commands for this very run."""
    strict = list(card.thresholds)[-1]
    python = (
        "import siamjax\n\n"
        f"run = siamjax.load({quoted(record.workdir)})\n"
        'run.similarity("a.png", "b.png")\n'
        f'run.compare("a.png", ["b.png"],\n            threshold={quoted(strict)})'
    )
    at = f"--threshold={strict}"
    pairs_only = record.config.pairs.scheme == "explicit"
    protocols = "verification" if pairs_only else "retrieval,open-set"
    others = f"--protocol={protocols}", "--json=figures.json"
    commands = (
        ("Compare two images", command("predict", record, "a.png b.png")),
        (
            "Answer a table of pairs, at another threshold",
            command("predict", record, "--pairs=pairs.csv", "--out=answers.csv", at),
        ),
        ("In Python", python),
        ("Measure it by other protocols", command("evaluate", record, *others)),
        ("Make this page anew", command("report", record)),
    )
    return join(*(join(tag("h3", what), tag("pre", line)) for what, line in commands))


def facts_list(facts: Mapping[str, str | Markup]) -> Markup:
    """Names with their values."""
    return tag("dl", [[tag("dt", name), tag("dd", value)] for name, value in facts.items()])


def fold(summary: str, *inside: Child) -> Markup:
    """What opens on a click."""
    return tag("details", tag("summary", summary), *inside)

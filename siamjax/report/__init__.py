"""`report.html`: one page, in one file, with all there is to say of a run.

No script, no network, no font or picture from elsewhere: the page can be mailed and kept.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from siamjax.report import measured_sections as measured_
from siamjax.report import run_sections
from siamjax.report.headline import headline
from siamjax.report.markup import Markup, join, tag
from siamjax.report.measured import Measured, measure, of_validation
from siamjax.report.record import Record, read
from siamjax.report.style import CSS

if TYPE_CHECKING:
    from siamjax.inference import Comparator

__all__ = ["Measured", "measure", "of_validation", "page", "read", "write_report"]

NAME = "report.html"
# Nothing is loaded and nothing runs, whatever a name in the data says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


def write_report(
    workdir: str | os.PathLike[str],
    comparator: Comparator | None = None,
    evaluations: Sequence[Measured] = (),
    out: str | os.PathLike[str] | None = None,
    *,
    missing: str = "",
) -> Path:
    """Writes the report of a run from its folder and from what was measured.

    Everything that only the folder is needed for is always there; sections that need a
    measurement which is not given say so, and name the command that makes it. The checkpoint's
    description is read: call it when no saving is under way.

    Args:
        workdir: the folder of a run, finished or not.
        comparator: of the run, for its decision card; None: the card of the checkpoint.
        evaluations: of `measure` or `of_validation`.
        out: the file to write; None: `report.html` in the folder.
        missing: why something was not measured, a sentence.

    Returns:
        The file.

    Raises:
        ValueError: if the folder is no run's.
    """
    record = read(Path(workdir))
    if comparator is not None:
        record = replace(record, card=comparator.card)
    out = Path(workdir) / NAME if out is None else Path(out)
    html = page(record, evaluations, missing=missing)
    out.parent.mkdir(parents=True, exist_ok=True)
    unfinished = out.with_name(out.name + ".partial")
    unfinished.write_text(html, encoding="utf-8", newline="\n")
    os.replace(unfinished, out)  # a reader sees the old page or the new one
    return out


def page(record: Record, evaluations: Sequence[Measured] = (), *, missing: str = "") -> str:
    """The whole page."""
    own = tuple(record.data.get("notes", ()))
    notes = list(dict.fromkeys([*own, *(n for e in evaluations for n in e.notes)]))
    if missing:
        notes.append(missing)
    why = {
        "reason": missing or "this page was made from the run's folder alone. To measure:",
        "command": run_sections.command("report", record),
    }
    sections = (
        ("trained", "What was trained", run_sections.trained(record)),
        ("data", "Data", run_sections.data(record, notes)),
        ("training", "Training", run_sections.training(record)),
        ("one-shot", "One-shot accuracy", measured_.one_shot(record, evaluations)),
        ("pairs", "Pairs: same or different?", measured_.verification(evaluations, why)),
        ("card", "Decision card", run_sections.decision_card(record.card)),
        ("errors", "Hardest errors", measured_.errors(evaluations, why)),
        ("map", "Embedding map", measured_.embedding_map(evaluations, why)),
        ("health", "Health of the net", run_sections.health(record)),
        ("timings", "Timings", run_sections.timings(record)),
        ("use", "How to use this run", run_sections.use(record, record.card)),
    )
    body = join(
        run_sections.top(record, headline(record, evaluations), notes),
        tag("main", _contents(sections), [
            tag("section", tag("h2", title, id=name), inside, aria_labelledby=name)
            for name, title, inside in sections
        ]),
        tag("footer", tag("p", "Made by siamjax from the run's own folder. Every figure names what"
                          " it was measured on; a similarity lies in 0 to 1, 1 is alike.")),
    )  # fmt: skip
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", f"Run report: {record.title}"),
        tag("style", Markup(CSS)),
    )
    html = tag("html", head, tag("body", body), lang="en")
    return f"<!DOCTYPE html>\n{html}\n"


def _contents(sections: Sequence[tuple[str, str, Markup]]) -> Markup:
    links = [tag("li", tag("a", title, href=f"#{name}")) for name, title, _ in sections]
    return tag("nav", tag("ul", links), aria_label="Sections")

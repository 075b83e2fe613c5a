"""HTML by functions: what is not `Markup` is escaped, so no file name can become a tag."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape
from typing import TypeAlias

# Control characters, lone surrogates (bytes of a file name that are no UTF-8), and the marks that
# turn the direction of text, with which one name can look like another.
UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
VOID = ("br", "img", "link", "meta")

Child: TypeAlias = "str | Iterable[Child] | None"


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def text(value: object) -> Markup:
    r"""Any value as text that shows as it is: escaped, and nothing in it unseen.

    Example:
        >>> text("<b>"), text("a\u202egnp.exe"), text("\udcff")
        ('&lt;b&gt;', 'a\\u202egnp.exe', '\\udcff')
    """
    if isinstance(value, Markup):
        return value
    seen = UNPRINTABLE.sub(lambda found: ascii(found[0])[1:-1], str(value))
    return Markup(escape(seen, quote=True))


def join(*children: Child) -> Markup:
    """Children one after the other; None is nothing."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, str):
            parts.append(text(child))
        elif child is not None:
            parts.append(join(*child))
    return Markup("".join(parts))


def tag(name: str, /, *children: Child, **attributes: object) -> Markup:
    """An element.

    Args:
        name: of the element.
        children: `Markup`, text (which is escaped), or lists of them.
        attributes: `class_` for class, `aria_label` for aria-label; None leaves one out, True
            gives it without a value.

    Example:
        >>> tag("p", "1 < 2", tag("br"), class_="note", hidden=True, id=None)
        '<p class="note" hidden>1 &lt; 2<br></p>'
    """
    opened = name
    for key, value in attributes.items():
        if value is None:
            continue
        key = key.rstrip("_").replace("_", "-")
        opened += f" {key}" if value is True else f' {key}="{text(value)}"'
    if name in VOID:
        return Markup(f"<{opened}>")
    return Markup(f"<{opened}>{join(*children)}</{name}>")


def table(
    head: Iterable[Child],
    rows: Iterable[Iterable[Child]],
    *,
    caption: str,
    numbers: Iterable[int] = (),
    wrap: Iterable[int] = (),
    strong: Iterable[int] = (),
) -> Markup:
    """A table in a box of its own, in which it scrolls where a screen is too narrow for it.

    Args:
        head: of the columns.
        rows: the first cell of each is its heading.
        caption: above the box, so that it does not scroll away.
        numbers: columns that are aligned to the right.
        wrap: columns of text that may be broken into lines.
        strong: rows that stand out.
    """
    right, broken, bold = set(numbers), set(wrap), set(strong)

    def kind(column: int) -> str | None:
        return "n" if column in right else "w" if column in broken else None

    top = tag("tr", [tag("th", cell, scope="col", class_=kind(i)) for i, cell in enumerate(head)])
    body = [
        tag(
            "tr",
            [
                tag("td" if i else "th", cell, scope=None if i else "row", class_=kind(i))
                for i, cell in enumerate(row)
            ],
            class_="own" if number in bold else None,
        )
        for number, row in enumerate(rows)
    ]
    inner = tag("table", tag("thead", top), tag("tbody", body))
    # A box that scrolls must be reachable by keyboard.
    box = tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)
    return join(tag("p", caption, class_="caption"), box)


def short(name: str, most: int = 60) -> Markup:
    """A name, only its end where it is long; all of it on hovering.

    Example:
        >>> short("a/very/long/name.png", most=9)
        '<span title="a/very/long/name.png">…name.png</span>'
    """
    if len(name) <= most:
        return text(name)
    return tag("span", "…" + name[1 - most :], title=name)

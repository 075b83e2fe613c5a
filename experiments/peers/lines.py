"""Rows of measurements as the lines of a Markdown table."""

from collections.abc import Iterator

COLUMNS = {
    "siamjax": "siamjax",
    "Keras-TensorFlow": "on tensorflow",
    "Keras-JAX": "on jax",
    "PyTorch eager": " eager",
    "PyTorch channels-last": " channels_last",
    "PyTorch bfloat16": " bfloat16",
}


def table(found: dict[str, list[dict]]) -> Iterator[str]:
    """Lines of Markdown: pairs a second, then seconds to the first step, then memory.

    Args:
        found: by recipe, the rows of `compare`.
    """
    heads = list(COLUMNS)
    for title, key, digits in (
        ("pairs per second", "pairs_per_second", 1),
        ("seconds to the first step", "first_step_s", 1),
        ("peak memory, MB", "peak_mb", 0),
    ):
        more = ["best float32 peer"] if key == "pairs_per_second" else []
        yield f"| {title} | {' | '.join([*heads, *more])} |"
        yield "| --- |" + " --- |" * len([*heads, *more])
        for recipe, rows in found.items():
            values = {head: _value(rows, mark, key) for head, mark in COLUMNS.items()}
            cells = ["-" if v is None else f"{v:,.{digits}f}" for v in values.values()]
            yield f"| `{recipe}` | {' | '.join([*cells, *([ratio(values)] if more else [])])} |"
        yield ""


def _value(rows: list[dict], mark: str, key: str) -> float | None:
    return next((row[key] for row in rows if mark in row["name"]), None)


def ratio(speeds: dict[str, float | None]) -> str:
    """This library over the best peer that computes in float32, as "1.5 ×"."""
    peers = [v for k, v in speeds.items() if v and k not in ("siamjax", "PyTorch bfloat16")]
    return f"{speeds['siamjax'] / max(peers):.2f} ×" if speeds["siamjax"] and peers else "-"

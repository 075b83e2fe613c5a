"""Published one-shot figures on Omniglot, each with its protocol."""

from __future__ import annotations

from typing import NamedTuple

LAKE_2015 = ("Lake et al. 2015", "https://doi.org/10.1126/science.aab3050")
LAKE_2019 = ("Lake et al. 2019", "https://arxiv.org/abs/1902.03477")
KOCH_2015 = ("Koch et al. 2015", "https://www.cs.cmu.edu/~rsalakhu/papers/oneshot1.pdf")


class Published(NamedTuple):
    """A line of a paper.

    Attributes:
        who: was measured.
        protocol: by this library's name.
        trials: how many, or None where people took some of them each.
        accuracy: in per cent; Lake et al. print the error, 100 minus this.
        paper: name and address.
    """

    who: str
    protocol: str
    trials: int | None
    accuracy: float
    paper: tuple[str, str]


LINES = (
    Published("Bayesian program learning", "lake-20runs", 400, 96.7, LAKE_2015),
    Published("People", "lake-20runs", None, 95.5, LAKE_2015),
    Published("Siamese convolutional net", "lake-20runs", 400, 92.0, LAKE_2015),
    Published("Convolutional net", "lake-20runs", 400, 86.5, LAKE_2015),
    Published("Prototypical net", "lake-20runs", 400, 86.3, LAKE_2019),
    Published("Siamese convolutional net, Koch's own paper", "koch-within", 400, 92.0, KOCH_2015),
)

"""Towers and heads by name. To add one: write the module, name it here."""

from __future__ import annotations

import flax.linen as nn

from siamjax.models.heads import Cosine, Euclidean, WeightedL1
from siamjax.models.koch import Koch
from siamjax.models.siamese import Siamese
from siamjax.models.small_resnet import SmallResNet

TOWERS: dict[str, type[nn.Module]] = {"koch": Koch, "small_resnet": SmallResNet}
HEADS: dict[str, type[nn.Module]] = {
    "weighted_l1": WeightedL1,
    "euclidean": Euclidean,
    "cosine": Cosine,
}

__all__ = ["HEADS", "TOWERS", "Siamese"]

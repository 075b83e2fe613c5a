"""Towers and heads by name. To add one: write the module, name it here."""

from __future__ import annotations

import flax.linen as nn

from siamjax.models.ensemble import Ensemble
from siamjax.models.heads import (
    Cosine,
    Euclidean,
    EuclideanDense,
    EuclideanNormDense,
    L1Mlp,
    WeightedL1,
)
from siamjax.models.koch import Koch
from siamjax.models.mlp import Mlp
from siamjax.models.relational import Relational
from siamjax.models.resnet import ResNetV2
from siamjax.models.siamese import Siamese
from siamjax.models.small_cnn import SmallCnn
from siamjax.models.small_resnet import SmallResNet
from siamjax.models.vgg import Vgg

TOWERS: dict[str, type[nn.Module]] = {
    "koch": Koch,
    "mlp": Mlp,
    "resnet_v2": ResNetV2,
    "small_cnn": SmallCnn,
    "small_resnet": SmallResNet,
    "vgg": Vgg,
}
HEADS: dict[str, type[nn.Module]] = {
    "cosine": Cosine,
    "euclidean": Euclidean,
    "euclidean_dense": EuclideanDense,
    "euclidean_norm_dense": EuclideanNormDense,
    "l1_mlp": L1Mlp,
    "relational": Relational,
    "weighted_l1": WeightedL1,
}

__all__ = ["HEADS", "TOWERS", "Ensemble", "Siamese"]

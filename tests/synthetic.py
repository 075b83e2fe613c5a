"""Small labelled images that need no file: each class a bright patch in its own place."""

import numpy as np

from siamjax.types import LabelledImages


def labelled(classes=8, each=6, groups=2, size=(12, 12), channels=1, seed=0) -> LabelledImages:
    """`classes * each` noisy images; class c of group `c % groups`, drawer = number in class."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(classes), each)
    patterns = rng.integers(0, 256, (classes, *size, channels))
    noise = rng.integers(-30, 30, (classes * each, *size, channels))
    return LabelledImages(
        images=np.clip(patterns[labels] + noise, 0, 255).astype(np.uint8),
        labels=labels.astype(np.int32),
        groups=(labels % groups).astype(np.int32),
        drawers=np.tile(np.arange(1, each + 1), classes).astype(np.int32),
        class_names=tuple(f"class{i}" for i in range(classes)),
        group_names=tuple(f"group{i}" for i in range(groups)),
    )

"""A trained run as files that need no siamjax: StableHLO, ONNX, and plain arrays.

`siamjax.export.write.export` writes them; `python -m experiments.export` calls it.
"""

from __future__ import annotations

from siamjax.export.graphs import ExportError
from siamjax.export.write import FORMATS, Exported, export

__all__ = ["FORMATS", "ExportError", "Exported", "export"]

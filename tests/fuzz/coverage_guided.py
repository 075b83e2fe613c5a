"""The same readers under atheris, which changes what reached new lines (pip install atheris).

    PYTHONPATH=.:tests python tests/fuzz/coverage_guided.py weights -max_total_time=120

The first argument is weights, gallery, table or zip; the others are libFuzzer's. What it finds is
written to the folder it runs in, as crash-*.
"""

import importlib.util
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["siamjax.data", "siamjax.models", "siamjax.gallery_file"]):
    import siamjax.data.folder
    import siamjax.data.inspection
    import siamjax.data.pair_table
    import siamjax.models.pretrained  # noqa: F401

TARGETS = {
    "weights": ("test_weights", "check_weights", "WEIGHTS"),
    "gallery": ("test_weights", "check_gallery", "GALLERY"),
    "table": ("test_tables", "check", "TABLES"),
    "zip": ("test_images", "check_zip", "ZIPS"),
}


def main() -> None:
    """Entry point."""
    module, check, seeds = TARGETS[sys.argv.pop(1)]
    path = Path(__file__).with_name(f"{module}.py")
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    found = getattr(loaded, seeds)
    with tempfile.TemporaryDirectory() as corpus:
        for i, seed in enumerate([found] if isinstance(found, bytes) else found):
            (Path(corpus) / str(i)).write_bytes(seed)
        atheris.Setup([*sys.argv, corpus], getattr(loaded, check))
        atheris.Fuzz()


if __name__ == "__main__":
    main()

"""A page in the browser for a trained run: two images, and a gallery.

    pip install 'siamjax[demo]'
    python -m experiments.demo --workdir=runs/omniglot_fast --gallery=people.gallery

It is served to this machine alone, at http://127.0.0.1:7860. `--host=0.0.0.0` lets others of the
network in. Nothing is sent anywhere else.
"""

import sys
import tempfile

from absl import flags

from experiments import command

WORKDIR = flags.DEFINE_string("workdir", None, "The folder of a trained run.")
GALLERY = flags.DEFINE_string("gallery", None, "An index of experiments.gallery.")
HOST = flags.DEFINE_string("host", "127.0.0.1", "Who may come in.")
PORT = flags.DEFINE_integer("port", 7860, "Where.")


def main(argv: list[str]) -> None:
    """Entry point."""
    import os

    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported
    import siamjax
    from siamjax import backend
    from siamjax.demo import Demo, page
    from siamjax.gallery import Gallery

    if argv[1:]:
        sys.exit(f"error: unexpected arguments: {' '.join(argv[1:])}")
    backend.enable_compilation_cache()
    comparator = siamjax.load(str(WORKDIR.value))
    gallery = Gallery.load(GALLERY.value, comparator) if GALLERY.value else None
    allowed = [] if gallery is None else [gallery.folder]
    with tempfile.TemporaryDirectory(prefix="siamjax-demo-") as folder:
        page(Demo(comparator, folder, gallery)).launch(
            server_name=HOST.value, server_port=PORT.value, allowed_paths=[folder, *allowed]
        )


if __name__ == "__main__":
    flags.mark_flags_as_required(["workdir"])
    command.run(main)

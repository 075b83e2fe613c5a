"""What lies beside the exported files: how to use them, in words and as a program."""

from __future__ import annotations

from collections.abc import Sequence

from siamjax.preprocess import MARGIN, SMALLEST, Preprocess

_RESIZE = """\
    if image.size != (WIDTH, HEIGHT):
        image = image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)
"""
_CROP = """\
    if image.size != (WIDTH, HEIGHT):
        scale = max(HEIGHT / image.height, WIDTH / image.width)
        left = max((image.width - WIDTH / scale) / 2, 0.0)
        top = max((image.height - HEIGHT / scale) / 2, 0.0)
        right = min(left + WIDTH / scale, image.width)
        bottom = min(top + HEIGHT / scale, image.height)
        frame = (left, top, right, bottom)
        image = image.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, box=frame)
"""
_LETTERBOX = """\
    if image.size != (WIDTH, HEIGHT):
        scale = min(HEIGHT / image.height, WIDTH / image.width)
        inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
        if inner != image.size:
            image = image.resize(inner, Image.Resampling.BILINEAR)
        paper = Image.new(image.mode, (WIDTH, HEIGHT), "white")
        paper.paste(image, ((WIDTH - inner[0]) // 2, (HEIGHT - inner[1]) // 2))
        image = paper
"""
_INK = """\
    values = np.asarray(image).reshape(image.height, image.width, -1).astype("int16")
    rim = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    paper = np.median(rim, axis=0).astype("int16")
    contrast = np.abs(values - paper).max(-1)
    drawn = 2 * contrast >= max(contrast.max(), 1)
    shorter = min(image.size)
    if drawn.any():
        rows, columns = (np.flatnonzero(drawn.any(axis)) for axis in (1, 0))
        image = image.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    scale = min(
        {room!r} * HEIGHT / image.height,
        {room!r} * WIDTH / image.width,
        {most!r} * min(WIDTH, HEIGHT) / shorter,
    )
    inner = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    if inner != image.size:
        image = image.resize(inner, Image.Resampling.BILINEAR)
    page = Image.new(image.mode, (WIDTH, HEIGHT), tuple(paper.tolist()))
    page.paste(image, ((WIDTH - inner[0]) // 2, (HEIGHT - inner[1]) // 2))
    image = page
""".format(room=1 - 2 * MARGIN, most=(1 - 2 * MARGIN) / SMALLEST)
_FITS = {"resize": _RESIZE, "crop": _CROP, "letterbox": _LETTERBOX, "ink": _INK}
_FIT_WORDS = {
    "resize": "Stretch it to {h} rows and {w} columns.",
    "crop": (
        "Scale it until {h} rows and {w} columns are filled, and cut off what is beyond, equally"
        " on both sides (in fractions of a pixel: Pillow's resize with a box)."
    ),
    "letterbox": (
        "Scale it until it fits into {h} rows and {w} columns, and paste it into the middle of"
        " white (255) paper of that size."
    ),
    "ink": (
        "Cut out what is drawn: the box of all pixels that differ from the paper, which is the"
        " median of the image's rim, at least half as much as the one that differs most. Scale it"
        f" until it fits into {1 - 2 * MARGIN:.3f} of {{h}} rows and {{w}} columns, or is enlarged"
        f" as much as a box of {SMALLEST:.3f} of the image's shorter side would be. Paste it into"
        " the middle of paper of that size."
    ),
}
_PIXELS = '''\
HEIGHT, WIDTH, CHANNELS = {h}, {w}, {c}


def pixels(path):
    """A file as the network takes it: uint8 [1, height, width, channels]."""
    image = ImageOps.exif_transpose(Image.open(path))
    if image.mode[0] == "I":  # 16 bits
        image = Image.fromarray(((np.asarray(image).astype("uint32") + 128) // 257).astype("uint8"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = image.convert("{mode}")
{fit}    return {result}
'''
_STABLEHLO = '''\
"""python run_stablehlo.py LEFT.png RIGHT.png    needs: jax flatbuffers numpy pillow"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax import export  # jax.export is not there without this line
from PIL import Image, ImageOps

{pixels}

def load(name):
    """A program, for batches of any size."""
    file = Path(__file__).with_name(name + ".stablehlo")
    return jax.jit(export.deserialize(bytearray(file.read_bytes())).call)


left, right = pixels(sys.argv[1]), pixels(sys.argv[2])
print("pair       similarity %.6f" % load("pair")(left, right)[0][0])
tower, head = load("tower"), load("head")
similarity, score = head(tower(left)[0], tower(right)[0])
print("tower+head similarity %.6f score %.6g" % (similarity[0], score[0]))
'''
_ONNX = '''\
"""python run_onnx.py LEFT.png RIGHT.png    needs: onnxruntime numpy pillow"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

{pixels}

def load(name):
    """A program, for batches of any size."""
    session = onnxruntime.InferenceSession(Path(__file__).with_name(name + ".onnx"))
    return lambda **inputs: session.run(None, inputs)


left, right = pixels(sys.argv[1]), pixels(sys.argv[2])
print("pair       similarity %.6f" % load("pair")(left=left, right=right)[0][0])
tower, head = load("tower"), load("head")
similarity, score = head(left=tower(images=left)[0], right=tower(images=right)[0])
print("tower+head similarity %.6f score %.6g" % (similarity[0], score[0]))
'''
_NPZ = '''\
"""python run_npz.py    needs: numpy"""

from pathlib import Path

import numpy as np

with np.load(Path(__file__).with_name("weights.npz"), allow_pickle=False) as weights:
    for name in weights.files:
        print(name, weights[name].dtype, list(weights[name].shape))
    print("%d numbers" % sum(weights[name].size for name in weights.files))
'''
_SCRIPTS = {"stablehlo": _STABLEHLO, "onnx": _ONNX, "npz": _NPZ}
_FORMAT_WORDS = {
    "stablehlo": (
        "{tower,head,pair}.stablehlo: compiled programs for JAX on a CPU, an NVIDIA GPU or a TPU.\n"
        "  pip install jax flatbuffers numpy pillow; python run_stablehlo.py LEFT.png RIGHT.png\n"
        "  A JAX that is newer than versions.jax of about.json by up to six months reads them.\n"
        "  Wrap .call in jax.jit, as the script does: otherwise every call compiles again."
    ),
    "onnx": (
        "{tower,head,pair}.onnx: the same for any ONNX runtime (opset and versions: about.json).\n"
        "  pip install onnxruntime numpy pillow; python run_onnx.py LEFT.png RIGHT.png"
    ),
    "npz": (
        "weights.npz: all weights as float32 arrays by path; kernels of convolutions are\n"
        "  [height, width, in, out], dense ones [in, out]. The layers are those of config.model.\n"
        "  pip install numpy; python run_npz.py"
    ),
}


def script(kind: str, preprocess: Preprocess) -> str:
    """A program that runs the files of a format: `run_<format>.py`."""
    (h, w), c = preprocess.size, preprocess.channels
    array = "np.asarray(image).reshape(1, HEIGHT, WIDTH, CHANNELS)"
    pixels = _PIXELS.format(
        h=h,
        w=w,
        c=c,
        mode="L" if c == 1 else "RGB",
        fit=_FITS[preprocess.fit],
        result=f"255 - {array}" if preprocess.invert else array,
    )
    return _SCRIPTS[kind].replace("{pixels}", pixels)


def readme(origin: str, preprocess: Preprocess, formats: Sequence[str], width: int) -> str:
    """`README.txt`."""
    (h, w), c = preprocess.size, preprocess.channels
    steps = [
        "Turn it upright as its EXIF orientation says.",
        "Bring it to 8 bits: (value + 128) // 257 of 16 bits, round(255 value) of floats in 0..1.",
        "Put what is transparent onto white.",
        "Make it grey (ITU-R 601: 0.299 red + 0.587 green + 0.114 blue)."
        if c == 1
        else "Make it RGB.",
        f"{_FIT_WORDS[preprocess.fit].format(h=h, w=w)} Pillow's BILINEAR (with antialiasing)"
        + ("." if preprocess.fit == "ink" else "; an image of that size already stays as it is."),
    ]
    if preprocess.invert:
        steps.append("Invert: 255 - value.")
    steps.append(f"Give it as uint8 [batch, {h}, {w}, {c}]; the programs divide by 255 themselves.")
    programs = [kind for kind in formats if kind != "npz"]
    parts = [f"Exported by siamjax from {origin}." if origin else "Exported by siamjax."]
    if programs:
        parts.append(
            "Programs; b is any batch size, 1 or more:\n"
            f"  tower  images uint8 [b, {h}, {w}, {c}] -> embedding float32 [b, {width}]\n"
            f"  head   left, right float32 [b, {width}] -> similarity [b], score [b]\n"
            f"  pair   left, right uint8 [b, {h}, {w}, {c}] -> similarity [b]"
        )
        parts.append(
            "The similarity lies in 0..1, large = alike, and is calibrated: compare it with a\n"
            "threshold of card.thresholds in about.json. The score is what the calibration is of:\n"
            "a logit, or minus a distance."
        )
    parts.append("\n\n".join(_FORMAT_WORDS[kind] for kind in formats))
    listed = "\n".join(f"  {i}. {step}" for i, step in enumerate(steps, 1))
    parts.append(f"From an image file to the pixels (run_*.py do it):\n{listed}")
    return "\n\n".join(parts) + "\n"

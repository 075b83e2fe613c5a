"""Hostile bytes for the readers: valid files, damaged at random, and how many to try.

Quick runs are the same each time. The long ones, marked slow, try `SIAMJAX_FUZZ` examples of each
(500 without it), new ones each time.
"""

import os
import time

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

LONG = int(os.environ.get("SIAMJAX_FUZZ", "500"))
SECONDS = 20  # of processor time that one example may take
_CALM = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck)}
quick = settings(max_examples=20, derandomize=True, **_CALM)
long = settings(max_examples=LONG, **_CALM)
ODD = (0, 1, 0x7F, 0x80, 0xFF)
SIZES = (0, 1, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**32 - 1, 2**63 - 1)


@st.composite
def damaged(draw, *whole):
    """One of these files, up to six times cut, stretched, overwritten or interleaved."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.sampled_from(("flip", "set", "size", "cut", "drop", "twice", "noise")))
        if how == "flip" and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "set" and data:
            data[at] = draw(st.sampled_from(ODD))
        elif how == "size":
            width = draw(st.sampled_from((2, 4, 8)))
            order = draw(st.sampled_from(("little", "big")))
            size = draw(st.sampled_from(SIZES)) % 256**width
            data[at : at + width] = size.to_bytes(width, order)
        elif how == "cut":
            del data[at:]
        elif how == "drop":
            del data[at : at + draw(st.integers(1, 64))]
        elif how == "twice":
            data[at:at] = data[at : at + draw(st.integers(1, 64))]
        elif how == "noise":
            data[at:at] = draw(st.binary(max_size=32))
    return bytes(data)


def works_or_tells(function, *arguments):
    """What a reader gives, or None where it raised ValueError with a sentence, in bounded time."""
    start = time.process_time()
    try:
        return function(*arguments)
    except ValueError as error:
        text = str(error)
        assert len(text) > 15, f"no sentence: {text!r}"
        assert len(text) < 20_000
        return None
    finally:
        assert time.process_time() - start < SECONDS

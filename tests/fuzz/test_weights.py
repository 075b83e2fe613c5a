"""Weights and galleries from strangers: arrays, or a sentence; nothing is ever run."""

import io
import json
import pickle
import struct
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from fuzzed import damaged, long, quick, works_or_tells
from hypothesis import given

from siamjax import gallery_file
from siamjax.gallery_file import Stored
from siamjax.models.pretrained import read_arrays

VALUES = np.arange(6, dtype=np.float32)


def state_dict(count=6):
    """The pickle of `{"a.weight": tensor}`, as `torch.save` writes it."""
    storage = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK"
        + bytes([count])
        + b"tQ"
    )
    tensor = (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K\0K\x02K\x03\x86K\x03K\x01\x86\x89ccollections\nOrderedDict\n)RtR"
    )
    return b"\x80\x02}X\x08\0\0\0a.weight" + tensor + b"s."


def pth():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data.pkl", state_dict())
        archive.writestr("a/byteorder", "little")
        archive.writestr("a/data/0", VALUES.tobytes())
    return stream.getvalue()


def legacy():
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, system))
    # A storage of this format has a sixth part: the view.
    opcodes = state_dict().replace(b"K\x06tQ", b"K\x06NtQ")
    return head + opcodes + pickle.dumps(["0"], 2) + struct.pack("<q", 6) + VALUES.tobytes()


def safetensors():
    header = {
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [2], "data_offsets": [24, 28]},
    }
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + VALUES.tobytes() + bytes(4)


def h5():
    h5py = pytest.importorskip("h5py")
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["conv1/kernel:0"] = VALUES.reshape(2, 3)
        file["conv1/bias:0"] = VALUES[:2]
    return stream.getvalue()


def gallery():
    with tempfile.TemporaryDirectory() as name:
        stored = Stored(
            VALUES.reshape(2, 3), [bytes(32)] * 2, ["a/1.png", "猫"], ["a", ""],
            {"fingerprint": "f", "origin": "o", "folder": "/d"},
        )  # fmt: skip
        gallery_file.write(Path(name) / "g", stored)
        return (Path(name) / "g").read_bytes()


WEIGHTS = [pth(), legacy(), safetensors()]
GALLERY = gallery()


def check_weights(data):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "weights"
        path.write_bytes(data)
        found = works_or_tells(read_arrays, path)
        assert found is None or all(isinstance(a, np.ndarray) for a in found.values())
        assert list(Path(name).iterdir()) == [path]
        del found  # views into the file


def check_gallery(data):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "g"
        path.write_bytes(data)
        found = works_or_tells(gallery_file.read, path)
        if found is not None:
            assert len(found.names) == len(found.labels) == len(found.embeddings)
            assert np.isfinite(found.embeddings).all()


def test_the_files_are_whole():
    for data in WEIGHTS:
        with tempfile.TemporaryDirectory() as name:
            (Path(name) / "w").write_bytes(data)
            arrays = list(read_arrays(Path(name) / "w").values())
            np.testing.assert_array_equal(arrays[0], VALUES.reshape(2, 3))


@quick
@given(damaged(*WEIGHTS))
def test_weights(data):
    check_weights(data)


@pytest.mark.slow
@long
@given(damaged(*WEIGHTS))
def test_many_weights(data):
    check_weights(data)


@quick
@given(damaged(h5()))
def test_keras(data):
    check_weights(data)


@pytest.mark.slow
@long
@given(damaged(h5()))
def test_many_keras(data):
    check_weights(data)


@quick
@given(damaged(GALLERY))
def test_galleries(data):
    check_gallery(data)


@pytest.mark.slow
@long
@given(damaged(GALLERY))
def test_many_galleries(data):
    check_gallery(data)

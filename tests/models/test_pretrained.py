import importlib.util
import io
import json
import os
import pickle
import runpy
import struct
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict
from shrunk import recipe_file

from siamjax import backend
from siamjax.losses import bce
from siamjax.models.heads import Euclidean, L1Mlp
from siamjax.models.layouts import LAYOUTS
from siamjax.models.pretrained import import_weights, read_arrays
from siamjax.models.resnet import ResNetV2
from siamjax.models.siamese import Siamese
from siamjax.models.vgg import Vgg
from siamjax.training.optimizer import create_optimizer

PARITY = Path(__file__).parent.parent / "parity"


def relative(ours, theirs):
    """The largest error, in units of the largest value."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.fixture(scope="module")
def recorded():
    def load(name):
        with np.load(PARITY / f"{name}.npz", allow_pickle=False) as file:
            return dict(file)

    return load


@pytest.fixture
def put(tmp_path):
    """Writes bytes to a file and gives its path."""

    def write(content, name="weights.pth"):
        path = tmp_path / name
        path.write_bytes(bytes(content))
        return path

    return write


def shapes(model, *image):
    """Parameters and statistics of a model as shapes: nothing is computed."""
    x = jnp.zeros((1, *image))
    variables = jax.eval_shape(model.init, jax.random.key(0), x, x)
    return variables["params"], variables.get("batch_stats", {})


def small_vgg(**options):
    return Siamese(
        Vgg(**{"depth": 11, "divide": 32, **options}), L1Mlp(hidden=8, nonnegative=False)
    )


def small_normed():
    return Siamese(Vgg(depth=13, divide=64, batch_norm=True), Euclidean())


def small_resnet(**options):
    return Siamese(ResNetV2(depth=26, divide=32, normalise="unit", **options), Euclidean())


def value_and_gradients(model, params, left, right, same):
    """Embeddings of the left images, logits, mean loss, gradients."""

    def loss(params):
        variables = {"params": params}
        z = model.apply(variables, left, method="embed")
        output = model.apply(variables, left, right)
        value = bce(output, same).mean()
        return value, (z, output.value)

    function = jax.value_and_grad(loss, has_aux=True)
    (value, (z, logits)), gradients = backend.jit(function)(params)
    return {"embedding": z, "logits": logits, "loss": value}, gradients


def gradient_errors(gradients, recorded):
    """The relative error of every parameter's gradient, by the reference's own name."""
    flat = {
        "params/" + "/".join(key.key for key in keys): leaf
        for keys, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    }
    plan = LAYOUTS["bubbliiiing-vgg"].plan(flat)
    assert plan.keys() == flat.keys()
    return {
        source.name: relative(flat[ours], source.turn(recorded[f"gradient {source.name}"]))
        for ours, source in plan.items()
    }


def after_one_step(params, gradients):
    """The weights by path after a step of the recipe omniglot_vgg."""
    section = runpy.run_path(str(recipe_file("omniglot_vgg")))["get_config"]().optimizer
    optimizer = create_optimizer(section, total_steps=1)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    return flatten_dict({"params": optax.apply_updates(params, updates)}, sep="/")


def step_errors(params, after, exact, slopes):
    """How far a step leads from where it leads by `exact`, by parameter.

    In units of the layer's largest weight, and as a share of the movement. Adam's first step has
    the gradient's sign, however small it is: of slopes below 1e-4 of their array's largest
    rounding decides that, and they are left out.
    """
    errors = {}
    for path, old in flatten_dict({"params": params}, sep="/").items():
        slope, layer = np.abs(slopes[path]), path.rpartition("/")[0]
        error = np.asarray(after[path], np.float64) - exact[path]
        error[slope <= 1e-4 * slope.max()] = 0
        scale = max(np.abs(v).max() for k, v in exact.items() if k.startswith(layer))
        moved = np.linalg.norm(exact[path] - np.asarray(old, np.float64))
        errors[path] = np.abs(error).max() / scale, np.linalg.norm(error) / moved
    return errors


def by_path(params, arrays, group=""):
    """The reference's arrays under our paths."""
    plan = LAYOUTS["bubbliiiing-vgg"].plan(flatten_dict({"params": params}, sep="/"))
    return {path: source.turn(arrays[group + source.name]) for path, source in plan.items()}


# ----------------------------------------------------------- what the reference computes, recorded


def test_siamese_vgg_of_pytorch(recorded, put):
    """Embedding, head, loss and every gradient, on maps of 2x3: the permutation of rows counts."""
    want = recorded("vgg")
    model = small_vgg()
    params, _ = import_weights(*shapes(model, 64, 96, 3), put(want["siamese_pth"]))
    left, right, same = (jnp.asarray(want[name]) for name in ("left", "right", "same"))
    got, gradients = value_and_gradients(model, params, left, right, same)
    for name, value in got.items():
        assert relative(value, want[name]) < 1e-4, name
    errors = gradient_errors(gradients, want)
    assert len(errors) == 2 * (8 + 2)
    assert max(errors.values()) < 1e-4, errors


@pytest.mark.parametrize("name", ["normed_legacy_pth", "normed_safetensors"])
def test_vgg_with_batch_norms_of_pytorch(recorded, put, name):
    want = recorded("vgg")
    model = small_normed()
    params, batch_stats = import_weights(*shapes(model, 64, 96, 3), put(want[name]))
    variables = {"params": params, "batch_stats": batch_stats}
    embed = jax.jit(lambda x: model.apply(variables, x, method="embed"))
    assert relative(embed(jnp.asarray(want["left"])), want["normed_embedding"]) < 1e-4


@pytest.mark.parametrize("name", ["h5", "weights_h5"])
def test_resnet_v2_of_keras(recorded, put, name):
    pytest.importorskip("h5py")
    want = recorded("resnet_v2")
    model = small_resnet(embedding=0)
    params, batch_stats = import_weights(
        *shapes(model, 72, 96, 3), put(want[name], f"x.{name.replace('_', '.')}")
    )
    variables = {"params": params, "batch_stats": batch_stats}
    embed = jax.jit(lambda x: model.apply(variables, x, method="embed"))
    assert relative(embed(jnp.asarray(want["images"])), want["features"]) < 1e-4


# ----------------------------------------------------------------------------- what an import does


def test_what_the_file_has_no_weights_for_stays(recorded, put):
    pytest.importorskip("h5py")
    model = small_resnet(frozen=True, embedding=4)
    params, batch_stats = shapes(model, 32, 32, 3)
    params = jax.tree.map(lambda s: jnp.full(s.shape, 7.0), params)
    new, stats = import_weights(params, batch_stats, put(recorded("resnet_v2")["h5"], "x.h5"))
    assert (new["tower"]["dense"]["kernel"] == 7).all()
    assert not (new["tower"]["backbone"]["conv1_conv"]["kernel"] == 7).any()
    assert jax.tree.structure((new, stats)) == jax.tree.structure((params, batch_stats))
    assert {leaf.dtype for leaf in jax.tree.leaves((new, stats))} == {jnp.dtype("float32")}


def test_summed_colours_equal_a_grey_image_given_three_times(recorded, put):
    file = put(recorded("vgg")["siamese_pth"])
    x = jnp.asarray(np.random.default_rng(0).random((2, 64, 96, 1)), jnp.float32)

    def run(model, **options):
        params, _ = import_weights(*shapes(model, 64, 96, 1), file, **options)
        return jax.jit(lambda x: model.apply({"params": params}, x, method="embed"))(x)

    summed = run(small_vgg(), sum_colours=True)
    copied = run(small_vgg(replicate_grey=True))
    np.testing.assert_allclose(summed, copied, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="replicate_grey=True, or import them with sum_colours"):
        run(small_vgg())


def test_another_image_size_is_named(recorded, put):
    with pytest.raises(ValueError, match=r"\[8, 96\] -> head/hidden/kernel \[64, 8\]") as error:
        import_weights(*shapes(small_vgg(), 64, 64, 3), put(recorded("vgg")["siamese_pth"]))
    assert "fully_connect1 goes with one image size" in str(error.value)


def test_a_mismatch_is_listed_in_columns(recorded, put):
    file = put(recorded("vgg")["siamese_pth"])
    model = Siamese(Vgg(depth=13, divide=32), L1Mlp(hidden=4, nonnegative=False))
    with pytest.raises(ValueError) as error:
        import_weights(*shapes(model, 64, 96, 3), file)
    lines = str(error.value).splitlines()
    assert lines[0] == (
        f"{file}, read as bubbliiiing-vgg (for tower vgg, head l1_mlp), does not fit this model:"
    )
    assert lines[1].split("   ")[0].strip() == "only in the file (14)"
    assert "only in the model (18)" in lines[1]
    column = lines[1].index("only in the model")
    assert lines[2][:column].strip() == "vgg.features.3.weight [4, 2, 3, 3]"
    assert lines[2][column:].strip() == "tower/conv1_2/bias [2] (vgg.features.2.bias)"
    assert any("fully_connect1.weight [8, 96] -> head/hidden/kernel [96, 4]" in x for x in lines)


def test_long_lists_are_cut_short_with_their_number(recorded, put):
    pytest.importorskip("h5py")
    file = put(recorded("resnet_v2")["h5"], "x.h5")
    with pytest.raises(ValueError, match=r"\.\.\. and \d+ more") as error:
        import_weights(*shapes(small_vgg(), 32, 32, 3), file)
    text = str(error.value)
    assert "only in the file (142)" in text
    assert text.count("conv2_block1") < 20
    assert "only in the model (0)" in text  # this kind of file has no weights for a VGG


def pth(entries, **how):
    """A state dict in today's format, by hand; see `state`."""
    pickled, storages = state(entries, **how)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("a/data.pkl", pickled)
        archive.writestr("a/byteorder", "little")
        for key, content in storages.items():
            archive.writestr(f"a/data/{key}", content)
    return out.getvalue()


def literal(value):
    return pickle.dumps(value, 2)[2:-1]


def name_of(module, name):
    return f"c{module}\n{name}\n".encode()


def tensor(
    key, count, shape, strides, offset=0, kind="Float", rebuild="_rebuild_tensor_v2", view=None
):
    """The opcodes of a tensor."""
    persistent = (
        b"(" + literal("storage") + name_of("torch", f"{kind}Storage") + literal(key)
        + literal("cpu") + literal(count) + (literal(view) if view else b"") + b"tQ"
    )  # fmt: skip
    extra = b"" if rebuild == "_rebuild_tensor" else b"\x89ccollections\nOrderedDict\n)R"
    body = literal(offset) + literal(shape) + literal(strides) + extra
    return name_of("torch._utils", rebuild) + b"(" + persistent + body + b"tR"


def state(entries):
    """`{name: array or (opcodes, storages)}` to the pickle of a state dict and its storages."""
    out, storages = b"\x80\x02}", {}
    for name, value in entries.items():
        if isinstance(value, np.ndarray):
            key = str(len(storages))
            steps = tuple(s // value.itemsize for s in value.strides)
            storages[key] = value.tobytes()
            value = tensor(key, value.size, value.shape, steps)
        elif isinstance(value, tuple):
            value, more = value
            storages |= more
        out += literal(name) + value + b"s"
    return out + b".", storages


def legacy(pickled, storages, counts, order=None):
    """The format before PyTorch 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    out = b"".join(pickle.dumps(v, 2) for v in (0x1950A86A20F9469CFC6C, 1001, system)) + pickled
    out += pickle.dumps(order or list(storages), 2)
    for key, content in storages.items():
        out += struct.pack("<q", counts[key]) + content
    return out


VALUES = np.arange(6, dtype=np.float32)


@pytest.mark.parametrize(
    ("opcodes", "content", "expected"),
    [
        (tensor("0", 6, (2, 3), (3, 1)), VALUES, VALUES.reshape(2, 3)),
        (tensor("0", 6, (3, 2), (1, 3)), VALUES, VALUES.reshape(2, 3).T),
        (tensor("0", 6, (2,), (1,), offset=4), VALUES, VALUES[4:]),
        (tensor("0", 6, (), ()), VALUES, np.float32(0)),
        (tensor("0", 0, (0, 3), (3, 1)), VALUES[:0], VALUES[:0].reshape(0, 3)),
        (tensor("0", 6, (6,), (1,), rebuild="_rebuild_tensor"), VALUES, VALUES),
        (tensor("0", 6, (2,), (1,), offset=1, view=("v", 3, 3)), VALUES, VALUES[4:]),
        (tensor("0", 6, (6,), (1,), kind="Half"), VALUES.astype("f2"), VALUES.astype("f2")),
        (tensor("0", 6, (6,), (1,), kind="BFloat16"), VALUES.view("<u2")[1::2], VALUES),
        (tensor("0", 6, (6,), (1,), kind="Long"), VALUES.astype("i8"), VALUES.astype("i8")),
        (
            name_of("torch._utils", "_rebuild_parameter")
            + b"("
            + tensor("0", 6, (6,), (1,))
            + b"\x88ccollections\nOrderedDict\n)RtR",
            VALUES,
            VALUES,
        ),
        (  # a Parameter of PyTorch 0.1: the tensor is in the state of an empty object
            name_of("torch.nn.parameter", "Parameter")
            + b")\x81("
            + tensor("0", 6, (6,), (1,))
            + b"N}\x88\x89tb",
            VALUES,
            VALUES,
        ),
    ],
)
def test_tensors_of_all_sorts(put, opcodes, content, expected):
    entries = {"x": (opcodes, {"0": content.tobytes()})}
    pickled, storages = state(entries)
    for file in (pth(entries), legacy(pickled, storages, {"0": content.size})):
        array = read_arrays(put(file))["x"]
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype


def vgg11(prefix="features.", divide=64, fill=1.0):
    """A state dict of torchvision's VGG11 with few channels."""
    entries, before = {}, 3
    for number, channels in zip(
        (0, 3, 6, 8, 11, 13, 16, 18), (1, 2, 4, 4, 8, 8, 8, 8), strict=True
    ):
        entries[f"{prefix}{number}.weight"] = np.full((channels, before, 3, 3), fill, "f4")
        entries[f"{prefix}{number}.bias"] = np.full(channels, fill, "f4")
        before = channels
    return entries


@pytest.mark.parametrize("prefix", ["features.", "module.features."])
@pytest.mark.parametrize("inside", [None, "state_dict", "model"])
def test_wrapped_state_dicts_are_found_and_a_classifier_is_not_used(put, prefix, inside):
    entries = vgg11(prefix) | {prefix.replace("features", "classifier") + "0.bias": VALUES}
    if inside:
        pickled, storages = state(entries)
        outer = {"epoch": literal(3), inside: (pickled[2:-1], storages)}
        entries = outer
    model = Siamese(Vgg(depth=11, divide=64), Euclidean())
    params, _ = import_weights(*shapes(model, 32, 32, 3), put(pth(entries)))
    assert all((leaf == 1).all() for leaf in jax.tree.leaves(params))


def test_weights_do_not_depend_on_the_file_any_more(recorded, put):
    content = recorded("vgg")["siamese_pth"]
    file = put(content)  # PyTorch aligns its arrays, so that JAX could use them where they are
    params, _ = import_weights(*shapes(small_vgg(), 64, 96, 3), file)
    before = jax.tree.map(np.array, params)
    with file.open("r+b") as stream:  # the same file, whose pages are mapped
        stream.write(bytes(len(content)))
    jax.tree.map(np.testing.assert_array_equal, params, before)


def test_numbers_that_are_not_finite_are_refused(put):
    model = Siamese(Vgg(depth=11, divide=64), Euclidean())
    file = put(pth(vgg11(fill=np.nan)))
    with pytest.raises(ValueError, match=r"features.0.weight holds numbers that are not finite"):
        import_weights(*shapes(model, 32, 32, 3), file)


# ----------------------------------------------------------------------------- files not to be had


@pytest.mark.parametrize(
    ("tower", "file", "address"),
    [
        (Vgg(), "vgg16-397923af.pth", "https://download.pytorch.org/models/vgg16-397923af.pth"),
        (Vgg(depth=19, batch_norm=True), "vgg19_bn-c79401a0.pth", "download.pytorch.org"),
        (
            ResNetV2(depth=152),
            "resnet152v2_weights_tf_dim_ordering_tf_kernels_notop.h5",
            "https://storage.googleapis.com/tensorflow/keras-applications/resnet/resnet152v2_",
        ),
        (ResNetV2(depth=26), "none is published for this tower", "Download the file yourself"),
    ],
)
def test_a_missing_file_names_the_one_to_get(tmp_path, tower, file, address):
    model = Siamese(tower, Euclidean())
    with pytest.raises(ValueError, match="is not there") as error:
        import_weights(*shapes(model, 32, 32, 3), tmp_path / "x.pth")
    assert file in str(error.value)
    assert address in str(error.value)


def test_an_unknown_kind_lists_those_known(tmp_path):
    with pytest.raises(
        ValueError, match="kind must be one of auto, torchvision-vgg, bubbliiiing-vgg"
    ):
        import_weights({}, {}, tmp_path, kind="onnx")


def test_unknown_names_list_the_kinds(put):
    with pytest.raises(
        ValueError, match=r"holds 1 arrays \(a, \.\.\.\).*torchvision-vgg, bubbliiiing"
    ):
        import_weights({}, {}, put(pth({"a": VALUES})))


@pytest.mark.parametrize(
    "content", [b"", b"<!DOCTYPE html><html>", b"version https://git-lfs", b"PK"]
)
def test_other_files_are_refused_with_a_sentence(put, content):
    path = put(content)
    with pytest.raises(
        ValueError, match=r"no weights file that is known here|not a whole zip"
    ) as error:
        read_arrays(path)
    assert str(path) in str(error.value)
    with pytest.raises(ValueError, match="is not there, or not a file"):
        read_arrays(path.parent)


def test_without_h5py_the_error_names_the_extra(put, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "h5py", None)
    with pytest.raises(ValueError, match=r"need h5py: pip install 'siamjax\[weights\]'"):
        read_arrays(put(b"\x89HDF\r\n\x1a\n", "x.h5"))


# ----------------------------------------------------------------------------------- hostile files


@pytest.mark.parametrize(
    ("opcodes", "text"),
    [
        (name_of("posix", "system") + literal("touch BROKEN") + b"\x85R", "it calls posix.system"),
        (name_of("builtins", "eval") + literal("1") + b"\x85R", "it calls builtins.eval"),
        (literal("os") + literal("system") + b"\x93", "it calls os.system"),
        (b"(" + literal("touch BROKEN") + b"iposix\nsystem\n", "it calls posix.system"),
        (name_of("torch", "load") + literal("x") + b"\x85R", "it calls torch.load"),
        (name_of("collections", "OrderedDict.__init__") + b")R", "it calls collections.Ord"),
        (name_of("torch._utils", "_rebuild_tensor_v2") + b"}b", "sets attributes of a function"),
        (name_of("torch.nn.parameter", "Parameter") + b"}b", "sets attributes of a type"),
        (name_of("torch", "FloatStorage") + b")\x81", "its pickle is damaged"),
        (b"\x8e" + struct.pack("<Q", 10**10), "its pickle is damaged"),  # ten gigabytes of bytes
        (b"\x96" + struct.pack("<Q", 10**10), "its pickle is damaged"),  # of a bytearray
        (b"\x95" + struct.pack("<Q", 10**10), "its pickle is damaged"),  # of a frame
        (b"\x8b" + struct.pack("<i", 2**31 - 1), "its pickle is damaged"),  # of a number
        (b"Nr" + struct.pack("<I", 2**32 - 1), "its entry 'x' is a NoneType"),  # a far memo
        (b"\x82\x01", "its pickle is damaged"),  # an extension
        (b"Pabc\n", "its pickle is damaged"),
        (b"}" + b")" + b"2\x86" * 60 + b"Ns", "a dict has keys other than names"),
        (b"}]" + literal(1) + b"es", "its pickle is damaged"),
        (tensor("0", 10**10, (5, 10**9), (10**9, 1)), "than the file"),
        (tensor("0", 10**10, (2,), (1,)), "its storage '0' is smaller than declared"),
        (tensor("0", 6, (2,), (6,)), "'x' reaches beyond its own storage"),
        (tensor("0", 6, (2,), (1,), offset=5), "'x' reaches beyond its own storage"),
        (tensor("0", 6, (6,), (-1,), offset=5), "something else for a size"),
        (tensor("0", 6, (2,), (1,), offset=-2), "something else for a size"),
        (tensor("0", 6, (2.0,), (1,)), "something else for a size"),
        (tensor("0", -1, (2,), (1,)), "something else for a size"),
        (tensor("0", 6, (2, 3), (1,)), "something else than a storage and its size"),
        (tensor("0", 6, (10**12,), (0,)), "than the file"),
        (tensor("9", 6, (6,), (1,)), "its part 'a/data/9' is missing"),
        (tensor("../0", 6, (6,), (1,)), "its part 'a/data/../0' is missing"),
        (tensor((1, 2), 6, (6,), (1,)), "other things than arrays of numbers"),
        (tensor("0", 6, (1,), (1,), view=("v", 4, 4)), "view reaches beyond its storage"),
        (literal(3), "its entry 'x' is a int, not an array"),
    ],
)
def test_hostile_pickles_get_a_sentence_and_no_memory(put, monkeypatch, opcodes, text):
    import tracemalloc

    path = put(pth({"x": (opcodes, {"0": VALUES.tobytes()})}))
    monkeypatch.chdir(path.parent)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=text) as error:
            read_arrays(path)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()
    assert len(str(error.value)) < 400
    assert os.listdir(path.parent) == [path.name]


def test_a_pickle_that_copies_a_list_again_and_again_is_stopped(put):
    pairs = [("k", 0)] * 1000
    copy = b"ccollections\nOrderedDict\nh\x01\x85R0"  # of memo 1, then dropped
    opcodes = literal(pairs) + b"q\x01" + b"0" + copy * 1001 + b"N"
    with pytest.raises(ValueError, match="more than 1,000,000 entries"):
        read_arrays(put(pth({"x": (opcodes, {})})))


def test_arrays_that_share_a_storage_may_be_twice_the_file_and_no_more(put):
    content = VALUES.repeat(1000)
    one = tensor("0", 6000, (6000,), (1,))
    entries = {"a": (one, {"0": content.tobytes()}), "b": one}
    assert len(read_arrays(put(pth(entries)))) == 2
    with pytest.raises(ValueError, match="taken together, are larger than the file"):
        read_arrays(put(pth(entries | {"c": one})))


def test_compressed_parts_are_refused_unread(put):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", b"\x80\x02" + b"N0" * 10_000_000 + b"}.")
    assert len(out.getvalue()) < 50_000
    with pytest.raises(ValueError, match="compressed or encrypted"):
        read_arrays(put(out.getvalue()))


def test_a_bit_that_flipped_in_a_number_is_found(put):
    whole = bytearray(pth({"x": VALUES}))
    at = whole.index(VALUES.tobytes())
    for place in range(at, at + VALUES.nbytes):
        broken = whole.copy()
        broken[place] ^= 16
        with pytest.raises(ValueError, match=r"checksum of its part 'a/data/0' is not the one"):
            read_arrays(put(broken))


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"a/data.pkl": b"\x80\x02].", "a/byteorder": b"little"}, "holds a list, not a state dict"),
        ({"a/data.pkl": b"\x80\x02}.", "a/byteorder": b"big"}, "big-endian"),
        ({"a/model.weights": b""}, "not one of PyTorch's: it has no data.pkl"),
    ],
)
def test_zips_of_other_sorts(put, content, text):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    with pytest.raises(ValueError, match=text):
        read_arrays(put(out.getvalue()))


def test_legacy_files_that_contradict_themselves(put):
    pickled, storages = state({"x": VALUES})
    with pytest.raises(ValueError, match="storage '0' has another size than declared"):
        read_arrays(put(legacy(pickled, storages, {"0": 10**10})))
    with pytest.raises(ValueError, match="list of storages is not that of its arrays"):
        read_arrays(put(legacy(pickled, storages, {"0": 6}, order=["1"])))


def safetensors(header, content=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def entry(dtype="F32", shape=(2,), data_offsets=(0, 8)):
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": data_offsets}}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (struct.pack("<Q", 10**10) + b"{}", "header has 10,000,000,000 bytes by its own account"),
        (safetensors(b"{" + b'"a":{' * 90_000), "its header is damaged"),
        (safetensors(b'{"x": 3}'), "its header is damaged"),
        (safetensors(entry("F8")), "its header is damaged"),
        (safetensors(entry(shape=(-2,))), "its header is damaged"),
        (safetensors(entry(shape=(2.5,))), "its header is damaged"),
        (safetensors(entry(data_offsets=(0, 8, 9)), bytes(8)), "its header is damaged"),
        (safetensors(entry(), bytes(7)), "'x' is not as large as declared"),
        (safetensors(entry(data_offsets=(8, 16)), bytes(8)), "'x' is not as large as declared"),
        (safetensors(entry(shape=(3,)), bytes(16)), "'x' is not as large as declared"),
        (safetensors(entry(shape=(10**12,), data_offsets=(0, 4 * 10**12))), "not as large"),
        (safetensors(entry() | {"y": entry()["x"]}, bytes(8)), "'y' does not begin where"),
        (safetensors(entry(data_offsets=(4, 12)), bytes(12)), "'x' does not begin where"),
        (safetensors(entry(), bytes(9)), "1 bytes at its end belong to no array"),
    ],
)
def test_hostile_safetensors(put, content, text):
    with pytest.raises(ValueError, match=text):
        read_arrays(put(content, "x.safetensors"))


def test_safetensors_by_hand(put):
    header = entry("BF16", (2, 1), (0, 4)) | {"__metadata__": {"format": "pt"}}
    content = np.array([1.5, -2], np.float32).view("<u2")[1::2].tobytes()
    arrays = read_arrays(put(safetensors(header, content), "x.safetensors"))
    assert list(arrays) == ["x"]
    np.testing.assert_array_equal(arrays["x"], np.array([[1.5], [-2]], np.float32))


@pytest.mark.parametrize("name", ["siamese_pth", "normed_legacy_pth", "normed_safetensors"])
def test_cut_or_altered_files_give_arrays_or_a_sentence(recorded, put, name):
    whole = recorded("vgg")[name].tobytes()
    rng = np.random.default_rng(0)
    for cut in rng.integers(0, len(whole), 40):
        with pytest.raises(ValueError):
            read_arrays(put(whole[:cut]))
    for _ in range(150):
        broken = bytearray(whole)
        for at in rng.integers(0, min(len(whole), 6000), 3):
            broken[at] = rng.integers(256)
        try:
            arrays = read_arrays(put(broken))
        except ValueError as error:
            assert "weights.pth" in str(error)  # noqa: PT017
        else:
            assert all(isinstance(array, np.ndarray) for array in arrays.values())


# ------------------------------------------------------------------------------------ Keras' files


@pytest.fixture
def h5(tmp_path):
    """Writes datasets to an HDF5 file by h5py."""
    h5py = pytest.importorskip("h5py")

    def write(**content):
        path = tmp_path / "x.h5"
        with h5py.File(path, "w") as file:
            for name, value in content.items():
                file[name.replace("__", "/")] = value
        return path, h5py

    return write


def test_names_of_the_published_h5_files(h5):
    path, h5py = h5()
    with h5py.File(path, "w") as file:
        file["conv1_conv/conv1_conv/kernel:0"] = np.zeros((7, 7, 3, 64), "f4")
        file["post_bn/post_bn/moving_variance:0"] = np.ones(4, "f4")
        file["optimizer_weights/Adam/conv1_conv/kernel:0"] = np.ones(4, "f4")
        file["seeds/state"] = np.ones(2, "i4")
    arrays = read_arrays(path)
    assert set(arrays) == {"conv1_conv/kernel", "post_bn/moving_variance"}
    with h5py.File(path, "w") as file:
        file["model_weights/model/conv1_conv/kernel:0"] = np.zeros(1, "f4")
    assert set(read_arrays(path)) == {"conv1_conv/kernel"}


def test_hostile_h5_files(h5, tmp_path):
    path, h5py = h5(a__kernel=VALUES)
    whole = path.read_bytes()
    for cut in (9, 100, len(whole) // 2, len(whole) - 8):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="not a whole HDF5 file"):
            read_arrays(path)
    with h5py.File(path, "w") as file:  # ten gigabytes of nothing
        file.create_dataset("a/kernel", (2_500_000_000,), "f4", chunks=(1000,))
    with pytest.raises(ValueError, match="up to a/kernel it declares more bytes than it has"):
        read_arrays(path)
    with h5py.File(path, "w") as file:
        file.create_dataset("a/kernel", data=np.zeros(10**6, "f4"), compression="gzip")
    with pytest.raises(
        ValueError, match="it declares more bytes than it has: damaged, or compressed"
    ):
        read_arrays(path)
    (tmp_path / "secret").write_bytes(bytes(24))
    with h5py.File(path, "w") as file:
        file.create_dataset("a/kernel", (6,), "f4", external=[(str(tmp_path / "secret"), 0, 24)])
    with pytest.raises(ValueError, match="it declares more bytes than it has"):
        read_arrays(path)
    with h5py.File(path, "w") as file:
        file["a/kernel"] = h5py.ExternalLink("other.h5", "/kernel")
        file["b/kernel"] = h5py.SoftLink("/a/kernel")
    with pytest.raises(ValueError, match="it holds no weights"):
        read_arrays(path)
    with h5py.File(path, "w") as file:
        file["layers/conv2d/vars/0"] = VALUES
    with pytest.raises(
        ValueError, match="does not tell its layer's name: it is of an early Keras 3"
    ):
        read_arrays(path)
    with h5py.File(path, "w") as file:
        file["m1/conv/kernel:0"] = file["m2/conv/kernel:0"] = VALUES
    with pytest.raises(ValueError, match="it has two layers for conv/kernel"):
        read_arrays(path)


# ----------------------------------------------------------------- the reference itself, full size


@pytest.fixture
def reference():
    """The functions of `make_vgg_resnet.py`."""
    spec = importlib.util.spec_from_file_location("reference", PARITY / "make_vgg_resnet.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def characters(root, n, size):
    """`n` real characters as colour images in 0..1, each colour with its own noise."""
    from PIL import Image

    with zipfile.ZipFile(root / "omniglot" / "images_background.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))[::7][:n]
        pictures = [
            Image.open(archive.open(name)).convert("L").resize(size[::-1]) for name in names
        ]
    grey = np.stack([np.asarray(p, np.float32) for p in pictures])[..., None].repeat(3, -1) / 255
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, grey.shape)
    return np.clip(grey + noise, 0, 1).astype(np.float32)


@pytest.fixture
def vgg16(reference, tmp_path):
    """Makes PyTorch's network for maps of a size, and our weights from its file."""
    torch = pytest.importorskip("torch")

    def make(map_size, h, w):
        model = reference.siamese_vgg(16, 1, map_size, 512)
        torch.save(model.state_dict(), tmp_path / "siamese.pth")
        sizes = shapes(Siamese(Vgg(), L1Mlp(nonnegative=False)), h, w, 3)
        return model, import_weights(*sizes, tmp_path / "siamese.pth")[0]

    return make


@pytest.mark.parity
@pytest.mark.timeout(900)
def test_vgg16_at_105_equals_pytorch(reference, vgg16, real_data):
    model, params = vgg16((3, 3), 105, 105)
    x, same = characters(real_data, 4, (105, 105)), np.array([True, False])
    want = reference.siamese_vgg_outputs(model, x[:2], x[2:], same)
    after = by_path(params, reference.after_one_step(model))
    exact = reference.siamese_vgg_outputs(model, x[:2].astype("f8"), x[2:].astype("f8"), same)
    exact_after = by_path(params, reference.after_one_step(model))
    ours = Siamese(Vgg(), L1Mlp(nonnegative=False))
    got, gradients = value_and_gradients(ours, params, *map(jnp.asarray, (x[:2], x[2:], same)))
    worst = {name: relative(value, want[name]) for name, value in got.items()}
    print(worst)
    assert max(worst.values()) < 1e-4, worst
    # A maximum that rounding decides sends its gradient elsewhere: after 13 layers PyTorch's own
    # float32 gradients are off by 2e-3. The next test compares without that.
    for name, error in gradient_errors(gradients, exact).items():
        theirs = relative(want[f"gradient {name}"], exact[f"gradient {name}"])
        print(name, error, theirs)
        assert error < max(1e-4, 3 * theirs), name
    # So a step of Adam goes otherwise where such a gradient is small: for both in about as many.
    slopes = by_path(params, exact, "gradient ")
    their_errors = step_errors(params, after, exact_after, slopes)
    our_errors = step_errors(params, after_one_step(params, gradients), exact_after, slopes)
    for path, (_, moved) in our_errors.items():
        print(path, our_errors[path], their_errors[path])
        assert moved < max(1e-4, 3 * their_errors[path][1]), path


@pytest.mark.parity
@pytest.mark.timeout(900)
def test_gradients_and_a_step_of_vgg16_equal_pytorch_s_in_float64(reference, vgg16, real_data):
    model, params = vgg16((1, 2), 32, 64)
    x = characters(real_data, 4, (32, 64)).astype("f8")
    batch = x[:2], x[2:], np.array([True, False])
    exact = reference.siamese_vgg_outputs(model, *batch)
    exact_after = by_path(params, reference.after_one_step(model))
    with jax.enable_x64(True):
        ours = Siamese(Vgg(dtype=jnp.float64), L1Mlp(nonnegative=False))
        _, gradients = value_and_gradients(ours, params, *map(jnp.asarray, batch))
        errors = gradient_errors(gradients, exact)
        after = after_one_step(params, gradients)
    assert len(errors) == 2 * (13 + 2)
    assert max(errors.values()) < 1e-5, errors
    errors_after = step_errors(params, after, exact_after, by_path(params, exact, "gradient "))
    worst = [max(column) for column in zip(*errors_after.values(), strict=True)]
    print("gradients", max(errors.values()), "after one step: weights, movement", worst)
    assert max(worst) < 1e-4, errors_after


@pytest.mark.parity
@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore")
def test_resnet152v2_at_64_equals_keras(reference, real_data, tmp_path):
    pytest.importorskip("keras")
    pytest.importorskip("h5py")
    model = reference.resnet_v2(152, 1, (64, 64))
    path = tmp_path / "notop.h5"
    reference.save_h5(model, path)
    x = characters(real_data, 2, (64, 64))
    want = np.asarray(model(x)).reshape(2, -1)
    ours = Siamese(ResNetV2(depth=152, frozen=True, normalise="unit", embedding=0), Euclidean())
    params, batch_stats = import_weights(*shapes(ours, 64, 64, 3), path)
    variables = {"params": params, "batch_stats": batch_stats}
    got = backend.jit(lambda x: ours.apply(variables, x, train=True, method="embed"))(x)
    assert got.shape == (2, 8192)
    error = relative(got, want)
    print("features", error)
    assert error < 1e-4

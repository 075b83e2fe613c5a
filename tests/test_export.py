import importlib.util
import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from shrunk import SMALL, SMALL_HEADS

from siamjax import config as configuration
from siamjax.evaluation.decision import DecisionCard
from siamjax.evaluation.encoder import Encoder, scores
from siamjax.export import ExportError, export, onnx_file, stablehlo_file, texts, write
from siamjax.export.check import differences, images_for, inputs_and_outputs
from siamjax.export.graphs import graphs
from siamjax.inference import Comparator
from siamjax.models import HEADS, TOWERS, Siamese
from siamjax.preprocess import Preprocess

SIZE = {"koch": 65, "vgg": 32, "resnet_v2": 32}
CARD = DecisionCard(calibration=(1.7, 0.4), source="nothing")
RECIPE_HEADS = {
    "koch": "weighted_l1",
    "mlp": "euclidean",
    "resnet_v2": "euclidean_norm_dense",
    "small_cnn": "euclidean_dense",
    "small_resnet": "cosine",
    "vgg": "l1_mlp",
}


def missing(*names):
    return any(importlib.util.find_spec(name) is None for name in names)


QUICK = ("mlp", "small_cnn")  # to compile; the others are compared by `pytest -m slow`
needs_onnx = pytest.mark.skipif(
    missing("jax2onnx", "onnx", "onnxruntime"), reason="ONNX files need siamjax[onnx]"
)


def comparator_of(tower="mlp", head="cosine", card=CARD, preprocess=None, **options):
    """A comparator whose every weight and statistic is random."""
    size = SIZE.get(tower, 16)
    preprocess = preprocess or Preprocess(size=(size, size))
    model = Siamese(
        TOWERS[tower](**SMALL[tower] | options), HEADS[head](**SMALL_HEADS.get(head, {}))
    )
    image = np.zeros((1, *preprocess.size, preprocess.channels), np.uint8)
    weights = jax.jit(model.init)(jax.random.key(0), image, image)
    rng = np.random.default_rng(0)
    # A little beside where they start, so that no bias is 0 and no variance 1.
    weights = jax.tree.map(lambda leaf: leaf + 0.05 * rng.random(leaf.shape, np.float32), weights)
    weights = {"params": weights["params"], "batch_stats": weights.get("batch_stats", {})}
    return Comparator(
        Encoder(model, weights, card), preprocess, configuration.base(), "a run of nothing"
    )


def pairs_of(comparator, n=5):
    pixels = images_for(comparator)
    return pixels[:n], pixels[-n:]


def spread(comparator):
    """With a calibration that puts these images' similarities apart."""
    left, right = pairs_of(comparator)
    encoder = comparator.encoder
    score = encoder.score(encoder.embed(left), encoder.embed(right))
    slope = float(0.25 / score.std())
    encoder.card = DecisionCard(calibration=(slope, -slope * float(score.mean())))
    return comparator


def exported_similarity(comparator, left, right):
    pair = graphs(comparator)[2]
    return np.asarray(stablehlo_file.exported(pair).call(left, right)[0])


# ------------------------------------------------------------------------------------- StableHLO


@pytest.mark.parametrize(
    "tower",
    [tower if tower in QUICK else pytest.param(tower, marks=pytest.mark.slow) for tower in TOWERS],
)
def test_every_tower_compares_as_the_run_does_at_any_batch_size(tower):
    comparator = spread(comparator_of(tower, RECIPE_HEADS[tower]))
    left, right = pairs_of(comparator)
    expected = comparator.similarity(list(left), list(right))
    assert np.ptp(expected) > 1e-2  # else nothing is shown
    program = stablehlo_file.exported(graphs(comparator)[2])
    assert program.platforms == ("cpu", "cuda", "tpu")
    for n in (1, 5):
        got = np.asarray(program.call(left[:n], right[:n])[0])
        np.testing.assert_allclose(got, expected[:n], atol=1e-5)


@pytest.mark.parametrize("calibrated", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_gives_similarity_and_score(head, calibrated):
    comparator = comparator_of(head=head, card=CARD if calibrated else DecisionCard())
    rng = np.random.default_rng(1)
    left, right = rng.random((2, 5, 8), np.float32)
    output = comparator.encoder.compare(left, right)
    similarity, score = stablehlo_file.exported(graphs(comparator)[1]).call(left, right)
    np.testing.assert_allclose(similarity, comparator.encoder.similarity(output), atol=1e-5)
    np.testing.assert_allclose(score, scores(output), rtol=1e-5)
    assert similarity.dtype == score.dtype == np.float32


def test_products_are_in_full_float32_whatever_the_platform():
    text = stablehlo_file.exported(graphs(comparator_of("small_resnet"))[0]).mlir_module()
    products = [
        line for line in text.splitlines() if "dot_general" in line or "convolution" in line
    ]
    assert products
    assert all("HIGHEST" in line or "precision" not in line for line in products)
    assert any("HIGHEST" in line for line in products)


def test_extreme_scores_do_not_overflow():
    comparator = comparator_of(head="euclidean", card=DecisionCard(calibration=(1e9, 0.0)))
    left = np.zeros((2, 8), np.float32)
    similarity, _ = stablehlo_file.exported(graphs(comparator)[1]).call(left, left + 1e9)
    assert similarity.tolist() == [0, 0]


def test_half_precision_runs_leave_in_float32():
    half = comparator_of("small_cnn", dtype=jnp.bfloat16)
    full = comparator_of("small_cnn")
    left, right = pairs_of(half)
    got = exported_similarity(half, left, right)
    np.testing.assert_allclose(got, full.similarity(list(left), list(right)), atol=1e-5)


# -------------------------------------------------------------------------------------- the folder


@pytest.fixture(scope="module")
def comparator():
    return comparator_of("small_cnn", "euclidean_dense", preprocess=Preprocess((18, 12), "crop"))


@pytest.fixture(scope="module")
def exported(comparator, tmp_path_factory):
    return export(comparator, tmp_path_factory.mktemp("x") / "deep" / "out", ("stablehlo", "npz"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for i in range(2):
        blocks = rng.integers(0, 256, (5, 6, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(blocks).save(folder / f"{i}.png")
    return [folder / f"{i}.png" for i in range(2)]


def outside(script, *arguments):
    """What a program prints where siamjax is not."""
    assert "import siamjax" not in script.read_text()
    assert "from siamjax" not in script.read_text()
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [sys.executable, "-P", str(script), *map(str, arguments)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=script.parent, env=environment, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_an_export_is_compared_in_a_process_without_siamjax(exported):
    assert [(d.graph, d.output) for d in exported.differences["stablehlo"]] == [
        ("tower", "embedding"), ("head", "similarity"), ("head", "score"), ("pair", "similarity")
    ]  # fmt: skip
    assert all(0 <= d.largest < 1e-6 for d in exported.differences["stablehlo"])
    assert [path.name for path in exported.folder.parent.iterdir()] == ["out"]


def test_it_says_of_itself_all_that_is_needed(exported, comparator):
    about = json.loads((exported.folder / "about.json").read_text())
    names = {path.name for path in exported.folder.iterdir()}
    assert names == {
        "README.txt", "about.json", "run_npz.py", "run_stablehlo.py", "weights.npz",
        "tower.stablehlo", "head.stablehlo", "pair.stablehlo",
    }  # fmt: skip
    assert set(about["files"]) == names - {"about.json"}
    assert about["fingerprint"] == comparator.fingerprint
    assert Preprocess.from_dict(about["preprocess"]) == comparator.preprocess
    assert DecisionCard.from_dict(about["card"]) == comparator.card
    assert about["config"] == json.loads(configuration.to_json(comparator.config))
    assert about["origin"] == "a run of nothing"
    assert about["graphs"]["head"] == {
        "inputs": [
            {"name": "left", "shape": ["b", 4], "dtype": "float32"},
            {"name": "right", "shape": ["b", 4], "dtype": "float32"},
        ],
        "outputs": [
            {"name": "similarity", "shape": ["b"], "dtype": "float32"},
            {"name": "score", "shape": ["b"], "dtype": "float32"},
        ],
    }
    readme = (exported.folder / "README.txt").read_text()
    assert "uint8 [b, 18, 12, 1] -> embedding float32 [b, 4]" in readme


def test_its_programs_print_what_the_run_says(exported, comparator, pictures):
    expected = comparator.compare(*pictures)
    pair, parts = outside(exported.folder / "run_stablehlo.py", *pictures)
    assert float(pair.split()[-1]) == pytest.approx(expected.similarity[0], abs=2e-6)
    words = parts.split()
    assert float(words[2]) == pytest.approx(expected.similarity[0], abs=2e-6)
    score = comparator.encoder.score(*(comparator.embed([path]) for path in pictures))
    assert float(words[4]) == pytest.approx(score[0], rel=1e-4)
    *listed, last = outside(exported.folder / "run_npz.py")
    assert "params/tower/conv1/kernel float32 [2, 2, 1, 2]" in listed
    assert last == f"{exported.weights} numbers"


def test_weights_are_there_by_path(exported, comparator):
    with np.load(exported.folder / "weights.npz", allow_pickle=False) as found:
        kernel = comparator.encoder.weights["params"]["tower"]["conv2"]["kernel"]
        np.testing.assert_array_equal(found["params/tower/conv2/kernel"], kernel)
        assert found["params/head/dense/bias"].dtype == np.float32


@pytest.mark.parametrize("fit", ["resize", "crop", "letterbox", "ink"])
@pytest.mark.parametrize(("channels", "invert"), [(1, True), (3, False)])
def test_the_programs_read_files_as_the_run_does(fit, channels, invert, tmp_path):
    preprocess = Preprocess((9, 14), fit, channels, invert)
    body = texts.script("onnx", preprocess)
    body = body[body.index("HEIGHT") : body.index("def load")]
    scope = {"np": np}
    exec("from PIL import Image, ImageOps\n" + body, scope)
    rng, path = np.random.default_rng(0), tmp_path / "a.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    shapes = {"L": (30, 11), "RGB": (11, 30, 3), "RGBA": (20, 20, 4), "LA": (9, 14, 2)}
    for mode, shape in shapes.items():
        Image.fromarray(rng.integers(0, 256, shape, np.uint8), mode=None).save(path, exif=exif)
        with Image.open(path) as image:
            assert image.mode == mode
            expected = preprocess(image)
        np.testing.assert_array_equal(scope["pixels"](path)[0], expected)
    Image.fromarray(rng.integers(0, 65536, (13, 17), np.uint16)).save(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(scope["pixels"](path)[0], preprocess(image))


def test_an_earlier_export_is_replaced_and_nothing_else(comparator, tmp_path):
    out = tmp_path / "out"
    out.mkdir()  # an empty folder will do
    export(comparator, out, ["npz"])
    (out / "weights.npz").write_bytes(b"old")
    export(comparator, out, ["npz"])
    assert (out / "weights.npz").read_bytes() != b"old"
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"also holds notes\.txt, which would be lost"):
        export(comparator, out, ["npz"])
    assert (out / "notes.txt").read_text() == "mine"
    for other in ("{}", "[]", "not json"):
        folder = tmp_path / "run"
        folder.mkdir(exist_ok=True)
        (folder / "about.json").write_text(other)
        with pytest.raises(ExportError, match="is not an export: choose another folder"):
            export(comparator, folder, ["npz"])
        assert (folder / "about.json").read_text() == other
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ExportError, match="is not a folder"):
        export(comparator, tmp_path / "file", ["npz"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "out", "run"]


def test_an_export_that_fails_leaves_what_was_there(comparator, tmp_path, monkeypatch):
    out = tmp_path / "out"
    export(comparator, out, ["npz"])
    before = (out / "about.json").read_bytes()
    monkeypatch.setattr(write.npz_file, "arrays", lambda c: {"a": np.array([np.nan])})
    with pytest.raises(ExportError, match=r"weights\.npz does not hold what was written: a"):
        export(comparator, out, ["npz"])
    assert (out / "about.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


# --------------------------------------------------------------------------------------- the check


def test_what_differs_is_refused_by_name(comparator):
    parts = graphs(comparator)
    inputs, expected = inputs_and_outputs(comparator.encoder, images_for(comparator))
    assert [len(batch[0]) for batch in inputs["tower"]] == [1, 3, 8]
    found = {name: list(batches) for name, batches in expected.items()}
    assert {d.largest for d in differences(parts, found, expected)} == {0}
    scale = max(np.abs(batch[0]).max() for batch in expected["tower"])
    for gap, said in ((5e-6 * scale, None), (2e-5 * scale, "by 2e-05"), (np.nan, "by nan")):
        found["tower"] = [*expected["tower"][:2], (expected["tower"][2][0] + gap,)]
        if said is None:
            differences(parts, found, expected)
            continue
        with pytest.raises(ExportError, match=f"embedding of the tower {said}"):
            differences(parts, found, expected)
    found["tower"] = [(batch[0][:1],) for batch in expected["tower"]]
    with pytest.raises(ExportError, match="tower gives embedding as"):
        differences(parts, found, expected)


def test_given_images_are_what_is_compared(comparator, pictures):
    pixels = images_for(comparator, pictures)
    np.testing.assert_array_equal(pixels[1], comparator.pixels(pictures[1]))
    inputs, _ = inputs_and_outputs(comparator.encoder, pixels[:1])
    assert len(inputs["pair"][2][0]) == 8


def test_files_that_do_not_run_say_why(tmp_path):
    (tmp_path / "tower.stablehlo").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="do not run in a process of their own"):
        stablehlo_file.run(tmp_path, {"tower": [(np.zeros(1),)]})


def test_what_is_missing_is_named_with_the_command(comparator, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "jax2onnx", None)
    said = r"jax2onnx, which is not installed: pip install 'siamjax\[onnx\]'"
    with pytest.raises(ExportError, match=said):
        export(comparator, tmp_path / "out", ["onnx"])
    assert not list(tmp_path.iterdir())


def test_formats_are_known(comparator, tmp_path):
    with pytest.raises(ExportError, match="some of stablehlo, onnx, npz; got tflite"):
        export(comparator, tmp_path / "out", ["npz", "tflite"])
    with pytest.raises(ExportError, match="got none"):
        export(comparator, tmp_path / "out", [])


# -------------------------------------------------------------------------------------------- ONNX


def converted(comparator, folder, names=("tower", "head", "pair")):
    parts = [graph for graph in graphs(comparator) if graph.name in names]
    inputs, expected = inputs_and_outputs(comparator.encoder, images_for(comparator))
    onnx_file.write(parts, folder)
    found = onnx_file.run(folder, {name: inputs[name] for name in names})
    return differences(parts, found, expected)


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("tower", TOWERS)
def test_every_tower_runs_in_onnxruntime(tower, tmp_path):
    measured = converted(comparator_of(tower, RECIPE_HEADS[tower]), tmp_path)
    assert [d.output for d in measured] == ["embedding", "similarity", "score", "similarity"]
    print(tower, RECIPE_HEADS[tower], [f"{d.largest:.1e}" for d in measured])
    sizes = [(tmp_path / f"{name}.onnx").stat().st_size for name in ("tower", "pair")]
    assert sizes[1] < 1.7 * sizes[0] + 20_000  # the weights are there once


@needs_onnx
@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_every_head_runs_in_onnxruntime(head, tmp_path):
    converted(comparator_of(head=head, card=DecisionCard()), tmp_path, ["head"])


@needs_onnx
def test_onnx_files_name_their_ports(comparator, pictures, tmp_path):
    import onnxruntime

    done = export(comparator, tmp_path / "out", ["onnx"], pictures)
    assert set(done.differences) == {"onnx"}
    session = onnxruntime.InferenceSession(done.folder / "head.onnx")
    assert [(p.name, p.shape, p.type) for p in session.get_inputs()] == [
        ("left", ["b", 4], "tensor(float)"), ("right", ["b", 4], "tensor(float)")
    ]  # fmt: skip
    assert [(p.name, p.shape) for p in session.get_outputs()] == [
        ("similarity", ["b"]), ("score", ["b"])
    ]  # fmt: skip
    tower = onnxruntime.InferenceSession(done.folder / "tower.onnx").get_inputs()[0]
    assert (tower.name, tower.shape, tower.type) == ("images", ["b", 18, 12, 1], "tensor(uint8)")
    expected = comparator.similarity(*pictures)
    for line in outside(done.folder / "run_onnx.py", *pictures):
        assert float(line.split()[2]) == pytest.approx(expected, abs=2e-6)


@needs_onnx
def test_what_cannot_be_converted_says_what_to_do(comparator):
    graph = graphs(comparator)[1]
    with pytest.raises(ExportError, match=r"cannot convert the head .*use --format=stablehlo"):
        onnx_file.model(graph._replace(function=lambda a, b: 1 / 0))

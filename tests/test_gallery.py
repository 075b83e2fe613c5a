import contextlib
import json
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from shrunk import SMALL_HEADS
from untrained import untrained_run

import siamjax
from siamjax import gallery_file
from siamjax.evaluation.encoder import Encoder
from siamjax.gallery import Answer, Gallery, GalleryError, Match, nearest
from siamjax.inference import Comparator
from siamjax.models import HEADS, TOWERS, Siamese
from siamjax.preprocess import Preprocess

SIZE = (6, 5)


def made(head="cosine", seed=0, views=1, size=SIZE, **options):
    """A comparator of fresh weights: an MLP of 6x5 images to 8 numbers."""
    import jax

    model = Siamese(TOWERS["mlp"](features=(8, 8)), HEADS[head](**options), views)
    image = np.zeros((1, *size, 1), np.float32)
    weights = dict(model.init(jax.random.key(seed), image, image))
    weights.setdefault("batch_stats", {})
    encoder = Encoder(model, weights)
    return Comparator(encoder, Preprocess(size), origin=f"run {seed}")


def write_people(folder, seed=0):
    """anna/1.png, anna/2.png, ben/1.png, ben/10.png, top.png, notes.txt."""
    rng = np.random.default_rng(seed)
    for name in ("anna/1.png", "anna/2.png", "ben/10.png", "ben/1.png", "top.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7), np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


NAMES = ["anna/1.png", "anna/2.png", "ben/1.png", "ben/10.png", "top.png"]


@pytest.fixture(scope="module")
def comparator():
    return made()


@pytest.fixture
def people(tmp_path):
    return write_people(tmp_path / "people")


@pytest.fixture
def gallery(comparator, people):
    return Gallery.build(comparator, people)


def test_a_folder_becomes_names_and_labels(gallery, comparator, people):
    assert gallery.names == NAMES
    assert gallery.labels == ["anna", "anna", "ben", "ben", ""]
    assert gallery.embeddings.dtype == np.float32
    np.testing.assert_allclose(
        gallery.embeddings, comparator.embed([people / name for name in NAMES]), atol=1e-6
    )


def test_an_image_finds_itself_whatever_its_kind(gallery, people):
    path = people / "ben/1.png"
    with Image.open(path) as image:
        image.load()
        for query in (path, str(path), image, np.asarray(image)):
            answer = gallery.query(query, top=2)
            assert isinstance(answer, Answer)
            assert len(answer.matches) == 2
            assert answer.matches[0][:2] == ("ben/1.png", "ben")
    many = gallery.query([people / name for name in NAMES], top=1)
    assert [answer.matches[0].name for answer in many] == NAMES


OPTIONS = {
    "cosine": {}, "euclidean": {"midpoint": 3.0}, "euclidean_dense": {},
    "euclidean_norm_dense": {}, "weighted_l1": {}, "l1_mlp": {"hidden": 4, "activation": "relu"},
    **SMALL_HEADS,
}  # fmt: skip


@pytest.mark.parametrize("head", [*HEADS, "city-block"])
def test_every_head_ranks_as_it_compares(head, people):
    options = {"p": 1} if head == "city-block" else OPTIONS[head]
    comparator = made("euclidean" if head == "city-block" else head, **options)
    gallery = Gallery.build(comparator, people)
    paths = [people / name for name in NAMES]
    for path in paths:
        expected = np.asarray(comparator.similarity(path, paths))
        answer = gallery.query(path, top=5)
        order = [NAMES.index(match.name) for match in answer.matches]
        found = np.array([match.similarity for match in answer.matches])
        np.testing.assert_allclose(found, expected[order], atol=1e-6)
        assert (np.diff(expected[order]) <= 1e-6).all()
        assert [match.same for match in answer.matches] == [s >= 0.5 for s in found]
    product = nearest(comparator, gallery.embeddings)
    assert (product is not None) == (head in ("cosine", "euclidean"))


@pytest.mark.parametrize("views", [1, 2])
def test_of_a_shortlist_the_head_ranks_what_is_nearest_by_the_global_vectors(views):
    comparator = made("relational", views=views, size=(6, 6), **OPTIONS["relational"])
    gallery = Gallery(comparator)
    images = np.random.default_rng(0).integers(0, 256, (31, 6, 6), np.uint8)
    gallery.add([*images[1:]], names=[str(i) for i in range(30)])
    query, z = images[0], comparator.embed([images[0]])
    exact = gallery.query(query, top=30)
    assert gallery.query(query, top=30, shortlist=30) == exact

    def cosine(name):
        pairs = [np.split(v, views) for v in (gallery.embeddings[int(name)], z[0])]
        return np.mean([
            a[:4] @ b[:4] / np.linalg.norm(a[:4]) / np.linalg.norm(b[:4])
            for a, b in zip(*pairs, strict=True)
        ])  # fmt: skip

    near = sorted(gallery.names, key=cosine, reverse=True)[:6]
    wanted = [match for match in exact.matches if match.name in near]
    found = gallery.query(query, top=3, shortlist=6).matches
    assert [match.name for match in found] == [match.name for match in wanted[:3]]
    np.testing.assert_allclose(
        [m.similarity for m in found], [m.similarity for m in wanted[:3]], atol=1e-6
    )
    gallery.remove(near[0])  # the outlines are made anew
    assert near[0] not in [m.name for m in gallery.query(query, top=6, shortlist=6).matches]
    with pytest.raises(GalleryError, match="a shortlist of 2 has no 3 best"):
        gallery.query(query, top=3, shortlist=2)


def test_other_heads_have_no_shortlist(gallery, people):
    with pytest.raises(GalleryError, match="a shortlist is for one net with a relational head"):
        gallery.query(people / "top.png", top=1, shortlist=3)


@pytest.mark.parametrize("head", ["cosine", "euclidean", "weighted_l1"])
def test_the_product_changes_no_rank(head):
    # A far-off origin: |a|^2 + |b|^2 - 2ab is off by more than the whole distance there.
    comparator = made(head)
    gallery = Gallery(comparator)
    rng = np.random.default_rng(0)
    rows = (100 + 1e-3 * rng.standard_normal((300, 8))).astype(np.float32)
    fill(gallery, rows)
    queries = rows[:70] + np.float32(1e-4)
    for z, answer in zip(queries, gallery.search(queries, top=7), strict=True):
        scores = comparator.encoder.score(np.broadcast_to(z, rows.shape), rows)
        expected = np.argsort(-scores, kind="stable")[:7]
        assert [match.name for match in answer.matches] == [str(i) for i in expected]


def fill(gallery, rows):
    gallery.embeddings = rows
    gallery.names = [str(i) for i in range(len(rows))]
    gallery.labels = [""] * len(rows)
    gallery._digests = [i.to_bytes(32, "big") for i in range(len(rows))]


@pytest.mark.parametrize("head", ["euclidean", "weighted_l1"])
def test_of_equal_images_the_first_comes_first(head):
    gallery = Gallery(made(head))
    rows = np.ones((300, 8), np.float32)
    rows[::3] = 2  # two kinds: an unstable sort keeps the order of one
    fill(gallery, rows)
    (answer,) = gallery.search(np.ones((1, 8), np.float32), top=250)
    found = [int(match.name) for match in answer.matches]
    for kind in (0, 1):
        mine = [i for i in found if (i % 3 == 0) == bool(kind)]
        assert mine == sorted(mine)
    assert len(set(found)) == 250


def test_unknown_is_said_with_the_figures(gallery, people):
    path = people / "ben/1.png"
    answer = gallery.query(path, threshold=0.0)
    assert answer.known
    assert answer.label == "ben"
    assert str(answer) == f"ben (ben/1.png at {answer.matches[0].similarity:.2f})"
    refused = Answer([Match("ben/1.png", "ben", 0.21, False)], 0.5)
    assert not refused.known
    assert refused.label is None
    assert str(refused) == "unknown (best ben/1.png at 0.21 < 0.5)"
    close = Answer([Match("a", "", 0.49996, False)], 0.5)
    assert str(close) == "unknown (best a at 0.49996 < 0.5)"


def test_what_is_there_already_is_skipped(gallery, people, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes((people / "ben/1.png").read_bytes())
    outcome = gallery.add([people / "anna/1.png", copy])
    assert outcome.added == outcome.replaced == []
    assert outcome.skipped == [("anna/1.png", "anna/1.png"), (copy.as_posix(), "ben/1.png")]
    assert len(gallery) == 5


def test_a_file_that_changed_takes_its_own_place(gallery, comparator, people):
    one, two = people / "anna/1.png", people / "anna/2.png"
    old = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(old)  # both changed: neither may be taken for the other's twin
    outcome = gallery.add(people)
    assert sorted(outcome.replaced) == ["anna/1.png", "anna/2.png"]
    assert sorted(gallery.names) == sorted(NAMES)
    place = gallery.names.index("anna/1.png")
    np.testing.assert_allclose(gallery.embeddings[place], comparator.embed([one])[0], atol=1e-6)
    one.write_bytes((people / "top.png").read_bytes())
    outcome = gallery.add(people)
    assert ("anna/1.png", "top.png") in outcome.skipped
    assert "anna/1.png" not in gallery.names


def test_arrays_need_names_and_take_labels(gallery, people):
    rng = np.random.default_rng(5)
    arrays = rng.integers(0, 256, (2, 9, 7), np.uint8)
    with pytest.raises(GalleryError, match="need names"):
        gallery.add(arrays[0])
    with pytest.raises(GalleryError, match="1 images but 2 labels"):
        gallery.add(arrays[0], names=["x"], labels=["a", "b"])
    with pytest.raises(GalleryError, match="two images have the name 'x'"):
        gallery.add(list(arrays), names=["x", "x"])
    outcome = gallery.add(list(arrays), names=["x", "y"], labels="new")
    assert outcome.added == ["x", "y"]
    assert gallery.query(arrays[1], top=1).matches[0][:2] == ("y", "new")
    assert gallery.add(arrays[1], names=["z"]).skipped == [("z", "y")]


def test_more_images_than_are_decoded_at_a_time(comparator):
    arrays = list(np.random.default_rng(1).integers(0, 256, (300, *SIZE), np.uint8))
    gallery = Gallery(comparator)
    gallery.add(arrays, names=[str(i) for i in range(300)])
    np.testing.assert_allclose(gallery.embeddings, comparator.embed(arrays), atol=1e-5)
    assert gallery.query(arrays[299], top=1).matches[0].name == gallery.names[299] == "299"


def test_names_are_relative_inside_and_whole_outside(gallery, comparator, tmp_path):
    outside = write_people(tmp_path / "others", seed=1)
    outcome = gallery.add(outside)
    assert outcome.added[0] == (outside / "anna/1.png").as_posix()
    assert gallery.labels[5:] == ["anna", "anna", "ben", "ben", ""]


def test_removing(gallery, people):
    gallery.remove(["anna/2.png", str(people / "ben/10.png")])
    assert gallery.names == ["anna/1.png", "ben/1.png", "top.png"]
    assert gallery.query(people / "top.png", top=9).matches[0].name == "top.png"
    with pytest.raises(GalleryError, match=r"no image 'ben/2.png'; did you mean ben/1.png"):
        gallery.remove(["anna/1.png", "ben/2.png"])
    assert len(gallery) == 3
    gallery.remove(gallery.names)
    with pytest.raises(GalleryError, match="is empty"):
        gallery.query(people / "top.png")
    gallery.add(people)
    assert gallery.names == NAMES


def test_an_unreadable_image_is_an_error_or_a_line(comparator, people):
    (people / "ben/bad.png").write_text("no")
    (people / "ben/worse.png").write_text("no")
    with pytest.raises(ValueError, match=r"bad\.png cannot be read as an image"):
        Gallery.build(comparator, people)
    faults = []
    assert Gallery.build(comparator, people, faults).names == NAMES
    assert len(faults) == 2
    reason = "UnidentifiedImageError: cannot identify image file"
    assert f"ben/bad.png cannot be read as an image: {reason}" in faults[0]
    assert faults[1] == "ben/worse.png cannot be read either: it is the same file"
    gallery, faults = Gallery(comparator), []
    gallery.add([people / "gone.png", people / "top.png"], faults=faults)
    assert len(gallery) == 1
    assert "gone.png cannot be read as an image: No such file" in faults[0]


def test_saved_and_loaded(gallery, comparator, people, tmp_path):
    path = tmp_path / "new" / "people.gallery"
    gallery.labels[0] = "Änna"
    gallery.save(path)
    assert os.listdir(path.parent) == ["people.gallery"]
    loaded = Gallery.load(path, comparator)
    assert (loaded.names, loaded.labels, loaded.folder) == (
        gallery.names, gallery.labels, str(people),
    )  # fmt: skip
    np.testing.assert_array_equal(loaded.embeddings, gallery.embeddings)
    assert loaded.query(people / "top.png") == gallery.query(people / "top.png")
    assert len(loaded.add(people).skipped) == 5
    empty = Gallery(comparator)
    empty.save(path)
    assert len(Gallery.load(path, comparator)) == 0


def test_another_runs_gallery_is_refused(gallery, tmp_path):
    gallery.save(tmp_path / "g")
    with pytest.raises(GalleryError, match=r"made by another run \(run 0\).*\(run 1\): build it"):
        Gallery.load(tmp_path / "g", made(seed=1))


def test_a_failed_save_leaves_the_old_one(gallery, comparator, tmp_path, monkeypatch):
    path = tmp_path / "g"
    gallery.save(path)
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    gallery.remove("top.png")
    with pytest.raises(GalleryError, match=r"cannot be written to .*No space left"):
        gallery.save(path)
    assert path.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["g", "people"]


def damaged(data, change):
    """The file with its JSON header changed."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def shape_of(name, shape):
    return lambda header: header[name].update(shape=shape)


CHANGES = {
    "more rows": (shape_of("embeddings", [10**12, 8]), "not as large as declared"),
    "other rows": (shape_of("embeddings", [8, 5]), "digests"),
    "no names": (lambda header: header.pop("names"), "does not begin where the one before it ends"),
    "half": (lambda header: header["embeddings"].update(dtype="I32"), "float32 with 2 axes"),
    "offsets": (lambda header: header["labels"].update(data_offsets=[0, 1 << 60]), "as declared"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_false_sizes_are_refused(name, gallery, comparator, tmp_path):
    path = tmp_path / "g"
    gallery.save(path)
    change, text = CHANGES[name]
    path.write_bytes(damaged(path.read_bytes(), change))
    with pytest.raises(GalleryError, match=f"is not a whole gallery: .*{text}"):
        Gallery.load(path, comparator)


def test_what_is_no_gallery_is_refused(gallery, comparator, people, tmp_path):
    path = tmp_path / "g"
    with pytest.raises(GalleryError, match="there is no gallery"):
        Gallery.load(path, comparator)
    with pytest.raises(GalleryError, match="cannot be read"):
        Gallery.load(people, comparator)
    for data in (b"", b"abc", bytes(100), b"\xff" * 100, (people / "top.png").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(GalleryError, match="not a whole gallery"):
            Gallery.load(path, comparator)
    gallery.embeddings[2, 3] = np.nan
    gallery.save(path)
    with pytest.raises(GalleryError, match="not finite"):
        Gallery.load(path, comparator)
    gallery.embeddings[2, 3] = 0
    gallery.names[1] = gallery.names[0]
    gallery.save(path)
    with pytest.raises(GalleryError, match="not all different"):
        Gallery.load(path, comparator)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_byte_of_damage_does_more_than_a_sentence(whole, data):
    path, content = whole
    cut = data.draw(st.integers(0, len(content)))
    changed = bytearray(content[:cut] if data.draw(st.booleans()) else content)
    if changed:
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    with contextlib.suppress(GalleryError):  # it may also have changed nothing that shows
        gallery_file.read(path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    Gallery.build(made(), write_people(folder / "p")).save(folder / "g")
    return folder / "g", (folder / "g").read_bytes()


def test_what_cannot_be_asked(gallery, people):
    with pytest.raises(GalleryError, match="at least 1; got 0"):
        gallery.query(people / "top.png", top=0)
    with pytest.raises(GalleryError, match=r"of 8 numbers; the query's have the shape \[1, 9\]"):
        gallery.search(np.zeros((1, 9), np.float32))
    with pytest.raises(ValueError, match="no threshold 'strict'"):
        gallery.query(people / "top.png", threshold="strict")


def test_gallery_images_never_meet_the_tower_again(gallery, people, monkeypatch):
    counted = []
    embed = gallery.comparator.encoder.embed
    monkeypatch.setattr(
        gallery.comparator.encoder, "embed", lambda x: (counted.append(len(x)), embed(x))[1]
    )
    gallery.query([people / "top.png", people / "anna/1.png"])
    assert counted == [2]


def test_a_run_reads_its_own(tmp_path):
    folder = untrained_run(tmp_path / "run")
    comparator = siamjax.load(folder)
    people = write_people(tmp_path / "people")
    gallery = Gallery.build(comparator, people)
    gallery.save(tmp_path / "g")
    answer = Gallery.load(tmp_path / "g", siamjax.load(folder)).query(people / "ben/1.png")
    assert answer.matches[0].name == "ben/1.png"
    assert answer.matches[0].similarity == pytest.approx(
        comparator.similarity(people / "ben/1.png", people / "ben/1.png"), abs=1e-5
    )

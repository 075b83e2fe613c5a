import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from siamjax.config import ConfigDict
from siamjax.preprocess import Preprocess, preprocess_of

RAMP = np.array([[0, 50, 100], [150, 200, 250]], np.uint8)
TEXT = "size must be|fit must be|channels must be|invert must be"


def same_size(channels=1, **keys):
    return Preprocess(size=(2, 3), channels=channels, **keys)


def rgba(rows):
    return Image.fromarray(np.array(rows, np.uint8))


# ----------------------------------------------------------------------------------- the exact size


@pytest.mark.parametrize("fit", ["resize", "crop", "letterbox"])
def test_pixels_pass_unchanged_when_the_size_is_right(fit):
    noise = np.random.default_rng(0).integers(0, 256, (7, 5, 3), np.uint8)
    run = Preprocess(size=(7, 5), fit=fit, channels=3)
    np.testing.assert_array_equal(run(noise), noise)
    np.testing.assert_array_equal(run(Image.fromarray(noise)), noise)


def test_invert_is_255_minus_x():
    np.testing.assert_array_equal(same_size(invert=True)(RAMP)[..., 0], 255 - RAMP)


def test_the_result_is_the_callers_own():
    out = same_size()(RAMP)
    out[:] = 7
    assert RAMP[0, 0] == 0
    assert out.dtype == np.uint8
    assert out.shape == (2, 3, 1)


def test_grey_is_replicated_to_rgb_and_rgb_weighed_to_grey():
    np.testing.assert_array_equal(same_size(3)(RAMP), np.repeat(RAMP[..., None], 3, 2))
    pure = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]] * 2, np.uint8)
    # ITU-R 601: 0.299, 0.587, 0.114 of 255.
    np.testing.assert_array_equal(same_size()(pure)[0, :, 0], [76, 150, 29])


# ---------------------------------------------------------------------------------------- the modes


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (RAMP, RAMP),
        (RAMP[..., None], RAMP),
        (RAMP.astype(np.uint16) * 257, RAMP),
        (RAMP.astype(np.float32) / 255, RAMP),
        (RAMP.astype(np.float64) / 255, RAMP),
        (RAMP > 100, (RAMP > 100) * 255),
        (np.asfortranarray(RAMP), RAMP),
        (RAMP[::-1, ::-1], RAMP[::-1, ::-1]),
    ],
)
def test_arrays(array, expected):
    np.testing.assert_array_equal(same_size()(array)[..., 0], expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "mode",
    [
        "1",
        "L",
        "P",
        "RGB",
        "RGBA",
        "CMYK",
        "YCbCr",
        "LAB",
        "HSV",
        "I",
        "F",
        "LA",
        "PA",
        "La",
        "RGBa",
        "RGBX",
        "I;16",
        "I;16L",
        "I;16B",
        "I;16N",
    ],
)
def test_every_mode_gives_bytes(mode, channels):
    out = Preprocess(size=(4, 6), fit="letterbox", channels=channels)(Image.new(mode, (3, 3)))
    assert out.shape == (4, 6, channels)
    assert out.dtype == np.uint8


def test_sixteen_bits_are_scaled_not_clipped():
    levels = np.array([[0, 128, 129, 400, 65535]], np.uint16)
    np.testing.assert_array_equal(Preprocess((1, 5))(levels)[0, :, 0], [0, 0, 1, 2, 255])
    wide = RAMP.astype(np.uint16) * 257
    np.testing.assert_array_equal(same_size()(Image.fromarray(wide))[..., 0], RAMP)
    as_i = Image.fromarray(wide.astype(np.int32))
    assert as_i.mode == "I"
    np.testing.assert_array_equal(same_size()(as_i)[..., 0], RAMP)
    with pytest.raises(ValueError, match=r"mode I must lie in 0\.\.65535 .*got 0\.\.65536"):
        Preprocess((1, 2))(Image.fromarray(np.array([[0, 65536]], np.int32)))


def test_mode_f_is_0_to_1_as_float_arrays_are():
    image = Image.fromarray(RAMP.astype(np.float32) / 255)
    assert image.mode == "F"
    np.testing.assert_array_equal(same_size()(image)[..., 0], RAMP)
    with pytest.raises(ValueError, match=r"0\.\.1; got 0\.\.255"):
        Preprocess((1, 2))(Image.fromarray(np.array([[0, 255]], np.float32)))


def test_transparent_parts_show_white_paper():
    image = rgba([[[0, 0, 0, 0], [0, 0, 0, 255], [0, 0, 0, 51]]])
    for channels in (1, 3):
        out = Preprocess((1, 3), channels=channels)(image)
        # 51 / 255 = 0.2 opaque black on white: 255 * 0.8 = 204.
        np.testing.assert_array_equal(out[0, :, 0], [255, 0, 204])
    np.testing.assert_array_equal(Preprocess((1, 3))(np.asarray(image))[0, :, 0], [255, 0, 204])
    np.testing.assert_array_equal(Preprocess((1, 3))(image.convert("LA"))[0, :, 0], [255, 0, 204])


def test_palettes_with_and_without_transparency():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 10, 10, 90, 90, 90])
    image.putdata([0, 1])
    np.testing.assert_array_equal(Preprocess((1, 2))(image)[0, :, 0], [10, 90])
    image.info["transparency"] = 0
    np.testing.assert_array_equal(Preprocess((1, 2))(image)[0, :, 0], [255, 90])


@pytest.mark.parametrize(("mode", "clear"), [("L", 9), ("I;16", 9), ("1", 0)])
def test_a_transparent_grey_level_shows_white(mode, clear):
    image = Image.new(mode, (2, 1))
    image.putpixel((0, 0), clear)
    image.putpixel((1, 0), clear + 257 if mode == "I;16" else 255 if mode == "1" else 1)
    image.info["transparency"] = clear
    assert Preprocess((1, 2))(image)[0, 0, 0] == 255


def test_cmyk_has_its_ink_the_right_way_round():
    ink = Image.new("CMYK", (1, 1), (0, 0, 0, 255))
    paper = Image.new("CMYK", (1, 1), (0, 0, 0, 0))
    assert Preprocess((1, 1))(ink)[0, 0, 0] == 0
    assert Preprocess((1, 1))(paper)[0, 0, 0] == 255


def test_exif_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated a quarter turn clockwise
    Image.fromarray(RAMP).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        out = Preprocess(size=(3, 2))(image)
    np.testing.assert_array_equal(out[..., 0], np.rot90(RAMP, -1))


def test_damaged_exif_leaves_the_pixels(tmp_path):
    Image.fromarray(RAMP).save(tmp_path / "odd.png", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    with Image.open(tmp_path / "odd.png") as image:
        np.testing.assert_array_equal(same_size()(image)[..., 0], RAMP)


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("L", (3, 2), value) for value in (10, 200, 90)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a.gif") as image:
        image.seek(1)
        assert (same_size()(image) == 10).all()


# ----------------------------------------------------------------------------------------- the fits


def test_resize_averages_what_it_shrinks():
    # Without antialiasing a quarter of these stripes would be looked at and the rest missed.
    stripes = np.tile(np.array([[0, 255]], np.uint8), (16, 8))
    out = Preprocess(size=(4, 4))(stripes)
    assert np.abs(out.astype(int) - 127.5).max() < 16


def test_resize_is_pillows_bilinear():
    noise = np.random.default_rng(1).integers(0, 256, (31, 17), np.uint8)
    expected = Image.fromarray(noise).resize((9, 12), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(Preprocess((12, 9))(noise)[..., 0], np.asarray(expected))


def test_crop_cuts_centrally_and_equally():
    wide = np.repeat(np.array([[10, 20, 30, 40, 50, 60]], np.uint8), 2, 0)
    np.testing.assert_array_equal(Preprocess((2, 2), fit="crop")(wide)[0, :, 0], [30, 40])
    np.testing.assert_array_equal(Preprocess((2, 2), fit="crop")(wide.T)[:, 0, 0], [30, 40])


@pytest.mark.parametrize("invert", [False, True])
def test_letterbox_keeps_the_shape_and_pads_with_paper(invert):
    tall = np.zeros((4, 2), np.uint8)  # all ink
    out = Preprocess((8, 8), fit="letterbox", invert=invert)(tall)[..., 0]
    ink, paper = (255, 0) if invert else (0, 255)
    assert (out[:, 2:6] == ink).all()
    assert (out[:, :2] == paper).all()
    assert (out[:, 6:] == paper).all()


def test_letterbox_of_an_extreme_shape_keeps_one_pixel():
    out = Preprocess((8, 8), fit="letterbox")(np.zeros((1, 1000), np.uint8))
    assert (out == 0).sum() == 8


def drawn(shape, rows, columns, ink=0, paper=255):
    page = np.full(shape, paper, np.uint8)
    page[rows, columns] = ink
    return page


INK = Preprocess((24, 24), fit="ink")  # 24 - 2 * 24 / 12 = 20 pixels for the ink


@pytest.mark.parametrize("ink", [0, 160])
def test_ink_takes_only_what_is_drawn_wherever_it_is(ink):
    here = INK(drawn((60, 60), slice(5, 45), slice(3, 23), ink))
    there = INK(drawn((60, 90), slice(20, 60), slice(70, 90), ink))
    np.testing.assert_array_equal(here, there)
    np.testing.assert_array_equal(here[..., 0], drawn((24, 24), slice(2, 22), slice(7, 17), ink))


def test_ink_does_not_enlarge_what_is_small_without_end():
    """20 pixels for 20 of 60, a third; a box of 4 of 60 becomes 4 of 24, not 20."""
    dot = INK(drawn((60, 80), slice(10, 14), slice(10, 14)))
    np.testing.assert_array_equal(dot[..., 0], drawn((24, 24), slice(10, 14), slice(10, 14)))


def test_ink_knows_white_on_black_and_colours():
    light = INK(drawn((60, 60), slice(5, 45), slice(3, 23), ink=255, paper=0))
    assert light[0, 0, 0] == 0
    assert light[12, 12, 0] == 255
    page = np.full((60, 60, 3), (250, 240, 200), np.uint8)
    page[5:45, 3:23] = 0, 0, 200
    colour = Preprocess((24, 24), fit="ink", channels=3)(page)
    assert colour[0, 0].tolist() == [250, 240, 200]
    assert colour[12, 12].tolist() == [0, 0, 200]


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (24, 24), (1, 100_000)])
def test_ink_of_an_image_without_any_is_paper(shape):
    assert (INK(np.full(shape, 90, np.uint8)) == 90).all()


def test_ink_is_found_though_the_image_has_the_size_already():
    moved = INK(drawn((24, 24), slice(0, 20), slice(0, 20)))
    np.testing.assert_array_equal(moved[..., 0], drawn((24, 24), slice(2, 22), slice(2, 22)))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 20),
    st.integers(1, 20),
    st.sampled_from(["resize", "crop", "letterbox", "ink"]),
)
def test_any_shape_to_any_size(h, w, height, width, fit):
    flat = np.full((h, w), 77, np.uint8)
    out = Preprocess((height, width), fit=fit)(flat)
    assert out.shape == (height, width, 1)
    if fit != "letterbox":
        assert (out == 77).all()


# ------------------------------------------------------------------------------ settings and errors


def test_round_trip_through_json():
    one = Preprocess(size=(105, 80), fit="crop", channels=3, invert=True)
    assert Preprocess.from_dict(json.loads(json.dumps(one.to_dict()))) == one
    assert one.to_dict() == {"size": (105, 80), "fit": "crop", "channels": 3, "invert": True}
    with pytest.raises(ValueError, match=r"no scale; it has channels.*newer siamjax"):
        Preprocess.from_dict({"size": [1, 1], "scale": 2})
    with pytest.raises(ValueError, match="needs a size"):
        Preprocess.from_dict({"fit": "crop"})
    with pytest.raises(ValueError, match="size must be"):
        Preprocess.from_dict({"size": 3})
    with pytest.raises(ValueError, match="has more than 16,777,216 pixels"):
        Preprocess.from_dict({"size": [10**9, 10**9]})


@pytest.mark.parametrize(
    "keys",
    [
        {"size": (5,)},
        {"size": (5, 0)},
        {"size": (5.0, 5)},
        {"size": (5, 5), "fit": "stretch"},
        {"size": (5, 5), "channels": 2},
        {"size": 5},
        {"size": (5, 5), "invert": "no"},
    ],
)
def test_settings_are_checked(keys):
    with pytest.raises(ValueError, match=TEXT):
        Preprocess(**keys)


@pytest.mark.parametrize(
    ("image", "text"),
    [
        (np.zeros((1, 4, 4, 1), np.uint8), r"\[h, w, c\] with c 1, 3 or 4.*\[1, 4, 4, 1\]"),
        (np.zeros((3, 5, 5), np.uint8), r"channels last"),
        (np.zeros((4,), np.uint8), r"got \[4\]"),
        (np.zeros((0, 4), np.uint8), "empty"),
        (np.zeros((2, 2), np.int64), "got int64"),
        (np.full((2, 2), 200.0), r"0\.\.1; got 200\.\.200.*astype"),
        (np.full((2, 2), np.nan), r"got nan"),
        (np.full((2, 2), -0.1), r"got -0\.1"),
        ("photo.png", r"PIL\.Image\.open\(path\); got str"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_image_is_refused(image, text):
    with pytest.raises(ValueError, match=text):
        Preprocess((4, 4))(image)


def test_preprocess_of_reads_the_config():
    data = {"size": (3, 4), "fit": "crop", "channels": 3, "invert": True, "source": "folder"}
    config = ConfigDict({"data": data})
    assert preprocess_of(config) == Preprocess((3, 4), "crop", 3, True)

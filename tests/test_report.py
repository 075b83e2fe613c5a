"""The page: its structure, what it says and does not say, its charts, and how it looks."""

import html
import json
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from synthetic import labelled
from untrained import untrained_run

import siamjax
from siamjax import config as configuration
from siamjax import report
from siamjax.evaluation.decision import DecisionCard, fit
from siamjax.evaluation.embedding_map import pca
from siamjax.evaluation.encoder import Encoder
from siamjax.evaluation.one_shot import OneShotResult
from siamjax.evaluation.report_card import Evaluation, Settings
from siamjax.evaluation.subject import Subject
from siamjax.evaluation.validation import Validation
from siamjax.evaluation.verification import verify
from siamjax.models import HEADS, TOWERS, Siamese
from siamjax.report import chart, figures, markup, published, record
from siamjax.report.measured import NO_CLASSES, Measured, image_names, map_of, measure
from siamjax.training.writer import read_rows
from siamjax.types import PairTable

VOID = {"meta", "br", "img", "link"}
SECTIONS = (
    "trained", "data", "training", "one-shot", "pairs", "card", "errors", "map",
    "health", "timings", "use",
)  # fmt: skip
PAPERS = {line.paper[1] for line in published.LINES}
HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp\udcff\n\x07'.png"


class Page(HTMLParser):
    """What a page consists of; a tag that is not closed, or closed twice, is an error."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.elements, self.ids = [], [], []
        self.text, self._at = {}, None
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.ids += [value for key, value in attributes if key == "id"]
        if tag == "h2":
            self._at = dict(attributes)["id"]
        if tag == "header":
            self._at = "header"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert tag not in VOID
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text[self._at] = self.text.get(self._at, "") + data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def row(step, split, **figures):
    return {"step": step, "epoch": None, "split": split, "time": 2.0 * step, **figures}


def validated(step, share):
    return row(
        step, "validation", pair_accuracy=0.8, auc=0.9, best_accuracy=0.85, loss=0.5,
        one_shot_accuracy=share, one_shot_low=share - 0.05, one_shot_high=share + 0.05,
        one_shot_ties=0.0, protocol="within-alphabet 20-way 1-shot",
    )  # fmt: skip


def examined(step, *findings):
    return row(
        step, "doctor", relative_spread=0.25, similarity_spread=0.125, separation=3.5, active=1.0,
        loss_over_constant=0.75, saturated=0.0, dead_units=0.5, findings=list(findings),
    )  # fmt: skip


def trained(step, losses, **more):
    figures = {"loss": float(np.mean(losses)), "bce": float(np.mean(losses))}
    return row(step, "train", pairs_per_second=100.0 + step, losses=losses, **figures, **more)


ROWS = (
    trained(2, [0.7, 0.6]), validated(2, 0.3), trained(4, [0.5, 0.4]), validated(4, 0.5),
    trained(6, [0.35, 0.3]), validated(6, 0.4), trained(8, [0.29, 0.28]),
)  # fmt: skip


def a_run(folder, rows=ROWS, notes=(), name="omniglot", **changed):
    """The folder of a run without its network."""
    folder.mkdir(parents=True, exist_ok=True)
    config = configuration.base()
    config.update_from_flattened_dict(changed)
    (folder / "config.json").write_text(configuration.to_json(config))
    about = {
        "data": {"name": name, "summary": "8 classes", "notes": list(notes), "fingerprint": "f00d"},
        "preprocess": {"size": [12, 12]},
        "versions": {"jax": "0.10.2"},
    }
    (folder / "about.json").write_text(json.dumps(about))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return record.read(folder)


def measured(images=None, pairs=400, **more):
    """Two bell curves of scores, on synthetic images."""
    images = labelled() if images is None else images
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, len(images), (2, pairs))
    same = images.labels[left] == images.labels[right]
    scores = rng.normal(np.where(same, 1.5, -1.5), 1.3).astype(np.float32)
    card = fit(scores, same, "made up")
    names = image_names(images)
    found = verify(
        scores, same, card.similarity(scores), card, pairs="all pairs",
        names=[(names[a], names[b]) for a, b in zip(left, right, strict=True)],
        classes=(images.labels[left], images.labels[right], images.class_names),
    )  # fmt: skip
    return Measured(
        of="best checkpoint",
        data="made up, split validation",
        one_shot=(one_shot("random-class", 0.8), one_shot("within-alphabet", 0.6)),
        verification=found,
        images=report.measured.images_of_errors(found, images),
        map=map_of(rng.normal(size=(len(images), 5)), labels_of(images), images.images),
        **more,
    )


def labels_of(images):
    return [images.class_names[i] for i in images.labels]


def one_shot(protocol, share, ties=0.0):
    return OneShotResult(protocol, 20, 1, 400, share, (share - 0.04, share + 0.04), ties)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    run = a_run(tmp_path_factory.mktemp("full") / "run", **{"batch_size": 7})
    return report.page(replace(run, card=fitted()), [measured()])


def fitted():
    scores = np.linspace(-3, 3, 60, dtype=np.float32)
    return fit(scores, (np.arange(60) * 7) % 10 < np.arange(60) / 6, "sixty pairs")


# -------------------------------------------------------------------------------- structure


def test_the_page_is_whole(full):
    page = Page(full)
    assert full.startswith('<!DOCTYPE html>\n<html lang="en">')
    assert len(page.ids) == len(set(page.ids))
    assert [i for i in page.ids if i in SECTIONS] == list(SECTIONS)
    for section in SECTIONS:
        assert len(page.text[section]) > 40, section
    metas = page.all("meta")
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in metas
    targets = [a["href"][1:] for a in page.all("a") if a["href"].startswith("#")]
    assert targets == list(SECTIONS)
    charts = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(charts) == 9  # loss, validation, ROC, DET, PR, reliability, histogram, map, speed
    for svg in charts:
        assert set(svg["aria-labelledby"].split()) <= set(page.ids)
    for section in page.all("section"):
        assert section["aria-labelledby"] in page.ids
    scrolling = [d for d in page.all("div") if d.get("class") == "scroll"]
    assert len(page.all("table")) == len(scrolling)


def test_nothing_comes_from_elsewhere_and_nothing_runs(full):
    page = Page(full)
    names = {name for name, _ in page.elements}
    assert not names & {"script", "link", "iframe", "object", "form", "base"}
    for _, attributes in page.elements:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href", "srcset", "poster", "data"):
            value = attributes.get(key, "#")
            assert value.startswith(("#", "data:image/png;base64,")) or value in PAPERS
    policy = next(m["content"] for m in page.all("meta") if "http-equiv" in m)
    assert policy.startswith("default-src 'none';")
    assert "url(" not in full
    assert "@import" not in full


def test_names_are_hostile_input(tmp_path):
    images = labelled()
    n = len(images)
    images = replace(
        images,
        class_names=tuple(f"{i}{HOSTILE}" for i in range(8)),
        paths=tuple(f"{i}{HOSTILE}" for i in range(n)),
    )
    run = a_run(tmp_path / "a '\"<b>&run", notes=[HOSTILE], name=HOSTILE)
    run = replace(run, card=DecisionCard(source=HOSTILE))
    e = measured(images, notes=(HOSTILE,), absent={"one-shot": HOSTILE})
    out = report.page(run, [replace(e, of=HOSTILE, data=HOSTILE)], missing=HOSTILE)
    assert out.encode()  # no lone surrogate
    assert not markup.UNPRINTABLE.search(out)
    page = Page(out)
    assert "script" not in {name for name, _ in page.elements}
    assert all(set(image) == {"src", "alt", "width", "height"} for image in page.all("img"))
    seen = (
        HOSTILE.replace("\u202e", "\\u202e").replace("\udcff", "\\udcff").replace("\x07", "\\x07")
    )
    assert seen in page.text["header"]
    assert any(span.get("title", "").endswith(seen) for span in page.all("span"))
    assert "a '\"'\"'\"<b>&run" in page.text["use"]  # as a shell reads it


def test_text_shows_what_it_is():
    assert markup.text("<&>\"'") == "&lt;&amp;&gt;&quot;&#x27;"
    assert markup.tag("a", markup.Markup("<b>"), ["1", None, ["<"]], class_="x", hidden=None) == (
        '<a class="x"><b>1&lt;</a>'
    )
    assert markup.tag("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'


# ----------------------------------------------------------------------------- what it says


def test_the_headline_is_the_strictest_protocol(tmp_path):
    run = a_run(tmp_path)
    top = Page(report.page(run, [measured()])).text["header"]
    assert "60.0 % 95 % interval 56.0 to 64.0" in top
    assert "within-alphabet 20-way 1-shot, 400 trials" in top
    assert "made up, split validation" in top
    lake = replace(
        measured(), one_shot=(one_shot("within-alphabet", 0.6), one_shot("lake-20runs", 0.1))
    )
    assert "10.0 %" in Page(report.page(run, [lake])).text["header"]


def test_without_a_measurement_the_headline_is_the_chosen_validation(tmp_path):
    top = Page(report.page(a_run(tmp_path), [measured(final=False)])).text["header"]
    assert "50.0 % 95 % interval 45.0 to 55.0" in top
    assert "320 trials" in top
    assert "validation at step 4, the best of 3 on the same images by one_shot_accuracy" in top
    assert "expect a little less on others" in top


def test_pairs_alone_have_a_headline_too(tmp_path):
    run = a_run(tmp_path, rows=[ROWS[0]])
    e = replace(measured(), one_shot=())
    d = e.verification.at["calibrated"]
    top = Page(report.page(run, [e])).text["header"]
    assert f"{100 * d.accuracy:.2f} %" in top
    assert "of 400 pairs decided right at the calibrated threshold" in top
    commoner = max(e.verification.same, e.verification.different) / 400
    assert f"the commoner answer would be right for {100 * commoner:.2f} %" in top
    few = {k: v for k, v in validated(4, 0.5).items() if "one_shot" not in k and k != "protocol"}
    rows, changed = [few], {"checkpoint.metric": "auc"}
    text = Page(report.page(a_run(tmp_path, rows=rows, **changed))).text["header"]
    assert "80.00 %" in text
    assert "validation pairs decided right at similarity 0.5" in text


def test_the_best_validation_is_by_the_runs_own_metric(tmp_path):
    rows = [validated(2, 0.3) | {"loss": 0.4}, validated(4, 0.5), validated(6, 0.4)]
    changed = {"checkpoint.metric": "loss", "checkpoint.mode": "min"}
    assert a_run(tmp_path, rows=rows, **changed).best["step"] == 2
    assert a_run(tmp_path, rows=rows).best["step"] == 4


def test_notes_stand_above_the_figure(tmp_path):
    notes = ["NOT OMNIGLOT: glyphs is used INSTEAD", *"abcd", "the sixth"]
    run = a_run(tmp_path, notes=notes, name="glyphs")
    page = Page(report.page(run, [measured(notes=("a", "measured on a Monday"))]))
    top = page.text["header"]
    assert 0 < top.index("INSTEAD") < top.index("60.0 %")
    assert "INSTEADabc3 more under Data" in top
    assert "the sixth" in page.text["data"]
    assert "measured on a Monday" in page.text["data"]
    assert "f00d" in page.text["data"]


def test_published_lines_stand_beside_omniglot_only(tmp_path):
    text = Page(report.page(a_run(tmp_path), [measured()])).text["one-shot"]
    for figure in ("96.7 %", "95.5 %", "92.0 %", "86.5 %", "86.3 %"):
        assert figure in text
    assert "The protocols differ." in text
    assert "No line of this run is by lake-20runs or koch-within, so none of the published" in text
    koch = replace(measured(), one_shot=(one_shot("koch-within", 0.5),))
    text = Page(report.page(a_run(tmp_path), [koch])).text["one-shot"]
    assert "by lake-20runs, so no published line of that name" in text
    text = Page(report.page(a_run(tmp_path, name="glyphs"), [measured()])).text["one-shot"]
    assert "96.7 %" not in text
    assert "this run's data are glyphs" in text


def test_ties_are_warned_of(tmp_path):
    run = a_run(tmp_path)
    e = replace(measured(), one_shot=(one_shot("random-class", 0.05, ties=0.02),))
    assert "have collapsed" in report.page(run, [e])
    assert "have collapsed" not in report.page(run, [measured()])


def test_data_without_classes_say_so(tmp_path):
    e = replace(measured(), one_shot=(), absent={"one-shot": NO_CLASSES})
    e = replace(e, verification=replace(e.verification, confused=[]))
    page = Page(report.page(a_run(tmp_path, rows=[], name="pair_table"), [e]))
    assert "state pairs, not classes" in page.text["one-shot"]
    assert "state pairs, not classes" in page.text["errors"]
    assert "96.7" not in page.text["one-shot"]


def test_a_folder_alone_makes_a_page(tmp_path):
    page = Page(report.page(a_run(tmp_path), missing="the data are gone."))
    for section in ("pairs", "errors", "map"):
        assert "the data are gone." in page.text[section]
        assert "experiments.report" in page.text[section]
    assert "the data are gone." in page.text["header"]
    assert "not fitted: the run was not validated yet" in page.text["card"]
    assert "no checkpoint yet" in page.text["trained"]


def test_a_young_run_says_how_far_it_is(tmp_path):
    page = Page(report.page(a_run(tmp_path, rows=[ROWS[0]])))
    assert "Not validated yet: the log ends at step 2" in page.text["training"]
    assert "training loss" in page.text["training"]
    assert "Nothing was validated or measured yet" in page.text["header"]
    page = Page(report.page(a_run(tmp_path, rows=[])))
    assert "no lines yet" in page.text["training"]
    assert "Nothing was timed yet" in page.text["timings"]


def test_what_ails_the_net_stands_at_the_top_while_it_does(tmp_path):
    rows = [examined(0), examined(200, "it is blind"), examined(300, "it is blind", "it is slow")]
    page = Page(report.page(a_run(tmp_path / "ill", rows=rows, notes="abcdef")))
    assert "it is blindit is slowabcd2 more under Data" in page.text["header"]
    assert "Step 200: it is blindStep 300: it is slow" in page.text["health"]
    assert "3000.250.1253.50.75100.0 %0.0 %50.0 %" in page.text["health"]
    page = Page(report.page(a_run(tmp_path / "cured", rows=[*rows, examined(400)])))
    assert "blind" not in page.text["header"]
    assert "Step 200: it is blind" in page.text["health"]


def test_a_look_at_a_net_that_overflows_is_a_row_too(tmp_path):
    ill = examined(100) | dict.fromkeys(("relative_spread", "loss_over_constant", "active"))
    text = Page(report.page(a_run(tmp_path, rows=[ill]))).text["health"]
    assert "100-0.1253.5--0.0 %50.0 %" in text


def test_the_doctor_s_looks_are_thinned_and_keep_their_ends(tmp_path):
    rows = [examined(step) for step in range(1000, 1100)]
    text = Page(report.page(a_run(tmp_path, rows=rows))).text["health"]
    assert "Nothing was wrong at any of 100 looks." in text
    assert text.count("0.75") == 12
    assert "1,000" in text
    assert "1,099" in text
    text = Page(report.page(a_run(tmp_path / "off", rows=[], **{"train.doctor": False}))).text
    assert "it was not asked to" in text["health"]


def test_settings_show_what_differs_first(tmp_path):
    run = a_run(tmp_path, **{"batch_size": 7, "optimizer.frozen": ("tower",)})
    differences, everything = report.run_sections.compared(run.config)
    cells = [[html.unescape(cell)[6:-7] for cell in line] for line in differences]
    assert sorted(cells) == [["batch_size", "7", "32"], ["optimizer.frozen", "('tower',)", "()"]]
    assert len(everything) > 60
    text = Page(report.page(run)).text["trained"]
    assert f"Settings: 2 of {len(everything)} differ" in text
    assert text.index("optimizer.frozen") < text.index("augment.elastic")


def test_the_command_to_repeat_reads_the_runs_own_config(tmp_path):
    run = a_run(tmp_path / "it's mine", **{"batch_size": 7})
    line = report.run_sections.repeat_command(run)
    import shlex

    python, flag, code = shlex.split(line)
    assert (python, flag) == ("python", "-c")
    called = []
    code = code.replace("from siamjax import config, run; ", "")
    fake = type("run", (), {"train": lambda *arguments: called.append(arguments)})
    exec(code, {"config": configuration, "run": fake})
    assert called[0][0].batch_size == 7
    assert called[0][1] == str(tmp_path / "it's mine-again")


def test_the_card_is_a_table(full):
    text = Page(full).text["card"]
    card = fitted()
    for name, value in card.thresholds.items():
        assert f"{name}{value:.4f}{100 * card.false_accepts[name]:.2f} %" in text
    assert "Not on the card: far_1, far_0.1" in text
    assert "fitted on sixty pairs" in text


def test_timings_add_up(full):
    text = Page(full).text["timings"]
    assert "16 s (16.0 s)" in text
    assert "median 105.0 pairs/s, from 102.0 to 108.0" in text


# ----------------------------------------------------------------------------------- charts


def test_axes_put_values_where_they_belong():
    axis = chart.linear("x", 0, 50)
    assert axis.place(np.array([0, 25, 60])).tolist() == [0, 0.5, 1]
    log = chart.logarithmic("y", 0.01, 100)
    np.testing.assert_allclose(log.place(np.array([0.01, 1, 10])), [0, 0.5, 0.75])
    assert [t for _, t in log.ticks] == ["0.01", "0.1", "1", "10", "100"]
    det = chart.deviate("z", 0.02, 0.98)
    np.testing.assert_allclose(det.place(0.5), 0.5)
    np.testing.assert_allclose(det.place(0.1), 1 - det.place(0.9))
    assert [t for _, t in chart.linear("step", 0, 2, whole=True).ticks] == ["0", "1", "2"]
    assert chart.linear("constant", 3, 3).place(3.0) == 0.5


def test_a_line_is_where_its_points_are():
    drawn = chart.Chart("n", "T", "D", chart.linear("x", 0, 10), chart.linear("y", 0, 1))
    drawn.line(np.array([0.0, 10]), np.array([0.0, 1]), "up")
    drawn.mark(5, "A", "middle", 0)
    svg = drawn.figure("caption")
    left, right = chart.LEFT, chart.WIDTH - chart.RIGHT
    top, bottom = chart.TOP, chart.HEIGHT - chart.BOTTOM
    assert f'd="M{left}.0 {bottom}.0L{right}.0 {top}.0" class="line c1"' in svg
    assert f'd="M{(left + right) / 2:.1f} {top}V{bottom}" class="rule"' in svg
    assert '<title id="n-title">T</title><desc id="n-description">D</desc>' in svg


def test_a_single_point_is_seen():
    drawn = chart.Chart("n", "T", "D", chart.linear("x", 0, 1), chart.linear("y", 0, 20_000))
    drawn.line(np.array([0.5]), np.array([10_000.0]), None)
    svg = drawn.figure()
    assert 'h0" class="dot c1"' in svg
    assert ">20k<" in svg


def test_a_perfect_run_has_no_det_and_says_so():
    v = measured().verification
    scores = np.where(np.arange(40) < 20, 1.0, -1.0).astype(np.float32)
    perfect = verify(scores, scores > 0, None, None, pairs="", names=[("", "")] * 40)
    assert "no threshold makes errors of both kinds" in figures.det_chart(perfect, "n")
    assert "no threshold makes errors" not in figures.det_chart(v, "n")
    assert figures.reliability_chart(perfect, "n") is None
    assert figures.histogram_chart(perfect, "n") is None


def test_a_long_line_is_thinned_and_keeps_its_ends():
    drawn = chart.Chart("n", "T", "D", chart.linear("x", 0, 1), chart.linear("y", 0, 1))
    x = np.linspace(0, 1, 20_000)
    px, py = drawn._thin(*drawn._at(x, 1 - (1 - x) ** 2))
    assert 300 < len(px) < 1000
    assert (px[0], px[-1]) == (chart.LEFT, chart.WIDTH - chart.RIGHT)
    assert py[-1] == chart.TOP
    still = drawn._at(np.array([0.5, 0.5 + 1e-6, 0.5 + 2e-6]), np.zeros(3))
    assert drawn._thin(*still)[0].tolist() == still[0][[0, 2]].tolist()
    assert len(drawn._thin(np.zeros(0), np.zeros(0))[0]) == 0


def test_every_step_of_the_log_is_drawn():
    steps, losses = figures.every_loss([trained(3, [3.0, 2.0, 1.0]), row(5, "train", loss=0.5)])
    assert steps.tolist() == [1, 2, 3, 5]
    assert losses.tolist() == [3, 2, 1, 0.5]
    holes = figures.every_loss([row(3, "train", loss=None, losses=[1.0, None, 2.0])])
    assert holes[0].tolist() == [1, 3]
    at, low, mean, high = figures.pieces(np.arange(1000.0), np.arange(1000.0) % 2, most=10)
    assert len(at) == 10
    assert (low.min(), mean[0], high.max()) == (0, 0.5, 1)


def test_a_wild_loss_gets_a_logarithmic_axis():
    assert "logarithmic" in figures.loss_chart([trained(2, [100.0, 1.0])], [])
    calm = figures.loss_chart([trained(2, [2.0, 1.0])], [])
    assert "logarithmic" not in calm
    assert "ln 2 = 0.693" in calm


def test_the_histogram_marks_every_threshold():
    v = measured().verification
    text = figures.histogram_chart(v, "h")
    for letter, (name, d) in zip("ABCDE", v.at.items(), strict=False):
        assert f"<b>{letter}</b> {name} {d.threshold:.3f}" in text


# ---------------------------------------------------------------------------- measurements


@pytest.fixture(scope="module")
def encoder():
    model = Siamese(tower=TOWERS["mlp"](features=(8, 8)), head=HEADS["cosine"]())
    image = jnp.zeros((1, 12, 12, 1))
    card = DecisionCard((8.0, 2.0), {"calibrated": 0.5, "eer": 0.4}, source="fitted on nothing")
    return Encoder(model, model.init(jax.random.key(0), image, image), card)


def evaluation(encoder, pairs=None, **more):
    subject = Subject(labelled(**more), pairs, "made up", "split all", "")
    settings = Settings(way=3, trials=12, pairs=60)
    return Evaluation(encoder, lambda: subject, None, encoder.card, settings)


def test_measure_runs_what_fits_the_data(encoder):
    found = measure(evaluation(encoder), "weights")
    assert [r.protocol for r in found.one_shot] == ["within-alphabet", "random-class"]
    assert not found.absent
    wrong = found.verification.false_accepts + found.verification.false_rejects
    assert set(found.images) <= {name for e in wrong for name in (e.left, e.right)}
    assert found.images
    assert [r.protocol for r in measure(evaluation(encoder, groups=1), "").one_shot] == [
        "random-class"
    ]
    few = measure(evaluation(encoder, classes=2, groups=1), "")
    assert list(few.absent) == ["random-class"]
    assert measure(evaluation(encoder), "", trials=False).absent["one-shot"].endswith("trials=0)")


def test_measure_of_stated_pairs_draws_no_trials(encoder):
    table = PairTable(np.arange(24, dtype=np.int32), np.arange(24, dtype=np.int32) + 5,
                      np.arange(24) % 2 == 0)  # fmt: skip
    found = measure(evaluation(encoder, table), "")
    assert found.absent == {"one-shot": NO_CLASSES}
    assert found.verification.same == 12
    assert set(found.map.labels) == {""}
    assert found.map.thumbnails


def test_a_validation_is_reported_without_embedding_anything(encoder, tmp_path, monkeypatch):
    images = labelled()
    rng = np.random.default_rng(1)
    left, right = rng.integers(0, 48, (2, 60)).astype(np.int32)
    pairs = PairTable(left, right, images.labels[left] == images.labels[right])
    validation = Validation(images, None, pairs, None)
    card = encoder.card
    done = validation(encoder)
    encoder.card = card
    monkeypatch.setattr(encoder, "embed", None)
    found = report.of_validation(validation, done, of="step 3", data="made up")
    assert found.verification.auc == pytest.approx(done.figures["auc"], abs=1e-3)
    assert not found.final
    text = Page(report.page(a_run(tmp_path), [found])).text
    assert "step 3" in text["pairs"]
    assert "this validation has no one-shot trials" in text["one-shot"]
    assert "Confused classes are not listed" in text["errors"]
    done = done._replace(one_shot=one_shot("within-alphabet", 0.5))
    found = report.of_validation(validation, done, of="step 3", data="made up")
    assert found.verification.false_accepts
    text = Page(report.page(a_run(tmp_path / "trials"), [found])).text["errors"]
    assert "Classes most often taken for each other" in text


def test_the_map_keeps_distances_in_fewer_dimensions():
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(30, 200)) * np.r_[9, 5, np.ones(198)]
    found = map_of(wide, ["a", "b"] * 15, np.zeros((30, 4, 4, 1), np.uint8))
    at, shares = pca(wide)
    np.testing.assert_allclose(np.abs(found.at), np.abs(at), atol=1e-8)
    np.testing.assert_allclose(found.shares, shares)
    assert not found.thumbnails
    many = map_of(
        rng.normal(size=(1500, 3)), [str(i) for i in range(1500)], np.zeros((1500, 4, 4, 1))
    )
    assert (len(many.at), many.total) == (1000, 1500)
    assert 20 < len(many.thumbnails) <= 60
    assert map_of(wide[:1], ["a"], np.zeros((1, 4, 4, 1))) is None
    assert figures.map_chart(
        map_of(np.ones((9, 3)), [""] * 9, np.zeros((9, 4, 4, 1), np.uint8)), "n"
    )


# ------------------------------------------------------------------------------------ files


def test_the_page_is_written_beside_the_run(tmp_path):
    untrained_run(tmp_path / "run")
    comparator = siamjax.load(tmp_path / "run")
    comparator.encoder.card = fitted()
    out = report.write_report(tmp_path / "run", comparator)
    assert out == tmp_path / "run" / "report.html"
    page = Page(out.read_text(encoding="utf-8"))
    assert "fitted on sixty pairs" in page.text["card"]
    assert "best, step 0" in page.text["trained"]
    assert "mlp tower, euclidean head, on nothing" in page.text["header"]
    other = report.write_report(tmp_path / "run", out=tmp_path / "deep" / "other.html")
    assert "fitted on sixty pairs" not in other.read_text(encoding="utf-8")
    assert list((tmp_path / "deep").iterdir()) == [other]


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"holds neither config\.json nor a checkpoint"):
        report.write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_metrics_are_read_while_they_are_written(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + '{"step": 4, "spl')
    assert [r["step"] for r in read_rows(path)] == [2]
    assert path.read_text().endswith('"spl')
    path.write_text("[1]\n{}\n")
    with pytest.raises(ValueError, match="line 1: not a row of metrics"):
        read_rows(path)


def test_the_largest_page_is_small_enough(tmp_path):
    rng = np.random.default_rng(0)
    images = labelled(classes=30, each=10, size=(96, 96), channels=3)
    images = replace(images, images=rng.integers(0, 256, images.images.shape, np.uint8))
    losses = rng.random((1000, 100)).round(4).tolist()
    rows = [trained(100 * (i + 1), each) for i, each in enumerate(losses)]
    rows += [validated(100 * (i + 1), 0.5) for i in range(1000)]
    run = a_run(tmp_path, rows=rows)
    found = measured(images, pairs=4000)
    assert len(found.images) > 40
    assert len(report.page(run, [found]).encode()) < 3e6


# ------------------------------------------------------------------------------- in a browser

MEASURE = """
<body><script>
const page = PAGE, found = [];
for (const width of [375, 1280]) {
  const frame = document.createElement("iframe");
  frame.style.width = width + "px"; frame.style.height = "900px"; frame.style.border = 0;
  frame.onload = () => {
    const root = frame.contentDocument.documentElement;
    const small = [...root.querySelectorAll("figure > svg")].map(
      s => 12.5 * s.getBoundingClientRect().width / 400);
    const bare = [...root.querySelectorAll("img, image")].filter(
      i => i.tagName == "IMG" && !i.naturalWidth);
    found.push({width, scroll: root.scrollWidth, client: root.clientWidth,
      least: Math.min(...small), charts: small.length, broken: bare.length,
      ran: Boolean(window.ran || frame.contentWindow.ran)});
    if (found.length == 2) document.title = JSON.stringify(found);
  };
  frame.srcdoc = page;
  document.body.append(frame);
}
</script></body>
"""


@pytest.mark.browser
def test_a_browser_shows_it_on_a_phone_and_on_a_desk(tmp_path):
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    browser = next(filter(None, map(shutil.which, names)), None)
    if browser is None:
        pytest.skip(f"no browser here: this test needs one of {', '.join(names)} on the PATH")
    images = labelled()
    attack = "<img src=x onerror=window.ran=1><script>window.ran=1</script>" + "w" * 200
    images = replace(images, paths=tuple(f"{i}{attack}" for i in range(len(images))))
    run = a_run(
        tmp_path / "run", notes=[attack], **{"optimizer.frozen": tuple("x" * 99 for _ in "abc")}
    )
    page = report.page(replace(run, card=fitted()), [measured(images)])
    page = page.replace("<details>", "<details open>")
    code = json.dumps(page).replace("</", "<\\/").replace("<!--", "<\\!--")
    (tmp_path / "measure.html").write_text(MEASURE.replace("PAGE", code), encoding="utf-8")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr",
         "--virtual-time-budget=5000", "--dump-dom", (tmp_path / "measure.html").as_uri()],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    found = sorted(json.loads(html.unescape(title)), key=lambda f: f["width"])
    assert [f["width"] for f in found] == [375, 1280]
    for f in found:
        assert f["scroll"] == f["client"] <= f["width"]
        assert (f["charts"], f["broken"], f["ran"]) == (9, 0, False)
        assert f["least"] > 9.5  # pixels of the smallest letters on a chart
    assert "CONSOLE" not in done.stderr

"""Models side by side in real child processes: who fails is out, and the rest of the table is there."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

import qm
from qm import clock
from qm.contest import Contest
from qm.course import matched_inputs
from qm.errors import PluginError, UsageError
from qm.meet import short_names
from qm.types import TensorSpec

RIVAL = Path(__file__).parent / "rival"


@pytest.fixture(scope="module", autouse=True)
def _hurry():
    """One round and few blocks: what is tested here is not how well things are timed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "LEAST_ROUNDS", 1)
        patch.setattr(clock, "LEAST_TIMING_S", 0.0)
        yield


@pytest.fixture(scope="module")
def rival(tmp_path_factory):
    """Writes a model that does what it is told, for a plugin installed for these tests alone."""
    site = tmp_path_factory.mktemp("site")
    info = site / "rival-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: rival\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qm.v1]\nrival = qm_rival\n")

    def rival(name="good", **told):
        path = tmp_path_factory.mktemp("model") / f"{name}.rival"
        path.write_text(json.dumps(told))
        return path

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(RIVAL))
        patch.syspath_prepend(str(site))
        yield rival


@pytest.fixture(scope="module")
def labelled(tmp_path_factory):
    """40 samples for a rival, with the labels that it gives without error."""
    rng = np.random.default_rng(1)
    weight = np.random.default_rng(0).normal(size=(16, 10))
    x = rng.normal(size=(40, 16)).astype(np.float32)
    path = tmp_path_factory.mktemp("data") / "labelled.npz"
    np.savez(path, x=x, y=(x @ weight).argmax(axis=1))
    return path


@pytest.fixture(scope="module")
def pair(rival, labelled):
    """A model and one that errs, compared."""
    return compare(rival("good"), rival("off", error=0.5), data=labelled)


@pytest.fixture
def few(labelled):
    """Five of the samples: a process that judges runs a model so many times, one that times it more often."""
    with np.load(labelled) as arrays:
        return arrays["x"][:5], arrays["y"][:5]


def compare(*models, **words):
    return qm.compare(models, **{"time_s": 0.1, **words})


def entry(contest, name):
    (found,) = [e for e in contest.entries if e.name == name]
    return found


def test_each_model_has_its_size_latency_speed_accuracy_and_place(pair):
    first, second = pair.entries
    assert (first.name, pair.first, pair.timed_against) == ("good.rival", "good.rival", "good.rival")
    assert first.file.nbytes == 2 and first.gzip_nbytes > 2
    assert first.speed is None and second.speed.low <= second.speed.ratio <= second.speed.high
    assert first.latency.latency_us > 0 and second.latency == second.speed.after
    assert first.accuracy.share == 1.0 and second.accuracy.share < 1.0
    assert second.quality.accuracy.lost == round(40 * (1 - second.accuracy.share))
    assert pair.front_over == ("size", "speed", "accuracy")
    assert first.on_front is True
    assert pair.exit_code == 0


def test_the_noise_floor_is_measured_once_for_all(rival):
    contest = compare(rival("a"), rival("b"), rival("c"))
    assert {e.speed.noise_floor for e in contest.entries[1:]} == {contest.noise_floor}


def test_every_sample_has_its_outcome(pair, labelled):
    outcomes = pair.entries[1].quality.outcomes
    with np.load(labelled) as arrays:
        assert outcomes.label == tuple(arrays["y"])
    assert outcomes.index == tuple(range(40))
    assert outcomes.before == outcomes.label
    right = [a == b for a, b in zip(outcomes.after, outcomes.label, strict=True)]
    assert np.mean(right) == pair.entries[1].accuracy.share
    assert len(outcomes.sqnr_db) == len(outcomes.loss_after) == 40
    assert outcomes.worst_by_sqnr(1) == [int(np.argmin(outcomes.sqnr_db))]


def test_the_json_reads_back(pair):
    text = pair.json_text()
    assert Contest.model_validate(json.loads(text)) == pair
    assert any(line.strip().startswith('"label": [') and line.rstrip().endswith("],") for line in text.splitlines())


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        ("abort", "'bad.rival' died of SIGABRT"),
        ("kill", "was killed, probably by the system for lack of memory"),
        ("raise", "RuntimeError: no such kernel"),
        ("hang", "gave no answer within 1 s and was stopped"),
    ],
)
def test_a_runtime_that_fails_while_judged_is_out_and_the_others_go_on(rival, labelled, deed, words):
    timeout = 1.0 if deed == "hang" else 60.0
    bad = rival("bad", do=deed, after=3)
    contest = compare(rival("good"), bad, rival("off", error=0.5), data=labelled, timeout_s=timeout)
    failed = entry(contest, "bad.rival")
    assert words in failed.failed.message
    assert failed.quality is None and failed.on_front is None and failed.file is not None
    assert entry(contest, "off.rival").speed is not None and entry(contest, "off.rival").accuracy is not None
    assert contest.exit_code == 4


def test_a_runtime_that_fails_while_timed_keeps_what_is_known_of_it(rival, few):
    contest = compare(rival("good"), rival("bad", do="abort", after=5), rival("off", error=0.5), data=few)
    failed = entry(contest, "bad.rival")
    assert "died of SIGABRT" in failed.failed.message
    assert failed.accuracy.share == 1.0 and failed.speed is None
    assert entry(contest, "off.rival").speed is not None


def test_where_the_first_fails_the_next_takes_its_place(rival, labelled):
    contest = compare(rival("bad", do="raise", after=5), rival("good"), rival("off", error=0.5), data=labelled)
    assert (contest.first, contest.timed_against) == ("good.rival", "good.rival")
    assert entry(contest, "off.rival").quality.n == 40
    assert contest.exit_code == 4


def test_where_the_first_fails_while_timed_the_speeds_are_against_the_next(rival, few):
    contest = compare(rival("bad", do="raise", after=5), rival("good"), rival("off", error=0.5), data=few)
    assert (contest.first, contest.timed_against) == ("bad.rival", "good.rival")
    assert entry(contest, "off.rival").speed is not None


def test_where_all_others_fail_the_first_is_timed_alone(rival, labelled):
    contest = compare(rival("good"), rival("bad", do="raise"), data=labelled)
    assert entry(contest, "good.rival").latency is not None


def test_where_every_model_fails_the_first_failure_is_raised(rival, labelled):
    with pytest.raises(PluginError, match=r"'bad\.rival' died of SIGABRT"):
        compare(rival("bad", do="abort"), rival("worse", do="raise"), data=labelled)


def test_a_file_that_is_no_model_is_a_row_that_says_so(net, tmp_path, data):
    (tmp_path / "broken.toy").write_bytes(b"not a model")
    contest = compare(net, tmp_path / "broken.toy", data=data)
    assert contest.entries[1].failed.exit_code == 2
    assert contest.entries[0].latency is not None


def test_a_file_that_is_not_there_is_told_before_anything_is_run(net):
    with pytest.raises(UsageError, match=r"model 'nowhere\.toy' does not exist"):
        compare(net, "nowhere.toy")


def test_data_that_are_not_there_are_told(net):
    with pytest.raises(UsageError, match=r"data set 'nowhere\.npz' does not exist"):
        compare(net, net, data="nowhere.npz")


def test_one_path_instead_of_a_list_is_told(net):
    with pytest.raises(UsageError, match="not a list of paths"):
        qm.compare(str(net))


def test_frameworks_can_be_mixed(net, rival, data):
    contest = compare(net, rival("good"), data=data)
    assert [e.file.format for e in contest.entries] == ["toy", "rival"]
    assert contest.entries[1].quality.agreement is not None


def test_a_single_model_is_measured_without_a_rival(net, data):
    (only,) = compare(net, data=data).entries
    assert only.latency is not None and only.speed is None and only.accuracy.share == 1.0


def test_a_model_against_itself_has_two_rows(net, data):
    contest = compare(net, net, data=data)
    assert [e.name for e in contest.entries] == ["net.toy", "net.toy (2)"]
    assert contest.entries[1].quality.sqnr_db is None
    assert [e.on_front for e in contest.entries] == [True, True]


def test_inputs_of_other_names_are_matched_by_position_and_it_is_said(rival, labelled):
    contest = compare(rival("good"), rival("other", inputs={"image": [None, 16]}), data=labelled)
    assert contest.entries[1].notes == ("inputs matched by position: 'image' for 'x'",)
    assert contest.entries[1].accuracy.share == 1.0


def test_several_inputs_of_other_names_are_matched_where_shapes_agree(rival, tmp_path):
    np.savez(tmp_path / "two.npz", a=np.ones((3, 16), np.float32), b=np.ones((3, 8), np.float32))
    one = rival("one", inputs={"a": [None, 16], "b": [None, 16]})
    other = rival("other", inputs={"p": [None, 16], "q": [None, 16]})
    contest = compare(one, other)
    assert contest.entries[1].notes == ("inputs matched by position: 'p' for 'a', 'q' for 'b'",)


def test_inputs_that_match_neither_way_are_one_sentence():
    def specs(**shapes):
        return [TensorSpec(name=name, shape=shape, dtype="float32") for name, shape in shapes.items()]

    with pytest.raises(UsageError, match="they match neither by name nor by position"):
        matched_inputs("one", specs(a=(None, 16), b=(None, 8)), "other", specs(p=(None, 8), q=(None, 16)))
    with pytest.raises(UsageError, match=r"'other' has the inputs p float32 \[\?, 8\], and 'one' has"):
        matched_inputs("one", specs(a=(None, 16), b=(None, 8)), "other", specs(p=(None, 8)))


def test_layouts_that_differ_are_one_sentence_and_the_rest_goes_on(rival, tmp_path):
    np.savez(tmp_path / "nchw.npz", x=np.ones((4, 3, 8, 8), np.float32))
    nchw, nhwc = rival("nchw", inputs={"x": [None, 3, 8, 8]}), rival("nhwc", inputs={"x": [None, 8, 8, 3]})
    contest = compare(nchw, nhwc, rival("again", inputs={"x": [None, 3, 8, 8]}), data=tmp_path / "nchw.npz")
    failed = contest.entries[1].failed
    assert "input 'x' expects float32 [?, 8, 8, 3]" in failed.message and "look like NCHW" in failed.hint
    assert contest.entries[2].speed is not None
    assert contest.exit_code == 2


def test_made_up_inputs_of_another_shape_are_one_sentence(rival):
    contest = compare(rival("one", inputs={"x": [None, 3, 8, 8]}), rival("two", inputs={"x": [None, 8, 8, 3]}))
    assert "'two.rival' wants x float32 [?, 8, 8, 3]" in contest.entries[1].failed.message


def test_images_are_laid_out_as_each_model_wants_them(rival, tmp_path):
    image = pytest.importorskip("PIL.Image")
    (tmp_path / "images").mkdir()
    for i in range(3):
        image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    nchw, nhwc = rival("nchw", inputs={"x": [None, 3, 8, 8]}), rival("nhwc", inputs={"x": [None, 8, 8, 3]})
    contest = compare(nchw, nhwc, data=tmp_path / "images")
    assert contest.entries[1].failed is None and contest.entries[1].quality.n == 3


def test_another_precision_of_the_input_is_cast_to(rival, labelled):
    contest = compare(rival("good"), rival("half", dtype="float16"), data=labelled)
    assert contest.entries[1].quality.sqnr_db > 40


def test_outputs_of_other_names_are_matched_by_position_and_it_is_said(rival, labelled):
    contest = compare(rival("good"), rival("other", outputs=["Identity"]), data=labelled)
    assert contest.entries[1].notes == ("outputs matched by position: 'Identity' for 'y'",)
    assert contest.entries[1].quality.sqnr_db is None


def test_outputs_are_matched_by_name_where_they_can_be(rival, labelled):
    contest = compare(rival("good", outputs=["a", "b"]), rival("more", outputs=["a", "b", "c"]), data=labelled)
    assert contest.entries[1].notes == ("outputs left out of the comparison: c",)
    assert contest.entries[1].quality.sqnr_db is None


def test_outputs_that_cannot_be_matched_are_one_sentence(rival, labelled):
    contest = compare(rival("good"), rival("other", outputs=["p", "q"]), data=labelled)
    assert "the outputs p, q cannot be matched with y" in contest.entries[1].failed.message


def test_without_labels_agreement_is_told_and_called_so(rival):
    x = np.random.default_rng(3).normal(size=(30, 16)).astype(np.float32)
    contest = compare(rival("good"), rival("off", error=0.5), data=x)
    assert contest.entries[1].accuracy is None
    assert 0 < contest.entries[1].quality.agreement.share < 1
    assert contest.front_over == ("size", "speed", "agreement")
    assert any("agreement with the first model is not accuracy" in note for note in contest.notes)


def test_one_sample_is_called_an_example(rival):
    contest = compare(rival("good"), rival("off", error=0.5), data=(np.ones((1, 16), np.float32), np.array([3])))
    assert contest.entries[1].quality.accuracy.answer == "cannot tell"
    assert any("one sample" in note for note in contest.notes)


def test_without_data_nothing_is_said_of_accuracy(net):
    contest = compare(net, net)
    assert contest.synthetic and contest.front_over == ("size", "speed")
    assert contest.entries[1].quality.accuracy is None


def test_samples_that_made_a_model_do_not_judge_it(net, data, tmp_path):
    report = qm.quantize(net, ["toy.round"], data=data, samples=30, to=tmp_path / "small.toy")
    contest = compare(net, tmp_path / "small.toy", data=data)
    assert contest.samples == 50
    assert not set(contest.entries[1].quality.outcomes.index) & set(report.data.calibrated)
    assert any("left out 30 samples" in note for note in contest.notes)


def test_the_verdict_is_against_the_margin_that_is_given(rival, labelled):
    contest = compare(rival("good"), rival("off", error=0.02), data=labelled, max_drop=0.5)
    assert contest.entries[1].quality.accuracy.answer == "not worse"
    assert contest.max_drop == contest.entries[1].quality.accuracy.margin == 0.5


def test_a_margin_that_is_no_share_is_an_error(net, data):
    with pytest.raises(UsageError, match="an allowed loss of 1 is not a share"):
        compare(net, net, data=data, max_drop=1)


def test_a_metric_of_the_users_own_is_compared_sample_by_sample(rival, labelled):
    def score(outputs, label):
        return float(outputs["y"][0, label])

    contest = compare(rival("good"), rival("off", error=0.5), data=labelled, metric=score, max_drop=100.0)
    change = contest.entries[1].metric
    outcomes = contest.entries[1].quality.outcomes
    assert change.difference == pytest.approx(
        np.mean(np.subtract(outcomes.metric_after, outcomes.metric_before)), rel=1e-4
    )
    assert change.low < change.difference < change.high
    assert change.answer == "not worse"
    assert contest.front_over == ("size", "speed", "metric")


def test_a_metric_sees_the_first_models_output_names(rival, labelled):
    def score(outputs, label):
        return float(outputs["y"].max())

    contest = compare(rival("good"), rival("other", outputs=["Identity"]), data=labelled, metric=score)
    assert contest.entries[1].metric.difference == 0


def test_a_metric_that_raises_names_the_sample(rival, labelled):
    def broken(outputs, label):
        raise KeyError("scores")

    with pytest.raises(UsageError, match=r"metric 'broken' raised KeyError on sample 0: 'scores'"):
        compare(rival("good"), data=labelled, metric=broken)


def test_a_metric_that_gives_nan_for_one_model_is_that_models_failure(rival, labelled):
    def odd(outputs, label):
        return math.nan if outputs["y"].shape[-1] == 4 else 1.0

    contest = compare(rival("good"), rival("four", classes=4), data=labelled, metric=odd)
    assert "metric 'odd' returned nan for sample 0" in contest.entries[1].failed.message


def test_what_is_being_done_is_told_between_measurements(net, data):
    told = []
    compare(net, net, data=data, watch=lambda meet, name, what: told.append((name, what)))
    assert told == [
        ("net.toy", "opening"),
        ("net.toy (2)", "opening"),
        ("net.toy", "judging"),
        ("net.toy", "timing it against itself"),
        ("net.toy (2)", "timing"),
    ]


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["a/x.onnx", "a/y.onnx"], ["x.onnx", "y.onnx"]),
        (["a/x.onnx", "b/x.onnx"], ["a/x.onnx", "b/x.onnx"]),
        (["x.onnx", "x.onnx"], ["x.onnx", "x.onnx (2)"]),
    ],
)
def test_names_are_as_long_as_it_takes_to_tell_them_apart(paths, names):
    assert short_names([Path(p) for p in paths]) == names


def test_onnx_models_are_compared_as_any_other(tmp_path):
    pytest.importorskip("onnxruntime")
    from importlib import resources

    for name in ("digits.onnx", "digits.npz"):
        (tmp_path / name).write_bytes(resources.files("qm.demo").joinpath(name).read_bytes())
    model = tmp_path / "digits.onnx"
    qm.quantize(model, ["onnx.dynamic"], to=tmp_path / "dynamic.onnx")
    qm.quantize(model, ["onnx.fp16"], to=tmp_path / "half.onnx")
    contest = compare(model, tmp_path / "dynamic.onnx", tmp_path / "half.onnx", data=tmp_path / "digits.npz")
    assert [e.failed for e in contest.entries] == [None, None, None]
    assert all(e.accuracy.share > 0.9 for e in contest.entries)

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from runs_made import FLOAT, INT8, bench_result, captioned_evaluation, labelled_evaluation, plain_evaluation, saved

from vlmquant.metrics.intervals import bootstrap_mean
from vlmquant.report.distributions import Sample, histogram, overlaid
from vlmquant.report.evaluation import evaluation_page
from vlmquant.report.evaluation_tables import comparison_table, drop_constant_columns, points
from vlmquant.report.formats import COLUMNS, to_csv, to_dict, to_markdown, write_report
from vlmquant.report.matrices import Matrix, difference, side_by_side
from vlmquant.report.page import Details, Gallery, Picture, Table, render_page
from vlmquant.report.scores import bits_figure, bits_matrix, differences_figure, group_scores, has_bit_sweep
from vlmquant.tasks.runs import Evidence


@pytest.fixture
def run(tmp_path):
    return saved(tmp_path / "run")


def with_model(run, name, bits, text_bits=None, recipe="", size=1_000_000):
    facts = replace(INT8, name=name, bits={"image": bits, "text": text_bits or bits}, recipe=recipe, bytes_on_disk=size)
    return replace(run, model=facts)


def flat(blocks):
    for block in blocks:
        yield block
        if isinstance(block, Details):
            yield from flat(block.blocks)


def words(page):
    return to_markdown(page)


def test_the_page_says_what_the_comparison_says(run):
    page = evaluation_page(Evidence((run,), ()))
    found = run.comparisons["zero-shot"][0]
    text = words(page)
    assert found.flips.losses == ("p/0.png",)
    assert points(found.difference.estimate) == "\u22128.33"
    assert "| zero-shot top-1 | 100.00 | 91.67 | \u22128.33 |" in text
    assert "dropped beyond the 0.5 points allowed: zero-shot top-1 by 8.33." in text
    assert "1 went from right to wrong, 0 from wrong to right and 0 to another wrong answer" in text
    assert "before: red; after: green" in text
    headings = [heading.text for heading in page.headings]
    assert headings[0] == "Scores"
    assert "How this was measured" in headings
    assert headings[-1] == "Not in this report"


def test_every_picture_has_words_and_the_page_no_script(run):
    page = evaluation_page(Evidence((run,), (bench_result(),)))
    pictures = [block for block in flat(page.blocks) if isinstance(block, Picture)]
    assert len(pictures) >= 6
    assert all(picture.alt for picture in pictures)
    html = render_page(page)
    assert "<script" not in html
    assert "https://" not in html


def test_what_is_missing_is_said_and_not_invented(run):
    page = evaluation_page(Evidence((run,), ()))
    text = words(page)
    assert "Latency of clip static-int8, W8A8 (openvino); clip, float (torch): no bench of it was named" in text
    assert "Scores against bits: no two of these runs" in text
    assert "Latency (ms): not measured." in text
    with_bench = words(evaluation_page(Evidence((run,), (bench_result(),))))
    assert "no bench of it was named" not in with_bench
    assert "| 3.00 |" in with_bench
    assert "| 12.00 |" in with_bench


def test_a_run_without_a_reference_has_scores_and_nothing_compared(tmp_path):
    run = saved(tmp_path / "run", labelled_evaluation(with_reference=False))
    text = words(evaluation_page(Evidence((run,), ())))
    assert "91.67 %" in text
    assert "McNemar p" not in text
    assert "it was not compared with a float model" in text
    assert "it needs two models of one protocol" in text
    assert not any(isinstance(block, Gallery) for block in evaluation_page(Evidence((run,), ())).blocks)


def test_fidelity_alone_makes_a_page(tmp_path):
    run = saved(tmp_path / "run", plain_evaluation())
    page = evaluation_page(Evidence((run,), ()))
    text = words(page)
    assert "cosine of each picture's two embeddings" in text
    assert "zero-shot on photos: there are no labels." in text
    assert "Scores" not in [heading.text for heading in page.headings]


def test_retrieval_shows_the_pictures_of_its_captions(tmp_path):
    run = saved(tmp_path / "run", captioned_evaluation(noise=50.0))
    text = words(evaluation_page(Evidence((run,), ())))
    assert "retrieval text to image R@1" in text
    assert "image to text R@10" in text
    assert "| retrieval text to image R@1 |" in text
    assert "- p/0.png#0: before: this picture; after: p/" in text


def test_no_flip_is_said_in_words(tmp_path):
    run = saved(tmp_path / "run", labelled_evaluation(noise=0.0))
    text = words(evaluation_page(Evidence((run,), ())))
    assert "zero-shot top-1: no answer changed on 12 samples." in text
    # 3.84 / (12 + 3.84), the score interval of no change in 12
    assert "| +0.00 | \u221224.25 to +24.25 | 1 | 0 | 0 | 0 |" in text


def test_the_float_model_that_runs_share_is_there_once(run):
    groups = group_scores([run, with_model(run, "clip w4", (4, 8), recipe="w4a8")])
    assert [scored.label for scored in groups[0].scores] == [
        "clip static-int8, W8A8 (openvino)",
        "clip, float (torch)",
        "clip w4, W4A8 (openvino)",
    ]


def test_unlike_protocols_are_never_in_one_chart(run, tmp_path):
    other = saved(tmp_path / "other", labelled_evaluation(count=9))
    groups = group_scores([run, other])
    assert [{scored.n for scored in group.scores} for group in groups] == [{12}, {9}]


def test_a_score_has_its_own_interval(run):
    scored = group_scores([run])[0].scores[0]
    values = run.results["zero-shot"].outcomes["top1"].values
    assert scored.score == bootstrap_mean(values, np.arange(12))


def test_scores_against_bits_are_a_line_per_method_ending_at_float(run):
    runs = [
        run,
        with_model(run, "v4", (4, 4), recipe="vanilla-w4a4"),
        with_model(run, "v2", (2, 2), recipe="vanilla-w2a2"),
    ]
    (group,) = group_scores(runs)
    assert has_bit_sweep(group)
    axes = bits_figure([group]).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["2", "4", "8", "float"]
    lines = {line.get_label(): line for line in axes.containers}
    assert lines["vanilla"].lines[0].get_xdata().tolist() == [0, 1, 3]
    assert lines["static-int8"].lines[0].get_xdata().tolist() == [2, 3]
    assert lines["vanilla"].lines[0].get_ydata()[-1] == pytest.approx(100)
    assert "n = 12" in axes.get_title(loc="left")


def test_one_bit_width_is_no_sweep(run):
    (group,) = group_scores([run])
    assert not has_bit_sweep(group)
    assert bits_matrix(group) is None


def test_bits_of_both_towers_make_a_heat_map(run):
    runs = [run, with_model(run, "image only", (8, 8), (32, 32)), with_model(run, "text only", (32, 32), (8, 8))]
    (group,) = group_scores(runs)
    matrix = bits_matrix(group)
    assert (matrix.rows, matrix.columns) == (("8 bits", "float"), ("8 bits", "float"))
    np.testing.assert_allclose(matrix.values, [[91.6667, 91.6667], [91.6667, 100]], atol=1e-3)


def test_several_runs_make_one_page(run):
    runs = (run, with_model(run, "clip w4", (4, 8), recipe="w4a8", size=700_000))
    page = evaluation_page(Evidence(runs, ()))
    text = words(page)
    assert page.title == "2 models compared"
    assert "| zero-shot top-1 | clip static-int8 |" in text
    assert "| zero-shot top-1 | clip w4 |" in text
    assert "### clip w4 on colours" in text


def test_differences_are_drawn_with_their_intervals(run):
    found = run.comparisons["zero-shot"][0]
    axes = differences_figure([("zero-shot", found)]).axes[0]
    drawn = [line.get_xdata() for line in axes.lines]
    assert any(np.allclose(x, [100 * found.difference.low, 100 * found.difference.high]) for x in drawn)
    assert any(np.allclose(x, [-0.5, -0.5]) for x in drawn)
    assert "percentage points" in axes.get_xlabel()
    with pytest.raises(ValueError, match="at least one"):
        differences_figure([])


def test_rows_beyond_the_limit_stand_out(run):
    assert comparison_table([(run, "zero-shot", run.comparisons["zero-shot"][0])]).highlighted == {0}


def test_columns_that_say_the_same_move_into_the_caption():
    table = Table(columns=("a", "b"), rows=[("x", "1"), ("x", "2")], caption="All.")
    assert drop_constant_columns(table, ("a", "b")) == Table(columns=["b"], rows=[["1"], ["2"]], caption="All. a: x.")


def test_distributions_have_units_n_and_distance():
    before, after = Sample(label="float", values=np.zeros(4)), Sample(label="int8", values=np.full(4, 0.25))
    axes = overlaid([("all", [before, after])], "cosine").axes[0]
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["float, n = 4", "int8, n = 4, distance 0.25000"]
    assert axes.get_xlabel() == "cosine"
    assert axes.get_ylabel() == "share of the values (%)"
    heights = [patch.get_height() for patch in histogram(before, "cosine").axes[0].patches]
    assert sum(heights) == 4


def test_matrices_share_a_scale_and_must_have_one_shape():
    one = Matrix(title="one", values=np.array([[0.0, 1.0]]), rows=("r",), columns=("a", "b"))
    two = Matrix(title="two", values=np.array([[2.0, np.nan]]), rows=("r",), columns=("a", "b"))
    figure = side_by_side([one, two], "unit", rows_are="rows", columns_are="columns", n="n = 2")
    assert [axes.images[0].get_clim() for axes in figure.axes[:2]] == [(0.0, 2.0)] * 2
    assert figure.axes[2].get_ylabel() == "unit"
    change = difference(two, "unit", rows_are="rows", columns_are="columns", n="n = 2")
    assert change.axes[0].images[0].get_clim() == (-2.0, 2.0)
    assert [text.get_text() for text in change.axes[0].texts] == ["2"]
    with pytest.raises(ValueError, match="labels"):
        Matrix(title="", values=np.zeros((2, 2)), rows=("r",), columns=("a", "b"))
    with pytest.raises(ValueError, match="one shape"):
        side_by_side([], "unit", rows_are="", columns_are="", n="")


def test_the_four_files_say_the_same(run, tmp_path):
    evidence = Evidence((run,), (bench_result(),))
    page = evaluation_page(evidence)
    written = write_report(tmp_path / "out" / "r.html", page, evidence)
    assert [path.name for path in written] == ["r.html", "r.md", "r.json", "r.csv"]
    assert all(path.is_file() for path in written)
    content = json.loads(written[2].read_text(encoding="utf-8"))
    row, *closeness = csv.DictReader(io.StringIO(written[3].read_text(encoding="utf-8")))
    assert tuple(row) == COLUMNS
    assert run.fidelity is not None
    means = {name: measure["mean"]["estimate"] for name, measure in run.fidelity["measures"].items()}
    assert {row["metric"]: float(row["score"]) for row in closeness} == means
    assert {(row["task"], row["reference_model"], row["samples"]) for row in closeness} == {
        ("fidelity", FLOAT.name, str(run.fidelity["samples"]))
    }
    assert (
        float(row["difference"])
        == content["scores"][0]["difference"]
        == run.comparisons["zero-shot"][0].difference.estimate
    )
    assert (row["lost"], row["won"], row["verdict"]) == ("1", "0", "beyond")
    assert content["runs"][0]["model"]["name"] == INT8.name
    assert content["runs"][0]["reference"]["name"] == FLOAT.name
    assert len(content["benches"]) == 1


def test_a_row_without_a_reference_has_empty_cells(tmp_path):
    run = saved(tmp_path / "run", labelled_evaluation(with_reference=False))
    (row,) = csv.DictReader(io.StringIO(to_csv([run])))
    assert row["difference"] == row["verdict"] == ""
    assert float(row["score"]) == pytest.approx(11 / 12)
    assert to_dict(Evidence((run,), ()))["runs"][0]["fidelity"] is None


def test_bars_in_markdown_cells_do_not_break_the_table():
    from vlmquant.report.page import Page

    page = Page(title="t", subtitle="s", blocks=[Table(columns=("a",), rows=[("x|y",)])])
    assert "| x\\|y |" in to_markdown(page)

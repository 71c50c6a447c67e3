import dataclasses
import io

import numpy as np
import pytest
from PIL import Image

from vlmquant.report.detection import (
    clock,
    detection_page,
    event_blocks,
    event_table,
    event_thumbnails,
    key_figures,
    run_facts,
    warning_blocks,
)
from vlmquant.report.page import Gallery, Notice, Table, Text, render_page
from vlmquant.video.detect import jpeg


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00.0"),
        (9.94, "0:09.9"),
        (59.96, "1:00.0"),
        (75.04, "1:15.0"),
        (3599.96, "1:00:00.0"),
        (3661, "1:01:01.0"),
    ],
)
def test_times_are_shown_as_players_do(seconds, shown):
    assert clock(seconds) == shown


def test_the_large_numbers_are_those_of_the_run(detection):
    values = {figure.label: (figure.value, figure.note) for figure in key_figures(detection).figures}
    assert values["Events found"] == ("2", "2 of 2 kinds occur")
    assert values["Speed"] == ("16.0x", "real time: 8.0 s in 0.5 s")
    assert values["Frames searched"][0] == "40"
    assert "80 per second" in values["Frames searched"][1]
    assert values["Latency per frame"][0] == "6.0 ms"
    assert "p95 7.8 ms" in values["Latency per frame"][1]


def test_each_event_is_a_row_and_a_thumbnail(detection):
    first, second = event_table(detection).rows
    assert first == ("a person walking", "0:00.4", "0:03.0", "2.6", "0:01.6", "0.95", "0.81")
    assert second[:4] == ("a <bus> & a dog", "0:05.0", "0:07.3", "2.3")
    titles = [(thumbnail.title, thumbnail.lines[0]) for thumbnail in event_thumbnails(detection, range(2))]
    assert titles == [("a person walking", "0:00.4 to 0:03.0"), ("a <bus> & a dog", "0:05.0 to 0:07.3")]


def test_a_page_of_thousands_of_events_shows_the_likeliest(detection, monkeypatch):
    monkeypatch.setattr("vlmquant.report.detection.MOST_PICTURES", 1)
    page = detection_page(detection)
    (gallery,) = [block for block in page.blocks if isinstance(block, Gallery)]
    (shown,) = gallery.thumbnails
    assert shown.title == max(detection.events, key=lambda event: event.peak_score).name
    said = [block.text for block in page.blocks if isinstance(block, Text)]
    assert "The 1 likeliest of 2 events; the folder thumbnails/ has the pictures of all." in said


def test_thumbnails_keep_their_size_and_colour():
    red = np.zeros((90, 160, 3), np.uint8)
    red[..., 0] = 200
    picture = Image.open(io.BytesIO(jpeg(red)))
    assert picture.size == (160, 90)
    assert np.abs(np.asarray(picture).astype(int) - red).max() <= 4


def test_no_event_is_said_in_words_with_the_highest_probabilities(detection):
    empty = dataclasses.replace(detection, events=(), thumbnails=())
    blocks = event_blocks(empty)
    assert not [block for block in blocks if isinstance(block, Gallery | Table)]
    (text,) = [block.text for block in blocks if isinstance(block, Text)]
    assert "a probability of 0.8" in text
    assert f"a person walking ({detection.scores[:, 0].max():.2f})" in text
    assert "No event was found" in render_page(detection_page(empty))


def test_faults_of_the_file_come_first(detection):
    assert warning_blocks(detection) == []
    damaged = dataclasses.replace(detection, warnings=("the file ends early",))
    assert warning_blocks(damaged) == [Notice("About the file", ("the file ends early",))]
    page = detection_page(damaged, ["a demonstration"])
    assert [block.title for block in page.blocks[:2]] == ["About this run", "About the file"]


def test_the_facts_say_how_to_get_the_same_again(detection):
    facts = run_facts(detection)
    assert facts["Run"]["Model"] == "street CLIP, static-int8, openvino"
    assert "320 x 180, h264, 25 frames per second on average, turned by 90 degrees" in facts["Run"]["Video"]
    assert facts["Run"]["Settings digest"] == detection.config_sha256
    assert set(facts["Phrases"]) == set(detection.names)


def test_the_page_has_its_parts_and_escapes_what_users_wrote(detection):
    html = render_page(detection_page(detection, facts={"Environment": {"CPU": "a <fast> one"}}, footer="vlmquant 1"))
    for part in (
        "Timeline",
        "Events",
        "Latency",
        "How this was found",
        "Environment",
        "a &lt;fast&gt; one",
        "vlmquant 1",
    ):
        assert part in html
    assert "a &lt;bus&gt; &amp; a dog" in html
    assert "<bus>" not in html
    assert "street<1>" not in html
    assert html.count("data:image/jpeg") == 2
    assert html.count("data:image/png") == 2
    assert "somewhere" not in html


def test_true_events_are_mentioned_when_given(detection):
    assert "what is true" in render_page(detection_page(detection, truth=detection.events))
    assert "what is true" not in render_page(detection_page(detection))

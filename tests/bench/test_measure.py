from pathlib import Path

import pytest

from vlmquant.bench.measure import Ratio, bytes_on_disk, items_per_second, median, paired_ratio, quantile


def test_median_and_quantiles_by_hand() -> None:
    assert median([4.0, 1.0, 9.0]) == 4.0
    assert median([1.0, 2.0, 3.0, 10.0]) == 2.5
    # 21 values 0, 10, ..., 200: the 0.95 quantile lies on the 20th of them.
    assert quantile([10.0 * value for value in range(21)], 0.95) == pytest.approx(190.0)


def test_no_latency_has_no_median() -> None:
    with pytest.raises(ValueError, match="at least one latency"):
        median([])


def test_ratios_are_paired_by_round() -> None:
    # A slow spell doubles both sides of round two; medians of each side alone would give 100 / 20 = 5 or worse.
    assert paired_ratio([100.0, 200.0, 120.0], [20.0, 50.0, 20.0]) == Ratio(median=5.0, lowest=4.0, highest=6.0)


def test_unequal_rounds_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="cannot pair 2 rounds of the baseline with 1"):
        paired_ratio([1.0, 2.0], [1.0])


def test_items_per_second() -> None:
    assert items_per_second(8, 40.0) == 200.0


def test_bytes_on_disk_counts_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"123")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "b").write_bytes(b"45")
    assert bytes_on_disk(tmp_path / "a") == 3
    assert bytes_on_disk(tmp_path) == 5
    with pytest.raises(FileNotFoundError):
        bytes_on_disk(tmp_path / "missing")

"""GPU time falls into the days on which it was used."""

from datetime import UTC, datetime, timedelta, timezone

from jobs.gpu_time import by_day


def test_a_stretch_over_new_year_is_split_at_midnight_utc() -> None:
    start, end = datetime(2026, 12, 31, 23, tzinfo=UTC), datetime(2027, 1, 2, 0, 0, 30, tzinfo=UTC)
    assert list(by_day(start, end)) == [
        (datetime(2026, 12, 31, tzinfo=UTC), 3600.0),
        (datetime(2027, 1, 1, tzinfo=UTC), 86400.0),
        (datetime(2027, 1, 2, tzinfo=UTC), 30.0),
    ]


def test_other_time_zones_are_understood() -> None:
    start = datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert list(by_day(start, start + timedelta(seconds=5))) == [(datetime(2026, 2, 28, tzinfo=UTC), 5.0)]


def test_no_time_is_no_day() -> None:
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    assert list(by_day(moment, moment)) == []

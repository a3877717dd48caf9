"""What a column holds, by its content; values that were written by hand are the oracle."""

from __future__ import annotations

import datetime
import math
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from thinned import InputError
from thinned.studies.columns import clean, column_type, is_number, number


def read(values, mark=".", **options):
    """(type, features, texts that count as missing) of a column."""
    raw = pd.Series(values)
    column = clean(raw)
    found = column_type("c", column, raw, mark, **options)
    frame, lost = found.read("c", column)
    return found, frame, dict(lost)


FORTY = [f"{i * 1.5:.1f}" for i in range(40)]
EXPECTED = [i * 1.5 for i in range(40)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", 12.0),
        (" 12.5 ", 12.5),
        ("+.5", 0.5),
        ("1e3", 1000.0),
        ("1,234", 1234.0),
        ("1,234,567.25", 1234567.25),
        ("1'234", 1234.0),
        ("1 234", 1234.0),
        ("1\u00a0234", 1234.0),
        ("$5", 5.0),
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("5 €", 5.0),
        ("£1,000.50", 1000.5),
        ("5 %", 0.05),
        ("12.5%", 0.125),
        ("\u22123.5", -3.5),
        ("\u20133", -3.0),
        ("inf", math.inf),
        ("", math.nan),
        ("?", math.nan),
        ("1,23", math.nan),
        ("12,34,567", math.nan),
        ("1_000", math.nan),
        ("0x10", math.nan),
        ("3+", math.nan),
        ("1.2.3", math.nan),
        ("5 kg", math.nan),
        ("nan", math.nan),
        (Decimal("2.5"), 2.5),
        (True, 1.0),
        (np.int8(3), 3.0),
        (datetime.timedelta(minutes=2), 120.0),
        (np.timedelta64(3, "h"), 10800.0),
        (datetime.date(2020, 1, 1), math.nan),
    ],
)
def test_numbers(text, value):
    np.testing.assert_equal(number(text), value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1,5", 1.5), ("1.234,5", 1234.5), ("1.234", 1234.0), ("1.5", math.nan), ("-3,25 €", -3.25)],
)
def test_numbers_with_a_decimal_comma(text, value):
    np.testing.assert_equal(number(text, ","), value)


def test_is_number():
    assert [is_number(t) for t in ("1.5", "1,5", "a", "")] == [True, True, False, False]


@pytest.mark.parametrize(
    ("others", "lost"),
    [
        ([" "], {}),
        (["", None, np.nan], {}),
        (["?"], {"?": 1}),
        (["unknown", "Unknown"], {"unknown": 1, "Unknown": 1}),
        (["NA", "null", "-", "#DIV/0!"], {"NA": 1, "null": 1, "-": 1, "#DIV/0!": 1}),
        (["Total"], {"Total": 1}),
    ],
)
def test_numbers_with_a_few_texts_are_numbers(others, lost):
    found, frame, texts = read([*FORTY, *others])
    assert (found.kind, texts) == ("number", lost)
    assert frame["c"][:40].tolist() == EXPECTED
    assert frame["c"][40:].isna().all()


@pytest.mark.parametrize(
    ("values", "expected", "remark"),
    [
        ([f"{i:,}" for i in range(1000, 1030)], range(1000, 1030), "groups of thousands"),
        ([f"${i}" for i in range(30)], range(30), ""),
        ([f"{i} %" for i in range(30)], np.arange(30) / 100, "5 % is read as 0.05"),
        ([f"\u2212{i}" for i in range(30)], -np.arange(30), ""),
        ([f"{i},5" for i in range(30)], np.arange(30) + 0.5, "decimal comma"),
        ([Decimal(i) / 4 for i in range(30)], np.arange(30) / 4, ""),
        (pd.to_timedelta(range(30), unit="h"), 3600.0 * np.arange(30), "durations in seconds"),
        ([f"{i} days 01:00:00" for i in range(30)], 86400 * np.arange(30) + 3600, "durations"),
        ([f"{i + 20}:30:00" for i in range(30)], 3600 * (np.arange(30) + 20.5), "durations"),
        (pd.array(range(30), dtype="Int64"), range(30), ""),
        (pd.array([True, False] * 15, dtype="boolean"), [1, 0] * 15, ""),
        ([*range(15), *map(str, range(15, 30))], range(30), ""),
    ],
)
def test_columns_of_numbers(values, expected, remark):
    found, frame, texts = read(values)
    assert (found.kind, texts) == ("number", {})
    assert remark in found.remark
    np.testing.assert_allclose(frame["c"], np.asarray(expected, float), rtol=1e-12)


def test_the_decimal_mark_of_ambiguous_columns_is_that_of_the_table():
    values = [f"1,{i}" for i in range(100, 140)]
    assert read(values)[1]["c"][0] == 1100.0
    assert read(values, ",")[1]["c"][0] == 1.1
    assert read([f"{i}.5" for i in range(40)], ",")[1]["c"][3] == 3.5  # this column decides
    fixed = read([f"{i},5" for i in range(60)], ".", fixed=True)[0]
    assert fixed.kind == "name"  # with --decimal . these are no numbers


def test_a_frequent_text_among_many_numbers_is_a_missing_value():
    found, frame, texts = read([*map(str, range(70)), *["refused"] * 30])
    assert (found.kind, texts, frame["c"].notna().sum()) == ("number", {"refused": 30}, 70)
    assert read([*map(str, range(30)), *[f"code {i}" for i in range(60)]])[0].kind == "name"


def test_few_numbers_with_other_texts_are_categories():
    for values in (["0", "1", "2", "3+"] * 10, ["A", "B", "7"] * 9, ["1", "x"] * 20):
        assert read(values)[0].kind == "category"


def test_infinite_numbers_are_missing_and_huge_ones_are_refused():
    _, frame, texts = read([np.inf, *range(30)])
    assert np.isnan(frame["c"][0])
    assert texts == {"infinite": 1}
    with pytest.raises(InputError, match=r"column 'c' holds 1e\+31, too large for 32-bit floats"):
        read([1e31, *range(30)])


def test_dates_become_features():
    found, frame, texts = read(
        ["2020-01-06", "2021-04-07", "", "unknown", *["2022-07-08"] * 20, "2023-10-09"]
    )
    assert (found.kind, texts) == ("date", {"unknown": 1})
    expected = {
        "c (days since 1970)": [18267, 18724],
        "c (year)": [2020, 2021],
        "c (month, sin)": [0, 1],  # January is at 0, April a quarter of a year later
        "c (month, cos)": [1, 0],
        "c (day of week, sin)": [0, math.sin(4 * math.pi / 7)],  # Monday and Wednesday
        "c (day of week, cos)": [1, math.cos(4 * math.pi / 7)],
    }
    assert list(frame) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(frame[name][:2], values, atol=1e-12)
    assert frame.iloc[2:4].isna().all(axis=None)
    assert "year, month, day of week" in found.remark


def test_times_of_dates_and_times_of_day_are_cyclic():
    stamps = pd.to_datetime([f"2020-01-01 {6 * (i % 4):02d}:00" for i in range(24)])
    found, frame, _ = read(stamps)
    assert found.clock
    np.testing.assert_allclose(frame["c (hour, sin)"][:4], [0, 1, 0, -1], atol=1e-12)
    assert frame["c (days since 1970)"][1] == 18262.25
    found, frame, _ = read([f"{6 * (i % 4)}:00" for i in range(24)])
    assert (found.kind, frame["c (hour)"][3]) == ("time", 18.0)
    np.testing.assert_allclose(frame["c (hour, cos)"][:4], [1, 0, -1, 0], atol=1e-12)
    _, frame, _ = read(["12:30 AM", "1:15 pm", "12:00 PM"] * 9)
    assert frame["c (hour)"][:3].tolist() == [0.5, 13.25, 12.0]
    assert read([datetime.time(9, 30), datetime.time(10)] * 9)[1]["c (hour)"][0] == 9.5


@pytest.mark.parametrize(
    ("values", "day", "remark"),
    [
        (["13/02/2020", "03/04/2020"], 18355, ""),  # 3 April
        (["02/13/2020", "03/04/2020"], 18325, ""),  # 4 March
        (["02/03/2020", "03/04/2020"], 18325, "month first, which its values do not show"),
        (["02.03.2020", "03.04.2020"], 18355, "day first, which its values do not show"),
        (["13 Feb 2020", "3 April 2020"], 18355, ""),
        (["Feb 13, 2020", "April 3, 2020"], 18355, ""),
        (["2020/02/13", "2020/04/03"], 18355, ""),
        ([datetime.date(2020, 2, 13), datetime.date(2020, 4, 3)], 18355, ""),
    ],
)
def test_the_order_of_day_and_month(values, day, remark):
    found, frame, _ = read(values * 10)
    assert (found.kind, frame["c (days since 1970)"][1]) == ("date", day)
    assert remark in found.remark
    assert bool(remark) == ("show" in found.remark)


def test_dates_that_contradict_each_other_are_no_dates():
    assert read(["13/02/2020", "02/13/2020"] * 10)[0].kind == "category"


def test_time_zones():
    local = pd.date_range("2020-01-01", periods=20, tz="Europe/Rome")
    found, frame, _ = read(local)
    assert (found.clock, frame["c (year)"][0]) == (False, 2020)  # the local midnight
    found, frame, _ = read([f"2020-01-{d:02d}T00:30:00+01:00" for d in range(1, 21)])
    assert frame["c (year)"][0] == 2019
    assert "times in UTC" in found.remark


def test_texts_names_and_categories():
    assert read([f"how do I reset item {i}" for i in range(30)])[0].kind == "text"
    assert read([f"user-{i}" for i in range(60)])[0].kind == "name"
    assert read(["red", "green", "blue"] * 10)[0].kind == "category"
    assert read(["a b c d", "e f g h"] * 20)[0].kind == "category"
    assert read(pd.Categorical(["1", "2"] * 10))[0].kind == "category"
    assert read([None] * 10)[0].kind == "empty"
    assert read(["x"] * 10)[0].kind == "constant"
    assert read(["x"] * 10 + [None])[0].kind == "category"  # whether it is missing may matter


def test_missing_texts_stay_categories_where_others_are():
    """ "None" or "?" of a category may be a level of its own, such as no basement."""
    _, frame, texts = read(["None", "brick", "?", None] * 10)
    assert frame["c"][:3].tolist() == ["None", "brick", "?"]
    assert frame["c"].isna().sum() == 10
    assert texts == {}


def test_clean():
    assert clean(pd.Series(["yes", "yes ", " ", "e\u0301", "a\u00a0 b", None])).tolist() == [
        "yes",
        "yes",
        None,
        "é",
        "a b",
        None,
    ]

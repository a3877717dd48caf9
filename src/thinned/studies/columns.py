"""The types of table columns, decided by their content, and their values as features."""

from __future__ import annotations

import datetime
import decimal
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from .._errors import InputError

Column = pd.Series  # of one table column
Float = NDArray[np.float64]
ColumnKind = Literal[
    "number", "date", "time", "category", "text", "key", "name", "empty", "constant"
]

LEVELS = 50  # at most so many categories of a column become columns of their own
LARGEST = 1e30  # the largest magnitude; training uses 32-bit floats
OTHER_TEXTS = 0.1  # the largest share of texts in a column of numbers or dates
TEXT_WORDS = 3  # texts with at least so many words on average are free text
_MISSING = (
    "?|-|--|–|—|.|..|*|na|n/a|#n/a|n.a.|nan|nil|null|none|unknown|missing|undefined|empty|nat|#na|"
    "#null!|#value!|#div/0!|#ref!|#num!|#name?|(null)|<na>|not available|not known|no data|"
    "not applicable"
)
# in a column of numbers or dates, these texts stand for a missing value
MISSING_TEXTS = frozenset(_MISSING.split("|"))

_SIGN = r"[-+]?"
_POINT = re.compile(rf"{_SIGN}(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_COMMA = re.compile(rf"{_SIGN}(\d+,?\d*|,\d+)([eE][-+]?\d+)?")
_GROUPS_POINT = re.compile(rf"{_SIGN}\d{{1,3}}([,' ]\d{{3}})(\1|[,' ]\d{{3}})*(\.\d+)?")
_GROUPS_COMMA = re.compile(rf"{_SIGN}\d{{1,3}}([.' ]\d{{3}})(\1|[.' ]\d{{3}})*(,\d+)?")
_INFINITE = re.compile(rf"{_SIGN}inf(inity)?", re.IGNORECASE)
_CURRENCY = "$€£¥₹"
_MINUS = str.maketrans({"\u2212": "-", "\u2012": "-", "\u2013": "-", "\uff0d": "-"})
# evidence for a decimal mark: what cannot be groups of thousands
_IS_COMMA = re.compile(r"[-+]?(\d*,(\d{1,2}|\d{4,})|0,\d+|\d{4,},\d+|\d{1,3}(\.\d{3})+,\d+)")
_IS_POINT = re.compile(r"[-+]?(\d*\.(\d{1,2}|\d{4,})|0\.\d+|\d{4,}\.\d+|\d{1,3}(,\d{3})+\.\d+)")

_CLOCK = r"\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?(\s*[AaPp]\.?[Mm]\.?)?"
_MONTH = r"(jan|feb|mar|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}([-/.]\d{1,2})?"
    r"|\d{1,2}[-/.]\d{1,2}[-/.](\d{4}|\d{2})"
    rf"|\d{{1,2}}[- ]?{_MONTH}[- ,]*\d{{2,4}}"
    rf"|({_MONTH} \d{{1,2}},? \d{{4}})"
    rf"|({_MONTH}[- ]\d{{4}}))"
    rf"([T ,]+{_CLOCK}\s*(Z|UTC|GMT|[+-]\d{{2}}:?\d{{2}})?)?",
    re.IGNORECASE,
)
_DAY_AND_MONTH = re.compile(r"(\d{1,2})([-/.])(\d{1,2})[-/.](\d{4}|\d{2})\b")
_TIME = re.compile(_CLOCK)
_DURATION = re.compile(r"-?(\d+ days?,? ?[+-]?)?\d+:\d{2}:\d{2}(\.\d+)?|-?\d+ days?")


def clean(column: pd.Series) -> pd.Series:
    """The values as objects: strings without surrounding whitespace, None for what is missing.

    Texts that print alike become equal: Unicode is composed, and whitespace is one space.
    """
    if isinstance(column.dtype, pd.DatetimeTZDtype):
        column = column.dt.tz_localize(None)  # the time of day is the local one
    values = column.astype(object)
    values = values.where(column.notna(), None)
    distinct = pd.unique(values)
    new = {v: clean_text(v) for v in distinct if isinstance(v, str)}
    changed = {old: text for old, text in new.items() if old != text}
    if not changed:
        return values
    out = [changed.get(v, v) if isinstance(v, str) else v for v in values]
    return pd.Series(out, index=column.index, dtype=object)


def clean_text(text: str) -> str | None:
    """A text without surrounding whitespace, Unicode composed; None where nothing is left."""
    text = unicodedata.normalize("NFC", text).replace("\ufeff", "").replace("\u200b", "")
    return re.sub(r"\s+", " ", text).strip() or None


def without(column: pd.Series, na: tuple[str, ...]) -> pd.Series:
    """A column from :func:`clean` with the texts of ``na`` missing."""
    if not na:
        return column
    missing = {clean_text(text) for text in na}
    out = [None if v is not None and str(v) in missing else v for v in column]
    return pd.Series(out, index=column.index, dtype=object)


def number(value: object, mark: str = ".") -> float:
    """A value as a number; NaN where it is none.

    Texts may have groups of thousands, a currency sign, a percent sign (5 % is 0.05) and a Unicode
    minus.

    Example:
        >>> number("$1,234.50"), number("5 %"), number("1.234,5", ","), number("x")
        (1234.5, 0.05, 1234.5, nan)
    """
    if isinstance(value, datetime.timedelta):  # that of pandas too
        return value.total_seconds()
    if isinstance(value, np.timedelta64):
        return float(value / np.timedelta64(1, "s"))
    if isinstance(value, (bool, np.bool_, int, float, np.number, decimal.Decimal)):
        return float(value)
    if not isinstance(value, str):
        return float("nan")
    text = re.sub(r"[\u00a0\u2007\u2009\u202f]", " ", value).translate(_MINUS).strip()
    divisor = 1.0
    if text.endswith("%"):
        text, divisor = text[:-1].rstrip(), 100.0
    # the currency before or after the sign, or at the end
    if text and (text[0] in _CURRENCY or text[-1] in _CURRENCY):
        text = text.strip(_CURRENCY + " ")
    elif len(text) > 1 and text[0] in "+-" and text[1] in _CURRENCY:
        text = text[0] + text[2:].lstrip()
    one, groups = (_POINT, _GROUPS_POINT) if mark == "." else (_COMMA, _GROUPS_COMMA)
    if _INFINITE.fullmatch(text):
        return float(text)
    if groups.fullmatch(text):
        text = re.sub(r"[,' ]" if mark == "." else r"[.' ]", "", text)
    elif not one.fullmatch(text):
        return float("nan")
    return float(text.replace(",", ".")) / divisor


def is_number(text: str) -> bool:
    """Whether a text is a number, with either decimal mark.

    Example:
        >>> is_number("1,5"), is_number("a1")
        (True, False)
    """
    return any(not np.isnan(number(text, mark)) for mark in ".,")


def decimal_mark(column: pd.Series) -> str | None:
    """The decimal mark that the texts of a column show; None where they do not decide."""
    texts = [_bare(v) for v in pd.unique(column) if isinstance(v, str)]
    comma = sum(bool(_IS_COMMA.fullmatch(t)) for t in texts)
    point = sum(bool(_IS_POINT.fullmatch(t)) for t in texts)
    if comma and not point:
        return ","
    return "." if point and not comma else None


def _bare(text: str) -> str:
    return text.translate(_MINUS).strip(_CURRENCY + "% ")


def _mapped(column: pd.Series, function: Callable[[Any], Any], dtype: str) -> pd.Series:
    """``function`` of each value, computed once for each distinct one; None remains missing."""
    codes, distinct = pd.factorize(column, use_na_sentinel=True)
    values = np.array([function(v) for v in distinct], dtype=dtype)
    out = (
        np.full(len(column), np.nan, "float64")
        if dtype == "float64"
        else (np.full(len(column), None, dtype))
    )
    out[codes >= 0] = values[codes[codes >= 0]] if len(values) else out[codes >= 0]
    return pd.Series(out, index=column.index)


def numbers(column: pd.Series, mark: str = ".") -> pd.Series:
    """The values of a column from :func:`clean` as float64; NaN where they are no numbers."""
    return _mapped(column, lambda v: number(v, mark), "float64")


def dates(column: pd.Series, day_first: bool) -> pd.Series:
    """The values of a column from :func:`clean` as times; UTC where texts have a zone."""
    codes, distinct = pd.factorize(column, use_na_sentinel=True)
    kept = [
        v
        if isinstance(v, (datetime.date, np.datetime64))
        or (isinstance(v, str) and _DATE.fullmatch(v))
        else None
        for v in distinct
    ]
    parsed = pd.to_datetime(
        pd.Series(kept, dtype=object),
        errors="coerce",
        format="mixed",
        dayfirst=day_first,
        utc=True,
    ).dt.tz_localize(None)
    values = parsed.to_numpy().astype("datetime64[us]")
    out = np.full(len(column), np.datetime64("NaT"), "datetime64[us]")
    out[codes >= 0] = values[codes[codes >= 0]] if len(values) else out[codes >= 0]
    return pd.Series(out, index=column.index)


def day_is_first(column: pd.Series) -> tuple[bool, str]:
    """Whether dates such as 3/4/2020 begin with the day, and how that is known.

    Returns:
        The answer, and "" (no such date, or some with a number above 12), "ambiguous" or "mixed".
    """
    found = [
        m
        for v in pd.unique(column)
        if isinstance(v, str) and (m := _DAY_AND_MONTH.match(v)) is not None
    ]
    first = any(int(m.group(1)) > 12 for m in found)
    second = any(int(m.group(3)) > 12 for m in found)
    if first and second:
        return True, "mixed"
    if first or second or not found:
        return first, ""
    return all(m.group(2) == "." for m in found), "ambiguous"


def times_of_day(column: pd.Series) -> pd.Series:
    """Times such as 14:30 as hours, float64; NaN for everything else."""

    def hours(value: object) -> float:
        if isinstance(value, datetime.time):
            return value.hour + value.minute / 60 + value.second / 3600
        if not isinstance(value, str) or not _TIME.fullmatch(value):
            return float("nan")
        parts = re.split(r"[:\s]", re.sub(r"[AaPp]\.?[Mm]\.?$", "", value).strip())
        hour, minute = int(parts[0]), int(parts[1])
        second = float(parts[2].replace(",", ".")) if len(parts) > 2 else 0.0
        if (half := re.search(r"([AaPp])\.?[Mm]\.?$", value)) is not None:
            if not 1 <= hour <= 12:
                return float("nan")
            hour = hour % 12 + 12 * (half.group(1) in "pP")
        if hour > 23 or minute > 59 or second >= 60:
            return float("nan")
        return hour + minute / 60 + second / 3600

    return _mapped(column, hours, "float64")


def durations(column: pd.Series) -> pd.Series:
    """Durations such as "2 days 03:00:00" or 30:15:00 in seconds, float64; NaN for the rest."""

    def seconds(value: object) -> float:
        if isinstance(value, (datetime.timedelta, np.timedelta64)):
            return number(value)
        if not isinstance(value, str) or not _DURATION.fullmatch(value):
            return float("nan")
        return float(pd.Timedelta(value.replace(",", "")).total_seconds())

    return _mapped(column, seconds, "float64")


@dataclass(frozen=True)
class ColumnType:
    """What a column holds and how it is read.

    Args:
        kind: "number", "date", "time" (of day), "category", "text"; or what is left out: "name"
            (names or identifiers), "key" (a number of the row), "empty", "constant".
        mark: The decimal mark of numbers.
        day_first: Whether dates begin with the day.
        duration: Whether the numbers are durations in seconds.
        clock: Whether dates have a time of day.
        remark: What the reader of a report should know about it. Empty: nothing.
    """

    kind: ColumnKind
    _: KW_ONLY
    mark: str = "."
    day_first: bool = False
    duration: bool = False
    clock: bool = False
    remark: str = ""

    def read(self, name: str, column: pd.Series) -> tuple[pd.DataFrame, Counter[str]]:
        """The features of a column from :func:`clean`.

        Returns:
            The features, and the texts that count as missing, with their numbers of rows.

        Raises:
            InputError: Where a number is too large.
        """
        if self.kind == "category":
            return pd.DataFrame({name: _mapped(column, str, "object")}), Counter()
        if self.kind == "text":
            text = _mapped(column, str, "object").where(column.notna(), "")
            return pd.DataFrame({name: text}), Counter()
        if self.kind == "number":
            parsed = durations(column) if self.duration else numbers(column, self.mark)
            if parsed.replace([np.inf, -np.inf], np.nan).abs().max() > LARGEST:
                raise InputError(
                    f"column {name!r} holds {parsed.abs().max():g}, too large for 32-bit floats; "
                    "rescale it"
                )
            lost = _lost(column, parsed.isna())
            infinite = int(np.isinf(parsed).sum())
            if infinite:
                lost["infinite"] += infinite
            parts = {name: parsed.replace([np.inf, -np.inf], np.nan)}
        elif self.kind == "date":
            moments = dates(column, self.day_first)
            lost = _lost(column, moments.isna())
            parts = _date_features(name, moments, self.clock)
        elif self.kind == "time":
            hours = times_of_day(column)
            lost = _lost(column, hours.isna())
            parts = {f"{name} (hour)": hours} | _cyclic(name, "hour", hours, 24)
        else:
            return pd.DataFrame(index=column.index), Counter()
        return pd.DataFrame(parts), lost


def _lost(column: pd.Series, missing: pd.Series) -> Counter[str]:
    return Counter(str(v) for v in column[missing & column.notna()])


def _date_features(name: str, moments: pd.Series, clock: bool) -> dict[str, pd.Series]:
    at, missing = moments.dt, moments.isna()
    seconds = (moments - pd.Timestamp(1970, 1, 1)).dt.total_seconds()
    parts: dict[str, pd.Series] = {
        f"{name} (days since 1970)": seconds / 86_400,
        f"{name} (year)": at.year.astype("float64"),
        **_cyclic(name, "month", at.month.astype("float64") - 1, 12),
        **_cyclic(name, "day of week", at.day_of_week.astype("float64"), 7),
    }
    if clock:
        parts |= _cyclic(name, "hour", (seconds / 3600) % 24, 24)
    return {key: values.where(~missing) for key, values in parts.items()}


def _cyclic(name: str, part: str, values: pd.Series, period: float) -> dict[str, pd.Series]:
    """Sine and cosine, so that the end of a period is next to its beginning."""
    angle = 2 * np.pi * values / period
    return {f"{name} ({part}, sin)": np.sin(angle), f"{name} ({part}, cos)": np.cos(angle)}


def column_type(
    name: str, column: pd.Series, raw: pd.Series, mark: str = ".", *, fixed: bool = False
) -> ColumnType:
    """The type of a column by its content.

    Args:
        name: Its name.
        column: Its values from :func:`clean`.
        raw: The column as it came, for its dtype.
        mark: The decimal mark where the texts of the column do not decide.
        fixed: Whether ``mark`` holds whatever the texts show.

    Returns:
        The type.
    """
    present = column[column.notna()]
    if present.empty:
        return ColumnType("empty", remark="no values")
    distinct = pd.Index(pd.unique(present))
    if len(distinct) == 1 and len(present) == len(column):
        return ColumnType("constant", remark=f"{distinct[0]!s:.40} in every row")
    declared = isinstance(raw.dtype, pd.CategoricalDtype) and len(distinct) <= LEVELS
    if not declared:
        texts = any(isinstance(v, str) for v in distinct)
        own = mark if fixed or not texts else decimal_mark(present)
        found = _as_number(present, mark, texts, own) or _as_date(present, texts)
        if found := found or _as_time(present):
            return found
    strings = [str(v) for v in distinct]
    words = float(np.mean([len(t.split()) for t in strings]))
    if words >= TEXT_WORDS and len(distinct) > max(len(present) // 2, 10):
        return ColumnType("text")
    if len(distinct) > max(LEVELS, len(present) // 2):
        return ColumnType("name", remark=f"its {len(distinct):,} distinct strings look like names")
    return ColumnType("category")


def _fits(present: pd.Series, parsed: pd.Series) -> bool:
    """Whether a column is of the parsed values, apart from a few texts."""
    others = [str(v).lower() for v in present[parsed.isna()]]
    strange = [t for t in others if t not in MISSING_TEXTS]
    known = parsed.dropna()
    if known.empty or len(known) < 0.2 * len(present):
        return False
    if not strange:
        return True
    # with few distinct values, such as 0, 1, 2 and 3+, other texts are categories
    if known.nunique() <= 20:
        return False
    rare = len(strange) <= OTHER_TEXTS * len(present)
    return rare or (len(set(strange)) <= 5 and len(known) >= 0.5 * len(present))


def _as_number(present: pd.Series, mark: str, texts: bool, own: str | None) -> ColumnType | None:
    for candidate in dict.fromkeys((own or mark, mark)):
        parsed = numbers(present, candidate)
        if _fits(present, parsed):
            remark = ""
            shown = [v for v in pd.unique(present) if isinstance(v, str)]
            if any("%" in v for v in shown):
                remark = "5 % is read as 0.05"
            elif candidate == ",":
                remark = "decimal comma"
            elif own is None and any("," in v for v in shown):
                remark = "commas read as groups of thousands"
            if any(isinstance(v, (datetime.timedelta, np.timedelta64)) for v in present[:1]):
                remark = "durations in seconds"
            return ColumnType("number", mark=candidate, remark=remark)
    if texts:
        parsed = durations(present)
        if _fits(present, parsed) and times_of_day(present).isna().sum() > parsed.isna().sum():
            return ColumnType("number", duration=True, remark="durations in seconds")
    return None


def _as_date(present: pd.Series, texts: bool) -> ColumnType | None:
    day_first, how = day_is_first(present) if texts else (False, "")
    if how == "mixed":
        return None
    if texts and not any(_DATE.fullmatch(v) for v in pd.unique(present) if isinstance(v, str)):
        return None
    moments = dates(present, day_first)
    if not _fits(present, moments):
        return None
    clock = bool((moments.dropna() != moments.dropna().dt.normalize()).any())
    remark = "days since 1970, year, month, day of week" + (", hour" if clock else "")
    if any(
        isinstance(v, str) and re.search(r"\d(Z|UTC|GMT|[+-]\d{2}:?\d{2})$", v) for v in present
    ):
        remark += "; times in UTC"
    if how == "ambiguous":
        order = "day first" if day_first else "month first"
        remark += f"; read {order}, which its values do not show"
    return ColumnType("date", day_first=day_first, clock=clock, remark=remark)


def _as_time(present: pd.Series) -> ColumnType | None:
    if _fits(present, times_of_day(present)):
        return ColumnType("time", remark="hour, with its sine and cosine")
    return None

"""Reading tables from files: encodings, delimiters, compression and spreadsheets.

Text files are read as strings; :mod:`thinned.studies.columns` decides what a column holds from all
of its values.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import re
import warnings
import zipfile
import zlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from .._errors import InputError
from .columns import is_number

TEXT_ENDINGS = (".csv", ".tsv", ".tab", ".txt")
PARQUET_ENDINGS = (".parquet", ".pq")
TABLE_ENDINGS = (*TEXT_ENDINGS, *PARQUET_ENDINGS, ".xlsx")
COMPRESSED_ENDINGS = (".gz", ".zip")
DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
WHITESPACE = r"\s+"
SAMPLE = 200  # records from which the delimiter is recognized
# the longer marks first, because that of UTF-32 begins with that of UTF-16
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the text of tables is read; None: recognized from the content.

    Args:
        sep: The delimiter of columns. "tab" and "space" are names for those characters.
        decimal: The decimal mark of numbers, "." or ",".
        encoding: The encoding of text files.
        na: Texts that count as missing, in addition to empty cells.
    """

    sep: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    na: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.decimal not in (None, ".", ","):
            raise InputError(f"--decimal has to be . or , but got {self.decimal!r}")
        if self.sep is not None:
            sep = {"tab": "\t", "\\t": "\t", "space": " "}.get(self.sep, self.sep)
            if len(sep) != 1 or sep in '"\r\n':
                raise InputError(
                    "--sep has to be one character, or tab or space, and no quotation mark, but "
                    f"got {self.sep!r}"
                )
            object.__setattr__(self, "sep", sep)
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise InputError(
                    f"--encoding {self.encoding!r} is not known; use a name such as utf-8, utf-16, "
                    "latin-1 or cp1252"
                ) from None

    def check_unused(self, what: str, allowed: tuple[str, ...] = ()) -> None:
        """Raise :class:`thinned.InputError` where an option is set that has no effect."""
        for field in fields(self):
            if field.name not in allowed and getattr(self, field.name) not in (None, ()):
                raise InputError(
                    f"--{field.name} is for text files such as .csv, but the data are {what}; "
                    f"leave out --{field.name}"
                )


def is_table(name: str) -> bool:
    """Whether the ending of a file is that of a table, compressed or not."""
    return table_ending(name) is not None


def table_ending(name: str) -> str | None:
    """The ending of a table without that of its compression; ".zip" for archives; None: no table.

    Example:
        >>> table_ending("a.csv.gz"), table_ending("a.zip"), table_ending("a.sav")
        ('.csv', '.zip', None)
    """
    suffixes = [s.lower() for s in Path(name).suffixes]
    last = suffixes[-1] if suffixes else ""
    if last == ".zip":
        return ".zip"
    if last == ".gz":
        inner = suffixes[-2] if len(suffixes) > 1 else ""
        return inner if inner in TABLE_ENDINGS else None
    return last if last in TABLE_ENDINGS else None


def read_table(path: Path, reading: Reading, notes: list[str]) -> pd.DataFrame:
    """Read a table from a file; cells of text files are strings.

    Args:
        path: The file: text, Parquet or .xlsx, optionally in .gz or .zip.
        reading: The options for text.
        notes: Gets a sentence for each choice that another file would not have needed.

    Returns:
        The table, its columns named by strings.

    Raises:
        InputError: Where the file cannot be read as a table.
    """
    if path.stat().st_size == 0:
        raise InputError(f"{path} is empty")
    try:
        raw, ending = _content(path)
        if ending in PARQUET_ENDINGS:
            reading.check_unused("a Parquet file", ("na", "decimal"))
            frame = pd.read_parquet(io.BytesIO(raw))
            names = [str(c) for c in frame.columns]
        elif ending == ".xlsx":
            reading.check_unused("an Excel file", ("na", "decimal"))
            frame, names = _spreadsheet(raw, path, notes)
        else:
            frame, names = _text_table(raw, path, ending, reading, notes)
    except InputError:
        raise
    except pd.errors.ParserWarning:
        raise InputError(
            f"{path} cannot be read as a table: its rows are longer than its header; name every "
            "column, or set the delimiter with --sep"
        ) from None
    except (ValueError, OSError, EOFError, OverflowError, csv.Error, zlib.error, KeyError) as error:
        first, *_ = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{path} cannot be read as a table: {first}") from None
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from None
    check_distinct(names)
    frame.columns = pd.Index(names)
    return frame


def check_distinct(names: list[str]) -> None:
    """Raise :class:`thinned.InputError` where two columns have the same name."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(
                f"column names have to be distinct, but {name!r} occurs more than once; rename one"
            )
        seen.add(name)


def _content(path: Path) -> tuple[bytes, str]:
    """The uncompressed bytes of a file and their ending."""
    raw, ending = path.read_bytes(), table_ending(path.name)
    if ending == ".zip":
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            names = [n for n in archive.namelist() if not n.endswith("/") and "__MACOSX" not in n]
            tables = [n for n in names if table_ending(n) not in (None, ".zip")]
            if len(tables) != 1:
                listed = ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")
                raise InputError(
                    f"{path} has to hold one table ({', '.join(TABLE_ENDINGS)}), but holds "
                    f"{listed or 'nothing'}; extract the one to use and pass it as --data"
                )
            raw, name = archive.read(tables[0]), tables[0]
    else:
        name = path.name
    if name.lower().endswith(".gz"):
        raw = gzip.decompress(raw)
    return raw, table_ending(name) or ""


def _spreadsheet(raw: bytes, path: Path, notes: list[str]) -> tuple[pd.DataFrame, list[str]]:
    try:
        with pd.ExcelFile(io.BytesIO(raw), engine="openpyxl") as book:
            sheets = [str(s) for s in book.sheet_names]
            cells = pd.read_excel(book, header=None, dtype=object, keep_default_na=False)
    except ImportError:
        raise InputError(
            f"{path} is an Excel file, which needs openpyxl: pip install 'thinned[excel]'; or save "
            "it as .csv"
        ) from None
    if len(sheets) > 1:
        notes.append(
            f"Of {len(sheets)} sheets the first, {sheets[0]!r}, was read; save another as a file "
            "of its own."
        )
    if cells.empty:
        raise InputError(f"{path} is empty: its sheet {sheets[0]!r} has no cells")
    names = _names([str(v).strip() if not pd.isna(v) else "" for v in cells.iloc[0]])
    return cells.iloc[1:].reset_index(drop=True), names


def _names(header: list[str]) -> list[str]:
    return [name or f"Unnamed: {i}" for i, name in enumerate(header)]


def decode(raw: bytes, encoding: str | None = None) -> tuple[str, str]:
    """The text of bytes and the name of its encoding.

    Byte order marks decide; otherwise UTF-8 where it is valid, UTF-16 where every other byte is 0,
    and otherwise Windows-1252, which extends Latin-1.

    Example:
        >>> decode("é".encode("latin-1")), decode("é".encode("utf-16"))
        (('é', 'cp1252'), ('é', 'utf-16'))
    """
    if encoding is not None:
        text = raw.decode(encoding)
        return text.removeprefix("\ufeff"), encoding
    for mark, name in BYTE_ORDER_MARKS:
        if raw.startswith(mark):
            return raw.decode(name), name
    head = raw[:4096]
    for start, name in ((1, "utf-16-le"), (0, "utf-16-be")):
        zeros, others = head[start::2], head[1 - start :: 2]
        if zeros.count(0) > 0.6 * max(len(zeros), 1) and others.count(0) == 0:
            return raw.decode(name), name
    if b"\0" in raw:
        raise InputError(
            "it holds bytes of 0, so it is no text, or in an encoding to name with --encoding"
        )
    try:
        return raw.decode("utf-8"), "utf-8"
    except UnicodeDecodeError:
        pass
    try:
        return raw.decode("cp1252"), "cp1252"
    except UnicodeDecodeError:  # five bytes have no character there
        return raw.decode("latin-1"), "latin-1"


def _text_table(
    raw: bytes, path: Path, ending: str, reading: Reading, notes: list[str]
) -> tuple[pd.DataFrame, list[str]]:
    try:
        text, encoding = decode(raw, reading.encoding)
    except InputError as error:
        raise InputError(f"{path} cannot be read as a table: {error}") from None
    except UnicodeError as error:
        raise InputError(
            f"{path} cannot be read as {reading.encoding or 'text'} ({error.args[-1]} at byte "
            f"{getattr(error, 'start', '?')}); name its encoding with --encoding"
        ) from None
    if not reading.encoding and encoding not in ("utf-8", "utf-8-sig"):
        notes.append(f"The file was read as {encoding} (--encoding overrides that).")
    sep = reading.sep
    # Excel writes such a first line
    if (declared := re.match(r"sep=(.)\r?\n", text)) is not None:
        text = text[declared.end() :]
        sep = sep or declared.group(1)
    usual = "\t" if ending in (".tsv", ".tab") else ","
    if sep is None:
        sep = delimiter(text, usual)
        if sep != usual:
            name = DELIMITERS.get(sep, "whitespace")
            notes.append(f"Columns are separated by {name} (--sep overrides that).")
    options: Any = {
        "sep": WHITESPACE if sep == " " else sep,
        "dtype": str,
        "keep_default_na": False,
        "na_values": [""],
        "index_col": False,
        "skipinitialspace": True,
    }
    header = pd.read_csv(
        io.StringIO(text), **(options | {"index_col": None}), header=None, nrows=1
    ).iloc[0]
    names = [str(v).strip() if isinstance(v, str) else "" for v in header]
    # pandas would rename duplicate names and drop what is past the header
    headless = len(names) > 1 and all(is_number(n) for n in names)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", pd.errors.ParserWarning)
        frame = pd.read_csv(io.StringIO(text), header=None if headless else 0, **options)
    if headless:
        names = [f"column {i + 1}" for i in range(len(names))]
        notes.append(
            "The first row holds only numbers, so it is data and the columns are named "
            f"column 1 to column {len(names)}; add a row of names to the file to name them."
        )
    return frame, _names(names[: frame.shape[1]])


def delimiter(text: str, usual: str) -> str:
    """The delimiter that divides the first records into equally many columns.

    Args:
        text: The text of the table.
        usual: The delimiter that the ending of the file stands for, used where none is clearly
            better.

    Example:
        >>> delimiter("a;b\\n1,5;2\\n2,5;3\\n", ",")
        ';'
    """
    scores = {}
    for sep in sorted(DELIMITERS, key=lambda s: s != usual):
        records = list(itertools.islice(_records(text, sep), SAMPLE))
        width = len(records[0]) if records else 0
        if width > 1:
            # a delimiter at the end of a line adds no column
            fit = sum(
                len(row) == width or (len(row) == width + 1 and not row[-1]) for row in records
            )
            scores[sep] = (round(fit / len(records), 1), width)
    good = {sep: score for sep, score in scores.items() if score[0] >= 0.5}
    if good:
        return max(good, key=lambda sep: good[sep])
    if scores:  # the rows are not of the width of the header, which reading them reports
        return usual if usual in scores else max(scores, key=lambda sep: scores[sep])
    rows = [len(line.split()) for line in text[:100_000].splitlines()[:SAMPLE] if line.strip()]
    if rows and rows[0] > 1 and rows.count(rows[0]) >= 0.9 * len(rows):
        return WHITESPACE
    return usual


def _records(text: str, sep: str) -> Any:
    lines = io.StringIO(text[:1_000_000], newline="")
    return (row for row in csv.reader(lines, delimiter=sep, skipinitialspace=True) if row)

"""A table is the same however it is laid out, packed and encoded, and what was found is told; what
reads two ways is refused with both readings, and the option that is named then reads it."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.feather
import pytest

from foredraft.data import load
from foredraft.data.errors import DataError
from foredraft.data.reading import Reading
from foredraft.data.tables import table
from foredraft.data.tables.formats import Found, read

TABLE = pd.DataFrame(
    {
        "date": pd.date_range("2024-01-31 22:00", periods=5, freq="h").astype(str),
        "load": [0.5, 1.25, 1000.5, 12.75, 3.5],
        "price": [12, 7, 900, 3, 8],
    }
)


def refusal(path: Path, **reading: object) -> str:
    with pytest.raises(DataError) as caught:
        table.read(path, reading=Reading(**reading))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def text(folder: Path, content: str | bytes, *, name: str = "ours.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def values(path: Path, **reading: object) -> list[list[float]]:
    return table.read(path, reading=Reading(**reading)).values_TC.tolist()


# Separators and decimal signs


@pytest.mark.parametrize("sep", [",", ";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_separator_and_decimal_sign_are_found(
    tmp_path: Path, sep: str, decimal: str, ending: str
) -> None:
    content = TABLE.to_csv(sep=sep, decimal=decimal, index=False, lineterminator=ending)
    frame, found = read(text(tmp_path, content))
    assert (found.sep, found.decimal) == (sep, decimal)
    made = table.of_frame(frame, found=found, label="ours")
    np.testing.assert_array_equal(made.values_TC, TABLE[["load", "price"]].to_numpy())
    assert [str(t) for t in made.time] == [str(pd.Timestamp(t)) for t in TABLE["date"]]


@pytest.mark.parametrize("gap", [" ", "   "])
def test_white_space_separates_where_nothing_else_does(tmp_path: Path, gap: str) -> None:
    path = text(tmp_path, f"a{gap}b\n1.5{gap}2\n4.25{gap}1\n", name="ours.txt")
    assert values(path) == [[1.5, 2.0], [4.25, 1.0]]
    assert read(path)[1].told() == "white space, decimal point, utf-8"


def test_a_given_separator_overrules_what_is_found(tmp_path: Path) -> None:
    path = text(tmp_path, "a,x:b,y\n1:2\n5:7\n")
    assert table.read(path, reading=Reading(sep=":")).variates == ("a,x", "b,y")
    tabbed = text(tmp_path, "a\tb\n1\t2\n", name="ours.tsv")
    assert values(tabbed, sep="tab") == values(tabbed) == [[1, 2]]
    spaced = text(tmp_path, "a b\n1 2\n", name="ours.txt")
    assert values(spaced, sep="space") == [[1, 2]]


def test_names_with_another_separator_in_them_mislead_nobody(tmp_path: Path) -> None:
    path = text(tmp_path, 'date,"load; MW | net"\n2024-01-01,5\n2024-01-02,6.5\n')
    assert table.read(path).variates == ("load; MW | net",)
    path = text(tmp_path, 'date;"load, net";"b, gross"\n2024-01-01;5,25;1,5\n2024-01-02;6,5;1,5\n')
    assert table.read(path).variates == ("load, net", "b, gross")
    assert values(path) == [[5.25, 1.5], [6.5, 1.5]]


@pytest.mark.parametrize("cell", ["1,234", "12,345", "1.234", "-7.500"])
def test_a_thousand_that_may_be_a_fraction_is_refused_with_both_and_read_by_either(
    tmp_path: Path, cell: str
) -> None:
    path = text(tmp_path, f"date;load\n2024-01-01;{cell}\n2024-01-02;950\n")
    message = refusal(path)
    sign = "," if "," in cell else "."
    other = "." if sign == "," else ","
    small, large = float(cell.replace(",", ".")), float(cell.replace(sign, ""))
    assert "column 'load', row 1" in message
    assert f"(--decimal {sign}) and as {cell.replace(sign, '')} (--decimal {other})" in message
    assert values(path, decimal=sign) == [[np.float32(small)], [950.0]]
    assert values(path, decimal=other) == [[large], [950.0]]


@pytest.mark.parametrize(
    ("sure", "sign"),
    [("0,5", ","), ("1.234,5", ","), ("0.5", "."), ("1,234.5", "."), ("1e-3", ".")],
)
def test_one_cell_that_is_sure_decides_for_the_file_even_after_the_first_lines(
    tmp_path: Path, sure: str, sign: str
) -> None:
    doubtful = "7,250" if sign == "," else "7.250"
    rows = f"{doubtful};1\n" * 150 + f"{doubtful};{sure}\n"
    frame, found = read(text(tmp_path, "a;b\n" + rows))
    assert found.decimal == sign
    assert table.of_frame(frame, found=found, label="ours").values_TC[0, 0] == 7.25


def test_whole_numbers_between_semicolons_need_no_decimal_sign(tmp_path: Path) -> None:
    assert values(text(tmp_path, "a;b\n1;2000\n5;7\n")) == [[1, 2000], [5, 7]]


def test_dots_in_dates_and_clocks_are_no_decimal_signs(tmp_path: Path) -> None:
    path = text(tmp_path, "Datum;Wert\n31.01.2024 10.00;1,234\n31.01.2024 11.00;2,5\n")
    assert read(path)[1].decimal == ","


# Headers and what stands above


def test_lines_above_the_header_are_passed_over_and_counted(tmp_path: Path) -> None:
    above = "Report of the grid\n\nwritten: 2024-02-01; by hand\n"
    path = text(tmp_path, above + TABLE.to_csv(sep=";", index=False))
    frame, found = read(path)
    assert list(frame.columns) == ["date", "load", "price"]
    assert found.preamble == 3
    assert "3 lines above the table" in found.told()


def test_a_line_of_data_is_never_taken_for_a_preamble(tmp_path: Path) -> None:
    path = text(tmp_path, "1,2\n" + "4,5,6\n" * 5, name="ours.txt")
    assert "fields" in refusal(path)


def test_separators_at_the_ends_of_lines_make_no_column(tmp_path: Path) -> None:
    for header in ("a;b;;", "a;b"):
        path = text(tmp_path, f"{header}\n1,5;2;;\n4,5;1;;\n")
        assert values(path) == [[1.5, 2], [4.5, 1]]
    assert values(text(tmp_path, "a,b,\n1.5,2,\n4.5,1,\n")) == [[1.5, 2], [4.5, 1]]


@pytest.mark.parametrize(
    "header", ["60323,83.0,1947", "5,1,2", "1990,1991,1992", "1,2,3", "2024-01,a,b"]
)
def test_a_header_that_is_data_is_refused_and_a_line_of_names_cures_it(
    tmp_path: Path, header: str
) -> None:
    body = f"{header}\n61122,88.5,1948\n60171,88.2,1949\n"
    message = refusal(text(tmp_path, body))
    assert f"its header '{header}' is a row of data" in message
    assert "put a line with a name for each column above it" in message
    if "a" not in header:
        assert len(values(text(tmp_path, "x,y,z\n" + body))) == 3
        assert len(values(text(tmp_path, body, name="ours.txt"))) == 3


def test_names_that_count_from_0_are_names(tmp_path: Path) -> None:
    assert table.read(text(tmp_path, "0,1,2\n5,6,7\n")).variates == ("0", "1", "2")


def test_a_first_row_of_a_time_and_numbers_is_a_row_and_it_is_told(tmp_path: Path) -> None:
    frame, found = read(text(tmp_path, "2024-01-01,5,6\n2024-01-02,7,8\n"))
    assert len(frame) == 2
    assert not found.header
    assert "no header: columns are 0, 1, ..." in found.told()


def test_two_columns_of_one_name_are_refused_by_place(tmp_path: Path) -> None:
    message = refusal(text(tmp_path, "date,a,b,a\n2024-01-01,1,2,3\n2024-01-02,1,2,4\n"))
    assert "two columns are named 'a' (columns 2 and 4)" in message


# Encodings and packers


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-8", "utf-8"),
        ("utf-8-sig", "utf-8-sig"),
        ("latin-1", "cp1252"),
        ("cp1252", "cp1252"),
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"),
    ],
)
def test_an_encoding_is_found(tmp_path: Path, encoding: str, told: str) -> None:
    content = TABLE.rename(columns={"load": "H\u00f6he"}).to_csv(index=False, sep=";")
    path = text(tmp_path, content.encode(encoding))
    assert read(path)[1].encoding == told
    assert table.read(path).variates == ("H\u00f6he", "price")
    assert values(path) == TABLE[["load", "price"]].to_numpy().tolist()


def test_a_letter_of_latin_1_far_down_does_not_break_the_reading(tmp_path: Path) -> None:
    rows = "".join(f"{i % 7},x\n" for i in range(30_000))
    path = text(tmp_path, ("a,note\n" + rows + "5,caf\u00e9\n").encode("latin-1"))
    assert len(values(path, columns=("a",))) == 30_001


def packed_zip(path: Path, content: bytes) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inner.csv", content)


@pytest.mark.parametrize(
    ("suffix", "pack", "told"),
    [
        (".csv.gz", gzip.compress, "gzip"),
        (".tsv.gz", gzip.compress, "gzip"),
        (".csv.bz2", bz2.compress, "bz2"),
        (".csv.xz", lzma.compress, "xz"),
        (".csv", gzip.compress, "gzip"),  # by its bytes, whatever its name
        (".csv.zip", None, "zip"),
        (".zip", None, "zip"),
    ],
)
def test_a_packed_table_is_unpacked(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes] | None, told: str
) -> None:
    path = tmp_path / f"ours{suffix}"
    content = TABLE.to_csv(index=False, sep="\t" if "tsv" in suffix else ",").encode()
    if pack is None:
        packed_zip(path, content)
    else:
        path.write_bytes(pack(content))
    assert read(path)[1].compression == told
    assert values(path) == TABLE[["load", "price"]].to_numpy().tolist()


def test_an_archive_of_several_files_a_spreadsheet_and_a_torn_one_are_named(tmp_path: Path) -> None:
    path = tmp_path / "ours.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.csv", "x")
        archive.writestr("b.csv", "x")
    assert "a zip archive of 2 files; unpack it and give one" in refusal(path)
    path = tmp_path / "sheet.csv"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "x")
    assert "is a spreadsheet; save the sheet as CSV" in refusal(path)
    torn = gzip.compress(TABLE.to_csv(index=False).encode() * 50)[:-20]
    assert "is damaged" in refusal(text(tmp_path, torn, name="torn.csv.gz"))
    page = text(tmp_path, "<html><body>404</body></html>", name="page.csv")
    assert "is a page of HTML; download the file itself" in refusal(page)


# Parquet and Arrow


def test_parquet_feather_and_arrow_hold_the_same(tmp_path: Path) -> None:
    wanted = TABLE[["load", "price"]].to_numpy().tolist()
    TABLE.to_parquet(tmp_path / "ours.parquet")
    TABLE.to_feather(tmp_path / "ours.feather")
    table = pyarrow.Table.from_pandas(TABLE)
    with pyarrow.ipc.new_file(str(tmp_path / "ours.arrow"), table.schema) as file:
        file.write_table(table)
    with pyarrow.ipc.new_stream(str(tmp_path / "stream.arrow"), table.schema) as file:
        file.write_table(table)
    for name in ("ours.parquet", "ours.feather", "ours.arrow", "stream.arrow"):
        assert values(tmp_path / name) == wanted


def test_a_folder_of_parts_is_one_table_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "ours.parquet"
    folder.mkdir()
    rows = [3.5, 1.5, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8]
    for part, value in enumerate(rows):
        pd.DataFrame({"a": [value], "b": [7.0]}).to_parquet(folder / f"part-{part}.parquet")
    (folder / "_SUCCESS").touch()
    assert values(folder) == [[value, 7.0] for value in rows]
    pd.DataFrame({"c": [1.0]}).to_parquet(folder / "part-99.parquet")
    assert "has other columns" in refusal(folder)


def test_a_folder_of_parts_is_loaded_by_its_path_and_known_by_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "ours.parquet"
    folder.mkdir()
    TABLE.iloc[:3].to_parquet(folder / "part-0.parquet")
    TABLE.iloc[3:].to_parquet(folder / "part-1.parquet")
    first = load(str(folder))
    assert first.values_TC.tolist() == TABLE[["load", "price"]].to_numpy().tolist()
    TABLE.iloc[3:].assign(load=5.0).to_parquet(folder / "part-1.parquet")
    second = load(str(folder))
    assert second.digest != first.digest
    assert second.values_TC[4].tolist() == [5, 8]


def test_a_folder_without_parts_is_refused(tmp_path: Path) -> None:
    assert "a folder without Parquet files" in refusal(tmp_path)


@pytest.mark.parametrize(
    "index",
    [
        TABLE["date"].rename("when"),
        pd.DatetimeIndex(TABLE["date"], name="when"),
        pd.DatetimeIndex(TABLE["date"]),
        pd.PeriodIndex(TABLE["date"], freq="h", name="when"),
        pd.Index(pd.DatetimeIndex(TABLE["date"]).date, name="when"),
    ],
    ids=["strings", "stamps", "nameless", "periods", "dates"],
)
def test_an_index_of_times_is_the_time_whatever_it_is_made_of(
    tmp_path: Path, index: pd.Index
) -> None:
    TABLE[["load", "price"]].set_index(index).to_parquet(tmp_path / "ours.parquet")
    made = table.read(tmp_path / "ours.parquet")
    assert made.variates == ("load", "price")
    assert str(made.time[0])[:10] == "2024-01-31"


def test_an_index_that_numbers_the_rows_is_no_variate(tmp_path: Path) -> None:
    path = tmp_path / "ours.parquet"
    TABLE[["load"]].to_parquet(path)
    assert table.read(path).variates == ("load",)
    TABLE[["load"]].iloc[[0, 2, 3]].to_parquet(path)
    assert "column 'index' is an index without a name; leave it out with --ignore index" in refusal(
        path
    )
    assert table.read(path, reading=Reading(ignore=("index",))).variates == ("load",)
    TABLE[["load"]].set_index(pd.RangeIndex(5, 10, name="id")).to_parquet(path)
    assert "column 'id' rises by one step" in refusal(path)


def test_found_tells_a_columnar_file_by_its_kind() -> None:
    assert Found("parquet").told() == "parquet"

#!/usr/bin/env python3
"""Reads stored objects as plain Parquet and compares sums with what was pushed.

usage: read_block.py DIR     needs pyarrow, and uses DuckDB too if it is installed

DIR holds the output of `cargo run -p block --example write_objects DIR`. No code of Pyrograph is used here:
rows come from the Parquet reader, their meaning from the file's key-value metadata.
"""
import json
import pathlib
import sys

import pyarrow.parquet as parquet


def values_of(path):
    """For each tenant/service/profile type of the file, its rows, column and factor."""
    metadata = parquet.read_metadata(path).metadata
    assert metadata[b"pyrograph.format"] == b"2", metadata[b"pyrograph.format"]
    for dataset in json.loads(metadata[b"pyrograph.datasets"]):
        for schema in dataset["schemas"]:
            rows = range(schema["first_row"], schema["first_row"] + schema["rows"])
            for value in schema["values"]:
                name = f"{dataset['tenant']}/{dataset['service']}/{value['profile_type']}"
                yield name, rows, value["column"], value["factor"]


def sums_by_pyarrow(path):
    table = parquet.read_table(path)
    sums = {}
    for name, rows, column, factor in values_of(path):
        part = table.column(column).slice(rows.start, len(rows))
        sums[name] = sums.get(name, 0) + sum(part.to_pylist()) * factor
    return sums


def sums_by_duckdb(path):
    import duckdb

    sums = {}
    for name, rows, column, factor in values_of(path):
        (found,) = duckdb.execute(
            f"select coalesce(sum({column}), 0) from read_parquet(?, file_row_number = true)"
            " where file_row_number >= ? and file_row_number < ?",
            [str(path), rows.start, rows.stop],
        ).fetchone()
        sums[name] = sums.get(name, 0) + int(found) * factor
    return sums


def main():
    directory = pathlib.Path(sys.argv[1])
    expected = json.loads((directory / "expected.json").read_text())
    readers = [sums_by_pyarrow]
    try:
        import duckdb  # noqa: F401

        readers.append(sums_by_duckdb)
    except ImportError:
        print("duckdb is not installed: only pyarrow was asked")
    for name in ["segment.parquet", "block.parquet"]:
        for reader in readers:
            found = reader(directory / name)
            assert found == expected, (name, reader.__name__, found, expected)
            rows = parquet.read_metadata(directory / name).num_rows
            print(f"{name}: {reader.__name__} read {rows} rows, {len(found)} sums equal")


if __name__ == "__main__":
    main()

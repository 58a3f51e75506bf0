"""Reads an archive the way other tools do, with pyarrow: prints one JSON object a message, bytes as hex.

Fails when a file is broken, not sorted by time, in the wrong folder, or of other columns than documented.
"""

import json
import sys
from datetime import timezone
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

MS = pa.timestamp("ms", tz="UTC")
COLUMNS = {
    "topic": pa.string(),
    "key": pa.binary(),
    "partition": pa.int32(),
    "offset": pa.int64(),
    "timestamp": MS,
    "received_at": MS,
    "qos": pa.uint8(),
    "retain": pa.bool_(),
    "pipeline": pa.string(),
    "input": pa.string(),
    "payload": pa.binary(),
}


def plain(value):
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [[plain(header["name"]), plain(header["value"])] for header in value]
    return value


folder = Path(sys.argv[1])
files = sorted(folder.rglob("*.parquet"))
rows = 0
for path in files:
    file = pq.ParquetFile(path)
    schema = file.schema_arrow
    found = {field.name: field.type for field in schema if field.name != "headers"}
    assert found == COLUMNS, f"{path}: {found}"
    assert file.metadata.metadata[b"streamer.archive"] == b"1", path
    for group in range(file.num_row_groups):
        column = file.metadata.row_group(group).column(5)
        assert column.path_in_schema == "received_at" and column.statistics.has_min_max, path
        assert column.compression == "ZSTD", path
    table = file.read()
    rows += table.num_rows
    times = table["received_at"].to_pylist()
    assert times == sorted(times), f"{path} is not sorted"
    for time in times:
        time = time.astimezone(timezone.utc)
        assert path.parent.name == f"hour={time:%H}" and path.parent.parent.name == f"date={time:%Y-%m-%d}", path
    for row in table.to_pylist():
        for name in ("timestamp", "received_at"):
            row[name] = row[name] and round(row[name].timestamp() * 1000)
        print(json.dumps({name: plain(value) for name, value in row.items()}))
if files:
    # As one data set, folders as columns.
    whole = ds.dataset(folder, format="parquet", partitioning="hive")
    assert whole.count_rows() == rows, f"{whole.count_rows()} rows in the data set, {rows} in the files"

"""Parquet by PyArrow: a table, a data set of many files, and PyArrow's own file system type.

    python pyarrow_parquet.py s3://bucket/table
"""

import os
import sys

import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet

from alluxio_dataset import AlluxioFileSystem

root = sys.argv[1]
fs = AlluxioFileSystem(
    worker_hosts=os.environ["ALLUXIO_WORKERS"],
    target_protocol="s3",
    target_options={"endpoint_url": os.environ["S3_ENDPOINT"]},
)

# One file; only the column that is asked for is read.
first = sorted(fs.glob(f"{root}/*.parquet"))[0]
table = pyarrow.parquet.read_table(first, filesystem=fs, columns=["number"])
print("rows of one file", table.num_rows)

# All files, and a filter that skips row groups by their statistics.
data = pyarrow.dataset.dataset(fs._strip_protocol(root), filesystem=fs, format="parquet")
print("rows of all files", data.count_rows())
print("rows over 150", data.to_table(filter=pyarrow.dataset.field("number") >= 150).num_rows)

# What wants a file system of PyArrow's own.
arrow = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs))
print("bytes", arrow.get_file_info(first).size)
pyarrow.parquet.write_table(table, f"{fs._strip_protocol(root)}-copy/part.parquet", filesystem=arrow)
print("rows written", pyarrow.parquet.read_table(f"{root}-copy/part.parquet", filesystem=fs).num_rows)

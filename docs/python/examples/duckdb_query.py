"""DuckDB: SQL over files, by fsspec.

    python duckdb_query.py s3://bucket/table
"""

import os
import sys

import duckdb

from alluxio_dataset import AlluxioFileSystem

root = sys.argv[1].removeprefix("s3://")
fs = AlluxioFileSystem(
    worker_hosts=os.environ["ALLUXIO_WORKERS"],
    target_protocol="s3",
    target_options={"endpoint_url": os.environ["S3_ENDPOINT"]},
)

connection = duckdb.connect()
connection.register_filesystem(fs)
query = f"SELECT count(*), sum(number) FROM read_parquet('alluxio://{root}/*.parquet')"
print("rows and sum", connection.execute(query).fetchone())

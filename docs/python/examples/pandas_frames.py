"""pandas: frames by URL, with `storage_options`.

    python pandas_frames.py s3://bucket/table
"""

import os
import sys

import pandas

root = sys.argv[1]
options = {
    "worker_hosts": os.environ["ALLUXIO_WORKERS"],
    "target_options": {"endpoint_url": os.environ["S3_ENDPOINT"]},
}

frame = pandas.read_parquet(f"alluxio://{root}/part-0.parquet", storage_options=options)
print("rows", len(frame), "sum", int(frame["number"].sum()))

frame.to_csv(f"alluxio://{root}-csv/numbers.csv", index=False, storage_options=options)
again = pandas.read_csv(f"alluxio://{root}-csv/numbers.csv", storage_options=options)
print("rows of the CSV", len(again), "equal", bool((again["number"] == frame["number"]).all()))

"""Hugging Face datasets: streamed, and kept, by URL with `storage_options`.

    python huggingface_datasets.py s3://bucket/table
"""

import os
import sys

import datasets

root = sys.argv[1].removeprefix("s3://")
options = {
    "worker_hosts": os.environ["ALLUXIO_WORKERS"],
    "target_protocol": "s3",
    "target_options": {"endpoint_url": os.environ["S3_ENDPOINT"]},
}

data = datasets.load_dataset(
    "parquet",
    data_files=f"alluxio://{root}/*.parquet",
    storage_options=options,
    split="train",
    streaming=True,
)
numbers = [row["number"] for row in data]
print("rows", len(numbers), "sum", sum(numbers))

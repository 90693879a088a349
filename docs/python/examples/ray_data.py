"""Ray Data (2.8.2 and later): Parquet, images and binary files; and Parquet written.

    python ray_data.py s3://bucket/table s3://bucket/images
"""

import os
import sys

import ray

from alluxio_dataset import AlluxioFileSystem

table, images = sys.argv[1:]
fs = AlluxioFileSystem(
    worker_hosts=os.environ["ALLUXIO_WORKERS"],
    target_protocol="s3",
    target_options={"endpoint_url": os.environ["S3_ENDPOINT"]},
)

ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
data = ray.data.read_parquet(table, filesystem=fs)
print("rows", data.count(), "sum", data.sum("number"))
print("images", ray.data.read_images(images, filesystem=fs).count())
print("files", ray.data.read_binary_files(images, filesystem=fs).count())
data.write_parquet(f"{table}-ray", filesystem=fs)
print("rows written", ray.data.read_parquet(f"{table}-ray", filesystem=fs).count())

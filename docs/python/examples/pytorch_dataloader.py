"""PyTorch: a Dataset of images, and a DataLoader with 4 processes.

    python pytorch_dataloader.py s3://bucket/images
"""

import io
import os
import sys

import numpy
import torch
from PIL import Image

from alluxio_dataset import AlluxioFileSystem


class Images(torch.utils.data.Dataset):
    """Images below a folder; the file system goes with it into each process."""

    def __init__(self, fs, root):
        self.fs = fs
        self.paths = fs.find(root)

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        image = Image.open(io.BytesIO(self.fs.cat_file(self.paths[index]))).convert("RGB")
        return torch.from_numpy(numpy.array(image)), self.paths[index]


if __name__ == "__main__":
    fs = AlluxioFileSystem(
        worker_hosts=os.environ["ALLUXIO_WORKERS"],
        target_protocol="s3",
        target_options={"endpoint_url": os.environ["S3_ENDPOINT"]},
    )
    loader = torch.utils.data.DataLoader(
        Images(fs, sys.argv[1]), batch_size=50, shuffle=True, num_workers=4
    )
    seen, total = set(), 0
    for images, paths in loader:
        seen.update(paths)
        total += int(images.sum())
    print("images", len(seen), "sum of pixels", total)

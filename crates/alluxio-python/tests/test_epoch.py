"""An epoch over 5,000 images by 4 processes, with a worker killed in the middle: no error, and all
pixels right. By multiprocessing, which is what DataLoader does, and by PyTorch where it is installed."""

import hashlib
import importlib.util
import io
import multiprocessing
import random

import pytest
from PIL import Image

COUNT = 5_000
EDGE = 24


@pytest.fixture
def images(own_cluster, folder):
    """Digests of the pixels of 5,000 images, half JPEG and half PNG, by their names."""
    below = own_cluster.store.root / folder
    below.mkdir(parents=True)
    pixels = random.Random(0)
    digests = {}
    for index in range(COUNT):
        image = Image.frombytes("RGB", (EDGE, EDGE), pixels.randbytes(EDGE * EDGE * 3))
        kind = ("jpeg", "png")[index % 2]
        encoded = io.BytesIO()
        image.save(encoded, kind)
        (below / f"{index:05}.{kind}").write_bytes(encoded.getvalue())
        digests[f"{folder}/{index:05}.{kind}"] = decoded(encoded)
    return digests


def decoded(file):
    """The digest of an image's pixels; a JPEG's are those that the decoder makes of it."""
    with Image.open(file) as image:
        assert image.size == (EDGE, EDGE)
        return hashlib.sha256(image.convert("RGB").tobytes()).hexdigest()


class Images:
    """What PyTorch calls a Dataset."""

    def __init__(self, fs, paths):
        self.fs, self.paths = fs, paths

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        path = self.paths[index]
        with self.fs.open(path) as file:
            return path, decoded(file)


def killing_in_the_middle(cluster, samples):
    """The samples; a worker is killed when half of them have come."""
    for number, sample in enumerate(samples):
        if number == COUNT // 2:
            cluster.workers[0].kill()
        yield sample


def test_by_multiprocessing(own_cluster, images):
    fs = own_cluster.file_system()
    paths = fs.find(next(iter(images)).rsplit("/", 1)[0])
    assert paths == sorted(images)
    dataset = Images(fs, paths)
    order = random.Random(1).sample(range(COUNT), COUNT)
    with multiprocessing.get_context("fork").Pool(4) as pool:
        samples = pool.imap_unordered(dataset.__getitem__, order, chunksize=25)
        assert dict(killing_in_the_middle(own_cluster, samples)) == images


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None,
    reason="torch is not installed: `make test-python-all`",
)
@pytest.mark.parametrize("way", ["fork", "spawn"])
def test_by_a_dataloader(own_cluster, images, way):
    import torch

    loader = torch.utils.data.DataLoader(
        Images(own_cluster.file_system(), sorted(images)),
        batch_size=50,
        shuffle=True,
        num_workers=4,
        multiprocessing_context=way,
        # Batches as they are: the samples are texts.
        collate_fn=list,
    )
    samples = (sample for batch in loader for sample in batch)
    assert dict(killing_in_the_middle(own_cluster, samples)) == images

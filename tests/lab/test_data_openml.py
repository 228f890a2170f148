"""The data sets of openml.org, from a small server within the process that answers as it does."""

import gzip
import hashlib
import io
import json
from urllib.error import URLError

import numpy as np
import pytest
import torch
from sklearn.datasets import _openml

from bncore.lab import data

SHAPES = {"mnist": ("mnist_784", "pixel", 1, 28), "cifar10": ("CIFAR_10", "a", 3, 32)}


class Response(io.BytesIO):
    def info(self):
        return {"Content-Encoding": "gzip"}


class Server:
    """Answers the requests of fetch_openml for one data set, and counts them."""

    def __init__(self, name, column, pixels, labels):
        columns = [f"{column}{i}" for i in range(pixels.shape[1])]
        lines = [f"@RELATION {name}"]
        lines += [f"@ATTRIBUTE {column} REAL" for column in columns]
        lines += ["@ATTRIBUTE class {0,1,2,3,4,5,6,7,8,9}", "@DATA"]
        lines += [
            ",".join(map(str, [*row, label])) for row, label in zip(pixels, labels, strict=True)
        ]
        arff = "\n".join(lines).encode() + b"\n"
        features = [self.feature(i, name, "numeric") for i, name in enumerate(columns)]
        features.append(self.feature(len(columns), "class", "nominal", [*"0123456789"], "true"))
        listed = {"did": 7, "name": name, "version": 1, "status": "active", "format": "ARFF"}
        description = {
            "id": "7",
            "name": name,
            "version": "1",
            "format": "ARFF",
            "file_id": "70",
            "url": "https://www.openml.org/data/v1/download/70/set.arff",
            "default_target_attribute": "class",
            "md5_checksum": hashlib.md5(arff).hexdigest(),
            "status": "active",
        }
        qualities = [{"name": "NumberOfInstances", "value": str(len(pixels))}]
        self.requests = 0
        self.answers = {
            "/data/list/": {"data": {"dataset": [listed]}},
            "/data/features/7": {"data_features": {"feature": features}},
            "/data/qualities/7": {"data_qualities": {"quality": qualities}},
            "/json/data/7": {"data_set_description": description},
            ".arff": arff,
        }

    @staticmethod
    def feature(index, name, kind, values=(), target="false"):
        return {
            "index": str(index),
            "name": name,
            "data_type": kind,
            "nominal_value": list(values),
            "is_target": target,
            "is_ignore": "false",
            "is_row_identifier": "false",
            "number_of_missing_values": "0",
        }

    def __call__(self, request, *_, **__):
        self.requests += 1
        for part, answer in self.answers.items():
            if part in request.full_url:
                content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                return Response(gzip.compress(content))
        raise AssertionError(f"no answer to {request.full_url}")


def unreachable(request, *_, **__):
    raise URLError("Name or service not known")


@pytest.fixture
def served(monkeypatch):
    def serve(name, size=None):
        title, column, channels, side = SHAPES[name]
        generator = np.random.default_rng(0)
        values = channels * side**2 if size is None else size
        pixels = generator.integers(0, 256, (12, values))
        labels = generator.integers(0, 10, 12)
        server = Server(title, column, pixels, labels)
        monkeypatch.setattr(_openml, "urlopen", server)
        return server, pixels, labels

    monkeypatch.setattr("time.sleep", lambda seconds: None)
    return serve


@pytest.mark.parametrize("name", SHAPES)
def test_a_set_is_downloaded_once_and_then_read_from_the_cache(served, monkeypatch, tmp_path, name):
    server, pixels, labels = served(name)
    split = data.openml(name, tmp_path, train=9)
    _, _, channels, side = SHAPES[name]
    images = torch.cat([split.x_train, split.x_test])
    assert split.x_train.shape == (9, channels, side, side)
    assert split.x_test.shape == (3, channels, side, side)
    assert images.dtype == torch.float32
    expected = pixels.reshape(-1, channels, side, side) / 255
    np.testing.assert_allclose(images.numpy(), expected, rtol=torch.finfo(torch.float32).eps)
    np.testing.assert_array_equal(torch.cat([split.y_train, split.y_test]), labels)
    assert split.y_train.dtype == torch.int64
    assert server.requests > 0
    monkeypatch.setattr(_openml, "urlopen", unreachable)
    assert all(map(torch.equal, split, data.openml(name, tmp_path, train=9)))


@pytest.mark.filterwarnings("ignore:A network error")
def test_without_network_and_cache_the_error_says_what_to_do(served, monkeypatch, tmp_path):
    monkeypatch.setattr(_openml, "urlopen", unreachable)
    message = (
        r"mnist_784 is not complete in the cache .* and openml.org cannot be reached .*"
        r"Name or service not known.*call data.openml\('mnist', cache=...\) once with a network"
    )
    with pytest.raises(ConnectionError, match=message):
        data.openml("mnist", tmp_path)


def test_an_unknown_set_is_named():
    with pytest.raises(ValueError, match="name is 'svhn', expected one of 'mnist', 'cifar10'"):
        data.openml("svhn")


@pytest.mark.parametrize("train", [12, 60_000])
def test_a_part_that_leaves_nothing_to_test_on_is_refused(served, tmp_path, train):
    served("mnist")
    with pytest.raises(ValueError, match=rf"train is {train}, expected at most 11"):
        data.openml("mnist", tmp_path, train=train)


@pytest.mark.parametrize(("name", "train"), [("mnist", 60_000), ("cifar10", 50_000)])
def test_by_default_as_many_are_to_learn_from_as_the_authors_say(served, tmp_path, name, train):
    served(name)
    with pytest.raises(ValueError, match=rf"train is {train}, expected at most 11"):
        data.openml(name, tmp_path)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("train", "error", "message"),
    [(0, ValueError, "train is 0, expected at least 1"), (0.5, TypeError, "train is a float")],
)
def test_a_part_that_is_no_number_of_images_is_refused(train, error, message):
    with pytest.raises(error, match=message):
        data.openml("mnist", train=train)


def test_images_of_another_size_are_refused(served, tmp_path):
    served("mnist", size=100)
    with pytest.raises(ValueError, match="mnist_784 has 100 values an image, expected 784"):
        data.openml("mnist", tmp_path)

"""Networks as they are met: wrapped, cast, compiled, reparametrised, with inputs and outputs of all kinds."""

import collections
import contextlib

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations

from bncore.lab import data, networks, training
from bncore.lab.layers import seeded
from bncore.practice.diagnosis import examine, examine_state
from bncore.practice.diagnosis.__main__ import main

SPLIT = data.digits(0)
PAIRS = list(zip(SPLIT.x_train[:512].split(32), SPLIT.y_train[:512].split(32), strict=True))


def trained(net=None, steps=60):
    net = networks.mlp([64, 32, 32, 10], "relu", "batch") if net is None else net
    training.train(net, SPLIT, steps, 32, 0.1, 0)
    return net


def broken(net):
    """The second batch norm's running mean is off by two deviations."""
    norm = [one for one in net.modules() if isinstance(one, nn.modules.batchnorm._BatchNorm)][1]
    norm.running_mean += 2 * norm.running_var.float().sqrt().to(norm.running_mean.dtype)
    return net


class Around(nn.Module):
    """A network within another, that takes and returns what it is told to."""

    def __init__(self, net, returns=lambda y: y, cast=None):
        super().__init__()
        self.net, self.returns, self.cast = net, returns, cast

    def forward(self, x, labels=None):
        with contextlib.nullcontext() if self.cast is None else torch.autocast("cpu", self.cast):
            return self.returns(self.net(x))


Output = collections.namedtuple("Output", "logits hidden")


def weight_normed():
    net = networks.mlp([64, 32, 32, 10], "relu", "batch")
    for name in ("linear1", "linear2"):
        parametrizations.weight_norm(net.get_submodule(name))
    parametrizations.orthogonal(net.output)
    return trained(net)


def synchronised():
    return nn.SyncBatchNorm.convert_sync_batchnorm(trained())


def lazy():
    net = nn.Sequential(
        *(nn.LazyLinear(32, bias=False), nn.LazyBatchNorm1d(), nn.ReLU()),
        *(nn.LazyLinear(32, bias=False), nn.LazyBatchNorm1d(), nn.ReLU(), nn.LazyLinear(10)),
    )
    net(SPLIT.x_train[:4])
    return trained(net)


SET_UPS = {
    "plain": trained,
    "data parallel": lambda: nn.DataParallel(trained()),
    "compiled": lambda: torch.compile(trained(), backend="eager"),
    "weight norm": weight_normed,
    "synchronised": synchronised,
    "once lazy": lazy,
    "autocast within": lambda: Around(trained(), cast=torch.bfloat16),
    "a tuple": lambda: Around(trained(), lambda y: (y, 2 * y)),
    "a dict": lambda: Around(trained(), lambda y: {"loss": y.mean(), "logits": y}),
    "a named tuple": lambda: Around(trained(), lambda y: Output(y, None)),
}


@pytest.mark.parametrize("name", SET_UPS)
def test_a_set_up_is_healthy_until_it_is_broken(name):
    net = SET_UPS[name]()
    assert examine(net, PAIRS).codes == set(), name
    (one,) = examine(broken(net), PAIRS).findings
    assert one.code == "train-eval-gap"
    assert one.layer.rpartition(".")[2] in ("norm2", "4")


BATCHES = {
    "pairs": PAIRS,
    "lists": [[x, y] for x, y in PAIRS],
    "tensors": [x for x, _ in PAIRS],
    "dicts": [{"x": x, "labels": y} for x, y in PAIRS],
    "dicts in pairs": [({"x": x}, y) for x, y in PAIRS],
    "a loader": torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(SPLIT.x_train[:512], SPLIT.y_train[:512]), 32
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_batches_of_all_kinds_say_the_same(name):
    net = Around(trained())
    assert examine(net, BATCHES[name]).codes == set()
    (one,) = examine(broken(net), BATCHES[name]).findings
    expected = examine(net, PAIRS).findings[0].values
    assert one.values == pytest.approx(expected, rel=1e-6)


class Fixed(nn.Module):
    """A batch norm of a detector: buffers alone, in no mode."""

    def __init__(self, features):
        super().__init__()
        for name, value in (
            ("weight", 1.0),
            ("bias", 0.0),
            ("running_mean", 0.3),
            ("running_var", 2.0),
        ):
            self.register_buffer(name, torch.full((features,), value))

    def forward(self, x):
        scale = self.weight * (self.running_var + 1e-5).rsqrt()
        return scale * (x - self.running_mean) + self.bias


@pytest.mark.parametrize("seed", range(3))
def test_what_never_moves_is_frozen_whatever_its_mode(seed):
    with seeded(seed):
        net = nn.Sequential(
            *(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU()),
            *(nn.Linear(32, 32), Fixed(32), nn.ReLU(), nn.Linear(32, 10)),
        )
    trained(net)
    report = examine(net, PAIRS)
    assert report.layers == ("1", "4")
    assert report.codes == {"redundant-bias"}
    assert [one.layer for one in report] == ["1"]


class Scene(nn.Module):
    """It takes a list of images of different sizes, and targets in training."""

    def __init__(self):
        super().__init__()
        with seeded(0):
            self.body = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8))

    def forward(self, images, targets=None):
        return [{"boxes": self.body(one[None]).mean((2, 3))} for one in images]


@pytest.mark.parametrize("kind", ["pairs", "dicts"])
def test_images_of_different_sizes_come_as_lists(kind):
    rng = torch.Generator().manual_seed(0)
    images = [[torch.randn(3, 8 + i, 9, generator=rng) for i in range(3)] for _ in range(10)]
    given = [
        (one, [{"boxes": 1}] * 3) if kind == "pairs" else {"images": one, "targets": None}
        for one in images
    ]
    net = Scene()
    for one in images * 5:
        net(one)
    report = examine(net, given)
    assert report.layers == ("body.1",)
    assert report.codes == set()


def test_autocast_around_it_is_as_good():
    net = trained()
    with torch.autocast("cpu", torch.bfloat16):
        assert examine(net, PAIRS).codes == set()
        assert examine(broken(net), PAIRS).codes == {"train-eval-gap"}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_network_in_half_precision_is_watched_in_its_own(dtype):
    net = trained().to(dtype)
    given = [(x.to(dtype), y) for x, y in PAIRS]
    assert examine(net, given).codes == {"low-precision"}
    assert examine(broken(net), given).codes == {"low-precision", "train-eval-gap"}
    with pytest.raises(RuntimeError) as caught:
        examine(net, PAIRS)
    assert "examine applied the model to batch 0, of shape (32, 64)" in caught.value.__notes__


def test_a_network_of_one_process_among_others(tmp_path):
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_gloo_available()):
        pytest.skip("needs gloo")
    store = distributed.FileStore(str(tmp_path / "store"), 1)
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        net = nn.parallel.DistributedDataParallel(trained())
        report = examine(net, PAIRS)
        assert report.codes == set()
        assert report.layers == ("norm1", "norm2")
        assert examine(broken(net), PAIRS).codes == {"train-eval-gap"}
        together = nn.SyncBatchNorm.convert_sync_batchnorm(net)
        assert examine(together, PAIRS).codes == {"train-eval-gap"}
    finally:
        distributed.destroy_process_group()


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("under", [(), ("model",), ("state_dict",), ("ema", "model")])
def test_a_checkpoint_is_read_wherever_its_state_is(prefix, under, tmp_path, capsys):
    net = trained()
    net.norm2.running_var[3] = torch.nan
    content = {prefix + key: value for key, value in net.state_dict().items()}
    (one,) = examine_state(content).findings
    assert (one.code, one.layer) == ("not-finite", f"{prefix}norm2")
    for key in reversed(under):
        content = {key: content, "epoch": 3}
    torch.save(content, tmp_path / "net.pt")
    assert main([str(tmp_path / "net.pt")]) == 1
    assert f"error: not-finite, layer {prefix}norm2" in capsys.readouterr().out

"""The networks of the chapter on covariate shift."""

import numpy as np
import pytest

from bncore.chapters.explanations.covariate_shift import experiments
from bncore.explanations.noisy_batch_norm import NoisyBatchNorm

EPS, SINGLE = (float(np.finfo(kind).eps) for kind in (np.float64, np.float32))


def test_standardized_images_have_mean_0_and_variance_1():
    split = experiments.vgg(2, 8, 1).split(0)
    values = split.x_train.double()
    assert abs(values.mean().item()) < SINGLE
    assert values.std().item() == pytest.approx(1, rel=SINGLE, abs=0)
    assert abs(split.x_test.mean().item()) < 0.1


@pytest.mark.parametrize("strength", [1, 4])
def test_stronger_noise_is_the_usual_noise_times_so_much(strength):
    layer, usual = experiments.noisier(strength)(3), NoisyBatchNorm(3)
    assert layer.shift == strength * usual.shift
    rounding = 16 * EPS * strength
    assert layer.stretch - 1 == pytest.approx(strength * (usual.stretch - 1), abs=rounding)
    assert layer.jitter == pytest.approx(strength * usual.jitter, abs=rounding)


@pytest.mark.parametrize(
    ("source", "size", "message"),
    [
        ("cifar10", 28, "size is 28, expected 32, that of the images of cifar10"),
        ("mnist", 32, "size is 32, expected 28, that of the images of mnist"),
        ("letters", 32, "source is 'letters', expected 'digits', 'mnist' or 'cifar10'"),
    ],
)
def test_images_that_a_set_does_not_have_are_refused(source, size, message):
    with pytest.raises(ValueError, match=message):
        experiments.vgg(2, size, 1, source=source)

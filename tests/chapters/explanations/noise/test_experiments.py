"""The data and the networks of the chapter on noise."""

import pytest
import torch

from bncore.chapters.explanations.noise import experiments


def test_pixel_noise_belongs_to_the_data():
    clean, noisy, again = (experiments.digits(3, level) for level in (0.0, 0.3, 0.3))
    apart = noisy.x_train - clean.x_train
    assert apart.std().item() == pytest.approx(0.3, rel=0.02)
    assert torch.equal(noisy.x_test, again.x_test)
    assert torch.equal(noisy.y_train, clean.y_train)
    assert len(clean.x_train) < 0.26 * (len(clean.x_train) + len(clean.x_test))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("digits", "vgg"), "source is 'digits', expected 'mnist' or 'cifar10'"),
        (("cifar10", "mlp"), "kind is 'mlp', expected 'vgg' or 'residual'"),
    ],
)
def test_networks_that_there_are_not_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        experiments.on_images(*arguments)

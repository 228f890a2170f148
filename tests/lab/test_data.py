import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from bncore.lab import data


@pytest.mark.parametrize("seed", range(5))
def test_a_split_holds_every_image_once_with_its_label(seed):
    split = data.digits(seed)
    pixels = torch.cat([split.x_train, split.x_test]).numpy() * 16
    labels = torch.cat([split.y_train, split.y_test]).numpy()

    def rows(images, labels):
        table = np.column_stack([images, labels])
        return table[np.lexsort(table.T)]

    images, truth = load_digits(return_X_y=True)
    np.testing.assert_array_equal(rows(pixels, labels), rows(images, truth))


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.5, 0.999])
def test_the_test_set_has_the_fraction_asked_for(fraction):
    split = data.digits(test_fraction=fraction)
    assert abs(len(split.x_test) - 1797 * fraction) <= 0.5
    assert len(split.x_train) + len(split.x_test) == 1797


def test_pixels_run_from_zero_to_one_in_single_precision():
    split = data.digits()
    assert split.x_train.dtype == split.x_test.dtype == torch.float32
    assert (split.x_train.min(), split.x_train.max()) == (0, 1)


def test_the_seed_decides_the_split_and_touches_no_other_randomness():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = data.digits(1), data.digits(1), data.digits(2)
    assert torch.equal(torch.rand(3), expected)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first.y_test, other.y_test)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 2.0, 1e-6, float("nan")])
def test_a_fraction_that_leaves_a_side_empty_is_refused(fraction):
    with pytest.raises(ValueError, match=r"test_fraction is .*strictly between 0 and 1"):
        data.digits(test_fraction=fraction)


@pytest.mark.usefixtures("unchecked")
def test_a_fraction_that_is_no_number_is_refused():
    with pytest.raises(TypeError, match="test_fraction is a str, expected a real number"):
        data.digits(test_fraction="half")

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from bncore.lab import data

SINGLE = torch.finfo(torch.float32).eps


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


def test_digit_images_of_eight_pixels_are_the_digits():
    rows, images = data.digits(3, 0.4), data.digit_images(8, 3, 0.4)
    for row, image in ((rows.x_train, images.x_train), (rows.x_test, images.x_test)):
        assert torch.equal(image, row.reshape(-1, 1, 8, 8))
    assert torch.equal(rows.y_train, images.y_train)


@pytest.mark.parametrize("size", [1, 4, 5, 16, 28, 32])
def test_resized_digits_keep_range_and_overall_ink(size):
    small, images = data.digit_images(), data.digit_images(size)
    assert images.x_train.shape == (1348, 1, size, size)
    assert images.x_test.shape == (449, 1, size, size)
    assert images.x_train.min() >= 0
    assert images.x_train.max() <= 1
    assert images.x_train.mean().item() == pytest.approx(small.x_train.mean().item(), rel=0.15)


def test_doubling_the_size_interpolates_linearly_along_each_axis():
    image = data.digits().x_train[0].reshape(8, 8).double().numpy()
    position = np.clip((np.arange(16) + 0.5) / 2 - 0.5, 0, 7)
    along = np.stack([np.interp(position, np.arange(8), row) for row in image])
    both = np.stack([np.interp(position, np.arange(8), column) for column in along.T]).T
    found = data.digit_images(16).x_train[0, 0]
    np.testing.assert_allclose(found, both, rtol=0, atol=4 * SINGLE)  # Four pixels of at most 1.


@pytest.mark.parametrize("seed", range(5))
def test_a_regression_is_recovered_by_least_squares(seed):
    split = data.gaussian_regression(4000, 6, 3, noise=0.1, seed=seed)
    assert split.x_train.shape == (3000, 6)
    assert split.y_test.shape == (1000, 3)
    x, y = split.x_train.double().numpy(), split.y_train.double().numpy()
    solution, *_ = np.linalg.lstsq(x, y, rcond=None)
    residual = split.y_test.double().numpy() - split.x_test.double().numpy() @ solution
    assert residual.std() == pytest.approx(0.1, rel=0.05)
    np.testing.assert_allclose(x.T @ x / 3000, np.eye(6), rtol=0, atol=0.1)


def test_without_noise_targets_are_exactly_linear():
    split = data.gaussian_regression(100, 6, 3, noise=0.0)
    _, residuals, *_ = np.linalg.lstsq(split.x_train.numpy(), split.y_train.numpy(), rcond=None)
    # Each target is a sum of six products.
    rounding = 6 * SINGLE * split.y_train.abs().max().item()
    assert residuals.max() < len(split.y_train) * rounding**2


def test_a_regressions_targets_have_variance_one_plus_noise():
    variances = [
        data.gaussian_regression(200, 10, 10, noise=2.0, seed=seed).y_train.var().item()
        for seed in range(100)
    ]
    assert np.mean(variances) == pytest.approx(5, rel=0.05)


def test_the_seed_decides_the_regression_and_touches_no_other_randomness():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    first, again, other = (data.gaussian_regression(20, 3, 2, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    assert all(map(torch.equal, first, again))
    assert not torch.equal(first.x_train, other.x_train)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"count": 0}, ValueError, "count is 0, expected at least 1"),
        ({"inputs": 2.5}, TypeError, "inputs is a float, expected an integer"),
        ({"outputs": 0}, ValueError, "outputs is 0, expected at least 1"),
        ({"noise": 1e39}, ValueError, "noise is 1e.39, so large that targets leave the range"),
        ({"noise": -1}, ValueError, "noise is -1, expected a finite number of at least 0"),
        ({"count": 2, "test_fraction": 0.1}, ValueError, "at least one of 2 examples on either"),
    ],
)
def test_bad_arguments_of_a_regression_are_named(arguments, error, message):
    with pytest.raises(error, match=message):
        data.gaussian_regression(**{"count": 9, "inputs": 3, "outputs": 2, **arguments})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("size", "error", "message"),
    [(0, ValueError, "size is 0, expected at least 1"), (8.0, TypeError, "size is a float")],
)
def test_a_size_that_is_none_is_refused(size, error, message):
    with pytest.raises(error, match=message):
        data.digit_images(size)


@pytest.mark.parametrize("size", [8, 16])
def test_standardised_images_have_one_mean_and_one_variance(size):
    split = data.digit_images(size)
    found = data.standardized(split)
    values = found.x_train.double()
    # Values are rounded to float32 once, and their mean size is below 1.
    assert abs(values.mean().item()) < SINGLE
    assert values.var().item() == pytest.approx(1, rel=2 * SINGLE, abs=0)
    shift, scale = split.x_train.double().mean(), split.x_train.double().std()
    expected = (split.x_test.double() - shift) / scale
    rounding = 2 * SINGLE * expected.abs().max().item()
    torch.testing.assert_close(found.x_test.double(), expected, rtol=0, atol=rounding)
    assert torch.equal(found.y_train, split.y_train)


@pytest.mark.parametrize("value", [0.5, 0.1, 0.0, -3e38])
def test_equal_pixels_cannot_be_standardised(value):
    split = data.digit_images()
    blank = split._replace(x_train=torch.full_like(split.x_train, value))
    with pytest.raises(ValueError, match=r"x_train is .* throughout, expected values that differ"):
        data.standardized(blank)


@given(
    st.sampled_from([torch.float16, torch.float32, torch.float64]),
    st.integers(-30, 30),
    st.integers(0, 2**32 - 1),
)
def test_examples_of_any_size_are_standardised(dtype, power, seed):
    """The scale of all values changes nothing, also where their squares leave the dtype's range."""
    generator = torch.Generator().manual_seed(seed)
    largest = torch.finfo(dtype).max
    scale = 2.0 ** min(power * {torch.float16: 0.4, torch.float32: 4, torch.float64: 32}[dtype], 0)
    x = (torch.rand(1500, 2, generator=generator, dtype=torch.float64) * largest * scale).to(dtype)
    y = torch.zeros(1500, dtype=torch.int64)
    found = data.standardized(data.Split(x, y, x[:3], y[:3]))
    assert found.x_train.dtype == dtype
    exact = x.numpy().astype(np.longdouble)
    expected = (exact - exact.mean()) / exact.std(ddof=1)
    error = np.abs(found.x_train.numpy().astype(np.longdouble) - expected).max()
    # Rounded once to the dtype; sums of 3000 terms in float64 before that.
    assert error <= 4 * torch.finfo(dtype).eps + 3000 * np.finfo(float).eps
    torch.testing.assert_close(found.x_test, found.x_train[:3], rtol=0, atol=0)


def test_lists_and_integers_are_standardised():
    split = data.Split([[1, 2], [3, 4]], [0, 1], np.array([[5, 6]]), [0])
    found = data.standardized(split)
    deviation = np.std([1, 2, 3, 4], ddof=1)
    expected = (np.array([[5, 6]]) - 2.5) / deviation
    np.testing.assert_allclose(found.x_test, expected, rtol=2 * SINGLE)
    assert found.x_train.dtype == torch.float32


def test_a_test_set_that_leaves_the_range_is_refused():
    x = torch.tensor([[0.0], [1e-30]])
    split = data.Split(x, torch.tensor([0, 1]), torch.tensor([[1e30]]), torch.tensor([0]))
    with pytest.raises(
        ValueError, match=r"the standardised x_test\[0, 0\] is inf, expected finite"
    ):
        data.standardized(split)
    with pytest.raises(ValueError, match=r"x_train\[1, 0\] is nan, expected finite values only"):
        data.standardized(split._replace(x_train=torch.tensor([[0.0], [torch.nan]])))


@pytest.mark.parametrize("seed", range(5))
def test_rows_of_digits_are_the_digits(seed):
    assert all(map(torch.equal, data.rows("digits", seed, "nowhere"), data.digits(seed)))


@pytest.mark.parametrize("name", data.OPENML)
def test_rows_of_downloaded_images_are_their_standardised_pixels_in_order(monkeypatch, name):
    rng = np.random.default_rng(0)
    shape = data.OPENML[name].shape
    x, y = torch.tensor(rng.random((9, *shape)), dtype=torch.float32), torch.arange(9)
    asked, split = [], data.Split(x[:6], y[:6], x[6:], y[6:])
    monkeypatch.setattr(data, "standard_images", lambda *given: asked.append(given) or split)
    found = data.rows(name, 3, "somewhere")
    assert asked == [(name, "somewhere")]
    for images, rows in ((split.x_train, found.x_train), (split.x_test, found.x_test)):
        assert rows.shape == (len(images), np.prod(shape))
        channel, down, across = (rng.integers(size) for size in shape)
        place = (channel * shape[1] + down) * shape[2] + across
        assert torch.equal(rows[:, place], images[:, channel, down, across])
    assert torch.equal(found.y_train, split.y_train)
    assert torch.equal(found.y_test, split.y_test)


def test_rows_of_an_unknown_source_are_refused():
    with pytest.raises(
        ValueError, match="source is 'letters', expected one of 'digits', 'mnist', 'cifar10'"
    ):
        data.rows("letters")


def test_standard_images_are_read_once(monkeypatch):
    asked, split = [], data.digit_images()
    monkeypatch.setattr(data, "openml", lambda *arguments: asked.append(arguments) or split)
    data.standard_images.cache_clear()
    try:
        found = [data.standard_images("mnist", folder) for folder in ("a", "a", "b")]
    finally:
        data.standard_images.cache_clear()
    assert asked == [("mnist", "a"), ("mnist", "b")]
    assert torch.equal(found[0].x_test, data.standardized(split).x_test)

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rdx.students.dropout import CheapDropout


def dropped(x, p, seed=1, **more):
    torch.manual_seed(seed)
    with CheapDropout():
        return F.dropout(x, p, **more)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_share_and_scale_are_those_of_the_probability(p):
    n = 400_003  # not a multiple of the four elements of a word
    found = dropped(torch.ones(n), p)
    share = (found == 0).float().mean().item()
    assert abs(share - p) < 4 * (p * (1 - p) / n) ** 0.5
    assert found.max().item() == pytest.approx(1 / (1 - p), rel=1e-3)
    assert found.unique().numel() == 2
    exact = round(p * 2**16) / 2**16
    assert found.max().item() == pytest.approx(1 / (1 - exact), rel=1e-7)


def test_neighbours_are_dropped_independently():
    gone = (dropped(torch.ones(400_000), 0.2) == 0).float()
    for lag in (1, 2, 3, 4, 5):
        both = (gone[lag:] * gone[:-lag]).mean().item()
        assert abs(both - 0.04) < 4 * (0.04 * 0.96 / 400_000) ** 0.5, lag


def test_the_seed_decides_what_is_dropped():
    x = torch.ones(1000)
    assert torch.equal(dropped(x, 0.5), dropped(x, 0.5))
    assert not torch.equal(dropped(x, 0.5), dropped(x, 0.5, seed=2))


def test_the_gradient_is_the_mask_times_the_scale():
    x = torch.randn(7, 11, requires_grad=True)
    found = dropped(x, 0.25)
    (gradient,) = torch.autograd.grad(found.sum(), x)
    torch.testing.assert_close(gradient, torch.where(found == 0, 0.0, 1 / 0.75))
    torch.testing.assert_close(found, x * gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_the_precision_stays(dtype):
    found = dropped(torch.ones(1000, dtype=dtype), 0.1)
    assert found.dtype == dtype and found.max().item() == pytest.approx(1 / 0.9, rel=4e-3)


def test_in_place():
    x = torch.ones(100)
    found = dropped(x, 0.5, inplace=True)
    assert found.data_ptr() == x.data_ptr() and (x == 0).any()


@pytest.mark.parametrize(("p", "value"), [(0.0, 1.0), (1.0, 0.0), (1e-9, 1.0)])
def test_nothing_to_draw(p, value):
    assert (dropped(torch.ones(50), p) == value).all()


def test_outside_of_training_and_outside_of_the_mode_nothing_changes():
    x = torch.ones(1000)
    assert dropped(x, 0.5, training=False) is x
    torch.manual_seed(1)
    plain = F.dropout(x, 0.5)
    assert not torch.equal(plain, dropped(x, 0.5))
    assert dropped(torch.ones(0, 3), 0.5).shape == (0, 3)


def test_a_wrong_probability_is_torchs_error():
    with pytest.raises(ValueError, match="has to be between 0 and 1"):
        dropped(torch.ones(3), 1.5)


def test_modules_take_it_too():
    layer = nn.Dropout(0.5)
    x = torch.ones(200)
    torch.manual_seed(1)
    with CheapDropout():
        found = layer(x)
    assert torch.equal(found, dropped(x, 0.5))

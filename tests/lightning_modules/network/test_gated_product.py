import torch

from lightning_modules.network.gated_product import GatedProduct


def factors():
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 5, 3, 4), (2, 5, 1, 1), (2, 1, 3, 4))
    return [torch.randn(shape, dtype=torch.float64, generator=generator, requires_grad=True) for shape in shapes]


def test_value_and_gradients_are_those_of_two_multiplications():
    one, other = factors(), factors()
    weights = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    came, expected = GatedProduct.apply(*one), other[0] * other[1] * other[2]
    torch.testing.assert_close(came, expected)
    (came * weights).sum().backward()
    (expected * weights).sum().backward()
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.grad, b.grad)


def test_gradients_are_those_of_finite_differences():
    assert torch.autograd.gradcheck(GatedProduct.apply, factors())

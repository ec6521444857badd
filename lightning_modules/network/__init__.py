"""The network, its loss and its optimiser in plain PyTorch."""

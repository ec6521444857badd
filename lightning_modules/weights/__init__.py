"""Weights files: reading them safely, pretrained weights, pruning masks."""

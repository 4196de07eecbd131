"""A trainer's side: a model in a bucket, and steps that move about one bf16 word in a hundred by one."""

import safetensors.torch
import tiny_models
import torch

import siltstone


class Training:
    """`folder` gets the model that was published first (`model`) and the bucket."""

    def __init__(self, folder, kind, **sizes):
        self.model, self.bucket = folder / "model", folder / "bucket"
        tiny_models.make(kind, self.model, **sizes)
        self.repository = siltstone.open(self.bucket, create=True)
        self.repository.publish(self.model)
        self.publisher = self.repository.publisher()
        self.weights = safetensors.torch.load_file(self.model / "model.safetensors")
        self._random = torch.Generator().manual_seed(3)

    def step(self):
        """Publishes one; returns its report."""
        for tensor in self.weights.values():
            words = tensor.view(torch.int16)
            words[torch.rand(words.shape, generator=self._random) < 0.01] ^= 1
        return self.publisher.publish(self.weights)

"""Fine-tune with transformers' Trainer; every optimizer step is a version that another process can follow."""

import sys
import tempfile

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Trainer, TrainingArguments

import siltstone
from siltstone.integrations.transformers import PublishCallback


class Counting(torch.utils.data.Dataset):
    """Rows of numbers that count up: something a tiny model can learn."""

    def __len__(self):
        return 256

    def __getitem__(self, index):
        tokens = (torch.arange(24) + index) % 60 + 2
        return {"input_ids": tokens, "labels": tokens}


def main(bucket):
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                         vocab_size=64, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    args = TrainingArguments(tempfile.mkdtemp(), max_steps=10, per_device_train_batch_size=8, learning_rate=1e-5,
                             save_steps=5, report_to=[], use_cpu=True, disable_tqdm=True)
    trainer = Trainer(model, args, train_dataset=Counting(), callbacks=[PublishCallback(bucket)])
    trainer.train()

    repository = siltstone.open(bucket)
    for version in repository.log():
        sizes = " and ".join(f"{artifact.kind} of {artifact.size_bytes} bytes" for artifact in version.artifacts)
        print(f"{version.name}: step {version.step}, {sizes}")
    weights = repository.load("main")
    assert all(torch.equal(weights[name], p.to(torch.bfloat16)) for name, p in model.named_parameters())


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

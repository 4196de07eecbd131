"""A training run of a tiny causal language model with transformers' Trainer, publishing every step."""

import argparse

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Trainer, TrainingArguments

import siltstone
from siltstone.integrations.transformers import PublishCallback


class Words(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        tokens = (torch.arange(16) * (index % 5 + 1)) % 26 + 2
        return {"input_ids": tokens, "labels": tokens}


def tokenizer():
    letters = {"<pad>": 0, "<eos>": 1, **{chr(97 + i): i + 2 for i in range(26)}}
    words = Tokenizer(models.WordLevel(letters, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bucket")
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--fail-at", type=int)
    given = parser.parse_args()
    torch.manual_seed(0)
    config = Qwen2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         intermediate_size=128, vocab_size=64, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    args = TrainingArguments(given.output, max_steps=given.steps, per_device_train_batch_size=4, learning_rate=1e-4,
                             save_steps=4, save_total_limit=None, report_to=[], use_cpu=True, disable_tqdm=True)
    callback = PublishCallback(given.bucket)
    if given.fail_at is not None:
        publish = siltstone.Publisher.publish

        def failing(self, source, *, step=None, **options):
            if step == given.fail_at:
                raise siltstone.Unavailable("the store is away")
            return publish(self, source, step=step, **options)

        siltstone.Publisher.publish = failing
    trainer = Trainer(model, args, train_dataset=Words(), processing_class=tokenizer(), callbacks=[callback])
    trainer.train()


if __name__ == "__main__":
    main()

"""A policy trained with TRL's GRPO on the share of vowels in what it writes; every step is published."""

import argparse
import json

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config
from rollout_program import digest_of_logits
from trl import GRPOConfig, GRPOTrainer

from siltstone.integrations.transformers import PublishCallback

LETTERS = [chr(97 + i) for i in range(26)]


def tokenizer():
    vocabulary = {"<pad>": 0, "<eos>": 1, **{letter: i + 2 for i, letter in enumerate(LETTERS)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")


def vowels(completions, **kwargs):
    """The share of vowels among the letters of each completion."""
    return [sum(text.count(vowel) for vowel in "aeiou") / max(1, len(text.split())) for text in completions]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bucket")
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=40)
    given = parser.parse_args()
    torch.manual_seed(0)
    config = Qwen2Config(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                         intermediate_size=128, vocab_size=28, tie_word_embeddings=True)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    args = GRPOConfig(given.output, max_steps=given.steps, per_device_train_batch_size=16, num_generations=8,
                      max_completion_length=12, learning_rate=3e-3, report_to=[], use_cpu=True, bf16=False,
                      disable_tqdm=True, logging_steps=1, save_steps=given.steps)
    prompts = Dataset.from_list([{"prompt": " ".join(LETTERS[i % 26] for i in range(j, j + 4))} for j in range(64)])
    trainer = GRPOTrainer(model, reward_funcs=vowels, args=args, train_dataset=prompts, processing_class=tokenizer(),
                          callbacks=[PublishCallback(given.bucket, momentum=True)])
    trainer.train()
    policy = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    policy.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in trainer.model.state_dict().items()})
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    with open(given.output + "/end.json", "w") as file:
        json.dump({"rewards": rewards, "logits": digest_of_logits(policy)}, file)


if __name__ == "__main__":
    main()

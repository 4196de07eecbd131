"""GRPO with TRL; an engine follows the policy in place and writes with every version."""

import sys
import tempfile

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast
from trl import GRPOConfig, GRPOTrainer

import siltstone
from siltstone.integrations.transformers import PublishCallback

WORDS = ["<pad>", "<eos>", "yes", "no", "maybe", "please", "thanks", "well"]


def yes(completions, **kwargs):
    return [text.count("yes") / 8 for text in completions]


def main(bucket):
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                         vocab_size=len(WORDS), tie_word_embeddings=True)
    policy = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    args = GRPOConfig(tempfile.mkdtemp(), max_steps=8, per_device_train_batch_size=16, num_generations=8,
                      max_completion_length=8, learning_rate=1e-3, report_to=[], use_cpu=True, bf16=False,
                      disable_tqdm=True)
    trainer = GRPOTrainer(policy, reward_funcs=yes, args=args, processing_class=tokenizer,
                          train_dataset=Dataset.from_list([{"prompt": "well please"}] * 64),
                          callbacks=[PublishCallback(bucket)])
    trainer.train()

    # In another process, and while it trains; here afterwards, so that the program stays short.
    engine = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    replica = siltstone.open(bucket).replica(engine, at="main@0")
    asked = tokenizer("well please", return_tensors="pt")
    for version in reversed(replica.repository.log(limit=8)):
        report = replica.update(version)
        said = engine.generate(**asked, max_new_tokens=8, do_sample=True, pad_token_id=0)[0, 2:]
        print(f"{version.name}: {tokenizer.decode(said)!r}, applied in {report.seconds * 1e3:.1f} ms")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

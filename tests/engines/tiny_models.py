"""Tiny language models with random weights, made in code and saved the way the hub stores them."""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

END = 257
# The vocabulary is no multiple of 64, so that engines pad it. A head has 32 elements: the least that vLLM's
# attention on the CPU takes.
SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": END,
    "pad_token_id": 258,
    "dtype": "bfloat16",
}


def configuration(kind, tied, others):
    sizes = SIZES | {"tie_word_embeddings": tied, "intermediate_size": 192} | others
    if kind == "llama":
        return transformers.LlamaConfig(**sizes)
    if kind == "qwen2":
        return transformers.Qwen2Config(**sizes)
    experts = {"moe_intermediate_size": 64, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True}
    return transformers.Qwen3MoeConfig(head_dim=32, decoder_sparse_step=1, mlp_only_layers=[], **experts, **sizes)


def byte_tokenizer():
    """One token for each byte: nothing has to be learnt or downloaded."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def make(kind, folder, *, seed=7, tied=False, **others):
    """Saves the model and its tokenizer; `others` are sizes of its configuration. Every element is random, norms and biases too: a constant tensor would
    say nothing about where its elements went."""
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(configuration(kind, tied, others), dtype=torch.bfloat16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_((1.0 if parameter.dim() == 1 else 0.0) + 0.2 * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    Path(folder, "generation_config.json").write_text(json.dumps({"eos_token_id": END}))

"""The policy, what it is asked for, and what it is rewarded for. The same in every process."""

import hashlib

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

LETTERS = [chr(ord("a") + i) for i in range(26)]
SIZES = {  # hidden size, layers, heads, key and value heads, width of the feed-forward layers
    "tiny": (64, 2, 4, 2, 128),
    "small": (384, 8, 6, 2, 1024),  # 12.6 million parameters
}


def tokenizer():
    """One token a letter."""
    vocabulary = {"<pad>": 0, "<eos>": 1, **{letter: i + 2 for i, letter in enumerate(LETTERS)}}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    letters.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", eos_token="<eos>")


def new_policy(size):
    hidden, layers, heads, kv_heads, width = SIZES[size]
    config = Qwen2Config(hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
                         num_key_value_heads=kv_heads, intermediate_size=width, vocab_size=28,
                         max_position_embeddings=128, tie_word_embeddings=True, pad_token_id=0, eos_token_id=1)
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def prompts():
    """Four letters each, as text."""
    return [" ".join(LETTERS[(start + i) % 26] for i in range(4)) for start in range(26)]


def reward(text):
    """The share of vowels among the letters written."""
    letters = text.split()
    return sum(letter in "aeiou" for letter in letters) / max(1, len(letters))


def digest_of(named_tensors):
    """SHA-256 over names and bits: independent of how anything here was stored or sent."""
    digest = hashlib.sha256()
    for name, tensor in sorted(named_tensors):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()

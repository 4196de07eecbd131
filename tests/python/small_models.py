"""Small causal language models for tests: made in code, published as model folders, moved by small steps."""

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

VOCABULARY = 96
TOKENS = torch.arange(2, 26).reshape(2, 12)


def tiny_llama(seed=0, *, hidden=32, positions=512, tied=False):
    """bf16 weights, as large as tests need them to tell versions apart."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=2 * hidden, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=VOCABULARY, max_position_embeddings=positions, tie_word_embeddings=tied,
        initializer_range=0.3, bos_token_id=1, eos_token_id=None, pad_token_id=0,
    )
    return LlamaForCausalLM(config).to(torch.bfloat16).eval()


def step(model, seed):
    """Changes about a word in ten of each tensor."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            hit = torch.rand(parameter.shape, generator=draw) < 0.1
            parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1 * hit)


def cold(folder):
    """What loads a model folder at its start would serve."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()


class Models(dict):
    """{version: model}, loaded when it is first asked for."""

    def __init__(self, folder):
        super().__init__()
        self._folder = folder

    def __missing__(self, name):
        self[name] = cold(self._folder / name)
        return self[name]


class Run:
    """A branch of versions of one tiny model; `models` has each as transformers saved and loaded it, without us."""

    def __init__(self, repository, folder, **options):
        self.repository = repository
        self.trainer = tiny_llama(**options)
        self.models = Models(folder)
        self.folder = folder / "main@0"  # as a server is started with it
        self.trainer.save_pretrained(self.folder)
        self.publisher = repository.publisher(companions=self.folder)
        self.publisher.publish(self.trainer)

    def publish(self):
        """The next version's name."""
        seq = self.repository.head().seq + 1
        step(self.trainer, seq)
        self.trainer.save_pretrained(self.models._folder / f"main@{seq}")
        return self.publisher.publish(self.trainer, step=seq).version.name


def logits(model, tokens=TOKENS):
    """As bits, to be compared exactly."""
    with torch.inference_mode():
        return model(tokens).logits.contiguous().view(torch.uint8)

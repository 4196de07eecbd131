"""A server that generates while its weights follow a bucket; each request asks for the version it was made for."""

import json
import sys
import tempfile
import urllib.request

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import siltstone
from siltstone.serving import Engine, Server


def train_step(model):
    """Stands for an optimizer step."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)


def complete(url, version):
    body = {"prompt": [3, 14, 15], "max_tokens": 8, "temperature": 0, "return_token_ids": True}
    headers = {"Content-Type": "application/json", "X-Siltstone-Min-Version": version.name}
    request = urllib.request.Request(url + "/v1/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as reply:
        return json.load(reply)


def main(bucket):
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
                         vocab_size=96, max_position_embeddings=128)
    trainer = LlamaForCausalLM(config).to(torch.bfloat16)
    folder = tempfile.mkdtemp()
    trainer.save_pretrained(folder)
    publisher = siltstone.open(bucket, create=True).publisher(companions=folder)
    publisher.publish(trainer, step=0)

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    engine = Engine(model)
    engine.follow(bucket, "main@0", interval=0.05)
    with Server(engine, port=0) as server:
        for step in range(1, 5):
            train_step(trainer)
            version = publisher.publish(trainer, step=step).version
            answer = complete(server.url, version)  # waits until the weights are there
            print(answer["weight_version"], answer["choices"][0]["token_ids"])
            assert answer["weight_version"] == version.name
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())

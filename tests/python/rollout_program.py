"""What an inference process does: follow a policy in place and generate with it, until its last version."""

import argparse
import hashlib
import json
import tempfile

import torch
from transformers import AutoConfig, AutoModelForCausalLM

import siltstone


def digest_of_logits(policy):
    """Of the bits that the policy gives for a fixed text."""
    logits = policy(torch.arange(2, 26).reshape(2, 12)).logits
    return hashlib.sha256(logits.detach().view(torch.uint8).numpy().tobytes()).hexdigest()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bucket")
    parser.add_argument("output")
    parser.add_argument("--until", type=int, required=True)
    given = parser.parse_args()
    repository = siltstone.open(given.bucket)
    with tempfile.TemporaryDirectory() as folder:
        repository.checkout("main@0", folder + "/model")
        config = AutoConfig.from_pretrained(folder + "/model")
    policy = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    replica = repository.replica(policy, at="main@0")
    pointer = policy.get_input_embeddings().weight.data_ptr()
    tokens = torch.arange(2, 26).reshape(2, 12)
    seen = []

    def generate(step):
        text = policy.generate(tokens[:, :4], max_new_tokens=4, do_sample=False, pad_token_id=0)
        seen.append({"version": step.version.name, "step": step.version.step, "tokens": text.tolist(),
                     "logits": digest_of_logits(policy)})

    replica.follow(on_version=generate, interval=0.05, until=given.until).join()
    assert policy.get_input_embeddings().weight.data_ptr() == pointer
    with open(given.output, "w") as file:
        json.dump(seen, file)


if __name__ == "__main__":
    main()

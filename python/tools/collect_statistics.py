"""Collects what quantizing needs to know of a model's layers: the Hessian H = 2/N * sum(x * x^T) over the inputs x of each nn.Linear.

    python collect_statistics.py MODEL -o statistics.safetensors [--held-out] [--tokens N] [TEXT ...]

MODEL is a folder that transformers' AutoModel reads. The result holds `<weight>.hessian`, K x K in F32, for each weight of K columns.
Sums are in double precision. Needs torch, transformers and safetensors; see docs/quantize.md.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModel, AutoTokenizer

from text import paragraphs, split

BATCH = 16


class Hessians:
    """Hooks that add up the products of a model's inputs, layer by layer. Padding does not count."""

    def __init__(self, model):
        self.sums, self.counts, self.mask = {}, {}, None
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs, name=name: self.add(name, inputs[0]))

    def add(self, name, x):
        x = x[self.mask] if x.shape[:-1] == self.mask.shape else x.reshape(-1, x.shape[-1])
        product = (x.T @ x).double()
        self.sums[name] = self.sums[name] + product if name in self.sums else product
        self.counts[name] = self.counts.get(name, 0) + len(x)

    def tensors(self):
        return {f"{name}.weight.hessian": (2 / self.counts[name] * total).float() for name, total in self.sums.items()}


def batches(tokenizer, texts, most_tokens, max_length):
    """Batches of texts of about the same length, at most so many tokens in all."""
    encoded = [tokenizer(text, truncation=True, max_length=max_length)["input_ids"] for text in texts]
    # Texts from everywhere, not the first ones only.
    keep, total = [], 0
    step = max(1, sum(map(len, encoded)) // most_tokens)
    for ids in encoded[::step]:
        if total + len(ids) > most_tokens:
            break
        keep.append(ids)
        total += len(ids)
    keep.sort(key=len)
    for start in range(0, len(keep), BATCH):
        yield tokenizer.pad({"input_ids": keep[start : start + BATCH]}, return_tensors="pt")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("text", nargs="*", type=Path, help="text files, paragraphs between empty lines; else Python's own documentation")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--held-out", action="store_true", help="use the paragraphs that are held out otherwise")
    parser.add_argument("--tokens", type=int, default=200_000, help="at most so many tokens (200000)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a paragraph that are used (256)")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = AutoModel.from_pretrained(args.model, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    hessians = Hessians(model)
    texts = split(paragraphs(args.text))[args.held_out]
    tokens = 0
    with torch.no_grad():
        for batch in batches(tokenizer, texts, args.tokens, args.length):
            hessians.mask = batch["attention_mask"].bool()
            tokens += int(hessians.mask.sum())
            model(**batch)
    tensors = hessians.tensors()
    save_file(tensors, args.output, metadata={"tokens": str(tokens), "held_out": str(args.held_out)})
    print(f"{len(tensors)} layers, {tokens} tokens")


if __name__ == "__main__":
    main()

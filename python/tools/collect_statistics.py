"""Collects what quantizing needs to know of a model's layers: the Hessian H = 2/N * sum(x * x^T) over the inputs x of each nn.Linear.

    python collect_statistics.py MODEL -o statistics.safetensors [--held-out] [--tokens N] [--skip-ids N] [TEXT ...]

MODEL is a folder that transformers' AutoModel reads. The result holds `<weight>.hessian`, K x K in F32, for each weight of K columns;
zeros where no token came. For a stack of E experts, [E, N, K], that are multiplied with one by one by torch.nn.functional.linear, it is
E x K x K. Sums are in double precision. Needs torch, transformers and safetensors; see docs/quantize.md.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.overrides import TorchFunctionMode
from transformers import AutoModel, AutoTokenizer

from text import paragraphs, split

BATCH = 16


class Hessians(TorchFunctionMode):
    """Adds up the products of a model's inputs, layer by layer and expert by expert, of the tokens that the mask names.

    Linear layers are hooked. Experts of a stack are found where a matrix of the stack is multiplied with while this mode is entered; which
    tokens their inputs are of is told by the gather before, of rows of as many tokens as the mask has.
    """

    def __init__(self, model):
        super().__init__()
        self.sums, self.counts, self.mask, self.gathered = {}, {}, None, None
        self.linear = {
            f"{name}.weight": module.in_features for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)
        }
        self.stacks = {name: value for name, value in model.named_parameters() if value.dim() == 3}
        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(lambda _, inputs, name=name: self.add(f"{name}.weight", inputs[0]))

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.Tensor.__getitem__ and self.mask is not None:
            self.gather(*args)
        if function is torch.nn.functional.linear:
            self.multiply(args[0], args[1])
        return function(*args, **(kwargs or {}))

    def gather(self, rows, index):
        whole = isinstance(index, torch.Tensor) and index.dim() == 1 and not index.is_floating_point() and index.dtype != torch.bool
        if whole and rows.dim() == 2 and len(rows) == self.mask.numel():
            self.gathered = index

    def multiply(self, x, weight):
        for name, stack in self.stacks.items():
            offset, size = weight.storage_offset() - stack.storage_offset(), stack.stride(0)
            same = weight.untyped_storage().data_ptr() == stack.untyped_storage().data_ptr()
            if same and weight.shape == stack.shape[1:] and 0 <= offset and offset % size == 0:
                rows = x.reshape(-1, x.shape[-1])
                if self.gathered is not None and len(self.gathered) == len(rows):
                    rows = rows[self.mask.flatten()[self.gathered]]
                self.accumulate((name, offset // size), rows)

    def add(self, name, x):
        self.accumulate(name, x[self.mask] if x.shape[:-1] == self.mask.shape else x.reshape(-1, x.shape[-1]))

    def accumulate(self, key, x):
        product = (x.T @ x).double()
        self.sums[key] = self.sums[key] + product if key in self.sums else product
        self.counts[key] = self.counts.get(key, 0) + len(x)

    def hessian(self, key, columns):
        if not self.counts.get(key):
            return torch.zeros(columns, columns)
        return (2 / self.counts[key] * self.sums[key]).float()

    def tensors(self):
        found = {f"{name}.hessian": self.hessian(name, columns) for name, columns in self.linear.items()}
        for name, stack in self.stacks.items():
            if any((name, expert) in self.counts for expert in range(len(stack))):
                of_expert = [self.hessian((name, expert), stack.shape[2]) for expert in range(len(stack))]
                found[f"{name}.hessian"] = torch.stack(of_expert)
        return found


def counted(ids, mask, skip_ids, skip_before_ids):
    """The mask of the tokens that count: not padding, not special (QMoE: ids from 32000 on), not followed by a special one."""
    mask = mask.bool()
    if skip_ids is not None:
        mask = mask & (ids < skip_ids)
    if skip_before_ids is not None:
        followed = torch.zeros_like(mask)
        followed[:, :-1] = ids[:, 1:] >= skip_before_ids
        mask = mask & ~followed
    return mask


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
    parser.add_argument("--skip-ids", type=int, metavar="FROM", help="leave out tokens with ids from this one on")
    parser.add_argument("--skip-before-ids", type=int, metavar="FROM", help="leave out tokens that such a token follows")
    args = parser.parse_args()

    torch.manual_seed(0)
    model = AutoModel.from_pretrained(args.model, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    hessians = Hessians(model)
    texts = split(paragraphs(args.text))[args.held_out]
    tokens = 0
    with torch.no_grad():
        for batch in batches(tokenizer, texts, args.tokens, args.length):
            hessians.mask = counted(batch["input_ids"], batch["attention_mask"], args.skip_ids, args.skip_before_ids)
            tokens += int(hessians.mask.sum())
            with hessians:
                model(**batch)
    tensors = hessians.tensors()
    save_file(tensors, args.output, metadata={"tokens": str(tokens), "held_out": str(args.held_out)})
    print(f"{len(tensors)} layers, {tokens} tokens")


if __name__ == "__main__":
    main()

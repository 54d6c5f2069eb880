"""How near a model with other weights comes to the original: cosines between their sentence embeddings, on text held out of calibration.

    python sentence_cosine.py MODEL WEIGHTS.safetensors ... [--text TEXT ...]

MODEL is the folder of a sentence-transformers model whose embedding is the mean over tokens. Prints, for each file of weights, the mean,
the 1st percentile and the least cosine. Needs torch, transformers and safetensors; see docs/quantize.md.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoTokenizer

from text import paragraphs, split

BATCH = 32


def embeddings(model, tokenizer, texts, length):
    """Embeddings of texts, each of norm 1."""
    found = []
    with torch.no_grad():
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(texts[start : start + BATCH], padding=True, truncation=True, max_length=length, return_tensors="pt")
            mask = batch["attention_mask"].unsqueeze(-1).float()
            hidden = model(**batch).last_hidden_state
            found.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1))
    return torch.cat(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("weights", nargs="+", type=Path)
    parser.add_argument("--text", nargs="*", type=Path, default=(), help="text files; else Python's own documentation")
    parser.add_argument("--sentences", type=int, default=1000, help="at most so many (1000)")
    parser.add_argument("--length", type=int, default=256, help="tokens of a paragraph that are used (256)")
    args = parser.parse_args()

    model = AutoModel.from_pretrained(args.model, dtype=torch.float32, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(args.model, local_files_only=True)
    _, held_out = split(paragraphs(args.text))
    texts = held_out[:: max(1, len(held_out) // args.sentences)][: args.sentences]
    original = embeddings(model, tokenizer, texts, args.length)
    print(f"{len(texts)} paragraphs")
    for path in args.weights:
        missing = model.load_state_dict({name: w.float() for name, w in load_file(path).items()}, strict=False).missing_keys
        if missing:
            raise SystemExit(f"{path} lacks {missing}")
        cosines = (embeddings(model, tokenizer, texts, args.length) * original).sum(-1)
        least, low = cosines.min().item(), cosines.quantile(0.01).item()
        print(f"{path}: mean {cosines.mean().item():.5f}, 1st percentile {low:.5f}, least {least:.5f}")


if __name__ == "__main__":
    main()

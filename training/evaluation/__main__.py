"""Answer held-out questions with a trained model, and print its scores.

    python -m training.evaluation training/configs/qwen3-vl-4b.toml [--model FOLDER]

The questions are those of [[evaluation.questions]]. The configuration's output gets `evaluation.json` (the scores of
each set) and `answers-NAME.jsonl` (each question with its answer and references).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from strata.cli.exits import code_of
from strata.errors import StrataError
from training.config import load_config
from training.evaluation.held_out import evaluate


def main() -> None:
    """Evaluate from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--model", type=Path, help="folder of the model (default: `model` in the output)")
    arguments = parser.parse_args()
    try:
        scores = evaluate(load_config(arguments.config), arguments.model)
    except StrataError as error:
        print(f"evaluate: {error}", file=sys.stderr)
        raise SystemExit(code_of(error)) from None
    for name, found in scores.items():
        print(f"{name}: " + ", ".join(f"{score} {value:g}" for score, value in found.items()))


if __name__ == "__main__":
    main()

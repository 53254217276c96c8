"""What the installed vLLM accepts and returns, read from the source in its wheel without importing it.

    python -m tests.models.vllm.vllm_signatures WHEEL tests/data_files/vllm-0.33.0.json

(`pip download --no-deps vllm==0.33.0` gets the wheel.) The file has names alone, no code. vLLM is under the Apache-2.0
licence. `tests.models.vllm.vllm_module` makes a module of it that refuses what vLLM refuses.
"""

from __future__ import annotations

import ast
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

METHODS = ("__init__", "enqueue_chat", "wait_for_completion", "get_tokenizer")
CLASSES = {
    "vllm/engine/arg_utils.py": ("EngineArgs",),
    "vllm/sampling_params.py": ("SamplingParams", "StructuredOutputsParams"),
    "vllm/outputs.py": ("CompletionOutput",),
    "vllm/logprobs.py": ("Logprob",),
}
Argument = tuple[str, str, bool]  # name, kind, and whether it has a default


def arguments_of(function: ast.FunctionDef) -> list[Argument]:
    """The arguments of a function without `self`."""
    given, found = function.args, list[Argument]()
    positional = [*given.posonlyargs, *given.args][1:]
    least = len(positional) - len(given.defaults)
    found += [(one.arg, "POSITIONAL_OR_KEYWORD", i >= least) for i, one in enumerate(positional)]
    found += [
        (one.arg, "KEYWORD_ONLY", default is not None)
        for one, default in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    return found + ([(given.kwarg.arg, "VAR_KEYWORD", False)] if given.kwarg else [])


def fields_of(node: ast.ClassDef) -> list[Argument]:
    """The fields of a dataclass or a msgspec structure, in order."""
    found = [one for one in node.body if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)]
    named = [(one.target.id, one.value is not None) for one in found if isinstance(one.target, ast.Name)]
    return [(name, "POSITIONAL_OR_KEYWORD", default) for name, default in named if not name.startswith("_")]


def signatures_of(wheel: Path) -> dict[str, Any]:
    """Everything that the file has."""
    with zipfile.ZipFile(wheel) as archive:
        texts = {name: archive.read(name).decode() for name in archive.namelist() if name.endswith(".py")}
    classes = {
        path: {node.name: node for node in ast.parse(texts[path]).body if isinstance(node, ast.ClassDef)}
        for path in (*CLASSES, "vllm/entrypoints/llm.py", "vllm/exceptions.py", "vllm/v1/engine/exceptions.py")
    }
    llm = classes["vllm/entrypoints/llm.py"]["LLM"]
    functions = [one for one in llm.body if isinstance(one, ast.FunctionDef)]  # of overloads the last one counts
    output = classes["vllm/outputs.py"]["RequestOutput"]
    own = [one for one in output.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"]
    errors = {**classes["vllm/exceptions.py"], **classes["vllm/v1/engine/exceptions.py"]}
    parts = _assigned(texts["vllm/renderers/chat_utils/chat_message.py"], "MM_PARSER_MAP")
    ends = _assigned(texts["vllm/v1/engine/__init__.py"], "FINISH_REASON_STRINGS")
    assert isinstance(parts, ast.Dict)
    assert isinstance(ends, ast.Tuple)
    return {
        "source": f"{wheel.name}, Apache-2.0, read by tests/models/vllm/vllm_signatures.py",
        "LLM": {one.name: arguments_of(one) for one in functions if one.name in METHODS},
        "RequestOutput": arguments_of(own[0]),
        **{name: fields_of(classes[path][name]) for path, names in CLASSES.items() for name in names},
        "errors": {
            name: [base.id for base in node.bases if isinstance(base, ast.Name)] for name, node in errors.items()
        },
        "parts": [key.value for key in parts.keys if isinstance(key, ast.Constant)],
        "finish_reasons": [one.value for one in ends.elts if isinstance(one, ast.Constant)],
    }


def _assigned(text: str, name: str) -> ast.expr:
    """What is assigned to a name at the top of a module."""
    for node in ast.parse(text).body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(one, ast.Name) and one.id == name for one in targets):
            return node.value  # type: ignore[attr-defined,no-any-return]
    raise LookupError(name)


if __name__ == "__main__":
    found = signatures_of(Path(sys.argv[1]))
    Path(sys.argv[2]).write_text(json.dumps(found) + "\n", encoding="utf-8")

"""Models that several stages of a process use: the weights of each are loaded once, and are in memory once.

Captioner and detector may be one Florence-2. Captioner, composer and second matcher may be one Qwen3-VL: the composer
belongs to another group, so it shares with the others if one process runs both groups (`strata worker --groups
vision,llm`); in a process of its own it loads the weights again.

The matcher and the embeddings of images and texts may be one open_clip checkpoint; the tagger, the matcher and the
embedding of `everyday` are one EfficientNet.

Only models are shared, not processors: transformers' tokenizers cannot be used by two threads at a time.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.devices import best_device, best_precision
from models.weights.cache import locate
from strata.core import StageSettings


@dataclass(eq=False)
class SharedModel:
    """What a stage has loaded. turn: to be held while it computes; a stage's `turn` is this one.

    Two calls of a model of transformers at a time could mix their states: Qwen3-VL keeps the positions of the current
    call in itself. Models that keep nothing need no turns.
    """

    model: Any
    turn: AbstractContextManager[Any] = field(default_factory=threading.RLock)


_Key = tuple[Callable[[Path], Any], str, str, torch.dtype, torch.device]
# those of this process that a stage still uses: the table does not keep a model alive
_LOADED: weakref.WeakValueDictionary[_Key, SharedModel] = weakref.WeakValueDictionary()
_LOADING = threading.Lock()


def shared_model(settings: StageSettings, load: Callable[[Path], Any]) -> SharedModel:
    """The model of a stage's weights; it is loaded if no stage of this process uses it with the same function.

    load: makes the model from its folder. The caller keeps the result as long as it uses the model. Raises
    WeightsMissing, and the errors of `load`.
    """
    folder = locate(settings)
    key = (load, settings.model, settings.revision, best_precision(), best_device())
    # two groups may load at the same time, each in its thread
    with _LOADING:
        found = _LOADED.get(key)
        if found is None:
            found = _LOADED[key] = SharedModel(load(folder))
    return found

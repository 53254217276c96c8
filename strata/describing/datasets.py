"""Data sets of Hugging Face: `Dataset` and `IterableDataset` (streamed), and dictionaries of both by split."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from strata.core import NOTHING_FOUND, RECORD_SCHEMA, Record, records_to_table
from strata.errors import InvalidInput

BATCH = 16  # rows that `map` gives at a time
COLUMNS = ("description", "record")  # those that are added
Each = Callable[[Sequence[Any], Sequence[str | None] | None], Iterable[Record]]  # describes images with their alt texts


class BatchDescriber:
    """A function for `datasets.Dataset.map(…, batched=True)`: it adds the columns `description` and `record`.

    each: describes images; reopen: gives such a function in another process, to which loaded models are not sent
    (`num_proc`). fingerprint: of the profile with its texts; `datasets` compares it to find out whether a result that
    it has cached is still valid.
    """

    def __init__(
        self, column: str, alt_text: str | None, fingerprint: str, each: Each, reopen: Callable[[], Each]
    ) -> None:
        self.column, self.alt_text, self.fingerprint = column, alt_text, fingerprint
        self._each: Each | None = each
        self._reopen = reopen

    def __call__(self, batch: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        """The new columns of some rows.

        An image that cannot be described has a failed record, and no description; one in which the profile knows
        nothing has none either.
        """
        if self._each is None:
            self._each = self._reopen()
        alt_texts = list(batch[self.alt_text]) if self.alt_text else None
        found = list(self._each(list(batch[self.column]), alt_texts))
        told = [one.description.text if one.description else None for one in found]
        texts = [None if text == NOTHING_FOUND else text for text in told]
        return dict(zip(COLUMNS, (texts, rows_of(found)), strict=True))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_each": None}


def rows_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Records as plain values of RECORD_SCHEMA, the schema of parts."""
    rows: list[dict[str, Any]] = records_to_table(records).to_pylist()
    return rows


def is_dataset(given: Any) -> bool:
    """Whether this is a data set of Hugging Face. Who has one has imported the package already."""
    datasets = sys.modules.get("datasets")
    kinds = ("Dataset", "IterableDataset", "DatasetDict", "IterableDatasetDict")
    return datasets is not None and isinstance(given, tuple(getattr(datasets, kind) for kind in kinds))


def dataset_described(dataset: Any, act: BatchDescriber, size: int) -> Any:
    """The data set with the columns `description` and `record`; one that is streamed is described as it is read.

    size: rows that are described together. The images of a streamed data set stay files in the result: a dictionary
    with `bytes` and `path`, which `cast_column(column, datasets.Image())` decodes. Raises InvalidInput if it has no
    such column of images, or has one of the new columns already.
    """
    if isinstance(dataset, dict):
        return type(dataset)({split: dataset_described(rows, act, size) for split, rows in dataset.items()})
    import datasets

    _check_columns(dataset.column_names, act.column, act.alt_text)
    options: dict[str, Any] = {"batched": True, "batch_size": max(size, BATCH)}
    features = dataset.features
    if features is None:  # of some streamed data sets they are not known
        return dataset.map(act, **options)
    # images are decoded here and not by `datasets`, which would raise an error for a whole batch
    own = features[act.column]
    if isinstance(own, datasets.Image) and own.decode:
        dataset = dataset.cast_column(act.column, datasets.Image(mode=own.mode, decode=False))
    record = dict(datasets.Features.from_arrow_schema(RECORD_SCHEMA))
    added = {"description": datasets.Value("string"), "record": record}
    if isinstance(dataset, datasets.IterableDataset):
        # the images of a stream stay files: one that is broken would end the reading of the others
        return dataset.map(act, features=datasets.Features({**dataset.features, **added}), **options)
    features = datasets.Features({**features, **added})
    if not len(dataset):  # of no rows `map` makes no columns
        return datasets.Dataset.from_dict({name: [] for name in features}, features, split=dataset.split)
    return dataset.map(act, features=features, desc="described", **options)


def _check_columns(names: Sequence[str] | None, column: str, alt_text: str | None) -> None:
    for name in (column, alt_text):
        if names is not None and name is not None and name not in names:
            raise InvalidInput(f"the data set has no column {name!r}; it has {', '.join(names)}: name one of them")
    used = [name for name in COLUMNS if name in (names or ())]
    if used:
        raise InvalidInput(f"the data set has a column {used[0]!r} already: rename it with rename_column() first")

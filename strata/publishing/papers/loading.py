"""The code that loads an export of each format, as its card shows it. FOLDER: where the export lies."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from strata.data.exports import DATA, Form

_JSON = "import json\nfrom pathlib import Path\n\n"
_JSON += 'samples = json.loads(Path("FOLDER/train.json").read_text(encoding="utf-8"))'
_DATASETS = 'import datasets\n\nsamples = datasets.load_dataset("FOLDER", split="train")'
_CODE: Mapping[Form, str] = MappingProxyType(
    {
        "llava": f"# LLaVA: --data_path FOLDER/train.json --image_folder FOLDER\n{_JSON}",
        "qwen-vl": f"# Qwen-VL: finetune.py --data_path FOLDER/train.json\n{_JSON}",
        "monkey": f"# Monkey: finetune_multitask.py --data_path FOLDER/train.json\n{_JSON}",
        "llama-factory": f"# LLaMA-Factory: dataset_dir: FOLDER\n{_JSON}",
        "ms-swift": (
            "# ROOT_IMAGE_DIR=FOLDER swift sft --dataset FOLDER/train.jsonl\n"
            "import json\nfrom pathlib import Path\n\n"
            'samples = [json.loads(line) for line in Path("FOLDER/train.jsonl").open(encoding="utf-8")]'
        ),
        "messages": f"{_DATASETS}  # also for TRL's SFTTrainer",
        "webdataset": _DATASETS,
        "mds": 'from streaming import StreamingDataset\n\nsamples = StreamingDataset(local="FOLDER")',
        "parquet": f'{_DATASETS}\n# or: pandas.read_parquet("FOLDER/{DATA}")',
        "hf": 'import datasets\n\nsamples = datasets.load_from_disk("FOLDER")',
    }
)


def loading_of(form: Form) -> str:
    """Python code that loads an export of a format."""
    return _CODE[form]

"""The code that loads an export of each format, as its card shows it. FOLDER: where the export lies."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from strata.data.exports import DATA, Form

_JSON = "import json\nfrom pathlib import Path\n\n"
_PILLOW = "import json\nfrom pathlib import Path\n\nfrom PIL import Image\n\n"
_ARRAY = 'folder = Path("FOLDER")\n'
_ARRAY += 'samples = json.loads((folder / "train.json").read_text(encoding="utf-8"))'
_PICTURE = "\nimage = Image.open(folder / samples[0]{place})"
_ONE, _FIRST = _PICTURE.format(place='["image"]'), _PICTURE.format(place='["images"][0]')
_LINES = (
    'folder = Path("FOLDER")\n'
    'lines = (folder / "train.jsonl").open(encoding="utf-8")\n'
    "samples = [json.loads(line) for line in lines]"
)
_DATASETS = "import datasets\n\n# FOLDER may be OWNER/NAME of the Hugging Face Hub, if it was pushed there\n"
_DATASETS += 'samples = datasets.load_dataset("FOLDER", split="train")'
_CODE: Mapping[Form, str] = MappingProxyType(
    {
        "llava": f"# LLaVA: --data_path FOLDER/train.json --image_folder FOLDER\n{_PILLOW}{_ARRAY}{_ONE}",
        "qwen-vl": f"# Qwen-VL: finetune.py --data_path FOLDER/train.json\n{_JSON}{_ARRAY}",
        "monkey": f"# Monkey: finetune_multitask.py --data_path FOLDER/train.json\n{_JSON}{_ARRAY}",
        "llama-factory": f"# LLaMA-Factory: dataset_dir: FOLDER\n{_PILLOW}{_ARRAY}{_FIRST}",
        "ms-swift": f"# ROOT_IMAGE_DIR=FOLDER swift sft --dataset FOLDER/train.jsonl\n{_PILLOW}{_LINES}{_FIRST}",
        "messages": f"{_DATASETS}  # also for TRL's SFTTrainer",
        "webdataset": _DATASETS,
        "mds": 'from streaming import StreamingDataset\n\nsamples = StreamingDataset(local="FOLDER")',
        "parquet": f'{_DATASETS}\n# or, of a folder: pandas.read_parquet("FOLDER/{DATA}")',
        "hf": 'import datasets\n\nsamples = datasets.load_from_disk("FOLDER")',
    }
)


def loading_of(form: Form) -> str:
    """Python code that loads an export of a format as `samples`."""
    return _CODE[form]

"""Mixtures: files, sources of every kind, counts and weights, and errors when something is missing."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tomllib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from strata.cli import exits
from strata.cli import main as cli
from strata.core.layers import LAYERS, VARIANT_LEVELS
from strata.data.mixture_checks import check_mixture, task_shares
from strata.data.mixture_files import Locations, MixtureFile, open_mixture
from strata.data.mixtures import Mixture, MixtureError, Share
from strata.data.reader import SampleReader
from strata.data.sources import entries
from strata.data.sources.conversations import read_conversations
from strata.data.sources.files import DatasetSource, conversation_source, webdataset_source
from strata.data.sources.missing_files import Missing
from strata.data.sources.samples import RawSample, SampleError
from strata.store.store import Store
from tests.fakes import jpeg
from tests.pinned import pin, write_shards

MIXTURES = Path(__file__).resolve().parents[2] / "training" / "mixtures"


@pytest.fixture
def locations(store: Store, tmp_path: Path) -> Locations:
    """A store with the snapshot `pinned` of 12 images, and a folder of files of every other kind, 5 samples each."""
    data = tmp_path / "data"
    pin(store, write_shards(tmp_path / "shards", 2, 6))
    write_shards(data / "tars", 1, 5)
    (data / "images").mkdir()
    for number in range(5):
        (data / "images" / f"{number}.jpg").write_bytes(jpeg(200 + number))
    write_json(data / "llava.json", [llava(number) for number in range(5)])
    (data / "monkey.jsonl").write_text("".join(json.dumps(monkey(number)) + "\n" for number in range(5)))
    dataset(data / "table", 5)
    return Locations(store, str(data), tmp_path / "cache")


def write_json(path: Path, value: Any) -> str:
    """A JSON file."""
    path.write_text(json.dumps(value), encoding="utf-8")
    return str(path)


def llava(number: int, **changes: Any) -> dict[str, Any]:
    """An entry as LLaVA writes it."""
    said = [("human", f"<image>\nq{number}"), ("gpt", f"a{number}"), ("human", "more?"), ("gpt", "no")]
    turns = [{"from": role, "value": value} for role, value in said]
    return {"id": f"l{number}", "image": f"images/{number}.jpg", "conversations": turns, **changes}


def monkey(number: int) -> dict[str, Any]:
    """An entry as Qwen-VL and Monkey write it."""
    said = [("user", f"Picture 1: <img>images/{number}.jpg</img>\nq{number}"), ("assistant", f"a{number}")]
    return {"id": f"m{number}", "conversations": [{"from": role, "value": value} for role, value in said]}


def dataset(path: Path, rows: int) -> None:
    """A Hugging Face dataset of images with questions and answers."""
    columns = {
        "picture": [{"bytes": jpeg(300 + number), "path": None} for number in range(rows)],
        "text": [f"a{number}" for number in range(rows)],
        "asked": [f"q{number}" for number in range(rows)],
        "number": list(range(rows)),
    }
    text, number = datasets.Value("string"), datasets.Value("int64")
    features = datasets.Features({"picture": datasets.Image(), "text": text, "asked": text, "number": number})
    datasets.Dataset.from_dict(columns, features).save_to_disk(str(path))


def mixture_file(*sources: dict[str, Any]) -> MixtureFile:
    """A mixture of these sources."""
    return MixtureFile.model_validate({"name": "test", "sources": list(sources)})


SNAPSHOT = {"name": "ours", "snapshot": "pinned", "instruction": "Describe it."}
LLAVA = {"name": "llava", "task": "vqa", "conversations": "llava.json"}
MONKEY = {"name": "monkey", "task": "vqa", "conversations": "monkey.jsonl", "instruction": "{question} Be short."}
TARS = {"name": "tars", "webdataset": "tars/{00000..00000}.tar", "instruction": "Caption it."}
TABLE = {"name": "table", "dataset": "table", "question": "asked"}
ANSWER = {"from": "assistant", "value": "a"}
EVERY = (SNAPSHOT, LLAVA, MONKEY, TARS, TABLE)


def said_by(mixture: Mixture) -> dict[str, list[str]]:
    """The conversation of the first sample of each source."""
    found = {}
    for share in mixture.shares:
        (raw,) = share.source.read([0])
        Image.open(io.BytesIO(*raw.images)).verify()
        found[share.name] = [turn["content"] for turn in share.conversation(raw)]
    return found


def test_sources_of_every_kind(locations: Locations) -> None:
    mixture = open_mixture(mixture_file(*EVERY), locations)
    (first,) = mixture.shares[0].source.read([0])
    assert said_by(mixture) == {
        "ours": ["Describe it.", f"description {first.key}"],
        "llava": ["q0", "a0", "more?", "no"],
        "monkey": ["q0 Be short.", "a0"],
        "tars": ["Caption it.", "alt 0"],
        "table": ["q0", "a0"],
    }
    samples = list(SampleReader(mixture, 1))
    assert Counter(sample.task for sample in samples) == {"ours": 12, "vqa": 10, "tars": 5, "table": 5}
    widths = sorted(sample.image.width for sample in samples)
    assert widths == sorted([*range(100, 112), *range(100, 105), *[200 + n for n in range(5)] * 2, *range(300, 305)])
    assert all(sample.conversation[0]["role"] == "user" for sample in samples)


def test_an_instruction_without_a_place_for_the_question_stands_for_it(locations: Locations) -> None:
    mixture = open_mixture(mixture_file({**MONKEY, "instruction": "Say something."}), locations)
    assert said_by(mixture) == {"monkey": ["Say something.", "a0"]}


def test_counts(locations: Locations) -> None:
    mixture = open_mixture(mixture_file({**SNAPSHOT, "count": 7}, {**LLAVA, "count": 2}, TARS), locations)
    reader = SampleReader(mixture, 1)
    first = [sample.key for sample in reader if sample.task == "ours"]
    assert len(mixture) == 7 + 2 + 5 and len(set(first)) == 7
    reader.set_epoch(1)
    assert sorted(sample.key for sample in reader if sample.task == "ours") == sorted(first)
    assert {sample.key for sample in SampleReader(mixture, 2) if sample.task == "ours"} != set(first)


class Supply:
    """A source of texts without images, of a given length: the text of a sample is its number."""

    identity = "snapshot/0123456789abcdef/description"

    def __init__(self, supply: int) -> None:
        self.supply = supply

    def __len__(self) -> int:
        return self.supply

    def read(self, numbers: Sequence[int]) -> list[RawSample]:
        return [RawSample(str(number), (), [str(number)]) for number in numbers]

    def missing(self) -> Missing:
        return Missing([])

    def problems(self) -> tuple[int, str]:
        return 0, ""

    def explain(self, number: int, reason: str) -> SampleError:
        return SampleError(f"{number}: {reason}")


@given(st.integers(1, 60), st.integers(0, 200), st.integers(0, 3))
def test_a_count_above_the_supply_repeats_each_sample_equally_often(supply: int, count: int, seed: int) -> None:
    mixture = Mixture([Share("first", "t", Supply(3), 2, "?"), Share("a", "t", Supply(supply), count, "?")])
    shares, rows = mixture.locate(np.arange(2, 2 + count), seed)
    assert set(shares.tolist()) <= {1}
    times = Counter(dict.fromkeys(range(supply), 0))
    times.update(rows.tolist())
    assert len(times) == supply and set(times.values()) <= {count // supply, -(-count // supply)}
    # any part of the numbers gives the same rows, so that it does not matter who reads which
    assert mixture.locate(np.arange(2, 2 + count)[1::3], seed)[1].tolist() == rows[1::3].tolist()


def test_repeat_is_a_multiple_of_what_there_is(locations: Locations) -> None:
    mixture = open_mixture(mixture_file({**LLAVA, "repeat": 3}, {**SNAPSHOT, "count": 25}), locations)
    times = Counter(sample.key for sample in SampleReader(mixture, 1))
    assert sorted(times.values()) == [2] * 11 + [3] * 6
    assert [times[f"l{number}"] for number in range(5)] == [3] * 5


def test_mixtures_of_earlier_versions_keep_identity_and_order() -> None:
    """The values are those of the code before repetition: a training that was started with it can be resumed."""
    mixture = Mixture([Share("a", "t", Supply(12), 7, "Say."), Share("b", "u", Supply(5), 5, None)])
    assert mixture.identity == "c6dc6d3f1605f009"
    assert [values.tolist() for values in mixture.locate(np.arange(12), 3)] == [
        [0] * 7 + [1] * 5,
        [11, 6, 2, 5, 3, 9, 0, 0, 1, 2, 3, 4],
    ]


def test_several_instructions_are_drawn_for_each_sample(locations: Locations) -> None:
    wordings = [f"Wording {number}: {{question}}" for number in range(4)]
    mixture = open_mixture(mixture_file({**LLAVA, "repeat": 40, "instruction": wordings}), locations)

    def asked(reader: SampleReader) -> list[str]:
        return [sample.conversation[0]["content"] for sample in reader]

    reader = SampleReader(mixture, seed=1)
    first = asked(reader)
    times = Counter(text.partition(":")[0] for text in first)
    assert set(times) == {f"Wording {number}" for number in range(4)} and min(times.values()) > 25  # 50 each
    # the same for two ranks, and after a resume
    ranks = [asked(SampleReader(mixture, seed=1, rank=rank, ranks=2)) for rank in range(2)]
    assert [ranks[number % 2][number // 2] for number in range(200)] == first
    resumed = SampleReader(mixture, seed=1)
    resumed.load_state_dict(reader.state_at(77))
    assert asked(resumed) == first[77:]
    # others in the next epoch
    reader.set_epoch(1)
    assert asked(reader) != first


def test_weights(locations: Locations) -> None:
    mixture = open_mixture(mixture_file({**SNAPSHOT, "weight": 2}, {**LLAVA, "weight": 1}), locations)
    assert [share.count for share in mixture.shares] == [10, 5]
    mixture = open_mixture(mixture_file({**SNAPSHOT, "weight": 0.9}, {**LLAVA, "weight": 0.1}), locations)
    assert [share.count for share in mixture.shares] == [12, 1]


def test_identity_follows_from_what_is_said(locations: Locations) -> None:
    def identity(*sources: dict[str, Any]) -> str:
        return open_mixture(mixture_file(*sources), locations).identity

    assert identity(SNAPSHOT, LLAVA) == identity(SNAPSHOT, LLAVA)
    others = [(LLAVA, SNAPSHOT), (SNAPSHOT,), ({**SNAPSHOT, "count": 3}, LLAVA)]
    others += [({**SNAPSHOT, "instruction": "?"}, LLAVA), ({**SNAPSHOT, "layer": "caption"}, LLAVA)]
    assert len({identity(*sources) for sources in [(SNAPSHOT, LLAVA), *others]}) == 6


def test_a_layer_may_be_called_by_its_old_name(locations: Locations) -> None:
    files = [mixture_file({**SNAPSHOT, key: "caption"}) for key in ("layer", "level")]
    assert [file.sources[0].layer for file in files] == ["caption"] * 2
    old, new = (open_mixture(file, locations).identity for file in files)
    assert old == new


@pytest.mark.parametrize(
    ("sources", "reason"),
    [
        ([{**SNAPSHOT, "snapshot": "no"}], r"^ours: no snapshot 'no'; there are: pinned$"),
        ([{**SNAPSHOT, "layer": "objects"}], r"^ours: the source has no sample with a text$"),
        ([{**LLAVA, "conversations": "no.json"}], r"^llava: no such file: .*/data/no.json$"),
        ([{**TARS, "webdataset": "tars/{0..1}.tar"}], r"^tars: no such shard: .*/data/tars/0.tar$"),
        ([{**TARS, "webdataset": "tars/{1..0}.tar"}], r"^tars: .* a range runs backwards$"),
        ([{**TABLE, "dataset": "no"}], r"^table: .*/data/no is not a dataset on disk: "),
        ([{**TABLE, "question": "q"}], r"^table: .*/table has no column 'q'; it has picture, text, asked, number$"),
        ([{**TABLE, "image": "text"}], r"^table: .*/table: the column 'text' has no images$"),
    ],
)
def test_what_is_not_there_is_one_line(locations: Locations, sources: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(MixtureError, match=reason) as error:
        open_mixture(mixture_file(*sources), locations)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name =", "is not TOML"),
        ("name = 'x'\nsources = []", "sources: List should have at least 1 item"),
        ("name = 'x'\n[[sources]]\nname = 'a'", "sources.0: a: one of snapshot, .* is needed, none given"),
        ("[[sources]]\nname = 'a'\nsnapshot = 's'\ndataset = 'd'", "snapshot and dataset given"),
        ("[[sources]]\nname = 'a'\nsnapshot = 's'", "an instruction is needed"),
        ("[[sources]]\nname = 'a'\ndataset = 's'\ninstruction = '{question}'", "{question} is only for sources with"),
        (
            "[[sources]]\nname = 'a'\nwebdataset = 's'\nlayer = 'caption'",
            "layer is a setting of snapshot, not of",
        ),
        ("[[sources]]\nname = 'a'\nsnapshot = 's'\nlayer = 'poem'\ninstruction = '?'", "no layer 'poem'; there are"),
        (
            "[[sources]]\nname = 'a'\nsnapshot = 's'\nboxes = 'qwen3'\nmax_pixels = 1000\ninstruction = '?'",
            'max_pixels is only for boxes = "qwen2.5"',
        ),
        ("[[sources]]\nname = 'a'\nconversations = 's'\ncount = 0", "sources.0.count: Input should be greater"),
        (f"[[sources]]\nname = 'a'\nconversations = 's'\ncount = {2**63}", "sources.0.count: Input should be less"),
        ("[[sources]]\nname = 'a'\nconversations = 's'\nrepeat = 9000000000", "sources.0.repeat: Input should be less"),
        ("[[sources]]\nname = 'a'\nconversations = 's'\ncount = 1\nweight = 1", "a count or a weight, not both"),
        ("[[sources]]\nname = 'a'\nconversations = 's'\ncount = 1\nrepeat = 2", "a count or a repeat, not both"),
        ("[[sources]]\nname = 'a'\nconversations = 's'\nrepeat = 0", "sources.0.repeat: Input should be greater"),
        ("[[sources]]\nname = 'a'\nsnapshot = 's'\ninstruction = []", "sources.0.instruction"),
        ("[[sources]]\nname = 'a'\nconversations = 's'\nsize = 1", "sources.0.size: Extra inputs are not permitted"),
        ("[[sources]]\nname = 'a'\nconversations = 's'\n" * 2, "two sources are named a"),
        (
            "[[sources]]\nname = 'a'\nconversations = 's'\nweight = 1\n[[sources]]\nname = 'b'\nconversations = 's'",
            "either all sources have a weight or none",
        ),
    ],
)
def test_a_file_that_says_nonsense_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "mixture.toml"
    path.write_text(text if text.startswith("name") else f"name = 'x'\n{text}")
    with pytest.raises(MixtureError, match=reason) as error:
        MixtureFile.load(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


# conversation files


def test_long_files_are_read_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "_PIECE", 7)
    written = [llava(number) for number in range(20)]
    forms = [json.dumps(written), json.dumps(written, indent=4), " \ufeff" + json.dumps(written) + "\n\n"]
    forms += ["\n".join(map(json.dumps, written)), "\n\n".join(map(json.dumps, written)) + "\n"]
    for text in forms:
        found = list(read_conversations(io.BytesIO(text.encode())))
        assert [said.id for said in found] == [f"l{number}" for number in range(20)]
        assert found[3].images == ["images/3.jpg"] and found[3].turns == ["q3", "a3", "more?", "no"]


def test_a_deeply_nested_entry_is_one_line() -> None:
    """The standard library's parser raises RecursionError here."""
    deep = b"[" + b"[" * 20_000 + b"]" * 20_000 + b"]"
    (said,) = read_conversations(io.BytesIO(deep))
    assert said.problem == 'entry 1: no list "conversations"'


def test_half_of_a_surrogate_pair_can_be_stored(tmp_path: Path) -> None:
    (tmp_path / "file.json").write_text(json.dumps([llava(0, conversations=turns("q", "\ud83d"))]))
    source = conversation_source(str(tmp_path / "file.json"), str(tmp_path), tmp_path / "cache")
    assert len(source) == 1


def test_grounded_answers_keep_their_boxes() -> None:
    answer = "<ref>the sky</ref><box>(0,0),(999,500)</box>"
    entry = {"conversations": [{"from": "user", "value": "<img>a b.jpg</img>Where?"}, {"from": "gpt", "value": answer}]}
    (said,) = read_conversations(io.BytesIO(json.dumps(entry).encode()))
    assert said == ("1", ["a b.jpg"], ["Where?", answer], "", "", False)


def turns(*said: str) -> list[dict[str, str]]:
    """Turns by human and gpt."""
    return [{"from": ("human", "gpt")[turn % 2], "value": value} for turn, value in enumerate(said)]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the file contains no conversations"),
        ("[]", "the file contains no conversations"),
        ("[1]", r'entry 1: no list "conversations"'),
        ("nonsense", "entry 1 is not JSON"),
        (json.dumps(llava(0)) + "\n{", "entry 2 is not JSON: parse error: premature EOF"),
        ('[{"a": 1}', "entry 2 is not JSON: parse error: premature EOF"),
        (json.dumps([llava(0)])[:-1], "entry 2 is not JSON: parse error: premature EOF"),
        (json.dumps([llava(0)])[:-1] + ", oops]", "entry 2 is not JSON: lexical error"),
        (json.dumps([llava(0)]) + " more", "entry 2 is not JSON: parse error: trailing garbage"),
        (json.dumps([llava(0, score=float("nan"))]), "entry 1 is not JSON: lexical error"),
        (json.dumps([llava(1, image=None)]), r'entry 1 \(id l1\): no image: neither "image" nor <img>'),
        (json.dumps([llava(0, image="")]), r"entry 1 \(id l0\): no image"),
        (json.dumps([llava(0, conversations=turns("q"))]), "the last question has no answer"),
        (json.dumps([llava(0, conversations=turns("q", "a")[::-1])]), "turn 1 is from 'gpt' instead of human or user"),
        (json.dumps([llava(0, conversations=[{"from": "human"}, {}])]), 'turn 1 has no text "value"'),
        (json.dumps([llava(0, conversations=[])]), 'no list "conversations"'),
        (json.dumps([llava(0, image=["a", "b"])]), "2 images, but 1 place for them in its questions"),
        (
            json.dumps([llava(0, conversations=turns("<image>q<image>", "a"))]),
            "1 image, but 2 places for them in its questions",
        ),
        (json.dumps([llava(0, image=[1])]), '"image" is not a path, nor a list of paths'),
        (
            json.dumps([llava(0, image="data:image/png;base64,AA")]),
            r"its image .*, but its base64 is damaged",
        ),
        (json.dumps([llava(0, image="data:image/svg+xml,<svg>")]), "but not as base64"),
        (json.dumps([llava(0, conversations=turns("q")[:1] * 3)]), "turn 2 is from 'human' instead of gpt"),
    ],
)
def test_what_is_no_conversation_is_one_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "file.json"
    path.write_text(text)
    with pytest.raises(SampleError, match=rf"^{path}: .*{reason}") as error:
        conversation_source(str(path), str(tmp_path), tmp_path / "cache")
    assert "\n" not in str(error.value)


def test_one_bad_entry_does_not_refuse_the_others(locations: Locations) -> None:
    bad = llava(1, image=None)
    write_json(Path(locations.data) / "llava.json", [llava(0), bad, *map(llava, range(2, 5))])
    (share,) = open_mixture(mixture_file(LLAVA), locations).shares
    assert len(share.source) == 5 and share.source.read([0, 2])[1].key == "l2"
    reason = 'entry 2 (id l1): no image: neither "image" nor <img>…</img>, but <image> in its text'
    assert share.source.problems() == (1, reason)
    with pytest.raises(SampleError, match="^" + re.escape(f"{locations.data}/llava.json: {reason}")) as error:
        share.source.read([1])
    assert error.value.uri == f"{locations.data}/llava.json"
    # the reader takes the next one in its place, and tells why
    samples = list(SampleReader(Mixture([share]), on_error="skip"))
    assert {skipped.reason for sample in samples for skipped in sample.skipped} == {str(error.value)}


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(jpeg())
    with pytest.raises(SampleError, match=f"^{path}: entry 1 is not JSON: lexical error"):
        conversation_source(str(path), str(tmp_path), tmp_path / "cache")


def test_images_that_are_not_there(locations: Locations) -> None:
    for number in (1, 3):
        (Path(locations.data) / "images" / f"{number}.jpg").unlink()
    mixture = open_mixture(mixture_file(LLAVA), locations)
    lines = [f"no such image: {locations.data}/images/{number}.jpg (sample l{number})" for number in (1, 3)]
    assert mixture.shares[0].source.missing() == (lines, 0)
    with pytest.raises(SampleError, match=rf"^{locations.data}/images/[13].jpg, image l[13]: no such file$"):
        list(SampleReader(mixture, on_error="stop"))


def test_an_image_that_is_none(locations: Locations) -> None:
    (Path(locations.data) / "images" / "2.jpg").write_text("<html>")
    with pytest.raises(SampleError, match=rf"^{locations.data}/images/2.jpg, image l2: not_an_image"):
        list(SampleReader(open_mixture(mixture_file(LLAVA), locations), on_error="stop"))


def test_a_changed_file_is_read_anew(locations: Locations) -> None:
    assert len(open_mixture(mixture_file(LLAVA), locations)) == 5
    write_json(Path(locations.data) / "llava.json", [llava(number) for number in range(3)])
    assert len(open_mixture(mixture_file(LLAVA), locations)) == 3


# webdatasets and datasets


def test_a_damaged_tar_is_named(locations: Locations, tmp_path: Path) -> None:
    tar = Path(locations.data) / "tars" / "00000.tar"
    tar.write_bytes(tar.read_bytes()[:1500])
    with pytest.raises(SampleError, match=rf"^{tar}: truncated after 1 image$"):
        webdataset_source(str(tar), tmp_path / "cache")


def test_a_dataset_with_splits_asks_for_one(locations: Locations) -> None:
    table = datasets.load_from_disk(f"{locations.data}/table")
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(f"{locations.data}/splits")
    with pytest.raises(SampleError, match=r"splits has several splits; name one: train, test$"):
        DatasetSource(f"{locations.data}/splits")
    assert len(DatasetSource(f"{locations.data}/splits/test")) == 5


def test_a_column_that_is_no_text(locations: Locations) -> None:
    with pytest.raises(SampleError, match=r"table, row 0: number is not a text$"):
        list(SampleReader(Mixture.of(DatasetSource(f"{locations.data}/table", text="number"), "?"), on_error="stop"))


# the paper's mixtures


def test_the_papers_mixture() -> None:
    mixture = MixtureFile.load(MIXTURES / "monkey.toml")
    counts = {source.name: source.count for source in mixture.sources}
    assert len(counts) == 19 and sum(count or 0 for count in counts.values()) == 1_441_000
    assert counts["detailed caption"] == 213_000 and counts["OCRVQA"] == 250_000
    assert len({source.task for source in mixture.sources}) == 4
    ablation = MixtureFile.load(MIXTURES / "monkey-ablation.toml")
    assert {source.name: source.count for source in ablation.sources} == {**counts, "detailed caption": 427_000}


# strata mixture check


@pytest.fixture
def check(
    locations: Locations, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `strata mixture check` on a mixture of these sources; return its exit code and output."""

    def run(*sources: dict[str, Any], options: tuple[str, ...] = ()) -> tuple[int, str, str]:
        tables = ("\n".join(f"{name} = {json.dumps(value)}" for name, value in source.items()) for source in sources)
        text = "name = 'test'\n" + "".join(f"[[sources]]\n{table}\n" for table in tables)
        tomllib.loads(text)
        path = tmp_path / "mixture.toml"
        path.write_text(text)
        where = ["--store", locations.store.uri, "--data", locations.data, "--cache", str(locations.cache)]
        with pytest.raises(SystemExit) as ended:
            cli.main(["mixture", "check", str(path), *where, *options])
        printed = capsys.readouterr()
        return int(ended.value.code or 0), printed.out, printed.err

    return run


def test_check_tells_shares(check: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = check({**SNAPSHOT, "count": 6}, LLAVA, {**MONKEY, "count": 1})
    assert code == 0 and err == "all sources are complete\n"
    lines = [line.split() for line in out.splitlines()]
    assert ["ours", "ours", "12", "6", "50.0%"] in lines
    assert ["llava", "vqa", "5", "5", "41.7%"] in lines
    assert lines[-2:] == [["ours", "50.0%"], ["vqa", "50.0%"]]
    assert ["all", "22", "12"] in lines


def test_check_tells_all_that_is_missing(check: Callable[..., tuple[int, str, str]], locations: Locations) -> None:
    (Path(locations.data) / "images" / "1.jpg").unlink()
    wrong = {"name": "wrong", "conversations": "wrong.json"}
    write_json(Path(locations.data) / "wrong.json", [llava(0, image=None)])
    sources = ({**SNAPSHOT, "count": 13}, {**SNAPSHOT, "name": "other", "snapshot": "no"}, LLAVA, wrong, TABLE)
    code, out, err = check(*sources)
    assert code == exits.MIXTURE_INCOMPLETE and err == "3 of 5 sources have problems\n"
    assert "each sample 1.08 times" in out
    assert "no snapshot 'no'; there are: pinned" in out
    assert f"no such image: {locations.data}/images/1.jpg" in out
    assert "entry 1 (id l0): no image" in out


def test_check_prints_json(check: Callable[..., tuple[int, str, str]]) -> None:
    code, out, _ = check({**SNAPSHOT, "weight": 3}, {**LLAVA, "weight": 1}, options=("--json",))
    told = json.loads(out)
    assert code == 0 and told["tasks"] == {"ours": 0.75, "vqa": 0.25}
    assert [source["count"] for source in told["sources"]] == [12, 4]


def test_check_of_what_is_no_mixture(check: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    code, out, err = check({**SNAPSHOT, "layer": "poem"})
    path = tmp_path / "mixture.toml"
    assert (code, out) == (exits.USAGE, "")
    assert err == (f"strata: {path}: sources.0: no layer 'poem'; there are {', '.join([*LAYERS, *VARIANT_LEVELS])}\n")


def test_shares_without_all_supplies_are_those_that_were_wanted(locations: Locations) -> None:
    missing = {**LLAVA, "name": "missing", "task": "missing", "conversations": "no.json"}
    found = check_mixture(mixture_file({**SNAPSHOT, "count": 3}, {**missing, "count": 1}), locations, lambda name: None)
    assert task_shares(found) == {"ours": 0.75, "missing": 0.25}
    found = check_mixture(mixture_file(SNAPSHOT, missing), locations, lambda name: None)
    assert [check.share for check in found] == [None, None]


def test_shares_of_an_empty_source_are_refused_by_name(locations: Locations) -> None:
    source = locations.open(mixture_file(SNAPSHOT).sources[0])
    assert len(Mixture([Share("a", "t", source, 13, "?")])) == 13
    with pytest.raises(MixtureError, match=r"^a: 13 samples are needed, but its source has none$"):
        Mixture([Share("a", "t", Supply(0), 13, "?")])
    assert len(Mixture([])) == 0 and list(SampleReader(Mixture([]))) == []


# as a user calls it


@pytest.mark.parametrize(
    ("source", "code", "line"),
    [
        ({**LLAVA, "conversations": "no.json"}, exits.MIXTURE_INCOMPLETE, "no such file: {data}/no.json"),
        ({**TARS, "webdataset": "no.tar"}, exits.MIXTURE_INCOMPLETE, "no such shard: {data}/no.tar"),
        ({**SNAPSHOT, "layer": "poem"}, exits.USAGE, "no layer 'poem'; there are alt_text, caption, regions, "),
        (
            {**LLAVA, "conversations": "bare.json"},
            exits.MIXTURE_INCOMPLETE,
            'entry 2 (id l1): no image: neither "image" nor <img>…</img>',
        ),
    ],
)
def test_bad_input_is_one_line(
    locations: Locations, tmp_path: Path, source: dict[str, Any], code: int, line: str
) -> None:
    write_json(Path(locations.data) / "bare.json", [llava(0), llava(1, image=None)])
    path = tmp_path / "mixture.toml"
    path.write_text("name = 'test'\n[[sources]]\n" + "\n".join(f"{key} = {json.dumps(source[key])}" for key in source))
    where = ["--store", locations.store.uri, "--data", locations.data, "--cache", str(locations.cache)]
    ended, printed = called("mixture", "check", str(path), *where)
    assert ended == code
    (told,) = [said for said in printed if line.format(data=locations.data) in said]
    assert source["name"] in told or told.startswith(f"strata: {path}: sources.0: ")


def test_no_file_and_a_taken_name_are_one_line(locations: Locations, tmp_path: Path) -> None:
    ended, printed = called("mixture", "check", str(tmp_path / "no.toml"), "--store", locations.store.uri)
    assert ended == exits.USAGE and printed == [f"strata: {tmp_path}/no.toml: No such file or directory"]
    ended, printed = called("snapshot", "create", "pinned", "--from", "f" * 16, "--store", locations.store.uri)
    assert ended == exits.REQUEST_REFUSED and len(printed) == 1
    assert printed[0].startswith("strata: there is a snapshot 'pinned'")


def called(*arguments: str) -> tuple[int, list[str]]:
    """Run `strata`; return its exit code and output, which must have no stack trace."""
    out, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told), pytest.raises(SystemExit) as ended:
        cli.main(list(arguments))
    assert "Traceback" not in told.getvalue() and isinstance(ended.value.code, int)
    return ended.value.code, (out.getvalue() + told.getvalue()).splitlines()

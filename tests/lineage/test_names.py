"""The names of data sets and of parents."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strata.core.chunks import chosen_shard
from strata.core.requests import ShardSummary
from strata.lineage.datasets import MOST_FOLDERS, data_at, shards_data
from strata.lineage.runs import Parent, parent_of, parents_of
from tests.secrets import SECRET

RUN = "0192ab00-0000-7000-8000-000000000001"


@pytest.mark.parametrize(
    ("uri", "namespace", "name"),
    [
        ("/data/cars", "file", "/data/cars"),
        ("file:///data/cars/", "file", "/data/cars"),
        (f"s3://key:{SECRET}@bucket/sets/cars", "s3://bucket", "sets/cars"),
        ("S3A://bucket", "s3://bucket", "/"),
        ("gcs://bucket/a", "gs://bucket", "a"),
        (f"https://ada:{SECRET}@host:8443/x/00000.tar?sig={SECRET}#a", "https://host:8443", "x/00000.tar"),
        ("abfss://cars@account.dfs.core.windows.net/a", "abfss://cars@account.dfs.core.windows.net", "a"),
        (f"abfss://key:{SECRET}@account/a", "abfss://account", "a"),
    ],
)
def test_a_place_is_named_without_secrets(uri: str, namespace: str, name: str) -> None:
    assert (data_at(uri).namespace, data_at(uri).name) == (namespace, name)


@given(st.text(max_size=60))
def test_no_user_and_no_query_is_in_a_name(text: str) -> None:
    for user in ("key:word@", "word@"):
        found = data_at(f"s3://{user}bucket/{text.replace('word', '')}?sig=word")
        assert "word" not in found.namespace + found.name and found.namespace == "s3://bucket"


def test_a_path_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert (
        data_at("out").name == str(tmp_path / "out") and data_at("store", "parts/x").name == f"{tmp_path}/store/parts/x"
    )


def test_shards_are_told_by_their_folders() -> None:
    shards = [ShardSummary(shard=f"s3://bucket/cc3m/{number:05d}.tar", images=10) for number in range(332)]
    shards += [ShardSummary(shard="uploads:abc", images=2), ShardSummary(shard="/photos/trip")]
    found = [(one.namespace, one.name, one.rows, one.files) for one in shards_data("/store", shards)]
    assert found == [
        ("s3://bucket", "cc3m", 3320, 332),
        ("file", "/store/uploads", 2, 1),
        ("file", "/photos/trip", None, 1),
    ]


def test_rows_that_are_chosen_are_told_by_the_folders_of_their_shards() -> None:
    """And of a sample's lists nothing: what it is drawn of was told before."""
    uris = ["s3://bucket/cc3m/00000.tar", "s3://bucket/cc3m/00001.tar", "uploads:abc", "/photos/trip"]
    shards = [ShardSummary(shard=chosen_shard(uri, "0" * 22, "a" * 16), images=3) for uri in uris]
    shards += [ShardSummary(shard="picked:abc", images=5)]
    found = [(one.namespace, one.name, one.rows, one.files) for one in shards_data("/store", shards)]
    assert found == [
        ("s3://bucket", "cc3m", 6, 2),
        ("file", "/store/uploads", 3, 1),
        ("file", "/photos/trip", 3, 1),
    ]


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=7), min_size=1, max_size=300))
def test_many_folders_are_told_by_those_that_hold_them(paths: list[list[str]]) -> None:
    many = [f"/d/{number}/{'/'.join(path)}/x.tar" for number, path in enumerate(paths)]
    found = shards_data("/store", [ShardSummary(shard=shard, images=1) for shard in many])
    assert len(found) <= MOST_FOLDERS
    assert sum(one.files or 0 for one in found) == sum(one.rows or 0 for one in found) == len(many)


@pytest.mark.parametrize(
    ("environment", "parents"),
    [
        ({}, ()),
        ({"OPENLINEAGE_PARENT_ID": f"airflow/dag.task/{RUN}"}, (Parent("airflow", "dag.task", RUN),)),
        (
            {"OPENLINEAGE_PARENT_ID": f"airflow/task/{RUN}", "OPENLINEAGE_ROOT_PARENT_ID": f"airflow/dag/{RUN}"},
            (Parent("airflow", "task", RUN), Parent("airflow", "dag", RUN)),
        ),
        ({"OPENLINEAGE_ROOT_PARENT_ID": f"airflow/dag/{RUN}"}, ()),
        ({"OPENLINEAGE_PARENT_ID": "airflow/dag/no-uuid"}, ()),
        (
            {
                "OPENLINEAGE_CONTEXT": json.dumps(
                    {"parent": {"run": {"runId": RUN}, "job": {"namespace": "n", "name": "j"}}}
                )
            },
            (Parent("n", "j", RUN),),
        ),
        ({"OPENLINEAGE_CONTEXT": "[1]", "OPENLINEAGE_PARENT_ID": f"n/j/{RUN}"}, (Parent("n", "j", RUN),)),
    ],
)
def test_who_has_started_a_run(environment: dict[str, str], parents: tuple[Parent, ...]) -> None:
    assert parents_of(environment) == parents


JSON = st.recursive(
    st.none() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["parent", "run", "job", "root", "runId", "namespace", "name"]), inner, max_size=4
        )
    ),
)


@given(JSON | st.text(max_size=40))
def test_no_context_is_an_error(content: object) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    for parent in parents_of({"OPENLINEAGE_CONTEXT": text, "OPENLINEAGE_PARENT_ID": text}):
        assert uuid.UUID(parent.run)
    assert parent_of(text) is None or text.count("/") == 2

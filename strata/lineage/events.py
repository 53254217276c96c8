"""Events of OpenLineage, made of runs and data sets with the classes of its client, of the extra `lineage`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from openlineage.client import event_v2
from openlineage.client.facet_v2 import (
    DatasetFacet,
    InputDatasetFacet,
    OutputDatasetFacet,
    RunFacet,
    column_lineage_dataset,
    dataset_version_dataset,
    documentation_dataset,
    error_message_run,
    input_statistics_input_dataset,
    job_type_job,
    output_statistics_output_dataset,
    parent_run,
    processing_engine_run,
    schema_dataset,
    tags_run,
)

import strata
from strata.lineage.datasets import Column, Data
from strata.lineage.runs import Parent, Run, State


def event_of(run: Run, state: State, at: datetime, error: str = "") -> event_v2.RunEvent:
    """The event that tells a state of a run. error: why it has failed, in one line."""
    facets: dict[str, RunFacet] = {
        "processing_engine": processing_engine_run.ProcessingEngineRunFacet(strata.__version__, "strata")
    }
    if run.tags:
        tags = [tags_run.TagsRunFacetFields(name, value, "STRATA") for name, value in run.tags.items()]
        facets["tags"] = tags_run.TagsRunFacet(tags)
    if run.parents:
        facets["parent"] = _parent(run.parents)
    if error:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(error, "python")
    kind = job_type_job.JobTypeJobFacet("BATCH", "STRATA", "JOB")
    return event_v2.RunEvent(
        eventTime=at.isoformat(),
        eventType=event_v2.RunState[state],
        run=event_v2.Run(run.id, facets),
        job=event_v2.Job(run.namespace, run.name, {"jobType": kind}),
        inputs=[_input(one) for one in run.inputs],
        outputs=[_output(one) for one in run.outputs],
    )


def _parent(parents: Sequence[Parent]) -> parent_run.ParentRunFacet:
    """The facet of who has started a run; the last of the parents has started all of it."""
    first, root = parents[0], parents[-1]
    return parent_run.ParentRunFacet(
        parent_run.Run(first.run),
        parent_run.Job(first.namespace, first.name),
        parent_run.Root(parent_run.RootRun(root.run), parent_run.RootJob(root.namespace, root.name)),
    )


def _input(data: Data) -> event_v2.InputDataset:
    statistics = input_statistics_input_dataset.InputStatisticsInputDatasetFacet(data.rows, None, data.files)
    counted: dict[str, InputDatasetFacet] = {"inputStatistics": statistics} if _is_counted(data) else {}
    return event_v2.InputDataset(data.namespace, data.name, counted, facets=_facets(data))


def _output(data: Data) -> event_v2.OutputDataset:
    statistics = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(data.rows, None, data.files)
    counted: dict[str, OutputDatasetFacet] = {"outputStatistics": statistics} if _is_counted(data) else {}
    facets = _facets(data)
    if data.made_of:
        fields = {name: column_lineage_dataset.Fields(_origins(origins)) for name, origins in data.made_of.items()}
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(fields)
    return event_v2.OutputDataset(data.namespace, data.name, counted, facets=facets)


def _is_counted(data: Data) -> bool:
    return data.rows is not None or data.files is not None


def _origins(origins: Sequence[tuple[Data, str, bool]]) -> list[column_lineage_dataset.InputField]:
    return [
        column_lineage_dataset.InputField(
            data.namespace,
            data.name,
            column,
            [column_lineage_dataset.Transformation("DIRECT", "IDENTITY" if same else "TRANSFORMATION")],
        )
        for data, column, same in origins
    ]


def _facets(data: Data) -> dict[str, DatasetFacet]:
    facets: dict[str, DatasetFacet] = {}
    if data.columns:
        facets["schema"] = schema_dataset.SchemaDatasetFacet([_field(column) for column in data.columns])
    if data.version:
        facets["version"] = dataset_version_dataset.DatasetVersionDatasetFacet(data.version)
    if data.about:
        facets["documentation"] = documentation_dataset.DocumentationDatasetFacet(data.about)
    return facets


def _field(column: Column) -> schema_dataset.SchemaDatasetFacetFields:
    inside = [_field(one) for one in column.inside]
    return schema_dataset.SchemaDatasetFacetFields(column.name, column.kind, fields=inside)

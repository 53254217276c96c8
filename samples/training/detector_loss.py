"""Losses of the demo detector beside RT-DETR's own: dense supervision, and a phrase loss by cross-entropy.

RT-DETR's one-to-one matching gives a network without pre-trained backbone few and shifting examples. The dense
loss lets every cell in the middle of an object learn that object's phrase and box at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.ops import box_convert, box_iou, generalized_box_iou_loss, sigmoid_focal_loss

from samples.training.detector_model import SIZE

MIDDLE = 0.3  # a cell is assigned to an object if its distance to the centre is below this share of the sides


@dataclass(frozen=True)
class DenseTargets:
    """The targets of the encoder's cells.

    phrases: (batch, cells), -1 for none. boxes: (batch, cells, 4) as cx, cy, w, h in 0..1. background: (batch,
    cells), true outside of all boxes; between middle and edge a cell is neither.
    """

    phrases: Tensor
    boxes: Tensor
    background: Tensor


def dense_targets(labels: list[dict[str, Tensor]]) -> DenseTargets:
    """Assign cells of the strides 8, 16 and 32 to the objects in `labels`, see `detector_data.labels_of`."""
    cells = _cell_centres()
    phrases = torch.full((len(labels), len(cells)), -1)
    boxes = torch.zeros(len(labels), len(cells), 4)
    background = torch.ones(len(labels), len(cells), dtype=torch.bool)
    for index, label in enumerate(labels):
        if not len(label["boxes"]):
            continue
        # distance of each cell to each object, in shares of the object's sides
        centres, sides = label["boxes"][None, :, :2], label["boxes"][None, :, 2:]
        distance = ((cells[:, None] - centres).abs() / sides).amax(-1)  # 0 at the centre, 0.5 on the edge
        nearest, owner = distance.min(1)
        # near the centre: the object's phrase; outside of all boxes: background; between: ignored
        phrases[index] = torch.where(nearest < MIDDLE, label["class_labels"][owner], -1)
        boxes[index] = label["boxes"][owner]
        background[index] = nearest > 0.5
    return DenseTargets(phrases, boxes, background)


def dense_loss(logits: Tensor, boxes: Tensor, targets: DenseTargets, *, with_presence: bool) -> Tensor:
    """The loss of phrase and box of every assigned cell; with `with_presence`, also of whether there is an object.

    logits (batch, cells, phrases); boxes (batch, cells, 4) cxcywh in 0..1. Presence is for pre-training only:
    afterwards RT-DETR's own loss decides which of an object's cells should speak.
    """
    # assigned cells: cross-entropy of the phrase, L1 and generalised IoU of the box
    found = targets.phrases >= 0
    count = max(int(found.sum()), 1)
    loss: Tensor = functional.cross_entropy(logits[found], targets.phrases[found], reduction="sum") / count
    predicted, true = boxes[found], targets.boxes[found]
    loss = loss + 5 * functional.l1_loss(predicted, true, reduction="sum") / count
    giou = generalized_box_iou_loss(_corners(predicted), _corners(true), reduction="sum")
    loss = loss + 2 * giou / count
    if with_presence:
        # all cells that are assigned or background: focal loss of each phrase
        wanted = torch.zeros_like(logits)
        wanted[found] = functional.one_hot(targets.phrases[found], logits.shape[-1]).to(logits.dtype)
        known = found | targets.background
        loss = loss + sigmoid_focal_loss(logits[known], wanted[known], reduction="sum") / count
    return loss


def query_phrase_loss(logits: Tensor, boxes: Tensor, labels: list[dict[str, Tensor]]) -> Tensor:
    """Cross-entropy over the phrases for every query whose box lies on an object (IoU of at least 0.5).

    logits (batch, queries, phrases); boxes (batch, queries, 4). RT-DETR's varifocal loss asks 105 yes-or-no
    questions, most of them answered no; this one asks which.
    """
    total, count = logits.sum() * 0, 0
    for own_logits, own_boxes, label in zip(logits, boxes.detach(), labels, strict=True):
        if not len(label["boxes"]):
            continue
        # the object with the largest overlap for each query
        overlap, owner = box_iou(_corners(own_boxes), _corners(label["boxes"])).max(1)
        on_object = overlap >= 0.5
        wanted = label["class_labels"][owner[on_object]]
        total = total + functional.cross_entropy(own_logits[on_object], wanted, reduction="sum")
        count += len(wanted)
    loss: Tensor = total / max(count, 1)
    return loss


def _cell_centres() -> Tensor:
    """(cells, 2) centres x, y in 0..1, in the order of RT-DETR's flattened levels."""
    levels = []
    for stride in (8, 16, 32):
        ticks = (torch.arange(SIZE // stride) + 0.5) * stride / SIZE
        y, x = torch.meshgrid(ticks, ticks, indexing="ij")
        levels.append(torch.stack([x, y], -1).reshape(-1, 2))
    return torch.cat(levels)


def _corners(boxes: Tensor) -> Tensor:
    corners: Tensor = box_convert(boxes, "cxcywh", "xyxy")
    return corners

"""The next-item part of a checkpoint: what is learned from interactions alone, as tensors of one file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from contract.errors import BadBundle
from contract.retrieval.item_table import ItemTable, Neighbours
from model.sequence.encoder import SequenceEncoder
from model.sequence.ranker import CandidateRanker

NEXT_ITEM: Final = "next_item"  # the key of the part's evaluation in a manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class NextItemPart:
    """`items` (M,): ids in UTF-8. `popular` (P,): rows of items, the most popular first. The vectors are unit vectors.

    `evaluation`: metrics on held-out interactions, see `training.next_item.evaluation`.
    """

    items: npt.NDArray[np.bytes_]
    table: ItemTable
    popular: npt.NDArray[np.int32]
    encoder: SequenceEncoder
    ranker: CandidateRanker
    evaluation: Mapping[str, float] = field(default_factory=dict)


def to_tensors(part: NextItemPart) -> dict[str, Tensor]:
    """The part as tensors by name, for a checkpoint."""
    table = part.table
    arrays = {
        "items": encode_texts(part.items).numpy(),
        "evaluation": np.frombuffer(json.dumps(dict(part.evaluation)).encode(), np.uint8),
        "popular": part.popular,
        "counts": table.counts,
        "recent_counts": table.recent_counts,
    }
    for name, neighbours in (("neighbours", table.neighbours), ("other_neighbours", table.other_neighbours)):
        arrays |= {f"{name}.rows": neighbours.rows, f"{name}.weights": neighbours.weights}
        arrays[f"{name}.fading"] = np.array(neighbours.fading)
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    for prefix, module in (("encoder", part.encoder), ("ranker", part.ranker)):
        tensors |= {f"{prefix}.{name}": tensor for name, tensor in module.state_dict().items()}
    return tensors


def encode_texts(texts: npt.NDArray[np.bytes_]) -> Tensor:
    """Texts in UTF-8 as the bytes of a JSON array: a checkpoint holds tensors only."""
    content = json.dumps([text.decode() for text in texts.tolist()]).encode()
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


def decode_texts(tensor: Tensor) -> npt.NDArray[np.bytes_]:
    return np.array([text.encode() for text in json.loads(tensor.numpy().tobytes())], np.bytes_)


def from_tensors(tensors: Mapping[str, Tensor]) -> NextItemPart:
    """The part of a checkpoint, in evaluation mode; raises `BadBundle` for tensors that are not of one."""
    try:
        arrays = {
            name: tensor.numpy() for name, tensor in tensors.items() if not name.startswith(("encoder.", "ranker."))
        }
        encoder, ranker = SequenceEncoder(tensors["encoder.items.weight"][1:].float().numpy()), CandidateRanker()
        for prefix, module in (("encoder.", encoder), ("ranker.", ranker)):
            state = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}
            module.load_state_dict(state)
        with torch.no_grad():
            vectors = encoder.eval().item_vectors().numpy()
        return NextItemPart(
            items=decode_texts(tensors["items"]),
            table=ItemTable(
                neighbours=read_neighbours(arrays, "neighbours"),
                other_neighbours=read_neighbours(arrays, "other_neighbours"),
                vectors=vectors,
                counts=arrays["counts"],
                recent_counts=arrays["recent_counts"],
            ),
            popular=arrays["popular"],
            encoder=encoder,
            ranker=ranker.eval(),
            evaluation=json.loads(arrays["evaluation"].tobytes()),
        )
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise BadBundle(f"A next-item part should have all of its tensors. Found: {error!r:.200}") from error


def read_neighbours(arrays: Mapping[str, npt.NDArray[np.generic]], name: str) -> Neighbours:
    rows, weights = arrays[f"{name}.rows"].astype(np.int32), arrays[f"{name}.weights"].astype(np.float32)
    return Neighbours(rows, weights, float(arrays[f"{name}.fading"]))

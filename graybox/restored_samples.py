"""The samples of a checkpoint come back, also where they stand elsewhere in the present data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from graybox.sample_stream import Position
from graybox.session import Session
from graybox.store.sample_columns import Rows


def restore_samples(session: Session, payload: Mapping[str, Any]) -> None:
    """What is known of the samples, and where the stream of them stands. From other data it is carried over to the
    present data, and training goes on with the next epoch. After the layers, whose neurons know samples too."""
    state, sources = session.data.of_checkpoint(payload)
    session.stores.samples.load_state(state)
    session.stream.rewind(Position(**payload["stream"]))
    follow_samples(session, sources)


def follow_samples(session: Session, sources: Mapping[str, Rows]) -> None:
    """The samples of some splits stand elsewhere: the neurons' most exciting ones follow, and the order of an epoch
    that has begun means nothing any more. sources: by split, where each sample was, -1 new."""
    for split, source in sources.items():
        kept = np.flatnonzero(source >= 0)
        place = torch.full((max(int(source.max(initial=0)) + 1, 1),), -1, dtype=torch.int64)
        place[torch.from_numpy(source[kept])] = torch.from_numpy(kept)
        for _, layer in session.network.named_layers():
            trackers = {"train": layer.records.train, "val": layer.records.eval}
            if split in trackers:
                trackers[split].exciting.renumber(place)
    position = session.stream.position
    if "train" in sources and (position.offset or position.extra):
        session.stream.rewind(Position(position.epoch + 1))


def fits(session: Session, name: str, payload: Mapping[str, Any]) -> bool:
    """Whether a checkpoint's samples can be carried over to the present data, though it was made with others. name: as
    `checkpoint.kinds` names the data set of a split."""
    split = name.removeprefix("the ").removesuffix(" data set")
    return session.data.can_carry(split, payload.get("data", {}))

"""A run goes on with another data set than it was trained on, in which its samples are known again."""

from __future__ import annotations

import logging
from collections.abc import Callable

from graybox.checkpoint import CheckpointKeeper
from graybox.intervention import Intervention
from graybox.recovery import Recovery
from graybox.restored_samples import follow_samples
from graybox.session import Session
from graybox.session_data import told_changes
from graybox.store.undo_order import DATA_CHANGED

_log = logging.getLogger(__name__)


def take_over_data(
    session: Session, recovery: Recovery, keeper: CheckpointKeeper, journal: Callable[[Intervention], object]
) -> None:
    """What is known of the samples follows their names, and that is said: in the log, the journal and the status. What
    was left to replay is done before, as it names samples by their places of before. Raises StorageError; a restart
    tries again."""
    recovery.advance_here()
    changes = session.data.changes()
    summary = told_changes(changes)
    _log.warning("%s", summary)
    # First of all, so that nobody undoes edits of samples that stand elsewhere.
    told = {split: change.to_json() for split, change in changes.items()}
    journal(Intervention(DATA_CHANGED, {"summary": summary, "splits": told}))
    session.data.take_over(changes)
    follow_samples(session, {split: c.source for split, c in changes.items() if c.source is not None})
    session.data.notice = summary
    keeper.save("data changed").result()

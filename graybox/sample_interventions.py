"""Interventions on samples: discards, tags, corrected labels, columns. Resolved to rows, for replay to do the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from graybox.commands import (
    Command,
    CopyColumn,
    CorrectLabels,
    DeleteColumn,
    DiscardSamples,
    KeepRatio,
    KeepShare,
    RebalanceClasses,
    RecordQuery,
    SampleEdit,
    TagSamples,
    WeighSamples,
)
from graybox.errors import Invalid, NotFound, Refused
from graybox.intervention import Intervention, Performed
from graybox.randomness import mix
from graybox.sample_weighing import TRAIN, check_drawn, left_out, weights_for
from graybox.store.sample_columns import SplitColumns
from graybox.store.sample_notes import RESERVED_TAGS, checked_note_name
from graybox.store.sample_table import check_copied, copied_column, kind_of
from graybox.taken_back import all_or_nothing, recorded_or_taken_back

if TYPE_CHECKING:
    from graybox.session import Session
    from graybox.store.journal import JournalEntry

MAX_INLINE = 1_000
"""More rows than this go into a blob beside the journal."""
RowsOfSplits = dict[str, np.ndarray]


class SampleInterventions:
    """Resolves, performs and undoes the interventions on the samples of one session."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.perform: dict[str, Callable[[Mapping[str, Any], int], Performed]] = {
            "sample_discard": lambda arguments, _: self._mark(arguments, True),
            "sample_restore": lambda arguments, _: self._mark(arguments, False),
            "tag_add": lambda arguments, _: self._tag(arguments, True),
            "tag_remove": lambda arguments, _: self._tag(arguments, False),
            "label_change": lambda arguments, _: self._correct(arguments),
            "sample_weight": lambda arguments, _: self._weigh(arguments),
            "metadata_copy": lambda arguments, _: self._copy(arguments),
            "metadata_delete": lambda arguments, _: self._delete(arguments),
            "query_execute": lambda arguments, _: Performed(f"Asked: {arguments['query']}"),
        }

    # -- resolving -----------------------------------------------------------------------------------

    def resolve(self, command: Command) -> Intervention:
        """Check a command against the present. Raises Invalid, NotFound or Refused; changes nothing."""
        match command:
            case DiscardSamples():
                rows = self._rows_of(command)
                if command.discarded:
                    self._check_left(rows)
                return Intervention("sample_discard" if command.discarded else "sample_restore", self._inline(rows))
            case KeepShare() | KeepRatio():
                seed = mix(self.session.seed, self.session.stores.journal.last_sequence)
                rows = left_out(command, self._rows_of(command), self._splits, seed)
                self._check_left(rows)
                return Intervention("sample_discard", self._inline(rows))
            case WeighSamples() | RebalanceClasses():
                return self._resolved_weights(command)
            case TagSamples():
                tag = checked_note_name(command.tag, "tag")
                if command.value and tag in RESERVED_TAGS:
                    raise Refused(
                        f"the tag {tag} is given by training itself, to samples that fail; choose another name"
                    )
                kind = "tag_add" if command.value else "tag_remove"
                return Intervention(kind, {"tag": tag, **self._inline(self._rows_of(command))})
            case CorrectLabels():
                label = self._checked_label(command.label)
                return Intervention("label_change", {"label": label, **self._inline(self._rows_of(command))})
            case CopyColumn():
                name = self._checked_copy(command)
                return Intervention("metadata_copy", {"source": command.source, "name": name})
            case DeleteColumn():
                if not any(self._has(columns, command.name) for columns in self._splits.values()):
                    known = {name for columns in self._splits.values() for name in _own_columns(columns)}
                    raise NotFound(
                        f"there is no column {command.name!r} that was copied or logged; there are "
                        f"{', '.join(sorted(known)) or 'none yet'}"
                    )
                return Intervention("metadata_delete", {"name": command.name})
            case RecordQuery():
                return Intervention("query_execute", {"query": command.query, "matches": command.matches})
        raise Invalid(f"unknown command {type(command).__name__}")

    @property
    def _splits(self) -> dict[str, SplitColumns]:
        return self.session.stores.samples.splits

    def _rows_of(self, command: SampleEdit) -> RowsOfSplits:
        """Rows by split, each once, ascending."""
        splits = self._splits
        found: dict[str, list[Any]] = {}
        for split, sample_id in command.samples:
            if split not in splits:
                raise NotFound(f"no split {split!r}; there are {', '.join(splits)}")
            found.setdefault(split, []).append(row_of(split, sample_id, splits[split].count))
        whole = {split: np.array(rows, dtype=np.int64) for split, rows in found.items()}
        for split, rows in command.rows.items():
            if split not in splits:
                raise NotFound(f"no split {split!r}; there are {', '.join(splits)}")
            checked = splits[split].checked_rows(rows)
            whole[split] = np.concatenate([whole[split], checked]) if split in whole else checked
        if not sum(map(len, whole.values())):
            raise Invalid("no sample was named")
        return {split: np.unique(rows) for split, rows in whole.items() if len(rows)}

    def _resolved_weights(self, command: WeighSamples | RebalanceClasses) -> Intervention:
        all_of_them = isinstance(command, RebalanceClasses) and not command.samples and not command.rows
        chosen = {} if all_of_them else self._rows_of(command)
        rows, weights = weights_for(command, chosen, self._splits[TRAIN])
        if isinstance(command, WeighSamples):
            return Intervention("sample_weight", {"weight": float(command.weight), **self._inline({TRAIN: rows})})
        kept = self._inline({TRAIN: weights})
        values = {key.replace("rows", "weights"): value for key, value in kept.items()}
        return Intervention("sample_weight", {"how": command.how, **self._inline({TRAIN: rows}), **values})

    def _check_left(self, rows: RowsOfSplits) -> None:
        if TRAIN in rows:
            left = ~self._splits[TRAIN].discarded
            left[rows[TRAIN]] = False
            if not left.any():
                raise Refused("this would leave no training sample; keep at least one")
            check_drawn(self._splits[TRAIN].notes.weights(), ~left)

    def _checked_label(self, label: int | None) -> int:
        """The class that labels are corrected to; -1, that of the data set again."""
        session = self.session
        if label is None:
            return -1
        if session.experiment.task.name != "classification":
            raise Refused(f"labels are corrected where they are classes, not in a {session.experiment.task.name}")
        output = session.network.output_layer()
        names = session.experiment.class_names
        count = output.neuron_count if output is not None else len(names) or None
        if label < 0 or (count is not None and label >= count):
            raise Invalid(f"there is no class {label}; there are {count or 'classes'}, numbered from 0")
        return label

    def _checked_copy(self, command: CopyColumn) -> str:
        check_copied(list(self._splits.values()), command.source)
        if command.name:
            name = checked_note_name(command.name, "column")
            self._check_free(name)
            return name
        taken = {name for columns in self._splits.values() for name in _own_columns(columns)}
        stem = f"{command.source.removeprefix('tag:')[:80]}_copy"
        return next(n for n in (stem, *(f"{stem}_{number}" for number in range(2, 1_000))) if n not in taken)

    def _check_free(self, name: str) -> None:
        for split in self._splits:
            self.session.stores.samples.check_column_name(split, name)

    def _has(self, columns: SplitColumns, name: str) -> bool:
        return name in _own_columns(columns)

    # -- performing ----------------------------------------------------------------------------------

    def _mark(self, arguments: Mapping[str, Any], discarded: bool) -> Performed:
        samples = self.session.stores.samples
        # A pass that has begun takes the samples of before, the one that replay makes those of after.
        self.session.abandon_evaluation()
        changed: RowsOfSplits = {}
        verb, already = ("Discarded", "discarded") if discarded else ("Restored", "in use")

        def take_back() -> None:
            for split, rows in changed.items():
                samples.set_discarded(split, rows, not discarded)

        with all_or_nothing(take_back):
            for split, rows in self._rows(arguments).items():
                changed[split] = samples.set_discarded(split, rows, discarded)
        return self._done(changed, lambda what: f"{verb} {what}", f"already {already}", take_back)

    def _tag(self, arguments: Mapping[str, Any], value: bool) -> Performed:
        samples, tag = self.session.stores.samples, arguments["tag"]
        changed: RowsOfSplits = {}

        def take_back() -> None:
            for split, rows in changed.items():
                samples.set_tag(split, tag, rows, not value)

        with all_or_nothing(take_back):
            for split, rows in self._rows(arguments).items():
                changed[split] = samples.set_tag(split, tag, rows, value)
        text = f"Tagged {{}} {tag}" if value else f"Took the tag {tag} from {{}}"
        already = f"already {'' if value else 'not '}tagged {tag}"
        return self._done(changed, text.format, already, take_back)

    def _correct(self, arguments: Mapping[str, Any]) -> Performed:
        samples, label = self.session.stores.samples, int(arguments["label"])
        self.session.abandon_evaluation()
        before: dict[str, np.ndarray] = {}
        changed: RowsOfSplits = {}

        def take_back() -> None:
            for split, rows in changed.items():
                samples.correct_labels(split, rows, before[split])

        with all_or_nothing(take_back):
            for split, rows in self._rows(arguments).items():
                changed[split], before[split] = samples.correct_labels(split, rows, np.full(len(rows), label))
        names = self.session.experiment.class_names
        name = names[label] if 0 <= label < len(names) else str(label)
        text = "Gave {} the data set's label again" if label < 0 else f"Labelled {{}} as {name}"
        return self._done(changed, text.format, "already labelled so", take_back, values=before)

    def _weigh(self, arguments: Mapping[str, Any]) -> Performed:
        samples = self.session.stores.samples
        rows = self._rows(arguments)
        weights = {split: np.full(len(found), arguments["weight"]) for split, found in rows.items()} if (
            "weight" in arguments
        ) else self._values(arguments, "weights")  # fmt: skip
        before: dict[str, np.ndarray] = {}
        changed: RowsOfSplits = {}

        def take_back() -> None:
            for split, found in changed.items():
                samples.set_weights(split, found, before[split])

        with all_or_nothing(take_back):
            for split, found in rows.items():
                changed[split], before[split] = samples.set_weights(split, found, weights[split])
        if "weight" in arguments:
            text = f"Draws {{}} {arguments['weight']:g} times in an epoch"
        elif arguments["how"] == "none":
            text = "Draws {} once in an epoch again"
        else:
            text = f"Rebalanced classes ({arguments['how']}): other weights for {{}}"
        return self._done(changed, text.format, "already drawn so", take_back, values=before)

    def _copy(self, arguments: Mapping[str, Any]) -> Performed:
        samples, source, name = self.session.stores.samples, arguments["source"], arguments["name"]
        blobs = self.session.stores.blobs
        if "values_blob" in arguments:  # done again: what it held then, not what the source holds by now
            values, digest = blobs.get(arguments["values_blob"]), arguments["values_blob"]
        else:
            like = kind_of(source, list(self._splits.values()))
            values = {split: copied_column(columns, source, like) for split, columns in self._splits.items()}
            digest = blobs.put(values)
        with all_or_nothing(lambda: self._drop(name)):
            for split, column in values.items():
                samples.keep_column(split, name, column)
        return Performed(
            f"Copied column {source} to {name}",
            undo={"name": name},
            value=0,
            decided={"values_blob": digest},
            take_back=lambda: self._drop(name),
        )

    def _delete(self, arguments: Mapping[str, Any]) -> Performed:
        name = arguments["name"]
        logged = [split for split, columns in self._splits.items() if name in columns.notes.signals]
        held = {split: values for split, values in self._drop(name).items() if len(values)}
        return Performed(
            f"Deleted column {name}",
            undo=recorded_or_taken_back(
                lambda: {"name": name, "logged": logged, "values_blob": self.session.stores.blobs.put(held)},
                lambda: self._put_column(name, held, logged),
            ),
            value=0,
            take_back=lambda: self._put_column(name, held, logged),
        )

    def _drop(self, name: str) -> dict[str, np.ndarray]:
        samples = self.session.stores.samples
        return {
            split: samples.drop_column(split, name)
            for split, columns in self._splits.items()
            if self._has(columns, name)
        }

    def _put_column(self, name: str, held: Mapping[str, np.ndarray], logged: list[str]) -> None:
        """Put back what was deleted: all of it or nothing. What the user's code has logged under the name since stays,
        and a column that was copied comes back beside it under another name."""
        samples, splits = self.session.stores.samples, self._splits
        copies = [split for split in held if split not in logged]
        free = name
        if any(self._has(splits[split], name) for split in copies):
            taken = {known for columns in splits.values() for known in _own_columns(columns)}
            free = next(n for n in (f"{name}_{number}" for number in range(2, 1_000)) if n not in taken)
        made: list[str] = []

        def take_back() -> None:
            for split in made:
                samples.drop_column(split, free)

        with all_or_nothing(take_back):
            for split in copies:
                samples.keep_column(split, free, held[split])
                made.append(split)
        for split in logged:
            if split in held and split in splits:
                self._put_signal(split, name, held[split])

    def _put_signal(self, split: str, name: str, values: np.ndarray) -> None:
        notes = self._splits[split].notes
        now = notes.signals.get(name)
        if now is None and name in notes.copies:
            return  # somebody has copied another column to this name since
        missing = ~np.isnan(values) if now is None else np.isnan(now) & ~np.isnan(values)
        rows = np.flatnonzero(missing)
        self.session.stores.samples.log_signal(split, name, rows, values[rows])

    def _done(
        self,
        changed: RowsOfSplits,
        text: Callable[[str], str],
        already: str,
        take_back: Callable[[], None],
        values: Mapping[str, np.ndarray] | None = None,
    ) -> Performed:
        """What became of some rows, and what undoes it. values: what they held before, where that is not one bit."""
        count = sum(map(len, changed.values()))
        where = ", ".join(f"{len(rows):,} of {split}" for split, rows in changed.items() if len(rows))
        some = "sample" if count == 1 else "samples"
        summary = text(f"{count:,} {some} ({where})") if count else f"Nothing changed: {already}"

        def record() -> dict[str, Any]:
            undo = self._inline(changed)
            if values is not None:
                kept = self._inline(values)
                undo |= {key.replace("rows", "values"): value for key, value in kept.items()}
            return undo

        return Performed(summary, undo=recorded_or_taken_back(record, take_back), value=count, take_back=take_back)

    # -- undoing -------------------------------------------------------------------------------------

    def undo(self, entry: JournalEntry) -> None:
        """Take back what an entry of the journal did."""
        samples, undo = self.session.stores.samples, entry.undo
        self.session.abandon_evaluation()
        if entry.kind == "metadata_copy":
            self._drop(undo["name"])
        elif entry.kind == "metadata_delete":
            self._put_column(undo["name"], self.session.stores.blobs.get(undo["values_blob"]), list(undo["logged"]))
        elif entry.kind == "label_change":
            before = self._values(undo, "values")
            for split, rows in self._rows(undo).items():
                samples.correct_labels(split, rows, before[split])
        elif entry.kind == "sample_weight":
            before = self._values(undo, "values")
            for split, rows in self._rows(undo).items():
                samples.set_weights(split, rows, before[split])
        else:
            for split, rows in self._rows(undo).items():
                if entry.kind in ("tag_add", "tag_remove"):
                    samples.set_tag(split, entry.arguments["tag"], rows, entry.kind == "tag_remove")
                else:
                    samples.set_discarded(split, rows, entry.kind == "sample_restore")

    # -- rows in the journal -------------------------------------------------------------------------

    def _inline(self, rows: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """Rows as an entry of the journal holds them: in the line, or as a blob beside it."""
        if sum(map(len, rows.values())) > MAX_INLINE:
            return {"rows_blob": self.session.stores.blobs.put(rows)}
        return {"rows": {split: found.tolist() for split, found in rows.items()}}

    def _values(self, arguments: Mapping[str, Any], name: str) -> dict[str, np.ndarray]:
        """Numbers that an entry holds beside its rows, under names like theirs."""
        if f"{name}_blob" in arguments:
            return dict(self.session.stores.blobs.get(arguments[f"{name}_blob"]))
        return {split: np.asarray(found) for split, found in arguments[name].items()}

    def _rows(self, arguments: Mapping[str, Any]) -> RowsOfSplits:
        if "rows_blob" in arguments:
            return dict(self.session.stores.blobs.get(arguments["rows_blob"]))
        return {split: np.asarray(rows, dtype=np.int64) for split, rows in arguments["rows"].items()}


def row_of(split: str, sample_id: str, count: int) -> int:
    """The row that a sample's id names. Raises NotFound."""
    if sample_id.isascii() and sample_id.isdigit() and len(sample_id) <= 18 and int(sample_id) < count:
        return int(sample_id)
    raise NotFound(f"no sample {sample_id!r:.60} in split {split!r}; ids run from 0 to {count - 1}")


def _own_columns(columns: SplitColumns) -> tuple[str, ...]:
    """Names of columns that people or their code made."""
    return (*columns.notes.signals, *columns.notes.copies)

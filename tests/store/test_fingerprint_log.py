from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graybox.errors import StorageError
from graybox.store.fingerprint_log import FILE_NAME, KIND, VERSION, FingerprintLog, StepFingerprint, read_fingerprints
from graybox.store.record_log import RecordLog

NUMBERS = st.integers(-(2**63), 2**63 - 1)


def fingerprint(
    step: int, value: int = 1, weights: tuple[str, ...] = ("w", "b"), gradients: tuple[str, ...] = ("w",)
) -> StepFingerprint:
    return StepFingerprint(
        step, 2**63 - 1, value, -value, 0, 7, 0.1 * value, np.arange(len(weights)) - value, np.arange(len(gradients)),
        weights, gradients,
    )  # fmt: skip


def told(found: list[StepFingerprint]) -> list[object]:
    return [replace(f, weights=f.weights.tolist(), gradients=f.gradients.tolist()) for f in found]  # type: ignore[arg-type]


def test_what_was_written_is_read(root: Path) -> None:
    written = [
        fingerprint(0),
        fingerprint(1, 2),
        fingerprint(2, 3, weights=("w", "b", "new"), gradients=()),
        fingerprint(4, 4, weights=("w", "b", "new"), gradients=("b",)),
    ]
    log = FingerprintLog(root)
    for number, each in enumerate(written):
        log.append(each)
        assert told(read_fingerprints(root)) == told(written[: number + 1]), "while it is open, too"
    log.close()
    log.close()
    assert told(read_fingerprints(root)) == told(written)


@given(
    step=st.integers(0, 2**63), seed=st.integers(0, 2**63), numbers=st.lists(NUMBERS, min_size=4, max_size=4),
    loss=st.floats(), weights=st.lists(NUMBERS, max_size=5),
)  # fmt: skip
def test_every_bit_comes_back(
    tmp_path_factory: pytest.TempPathFactory, step: int, seed: int, numbers: list[int], loss: float, weights: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    names = tuple(f"layer.{n}" for n in range(len(weights)))
    made = StepFingerprint(
        step, seed, *numbers, loss, np.array(weights, dtype=np.int64), np.zeros(0, np.int64), names, ()
    )
    log = FingerprintLog(folder)
    log.append(made)
    log.close()
    (found,) = read_fingerprints(folder)
    assert np.float64(found.loss).tobytes() == np.float64(loss).tobytes()
    assert told([replace(found, loss=0.0)]) == told([replace(made, loss=0.0)])


@given(st.lists(st.integers(0, 8), max_size=20))
def test_steps_that_are_made_again_end_what_was_there(
    tmp_path_factory: pytest.TempPathFactory, steps: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    log = FingerprintLog(folder)
    for number, step in enumerate(steps):
        log.append(fingerprint(step, number))
    log.close()
    # Of each step the last record counts, unless an earlier step was made after it.
    expected = [(s, n) for n, s in enumerate(steps) if all(later > s for later in steps[n + 1 :])]
    assert [(f.step, f.rows) for f in read_fingerprints(folder)] == expected


def test_a_log_that_goes_on_knows_its_names_again(root: Path) -> None:
    for step in range(3):
        log = FingerprintLog(root)
        log.append(fingerprint(step))
        log.close()
    assert [(f.step, f.weight_names) for f in read_fingerprints(root)] == [(n, ("w", "b")) for n in range(3)]


def test_what_comes_from_a_device_is_written_one_later_or_at_the_end(root: Path) -> None:
    log = FingerprintLog(root)
    asked: list[int] = []

    def later(step: int) -> StepFingerprint:
        asked.append(step)
        return fingerprint(step)

    log.append_later(lambda: later(0))
    assert asked == [] and read_fingerprints(root) == []
    log.append_later(lambda: later(1))
    assert asked == [0] and len(read_fingerprints(root)) == 1
    log.close()
    assert asked == [0, 1] and len(read_fingerprints(root)) == 2


def test_without_a_log_there_is_nothing_and_a_torn_end_is_left_out(root: Path) -> None:
    assert read_fingerprints(root) == []
    log = FingerprintLog(root)
    log.append(fingerprint(0))
    log.append(fingerprint(1))
    log.close()
    whole = (root / FILE_NAME).read_bytes()
    (root / FILE_NAME).write_bytes(whole[:-3])
    assert [f.step for f in read_fingerprints(root)] == [0]


@pytest.mark.parametrize(
    "payloads",
    [[b"S" + bytes(20)], [b"N[]"], [b"Nnot json"], [b'N[["a"], []]', b"S" + bytes(56)], [b"S" + bytes(57)]],
)
def test_a_broken_log_is_named(payloads: list[bytes], root: Path) -> None:
    log = RecordLog(root / FILE_NAME, kind=KIND, version=VERSION)
    for payload in payloads:
        log.append(payload)
    log.close()
    with pytest.raises(StorageError, match=rf"{FILE_NAME} is broken"):
        read_fingerprints(root)

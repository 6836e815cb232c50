"""Errors say where they happened, once, and survive pickling."""

from __future__ import annotations

import pickle

from cosco.errors import CommitTimeout, PartitionOutOfRange, ServiceUnavailable


def test_a_place_is_said_once() -> None:
    error = ServiceUnavailable("nobody answers").place("orders", 3)
    assert error.place("others", 4) is error
    assert str(error) == "partition 3 of exchange 'orders': nobody answers"
    assert (error.shuffle_id, error.partition) == ("orders", 3)


def test_a_place_without_a_name_is_none() -> None:
    error = ServiceUnavailable("nobody answers").place("")
    assert (str(error), error.shuffle_id) == ("nobody answers", None)


def test_a_place_replaces_the_empty_one_of_what_a_process_shares() -> None:
    error = ServiceUnavailable("nobody answers", shuffle_id="").place("orders")
    assert (str(error), error.shuffle_id) == ("exchange 'orders': nobody answers", "orders")


def test_a_partition_that_is_known_stays() -> None:
    error = PartitionOutOfRange("no partition 9", partition=9).place("orders")
    assert (str(error), error.partition) == ("exchange 'orders': no partition 9", 9)


def test_all_of_it_is_pickled() -> None:
    error = CommitTimeout("late", mappers=[1, 2], recompute=True).place("orders", 3)
    found = pickle.loads(pickle.dumps(error))
    assert type(found) is CommitTimeout
    assert str(found) == str(error)
    for name in ("shuffle_id", "mappers", "partition", "retriable", "recompute"):
        assert getattr(found, name) == getattr(error, name)


def test_notes_are_pickled() -> None:
    error = ServiceUnavailable("nobody answers")
    error.add_note("in task 7")
    assert pickle.loads(pickle.dumps(error)).__notes__ == ["in task 7"]

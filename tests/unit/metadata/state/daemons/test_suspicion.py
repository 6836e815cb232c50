from __future__ import annotations

from cosco.metadata.state.daemons.suspicion import Suspicions
from cosco.protocol.records import DaemonRef

A, B = DaemonRef(1, "a:1"), DaemonRef(2, "b:1")


def test_a_question_serves_all_who_ask_meanwhile() -> None:
    suspicions = Suspicions()
    assert not suspicions
    suspicions.suspect(A, {})
    suspicions.suspect(A, {(1, 0, 1): True})
    suspicions.suspect(B, {})
    assert suspicions
    assert suspicions.take() == [A, B]
    suspicions.suspect(A, {(1, 1, 1): False})
    assert not suspicions
    assert suspicions.take() == []
    assert 1 in suspicions
    assert suspicions.answered(1) == {(1, 0, 1): True, (1, 1, 1): False}
    assert 1 not in suspicions
    assert 2 in suspicions
    suspicions.suspect(A, {})
    assert suspicions.take() == [A]
    assert suspicions.answered(1) == {}
    assert suspicions.answered(1) == {}

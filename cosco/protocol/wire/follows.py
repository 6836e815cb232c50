"""The messages of `Follow` streams: questions and answers that came together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from google.protobuf.message import DecodeError

from cosco.errors import InvalidArgument
from cosco.protocol.capability import MAX_CHARACTERS
from cosco.protocol.group_records import Follow, Followed
from cosco.protocol.pb import shuffle_pb2 as spb
from cosco.protocol.wire.plain import from_pb, to_pb

#: Questions in one message of a reader's process.
MAX_FOLLOWS: Final = 1024


def follows_to_bytes(follows: Sequence[Follow]) -> bytes:
    """Return FollowRequests, serialized; of MAX_FOLLOWS questions at most."""
    return spb.FollowRequests(requests=map(to_pb, follows)).SerializeToString()


def follows_from_bytes(message: bytes) -> list[Follow]:
    """Return the questions of a FollowRequests; raises InvalidArgument."""
    try:
        requests = spb.FollowRequests.FromString(message).requests
    except DecodeError as error:
        raise InvalidArgument(f"a message that is no FollowRequests: {error}") from None
    if not 1 <= len(requests) <= MAX_FOLLOWS:
        raise InvalidArgument(
            f"a FollowRequests of {len(requests)} questions; give 1 to {MAX_FOLLOWS}"
        )
    follows = [from_pb(Follow, request) for request in requests]
    for follow in follows:
        if not follow.id:
            raise InvalidArgument("a FollowRequest without an id")
        if len(follow.capability) > MAX_CHARACTERS:  # it is kept while its reader waits
            raise InvalidArgument(f"a FollowRequest with a capability beyond {MAX_CHARACTERS}")
    return follows


def followed_to_bytes(answers: Sequence[Followed]) -> bytes:
    """Return FollowReplies, serialized."""
    return spb.FollowReplies(replies=map(to_pb, answers)).SerializeToString()


def followed_from_bytes(message: bytes) -> list[Followed]:
    """Return the answers of a FollowReplies; raises InvalidArgument."""
    try:
        replies = spb.FollowReplies.FromString(message).replies
    except DecodeError as error:
        raise InvalidArgument(f"a message that is no FollowReplies: {error}") from None
    return [from_pb(Followed, reply) for reply in replies]

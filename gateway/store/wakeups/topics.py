"""The topics of the bell: inboxes, replies, and the workers' queue."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from gateway.protocol.message import Message
from gateway.store.admitted import Admitted

NOTICE_BYTES_MAX = 7900  # Postgres carries 8 000
EVERYONE = "*"  # a notice to more than its bytes can name

# An inbox is its agent's number; any other topic is text without a comma.
Topic = int | str

# Topics for the workers of all processes: mail in the queue that no process leased yet, and changes of destinations.
QUEUE, DESTINATIONS = "queue", "destinations"
WORK = frozenset({QUEUE, DESTINATIONS})


def reply_topic(message_id: str) -> str:
    """Returns the topic that rings when a reply to this message is committed. A hash collision costs one needless look."""
    return "r" + blake2b(message_id.encode(), digest_size=8).hexdigest()


def topics_of(admitted: Iterable[Admitted]) -> set[Topic]:
    """Returns the topics to ring when these are committed."""
    topics = set[Topic]()
    for each in admitted:
        for entry in each.entries:
            topics.add(entry.agent)
        if each.automatic and any(queued.token is None for queued in each.deliveries):
            topics.add(QUEUE)  # a report or a receipt; other mail is known to the worker beside its writer
        if each.message.in_reply_to is not None:
            topics.update(reply_topics(each.message))
    return topics


def reply_topics(message: Message) -> tuple[str, ...]:
    return () if message.in_reply_to is None else (reply_topic(message.in_reply_to),)


async def call_workers(connection: Any, topic: str) -> None:
    """Notifies the workers of all processes when the transaction is committed."""
    await connection.execute("select pg_notify('amtp_inbox', $1)", topic)


def notice_of(topics: Iterable[Topic]) -> str:
    """Returns the notice to other processes: the topics, or `*` where they don't fit."""
    text = ",".join(map(str, topics))
    return text if len(text) <= NOTICE_BYTES_MAX else EVERYONE


def heard_in(notice: str) -> list[Topic]:
    """Returns the topics of a notice that names them."""
    return [int(topic) if topic.isdecimal() else topic for topic in notice.split(",") if topic]

"""What the bell rings for: an inbox that gained something, and a reply to a message whose sender may be waiting."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

from gateway.protocol.message import Message
from gateway.store.admitted import Admitted

NOTICE_BYTES_MAX = 7900  # Postgres carries 8 000
EVERYONE = "*"  # a notice to more than its bytes can name

# An inbox is its agent's number; anything else that is waited for is text without a comma.
Topic = int | str

# What rings for the workers of all processes: mail in the queue that nobody took with it, and news of destinations.
QUEUE, DESTINATIONS = "queue", "destinations"
WORK = frozenset({QUEUE, DESTINATIONS})


def reply_topic(message_id: str) -> str:
    """What rings when a message in reply to this one is committed. Two ids that share one cost a look."""
    return "r" + blake2b(message_id.encode(), digest_size=8).hexdigest()


def topics_of(admitted: Iterable[Admitted]) -> set[Topic]:
    """What rings when these are committed."""
    topics = set[Topic]()
    for each in admitted:
        topics.update(entry.agent for entry in each.entries)
        if each.automatic and any(queued.token is None for queued in each.deliveries):
            topics.add(QUEUE)  # a report or a receipt; other mail is known to the worker beside its writer
        topics.update(reply_topics(each.message))
    return topics


def reply_topics(message: Message) -> tuple[str, ...]:
    return () if message.in_reply_to is None else (reply_topic(message.in_reply_to),)


async def call_workers(connection: Any, topic: str) -> None:
    """Rings for the workers of all processes when the transaction is committed."""
    await connection.execute("select pg_notify('amtp_inbox', $1)", topic)


def notice_of(topics: Iterable[Topic]) -> str:
    """What the other processes are told: what rings, or `*` where that is too much to tell."""
    text = ",".join(map(str, topics))
    return text if len(text) <= NOTICE_BYTES_MAX else EVERYONE


def heard_in(notice: str) -> list[Topic]:
    """The topics of a notice that names them."""
    return [int(topic) if topic.isdecimal() else topic for topic in notice.split(",") if topic]

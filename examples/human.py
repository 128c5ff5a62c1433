"""A human in the loop: what is expensive waits until a person says yes.

    amtp agents add clerk
    amtp agents add pat          # the person
    amtp agent run examples.human:clerk &
    amtp send --from pat@localhost --to clerk@localhost --payload '{"buy": "a boat", "price": 5000}'

Pat sees the question with `amtp inbox pat@localhost watch`, and answers with
`amtp send --from pat@localhost --to clerk@localhost --in-reply-to ID --payload true`.
"""

from gateway.client.agent import Agent
from gateway.client.errors import NoReply
from gateway.client.message import Message

PERSON = "pat@localhost"
FREE_HAND = 100  # up to this price nobody is asked
PATIENCE_SECONDS = 3600

clerk = Agent("clerk@localhost")


@clerk.on()
async def order(message: Message) -> object:
    wish = message.payload
    if wish["price"] > FREE_HAND and not await allowed(wish, f"may-{message.id}"):
        return {"bought": False, "why": f"{PERSON} did not allow it"}
    return {"bought": True}


async def allowed(wish: dict[str, object], key: str) -> bool:
    """Whether the person says yes in time. With the same key, a clerk that was restarted asks no second time."""
    question = {"question": f"Buy {wish['buy']} for {wish['price']}?", "answer": "true or false"}
    try:
        reply = await clerk.request(
            PERSON, question, subject="May I?", idempotency_key=key, timeout=PATIENCE_SECONDS
        )
    except NoReply:
        return False
    return reply.payload is True

"""Two agents agree on a price, or don't: the buyer offers and waits, the seller comes down as far as it can.

amtp agents add seller
amtp agents add buyer
amtp agent run examples.negotiate:seller &
python -m examples.negotiate
"""

import asyncio

from gateway.client.agent import Agent
from gateway.client.message import Message

PRICE, LEAST = 100, 70  # what the seller asks, and what it would take
PURSE, STEP = 90, 10  # what the buyer has, and by how much it goes up

seller = Agent("seller@localhost")
asked: dict[str, int] = {}  # the last price in each thread


@seller.on(kind="negotiation")
async def consider(message: Message) -> object:
    offer = message.payload["offer"]
    thread = str(message.headers["thread-id"])
    price = asked.get(thread, PRICE)
    if offer >= price - STEP:
        return {"agreed": offer}
    asked[thread] = max(LEAST, price - STEP)
    return {"price": asked[thread]}


async def buy(buyer: Agent, seller_address: str, thread: str) -> int | None:
    """The price they agree on, or None."""
    for offer in range(50, PURSE + 1, STEP):
        answer = await buyer.request(
            seller_address, {"offer": offer}, kind="negotiation", thread_id=thread, timeout=30
        )
        print(f"The buyer offers {offer}, the seller says {answer.payload}.")
        if "agreed" in answer.payload:
            return int(answer.payload["agreed"])
    return None


async def main() -> None:
    async with Agent("buyer@localhost") as buyer:
        price = await buy(buyer, seller.address, "a used boat")
    print("No deal." if price is None else f"Sold for {price}.")


if __name__ == "__main__":
    asyncio.run(main())

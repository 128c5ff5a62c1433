"""A worker that makes pictures smaller. Pictures are PPM, which needs no library; a real one would use Pillow.

    amtp agents add resizer
    amtp agent run examples.resize:agent

Send it `{"width": 320}` with a picture attached; it answers with the small one attached.
"""

import re

from gateway.client.agent import Agent
from gateway.client.compose import Answer
from gateway.client.message import Message

SIDE_MAX = 10_000
HEAD = re.compile(rb"P6\s(?:#.*\n)*(\d{1,5})\s(\d{1,5})\s255\s")

agent = Agent("resizer@localhost")


@agent.on()
async def resize(message: Message) -> Answer:
    if not message.attachments:
        return Answer({"error": "attach a picture"})
    picture, name = await agent.fetch(message), message.attachments[0].filename
    try:
        small = shrink(picture, int(message.payload["width"]))
    except (ValueError, KeyError, TypeError) as fault:
        return Answer({"error": str(fault)})
    attachment = await agent.attach(small, filename=f"small-{name}", content_type="image/x-portable-pixmap")
    return Answer({"bytes": len(small)}, attachments=[attachment])


def shrink(picture: bytes, width: int) -> bytes:
    """The picture with every pixel taken from the nearest one of the old."""
    head = HEAD.match(picture)
    if head is None:
        raise ValueError("this is no PPM picture of 8 bits")
    old_width, old_height, pixels = int(head[1]), int(head[2]), picture[head.end() :]
    if not 0 < width <= old_width <= SIDE_MAX or len(pixels) != old_width * old_height * 3:
        raise ValueError(f"the picture is {old_width} wide and must stay so or become smaller")
    height = max(1, old_height * width // old_width)
    columns = [column * old_width // width * 3 for column in range(width)]
    rows = (row * old_height // height * old_width * 3 for row in range(height))
    small = b"".join(pixels[row + column : row + column + 3] for row in rows for column in columns)
    return b"P6\n%d %d\n255\n%b" % (width, height, small)

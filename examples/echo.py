"""Answers whoever writes with what they wrote.

amtp agents add echo
amtp agent run examples.echo:agent
"""

from gateway.client.agent import Agent
from gateway.client.message import Message

agent = Agent("echo@localhost")


@agent.on()
async def echo(message: Message) -> object:
    return message.payload

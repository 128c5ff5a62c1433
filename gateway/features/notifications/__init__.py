"""Webhooks for those who want to hear what happens to messages: subscriptions, notices, and their delivery."""

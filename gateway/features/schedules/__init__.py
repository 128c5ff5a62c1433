"""Messages that repeat by a cron expression."""

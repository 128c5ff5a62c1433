"""What is told to whom about a message."""

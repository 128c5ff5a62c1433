"""Messages as they are kept, listed and found."""

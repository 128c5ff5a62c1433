"""Two domains send each other messages; one gateway dies in the middle; nothing is lost."""

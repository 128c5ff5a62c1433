"""The configuration: every setting with its type, default, range and meaning, read once into frozen values."""

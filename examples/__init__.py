"""Things to run and to read: how the gateway is used."""

"""The command and the demo: they compose the other rooms, and nothing imports them."""

"""What an operator says: commands, flags, settings, and what is made of them."""

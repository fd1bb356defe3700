"""What an operator sees of a running gateway: figures, health, and where to ask for them."""

"""The stores in which limits are counted."""

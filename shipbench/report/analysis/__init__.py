"""What the records say: frames and tests, before any table or figure."""

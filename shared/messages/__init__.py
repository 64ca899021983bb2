"""What the services say to each other: topics and the records in them; `topics.py` lists who sends what."""

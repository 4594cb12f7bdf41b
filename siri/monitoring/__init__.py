"""A run watched while it trains: its monitors, and where its observed length turns."""

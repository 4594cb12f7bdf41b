"""What is kept, by key: entries on this machine, their copies at a URL, and what removed entries leave behind."""

"""`siri up`: the servers and workers of one work folder, under one supervisor."""

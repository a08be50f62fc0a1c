"""`oegw top`: the running gateway in the terminal, live."""

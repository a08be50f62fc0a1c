"""The server's shell: sockets, timers, signals."""

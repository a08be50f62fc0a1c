"""How applications ask for port encryption: a socket option, and a cgroup of sockets that ask."""

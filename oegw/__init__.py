"""The gateway: coordinator, daemon, command line, interception and datapaths."""

__version__ = "0.1.0"

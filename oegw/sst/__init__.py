"""Port encryption.  What an application needs to ask for it is imported here, and no more."""

from oegw.sst.asking.option import SstUnavailable, enable, enabled

__all__ = ["SstUnavailable", "enable", "enabled"]

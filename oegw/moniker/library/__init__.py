"""What applications use to offer services by name, and to use them; `oegw.moniker` exports it."""

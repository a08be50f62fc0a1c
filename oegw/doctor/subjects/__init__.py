"""What is looked at, a subject a module: facts in, findings out.  Pure."""

"""One module a command: ``SUMMARY``, ``add(parser)`` and ``run(args) -> exit code``; imported when it is run."""

"""The command line: one module per command.

Comes in: arguments. Goes out: text on standard output, one clear line on standard error when
something is wrong, and an exit status: 0 done, 1 failed, 2 cannot be done as asked (usage or
settings). The ``edgescribe`` script may call ``main``.

A command is a module with ``add_arguments(parser)`` and ``run(arguments) -> int``, and one line in
``main.COMMANDS``; it imports what it needs inside ``run``, so that help stays instant.
"""

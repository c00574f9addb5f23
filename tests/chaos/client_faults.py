"""Faults of clients, for `Nemesis`: they need no control of nodes. That clients are killed beside other faults is the runner's.

May not know: what clients do.
"""

import time

import effects

# A member's session is 6 s.
STALL_SECONDS = (8, 12)


class ClientFaults:
    CLIENT_KINDS = ("stall",)

    def stall(self):
        """A client stands still for longer than a session: its group goes on without it, and what it says afterwards comes too late."""
        client = self.stop_client()
        yield f"SIGSTOP of client {client.role}"
        began = time.monotonic()
        try:
            self.shows("the client stands still", lambda: client.state() == "T", 5)
            before = client.lines()
            self.lasts(*STALL_SECONDS)
            effects.check(client.state() == "T", f"client {client.role} went on by itself")
            said = client.lines() - before
        finally:
            client.go_on()
        self.measured(effects.stalled(client.role, STALL_SECONDS[0], time.monotonic() - began, said))

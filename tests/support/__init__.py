"""What the tests share: a private mesh, networks, peers, listings of what must not remain."""

"""`zerohop demo`: two real gRPC services on this machine, with and without zerohop, while you watch."""

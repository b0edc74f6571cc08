"""What the kernel counts about calls, exactly as the programs that make and serve them count.

A test asks for a `Scene` (scene.py), starts servers and clients in it and hands what they counted to `Scene.check`
(ledger.py says how the two are compared). Peers live in peers/; what a peer of a further language has to do to play in
every test is written down in peers/README.md.
"""

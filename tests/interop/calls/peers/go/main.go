// Command peer is grpc-go: peers/README.md says what it does.
package main

import "os"

func main() {
	role, words := os.Args[1], os.Args[2:]
	switch role {
	case "serve":
		serve(words[0], words[1], words[2:])
	case "call":
		call(words[0], words[1], words[2], words[3:])
	default:
		fail("serve or call, not %s", role)
	}
}

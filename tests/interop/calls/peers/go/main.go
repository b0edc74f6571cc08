// Command peer is grpc-go, and connect-go: peers/README.md says what it does.
package main

import (
	"net/http"
	"os"
)

func main() {
	role, words := os.Args[1], os.Args[2:]
	switch role {
	case "serve":
		serve(words[0], words[1], words[2:])
	case "http", "connect":
		handler := map[string]func() http.Handler{"http": overHTTP, "connect": connectHandler}[role]()
		if words[0] != "serve" {
			fail("%s serve, not %s", role, words[0])
		}
		serveHTTP(words[1], words[2], handler)
	case "call":
		call(words[0], words[1], words[2], words[3:])
	default:
		fail("serve or call, not %s", role)
	}
}

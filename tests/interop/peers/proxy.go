// A TCP proxy: io.Copy between two *net.TCPConn, which Go turns into splice(2).
//
//	proxy PORT UPSTREAM-PORT
package main

import (
	"io"
	"log"
	"net"
	"os"
)

func pass(to, from *net.TCPConn, done chan<- struct{}) {
	if _, err := io.Copy(to, from); err != nil {
		log.Print(err)
	}
	to.CloseWrite()
	done <- struct{}{}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer client.Close()
			server, err := net.Dial("tcp", "127.0.0.1:"+os.Args[2])
			if err != nil {
				log.Print(err)
				return
			}
			defer server.Close()
			done := make(chan struct{}, 2)
			go pass(server.(*net.TCPConn), client.(*net.TCPConn), done)
			pass(client.(*net.TCPConn), server.(*net.TCPConn), done)
			<-done
			<-done
		}()
	}
}

// Command relay accepts connections on a socket that it inherits and passes each on to an address.
//
// A listening socket stays in the network namespace in which it was made. The launcher makes one on
// the loopback of the host and starts relay inside the namespaces of the cluster: so the API server
// is reached from the host without a link, a route or a rule between the two.
package main

import (
	"flag"
	"io"
	"log"
	"net"
	"os"
)

func main() {
	descriptor := flag.Int("fd", 3, "number of the inherited listening socket")
	target := flag.String("to", "", "address that each connection is passed on to, as HOST:PORT")
	flag.Parse()
	listener, err := net.FileListener(os.NewFile(uintptr(*descriptor), "listener"))
	if err != nil {
		log.Fatalf("relay: descriptor %d is no listening socket: %v", *descriptor, err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Fatalf("relay: accept: %v", err)
		}
		go join(client.(*net.TCPConn), *target)
	}
}

func join(client *net.TCPConn, target string) {
	defer client.Close()
	dialled, err := net.Dial("tcp", target)
	if err != nil {
		log.Printf("relay: %v", err)
		return
	}
	server := dialled.(*net.TCPConn)
	defer server.Close()
	done := make(chan struct{})
	go func() {
		copyHalf(server, client)
		close(done)
	}()
	copyHalf(client, server)
	<-done
}

// copyHalf ends with the sender's end of stream, which it hands on; the other direction may go on.
func copyHalf(to, from *net.TCPConn) {
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
}
